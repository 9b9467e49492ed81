//! ptrace(2): one process (the tracer) watches and controls threads of others (tracees).
//!
//! A stopped tracee sleeps in [`stop`]. Before, it leaves a copy of its registers in its state, which is the tracer's to read and change, and
//! which it takes back when it goes on: so nobody touches the registers of a thread that may run.
//!
//! ```text
//!                 signal, system call, event, trap          wait(2) reports it
//!   (untraced) ─attach─▶ running ───────────────▶ stopped ─────────────────────▶ stopped, reported
//!        ▲                  ▲                        │ CONT, SYSCALL, SINGLESTEP …    │
//!        └──── detach ──────┴────────────────────────┴────────────────────────────────┘
//!                             LISTEN: stays asleep, but no request finds it stopped; SIGCONT or INTERRUPT makes it stop anew
//! ```
//!
//! | file | what |
//! |---|---|
//! | `attach` | who traces whom: its begin and its end, by the death of either too |
//! | `stop` | the tracee's side: where it stops, and how it goes on |
//! | `request` | the tracer's side: what may be asked of a stopped tracee |
//! | `registers` | the structures that registers are shown in |
//! | `wait` | what wait(2) tells a tracer |
//!
//! The tracer is a process here: any of its threads may make requests (Linux takes them from the attaching thread only).
//!
//! A traced process has no patched system calls (`mm::patch`): its code is what a debugger expects, and stepping leads to every call.
//!
//! Lock order: process tree > a tracer's lists > a tracee's state. Nothing sleeps under any of them.

mod attach;
mod registers;
mod request;
mod stop;
mod wait;

pub use attach::{adopt, attach, let_go, may_access, process_ended, seize, thread_ended, trace_me, tracer_ended};
pub use request::request;
pub use stop::{
    before_program, call_begins, call_ends, continued, event, executed, exiting, filtered, group_stop, handler_begins, signal, trap,
};
pub use wait::{scan, Ended};

use crate::process::{Process, Task};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use hal::sync::SpinLock;
use linux_abi::signal::SigInfo;
use registers::Registers;

/// A thread's part as a tracee.
#[derive(Default)]
pub struct Tracee {
    on: AtomicBool,
    state: SpinLock<State>,
    /// What it gave exit(2), as wait(2) has it.
    pub exit_status: AtomicU32,
}

/// A process's part as a tracer.
#[derive(Default)]
pub struct Tracer {
    tracees: SpinLock<Vec<Arc<Task>>>,
    /// Tracees whose end it has not waited for.
    ended: SpinLock<Vec<Ended>>,
}

#[derive(Default)]
struct State {
    tracer: Weak<Process>,
    /// PTRACE_SEIZE rather than PTRACE_ATTACH or PTRACE_TRACEME.
    seized: bool,
    /// PTRACE_O_*.
    options: u32,
    mode: Mode,
    /// PTRACE_GETEVENTMSG.
    message: u64,
    /// It is to stop with PTRACE_EVENT_STOP.
    trap: bool,
    stop: Option<Stop>,
}

/// How a tracee goes on.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Mode {
    #[default]
    Continue,
    /// To the next begin or end of a system call.
    Syscall,
    Step,
    /// PTRACE_SYSEMU: to the next begin of a call, which is not run.
    Emulate,
    EmulateStep,
}

impl Mode {
    const fn steps(self) -> bool {
        matches!(self, Self::Step | Self::EmulateStep)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Signal,
    Group,
    CallBegin,
    CallEnd,
    Seccomp,
    Event,
}

struct Stop {
    kind: Kind,
    /// As wait(2) has it above the 0x7f: the signal, and an event in the next byte.
    code: u32,
    /// PTRACE_GETSIGINFO; none in a group stop of a thread that was not seized.
    info: Option<SigInfo>,
    registers: Box<Registers>,
    reported: bool,
    /// PTRACE_LISTEN.
    listening: bool,
    /// It goes on, with this signal (0: none).
    resumed: Option<i32>,
}

impl Tracee {
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The tracer's process id; 0: none.
    pub fn tracer_pid(&self) -> u32 {
        self.tracer().map_or(0, |tracer| tracer.pid)
    }

    pub fn is_stopped(&self) -> bool {
        self.is_on() && self.state.lock().stop.is_some()
    }

    pub fn is_traced_by(&self, process: &Arc<Process>) -> bool {
        self.tracer().is_some_and(|tracer| Arc::ptr_eq(&tracer, process))
    }

    fn tracer(&self) -> Option<Arc<Process>> {
        if self.is_on() {
            self.state.lock().tracer.upgrade()
        } else {
            None
        }
    }

    pub fn has_option(&self, option: u32) -> bool {
        self.is_on() && self.state.lock().options & option != 0
    }
}
