//! Live counters, one page written by the guest and read by the VMM at any time (`litebox events`). Relaxed atomics, wrap freely.

use core::sync::atomic::AtomicU64;

/// At guest-physical [`crate::layout::COUNTERS`], two pages.
#[repr(C)]
pub struct Counters {
    /// System calls by number (x86-64 table), those of them that answered an error, and how many of all came in as patched calls.
    pub syscalls: [AtomicU64; 480],
    pub syscalls_failed: [AtomicU64; 480],
    pub syscalls_patched: AtomicU64,
    /// System calls whose number or feature is not implemented (answered ENOSYS, EINVAL or EOPNOTSUPP).
    pub syscalls_unsupported: AtomicU64,
    pub page_faults: AtomicU64,
    pub exceptions: AtomicU64,
    pub interrupts: AtomicU64,
    pub ring0_calls: AtomicU64,
    pub doorbells: AtomicU64,
    pub context_switches: AtomicU64,
    pub requests: [AtomicU64; 33],
    /// Pages of RAM that are free, and all that the allocator has.
    pub frames_free: AtomicU64,
    pub frames_total: AtomicU64,
    pub oom_kills: AtomicU64,
    pub tasks: AtomicU64,
}

const _: () = assert!(core::mem::size_of::<Counters>() <= 0x2000);
