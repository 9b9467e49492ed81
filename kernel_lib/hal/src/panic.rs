//! The end of a VM by a bug of ours. Nothing here needs the heap, which may be what failed.

use crate::cpu;
use crate::phys;
use abi::boot::BootPage;
use abi::layout::{port, BOOT_PAGE, IMAGE, LIBOS_BASE};
use core::fmt::{self, Write};
use core::mem::offset_of;

const ROOM: usize = offset_of!(BootPage, cpus) - offset_of!(BootPage, panic_text);
/// Stacks lie within blocks of so many bytes.
const STACK: u64 = 32 << 10;
/// Return addresses that are worth showing.
const MOST: usize = 24;

/// Text in the boot page, where the VMM finds it; what does not fit is cut off.
struct Report {
    bytes: usize,
}

impl Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let part = text.len().min(ROOM - self.bytes);
        // SAFETY: the boot page's panic buffer is the guest's to write; the VM ends behind it.
        unsafe {
            let page = phys::pointer::<BootPage>(BOOT_PAGE);
            let to = core::ptr::addr_of_mut!((*page).panic_text).cast::<u8>().add(self.bytes);
            core::ptr::copy_nonoverlapping(text.as_ptr(), to, part);
            self.bytes += part;
            core::ptr::addr_of_mut!((*page).panic_bytes).write(self.bytes as u64);
        }
        Ok(())
    }
}

/// Reports a bug of ours, with what looks like return addresses on the stack (`nm -n` of the image names them), and ends the VM. The image's
/// code ends at `code_end`.
pub fn panic(text: fmt::Arguments<'_>, code_end: u64) -> ! {
    let mut report = Report { bytes: 0 };
    let _ = report.write_fmt(text);
    let _ = report.write_str("; called from");
    let here = 0u64;
    let from = &raw const here as u64;
    let code = LIBOS_BASE + IMAGE..code_end;
    for address in (from..from.next_multiple_of(STACK))
        .step_by(8)
        // SAFETY: within the block of the stack that this runs on.
        .map(|at| unsafe { (at as *const u64).read() })
        .filter(|value| code.contains(value))
        .take(MOST)
    {
        let _ = write!(report, " {address:#x}");
    }
    loop {
        cpu::out32(port::PANIC, 0);
    }
}
