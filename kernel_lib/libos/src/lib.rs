//! The library OS: Linux's system calls for unmodified programs, in ring 3 of a micro-VM.
//!
//! Lock order (take left before right; never the other way; none is held across a host request or a sleep unless it is a [`sync::Mutex`]):
//!
//! ```text
//! sync::Mutex (may sleep):  directory  >  inode  >  open file position  >  address space (mm: user memory may be touched under the others)
//! SpinLock (leaf-like):     process tree  >  process  >  task  >  descriptor table  >  wait queue  >  run queue  >  frame pools
//! ```
//!
//! - A handler reads like its man page: decode, reject the unknown, resolve descriptors, call the subsystem.
//! - Errors of the guest are [`linux_abi::Errno`]; a panic is a bug of ours and ends the VM, so nothing a program does may reach one.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod background;
pub mod boot;
pub mod fs;
pub mod host;
pub mod io;
pub mod ipc;
pub mod mm;
pub mod net;
pub mod process;
pub mod ptrace;
pub mod sched;
pub mod signal;
pub mod sync;
pub mod syscalls;
pub mod system;
pub mod time;
pub mod tty;
mod upcalls;
pub mod wait;

pub use linux_abi::errno;

/// The one implementation of the upcalls.
pub static UPCALLS: upcalls::LibraryOs = upcalls::LibraryOs;
pub use linux_abi::Errno;

/// What a system call gives back: a value, or an error number.
pub type SysResult = Result<usize, Errno>;
