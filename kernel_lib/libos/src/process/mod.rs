//! Processes (thread groups) and tasks (threads), their life and their relations.
//!
//! ```text
//!           clone                  last thread ends              wait4, or nobody will wait
//!  (none) ────────▶ alive ──────────────────────────▶ zombie ───────────────────────────────▶ reaped
//!                     │  execve: same process, one thread, new memory
//!                     └─ exit_group, fatal signal: every thread gets the EXIT flag and ends on its way back to the program
//! ```
//!
//! | file | what |
//! |---|---|
//! | `task`, `group`, `tree`, `session` | threads, processes, ids and relations, sessions and process groups |
//! | `create`, `start`, `exec`, `exit`, `wait` | clone, processes from outside, execve, the end, waiting for it |
//! | `entry` | from the hardware's upcalls to system calls and signals, and back |
//! | `credentials`, `seccomp`, `bpf` | who may do what |
//! | `futex`, `rseq` | what the C library's threads are made of |
//! | `accounting`, `random`, `report` | usage, random bytes, what /proc shows |
//!
//! Invariant: a thread ends only in [`exit::finish`], called at the bottom of its kernel stack, where no reference to anything is left
//! behind: stacks are not unwound.

pub mod accounting;
pub mod bpf;
mod create;
pub mod credentials;
mod entry;
pub mod exec;
pub mod exit;
pub mod futex;
mod group;
pub mod oom;
pub mod pidfd;
pub mod random;
pub mod report;
pub mod rseq;
pub mod seccomp;
pub mod session;
mod start;
mod task;
pub mod tree;
pub mod wait;

pub use create::{clone, Begin, CloneRequest, Completion};
pub use credentials::Credentials;
pub use entry::{before_return, bus_error, copy_fault, exception, page_fault, system_call};
pub use exit::begin_group_exit;
pub use group::{default_limits, Process};
pub use session::{ControllingTerminal, Session};
pub use start::{search_path, start, StartRequest};
pub use task::{Inherit, Task};
