//! What the hardware did not let a program do, as signals (arch/x86/kernel/traps.c and mm/fault.c say which).

use super::state::FaultRegisters;
use super::{force, frame};
use crate::mm::FaultResult;
use crate::process::Task;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use hal::context::UserContext;
use hal::upcall::Access;
use linux_abi::signal::{
    SigInfo, BUS_ADRALN, BUS_ADRERR, FPE_FLTDIV, FPE_FLTINV, FPE_FLTOVF, FPE_FLTRES, FPE_FLTUND, FPE_INTDIV, ILL_ILLOPN, SIGBUS, SIGFPE,
    SIGILL, SIGKILL, SIGSEGV, SIGTRAP, SI_KERNEL, TRAP_TRACE,
};

const PAGE_FAULT: u64 = 14;

/// A page fault of the program: mapped in, or a signal.
pub fn page_fault(task: &Arc<Task>, access: Access) {
    task.times.minor_faults.fetch_add(1, Ordering::Relaxed);
    let result = task.memory().map_or(FaultResult::Segv(1), |memory| memory.fault(access));
    let info = match result {
        FaultResult::Done => return,
        FaultResult::Segv(code) => SigInfo::fault(SIGSEGV, code, access.address),
        FaultResult::Bus => SigInfo::fault(SIGBUS, BUS_ADRERR, access.address),
        FaultResult::OutOfMemory => SigInfo::new(SIGKILL, SI_KERNEL),
    };
    let user = 4;
    let error = u64::from(access.present) | u64::from(access.write) << 1 | user | u64::from(access.execute) << 4;
    *task.signals.fault.lock() = FaultRegisters { trapno: PAGE_FAULT, error, cr2: access.address };
    force(task, info);
}

/// Another exception of the program.
pub fn exception(task: &Arc<Task>, context: &UserContext, vector: u8, error: u64) {
    let at = context.rip;
    let info = match vector {
        0 => SigInfo::fault(SIGFPE, FPE_INTDIV, at),
        1 => SigInfo::fault(SIGTRAP, TRAP_TRACE, at),
        3 => SigInfo::new(SIGTRAP, SI_KERNEL),
        6 => SigInfo::fault(SIGILL, ILL_ILLOPN, at),
        11 | 12 => SigInfo::new(SIGBUS, SI_KERNEL),
        16 => SigInfo::fault(SIGFPE, x87_code(task, context), at),
        17 => SigInfo::fault(SIGBUS, BUS_ADRALN, 0),
        19 => SigInfo::fault(SIGFPE, sse_code(), at),
        // #GP, and what a program can cause in no other way: bounds, overflow, invalid TSS, virtualization.
        _ => SigInfo::new(SIGSEGV, SI_KERNEL),
    };
    {
        let mut fault = task.signals.fault.lock();
        *fault = FaultRegisters { trapno: u64::from(vector), error, cr2: fault.cr2 };
    }
    force(task, info);
}

/// The host file under a mapping was truncated: SIGBUS at the program's address of that page.
pub fn bus_error(task: &Arc<Task>, address: u64) {
    *task.signals.fault.lock() = FaultRegisters { trapno: PAGE_FAULT, error: 4, cr2: address };
    force(task, SigInfo::fault(SIGBUS, BUS_ADRERR, address));
}

/// Which of several pending floating-point exceptions is reported (fpu__exception_code).
const fn float_code(pending: u32) -> i32 {
    if pending & 1 != 0 {
        FPE_FLTINV
    } else if pending & 4 != 0 {
        FPE_FLTDIV
    } else if pending & 8 != 0 {
        FPE_FLTOVF
    } else if pending & 0x12 != 0 {
        FPE_FLTUND
    } else if pending & 0x20 != 0 {
        FPE_FLTRES
    } else {
        0
    }
}

fn x87_code(task: &Task, context: &UserContext) -> i32 {
    let state = frame::program_xstate(task, context);
    let word = |at: usize| u32::from(u16::from_le_bytes([state.bytes()[at], state.bytes()[at + 1]]));
    let (control, status) = (word(0), word(2));
    float_code(status & !control & 0x3f)
}

fn sse_code() -> i32 {
    let mxcsr = hal::xstate::mxcsr();
    float_code(!(mxcsr >> 7) & mxcsr & 0x3f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float_exceptions_have_linux_order() {
        assert_eq!(float_code(0x3f), FPE_FLTINV);
        assert_eq!(float_code(0x24), FPE_FLTDIV);
        assert_eq!(float_code(0x10), FPE_FLTUND);
        assert_eq!(float_code(0x20), FPE_FLTRES);
    }
}
