//! What the hardware tells the library OS. One static implementation, set at boot.

use crate::context::UserContext;
use crate::sync::Once;

/// Why a program's memory access failed.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub address: u64,
    pub write: bool,
    pub execute: bool,
    /// A translation was there, but forbade it.
    pub present: bool,
}

pub trait Upcalls: Sync {
    /// vCPU 0, once, on the boot stack (which becomes its idle stack). Never returns: ends in the idle loop.
    fn boot(&self) -> !;
    /// Another vCPU, on its own idle stack. Never returns.
    fn cpu_started(&self, cpu: usize) -> !;
    /// A system call of the current thread: number and arguments in the context, result to RAX. May sleep.
    fn system_call(&self, context: &mut UserContext);
    /// A page fault of the program. May sleep; afterwards the program runs on at the context.
    fn page_fault(&self, context: &mut UserContext, access: Access);
    /// A page fault of the library OS on user memory. True: try again; false: the access fails with EFAULT. May sleep.
    fn copy_fault(&self, access: Access) -> bool;
    /// Another exception of the program (vector 0..=31).
    fn exception(&self, context: &mut UserContext, vector: u8, error: u64);
    /// Just before the program runs on, whenever something was pending: signals, reschedule, events. May sleep.
    fn before_return(&self, context: &mut UserContext);
    /// The host file under a program's mapping vanished at this DAX window address.
    fn bus_error(&self, context: &mut UserContext, window_address: u64);
}

static UPCALLS: Once<&'static dyn Upcalls> = Once::new();

pub fn set(upcalls: &'static dyn Upcalls) {
    UPCALLS.get_or_init(|| upcalls);
}

pub(crate) fn get() -> &'static dyn Upcalls {
    *UPCALLS.get().expect("upcalls are set before anything can call up")
}
