//! Job control: a stop signal stops all threads of a process, SIGCONT makes them go on (signal(7), wait(2)).
//!
//! ```text
//! running ──stop signal taken──▶ stopping(signal) ──every thread has parked──▶ stopped(signal)
//!    ▲                                │                                            │
//!    └──────────── SIGCONT, or the group's exit ◀──────────────────────────────────┘
//! ```
//! The state belongs to the process's signal lock; a thread's STOP flag says that it has to park.

use super::send::poke;
use crate::process::{Process, Task};
use crate::wait::Interruptible;
use crate::{ptrace, sched};
use alloc::sync::Arc;
use hal::context::UserContext;
use linux_abi::signal::{SigInfo, CLD_CONTINUED, CLD_STOPPED, SA_NOCLDSTOP, SIGCHLD, SIGCONT, SIG_IGN};

#[derive(Default)]
pub struct Stop {
    /// The stop signal in effect.
    signal: Option<i32>,
    /// Threads that have parked.
    parked: usize,
    /// Every thread has.
    complete: bool,
    /// What wait(2) has not reported yet.
    event: Option<StopEvent>,
}

/// A change that the parent can wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopEvent {
    /// WSTOPPED, with the signal.
    Stopped(i32),
    /// WCONTINUED.
    Continued,
}

/// The thread took a stop signal: every thread of its process is to park.
pub(super) fn begin(task: &Arc<Task>, signal: i32) {
    let process = &task.process;
    let others = process.signals.with_shared(|shared| {
        if shared.stop.signal.is_some() || process.is_exiting() {
            return alloc::vec::Vec::new();
        }
        shared.stop.signal = Some(signal);
        shared.stop.parked = 0;
        let threads = process.thread_list();
        for thread in &threads {
            thread.signals.set_stop(true);
        }
        threads
    });
    for other in others.iter().filter(|other| !Arc::ptr_eq(other, task)) {
        poke(other);
    }
}

/// Parks until the process goes on, or the thread's tracer lets it go. The last thread to park reports the stop.
pub fn park(task: &Arc<Task>, context: &mut UserContext) {
    let process = &task.process;
    let event = process.signals.with_shared(|shared| {
        if !task.signals.must_stop() || shared.stop.signal.is_none() {
            return None;
        }
        shared.stop.parked += 1;
        complete(process, &mut shared.stop)
    });
    if let Some(event) = event {
        notify_parent(process, event);
    }
    let mut shown = false;
    while task.signals.must_stop() {
        let is_to_be_shown = || task.tracee.is_on() && !shown;
        if is_to_be_shown() {
            shown = !ptrace::group_stop(task, context);
        } else {
            sched::sleep(Interruptible::Killable, None, || !task.signals.must_stop() || task.signals.must_trap() || is_to_be_shown());
        }
        if task.signals.must_trap() {
            return;
        }
    }
}

fn complete(process: &Process, stop: &mut Stop) -> Option<StopEvent> {
    let signal = stop.signal?;
    if stop.complete || stop.parked < process.threads.lock().len() {
        return None;
    }
    stop.complete = true;
    stop.event = Some(StopEvent::Stopped(signal));
    stop.event
}

/// A thread has left the process: the others may all have parked by now.
pub fn thread_left(process: &Arc<Process>) {
    let event = process.signals.with_shared(|shared| {
        if shared.stop.signal.is_some() && !process.threads.lock().is_empty() {
            complete(process, &mut shared.stop)
        } else {
            None
        }
    });
    if let Some(event) = event {
        notify_parent(process, event);
    }
}

/// SIGCONT was sent: threads go on at once, whatever its action is. Gives what the parent is to be told.
pub(super) fn resume(process: &Arc<Process>) -> Option<StopEvent> {
    let (event, threads) = process.signals.with_shared(|shared| {
        let stop = &mut shared.stop;
        let threads = process.thread_list();
        if stop.signal.take().is_none() {
            return (None, threads);
        }
        let was_complete = core::mem::take(&mut stop.complete);
        stop.event = was_complete.then_some(StopEvent::Continued);
        for thread in &threads {
            thread.signals.set_stop(false);
        }
        (stop.event, threads)
    });
    for thread in &threads {
        ptrace::continued(thread);
        poke(thread);
    }
    event
}

/// SIGCHLD with CLD_STOPPED or CLD_CONTINUED, and whoever waits.
pub(super) fn notify_parent(process: &Arc<Process>, event: StopEvent) {
    let Some(parent) = process.parent.lock().upgrade() else { return };
    let action = parent.signals.actions().get(SIGCHLD);
    if action.handler != SIG_IGN && action.flags & SA_NOCLDSTOP == 0 {
        let (code, status) = match event {
            StopEvent::Stopped(signal) => (CLD_STOPPED, signal),
            StopEvent::Continued => (CLD_CONTINUED, SIGCONT),
        };
        let uid = process.leader().map_or(0, |leader| leader.credentials().uid);
        let usage = process.usage();
        let ticks = |ns: u64| (ns / (1_000_000_000 / crate::process::accounting::TICKS)) as i64;
        super::send_to_process(&parent, SigInfo::child(code, process.pid, uid, status, ticks(usage.user), ticks(usage.system)));
    }
    parent.children_changed.wake_all();
}

impl super::ProcessSignals {
    /// Every thread has parked.
    pub fn is_stopped(&self) -> bool {
        self.with_shared(|shared| shared.stop.complete)
    }
    /// The signal of the stop that is in effect or on its way.
    pub fn stop_signal(&self) -> Option<i32> {
        self.with_shared(|shared| shared.stop.signal)
    }
    /// A stop is in effect or on its way: a new thread must join it.
    pub fn is_stopping(&self) -> bool {
        self.with_shared(|shared| shared.stop.signal.is_some())
    }
    /// What wait(2) would report; `consume`: not again.
    pub fn stop_event(&self, stopped: bool, continued: bool, consume: bool) -> Option<StopEvent> {
        self.with_shared(|shared| {
            let event = shared.stop.event?;
            let wanted = match event {
                StopEvent::Stopped(_) => stopped,
                StopEvent::Continued => continued,
            };
            if !wanted {
                return None;
            }
            if consume {
                shared.stop.event = None;
            }
            Some(event)
        })
    }
    /// The group's exit: nobody stays parked.
    pub fn cancel_stop(&self) {
        self.with_shared(|shared| shared.stop = Stop::default());
    }
}
