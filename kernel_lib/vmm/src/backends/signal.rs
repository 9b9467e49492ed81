//! The signal that makes a vCPU thread leave guest code.

use std::os::raw::c_int;

use crate::error::{HostError, Kind};

fn number() -> c_int {
    libc::SIGRTMIN() + 1
}

extern "C" fn nothing(_: c_int) {}

/// Installs a handler that does nothing: the signal only interrupts a system call. Once per process.
pub fn install() -> Result<(), HostError> {
    // SAFETY: a zeroed sigaction is a valid one; the handler touches nothing.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
        libc::sigaction(number(), &action, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(HostError::new(Kind::Host, format!("sigaction: {}", std::io::Error::last_os_error())))
    }
}

/// Interrupts a thread of this process. It may be just about to enter the guest: repeat until it has answered.
pub fn kick(thread: i32) {
    // SAFETY: no memory involved.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, number()) };
}

pub fn thread_id() -> i32 {
    // SAFETY: no memory involved.
    unsafe { libc::gettid() }
}
