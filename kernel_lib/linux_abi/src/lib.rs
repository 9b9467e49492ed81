//! Linux's x86-64 user interface as data: numbers, flags and structure layouts. No behaviour.
#![no_std]

pub mod capability;
pub mod errno;
pub mod fs;
pub mod memory;
pub mod process;
pub mod ptrace;
pub mod resource;
pub mod seccomp;
pub mod signal;
pub mod time;

pub use errno::Errno;
