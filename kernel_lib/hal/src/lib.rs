//! Hardware abstraction of the guest: everything that needs `unsafe` or a privileged instruction, behind safe interfaces.
//!
//! Where the library OS runs (ring 3 beside the program) is known here and nowhere above.
//!
//! Invariants:
//! - code of the library OS is never preempted; an interrupt that finds it running only sets a flag ([`cpu::pending`]);
//! - spin locks are leaves: nothing that can sleep (user memory, host request, switch) happens under one;
//! - a frame is freed only after no vCPU can hold a translation to it ([`paging::Flush`]).
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod context;
pub mod cpu;
pub mod entry;
pub mod frame;
pub mod heap;
pub mod host;
pub mod paging;
pub mod panic;
pub mod phys;
pub mod sync;
mod tables;
pub mod thread;
pub mod time;
pub mod upcall;
pub mod user;
pub mod vdso;
pub mod xstate;
