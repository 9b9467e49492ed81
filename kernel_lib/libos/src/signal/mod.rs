//! Signals (signal(7)): pending sets, actions, delivery, the signal frame, job control.
//!
//! | file | what |
//! |---|---|
//! | `set`, `queue` | pure: sets, default actions, pending queues |
//! | `state` | what a thread and a process keep |
//! | `send` | from every source to a queue, and who is woken |
//! | `deliver` | on the way back to the program: default actions, handlers, restart of calls |
//! | `frame` | the frame on the program's stack, and back (rt_sigreturn) |
//! | `stop` | job control |
//! | `fault` | exceptions and bad accesses |
//!
//! Lock order: process tree > `ProcessSignals::shared` > `Actions` > `TaskSignals::queue`; a process's lock is never taken under another's
//! but the parent's under none of the child's. Nothing sleeps under any of them.
//!
//! Invariant: a signal that ends the process never waits in a queue of a thread that would take it: the sender starts the group's exit at
//! once, so "fatal" is one flag a thread ([`TaskSignals::fatal`]).

mod deliver;
pub mod fault;
mod frame;
pub mod queue;
mod send;
pub mod set;
mod state;
mod stop;

pub use deliver::{deliver, restart_without_handler};
pub use frame::{is_canonical, load_program_xstate, program_xstate, sigreturn, RESTORABLE_FLAGS};
pub use send::{
    check_permission, force, forget, forget_timer, ignored, poke, queue, send_to_group, send_to_process, send_to_process_forced,
    send_to_task, take, timer_is_queued, Scope,
};
pub use set::SigSet;
pub use state::{Actions, AltStack, FaultRegisters, ProcessSignals, TaskSignals};
pub use stop::{thread_left, StopEvent};
