//! What the hardware tells us, handed to the families.

use crate::{boot, process, sched};
use hal::context::UserContext;
use hal::upcall::{Access, Upcalls};

/// The library OS as `hal` sees it.
pub struct LibraryOs;

impl LibraryOs {
    /// vCPU 0's first step into the library OS.
    pub fn start(&self) -> ! {
        self.boot()
    }
}

impl Upcalls for LibraryOs {
    fn boot(&self) -> ! {
        hal::host::want_interrupts(true);
        boot::start();
        sched::idle_loop()
    }

    fn cpu_started(&self, _cpu: usize) -> ! {
        sched::idle_loop()
    }

    fn system_call(&self, context: &mut UserContext) {
        process::system_call(context);
    }

    fn page_fault(&self, context: &mut UserContext, access: Access) {
        process::page_fault(context, access);
    }

    fn copy_fault(&self, access: Access) -> bool {
        process::copy_fault(access)
    }

    fn exception(&self, context: &mut UserContext, vector: u8, error: u64) {
        process::exception(context, vector, error);
    }

    fn before_return(&self, context: &mut UserContext) {
        sched::on_interrupt();
        process::before_return(context);
    }

    fn bus_error(&self, context: &mut UserContext, window_address: u64) {
        process::bus_error(context, window_address);
    }
}
