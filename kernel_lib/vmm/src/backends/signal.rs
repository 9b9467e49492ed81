//! The signal that makes a vCPU thread leave guest code.

use std::os::fd::{FromRawFd, OwnedFd};
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

/// From now on, these signals do nothing to this process.
pub fn ignore(signals: &[c_int]) {
    for signal in signals {
        // SAFETY: no handler of ours is involved.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
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

/// CPU time that a thread of this process has used, in nanoseconds.
pub fn thread_cpu_ns(thread: i32) -> u64 {
    // The clock of a thread by its number, as pthread_getcpuclockid(3) builds it: per thread (4), scheduler's time (2).
    let clock = !thread << 3 | 6;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives during the call.
    if thread == 0 || unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return 0;
    }
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Blocks signals in this thread and those it starts, and gives a descriptor that reads them.
pub fn receive(signals: &[c_int]) -> Result<OwnedFd, HostError> {
    // SAFETY: a zeroed signal set is filled by sigemptyset; the result is a new descriptor.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let number = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if number < 0 {
            return Err(HostError::new(Kind::Host, format!("signalfd: {}", std::io::Error::last_os_error())));
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// The signal numbers in what such a descriptor gave.
pub fn read(descriptor: &OwnedFd) -> Vec<c_int> {
    const RECORD: usize = size_of::<libc::signalfd_siginfo>();
    let mut records = [0; RECORD * 8];
    let bytes = rustix::io::read(descriptor, &mut records).unwrap_or(0);
    // The number is the first field.
    let number = |record: &[u8]| record.first_chunk::<4>().map_or(0, |bytes| c_int::from_ne_bytes(*bytes));
    records.get(..bytes).unwrap_or_default().chunks_exact(RECORD).map(number).collect()
}
