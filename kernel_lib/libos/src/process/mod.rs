//! Processes (thread groups) and tasks (threads), their life and their relations.

mod task;

pub use task::{Process, Task};

use hal::context::UserContext;

/// A system call came in: dispatches, applies restart rules, leaves the result in RAX.
pub fn system_call(_context: &mut UserContext) {}

/// On the way back to the program with something pending: deliver signals, stop, exit.
pub fn before_return(_context: &mut UserContext) {}

/// A page fault of the program.
pub fn page_fault(_context: &mut UserContext, _access: hal::upcall::Access) {}

/// A page fault of the library OS on the program's memory: true to try again.
pub fn copy_fault(_access: hal::upcall::Access) -> bool {
    false
}

/// Any other exception of the program.
pub fn exception(_context: &mut UserContext, _vector: u8, _error: u64) {}

/// The host file under a mapping vanished at this window address: SIGBUS.
pub fn bus_error(_context: &mut UserContext, _window_address: u64) {}

/// User and group ids, capabilities, securebits, no_new_privs (credentials(7)). Owned by the process family.
#[derive(Clone, Default)]
pub struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: alloc::vec::Vec<u32>,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
}
