//! From every source to a queue, and who is woken for it (signal(7), kill(2)).

use super::set::{default_action, Default, SigSet};
use crate::errno::{Errno, EAGAIN, EPERM};
use crate::process::{self, Process, Task};
use crate::sched;
use alloc::sync::Arc;
use linux_abi::capability::CAP_KILL;
use linux_abi::resource::RLIMIT_SIGPENDING;
use linux_abi::signal::{SigAction, SigInfo, SIGCONT, SIGKILL, SIGRTMIN, SIG_DFL, SIG_IGN, SI_TIMER, SI_USER};

/// To whom a signal goes.
#[derive(Clone, Copy)]
pub enum Scope<'a> {
    /// Any thread that does not block it.
    Process(&'a Arc<Process>),
    Thread(&'a Arc<Task>),
}

impl<'a> Scope<'a> {
    fn process(self) -> &'a Arc<Process> {
        match self {
            Self::Process(process) => process,
            Self::Thread(task) => &task.process,
        }
    }
}

/// Sends to a process. What the library OS itself has to say (SIGCHLD, SIGPIPE, SIGWINCH, SIGIO …).
pub fn send_to_process(process: &Arc<Process>, info: SigInfo) {
    let _ = queue(Scope::Process(process), info, false);
}

/// As [`send_to_process`], from outside of the container: SIGKILL and SIGSTOP reach PID 1 too.
pub fn send_to_process_forced(process: &Arc<Process>, info: SigInfo) {
    let _ = queue(Scope::Process(process), info, true);
}

/// Sends to one thread (SIGPIPE to the writer, SIGXFSZ).
pub fn send_to_task(task: &Arc<Task>, info: SigInfo) {
    let _ = queue(Scope::Thread(task), info, false);
}

/// Sends to every member of a process group (the terminal's signals). Gives the number of members.
pub fn send_to_group(group: u32, info: SigInfo) -> usize {
    let members = process::tree::group(group);
    for member in &members {
        send_to_process(member, info);
    }
    members.len()
}

/// Sends, with what a system call has to answer: EAGAIN when a real-time signal's siginfo cannot be queued.
/// `outside`: the sender is not in the container.
pub fn queue(scope: Scope<'_>, info: SigInfo, outside: bool) -> Result<(), Errno> {
    let process = scope.process();
    let signal = info.signo;
    if process.is_zombie() {
        return Ok(());
    }
    let signals = &process.signals;
    let actions = signals.actions();
    let resumed = if signal == SIGCONT { super::stop::resume(process) } else { None };
    let result = signals.with_shared(|shared| {
        if SigSet::STOP.contains(signal) || signal == SIGCONT {
            // A stop signal and SIGCONT cancel each other (signal(7)).
            let other = if signal == SIGCONT { SigSet::STOP } else { SigSet::one(SIGCONT) };
            shared.queue.flush(other);
            for task in process.threads.lock().iter() {
                task.signals.with_queue(|queue| queue.flush(other));
            }
        }
        let action = actions.get(signal);
        if is_ignored(scope, signal, &action, outside) {
            return Ok(());
        }
        let held = match scope {
            Scope::Process(_) => shared.queue.len(),
            Scope::Thread(task) => task.signals.with_queue(|queue| queue.len()),
        };
        // A timer has had its place in the queue since it was made.
        let keep = (held as u64) < process.limits.lock()[RLIMIT_SIGPENDING].0 || info.code == SI_TIMER || signal < SIGRTMIN;
        if !keep && info.code != SI_USER {
            return Err(EAGAIN);
        }
        match scope {
            Scope::Process(_) => shared.queue.push(info, keep),
            Scope::Thread(task) => task.signals.with_queue(|queue| queue.push(info, keep)),
        }
        Ok(())
    });
    if let Some(event) = resumed {
        super::stop::notify_parent(process, event);
    }
    result?;
    if signals.pending().contains(signal) || matches!(scope, Scope::Thread(task) if task.signals.pending().contains(signal)) {
        choose_and_wake(scope, signal, actions.get(signal).handler == SIG_DFL, outside);
        signals.arrival.wake_all();
    }
    Ok(())
}

/// Finds the thread that takes the signal. A signal that ends the process starts the group's exit right here.
fn choose_and_wake(scope: Scope<'_>, signal: i32, default: bool, outside: bool) {
    let process = scope.process();
    // A stopped thread takes nothing but SIGKILL: the rest waits until it goes on.
    let wants = |task: &Arc<Task>| {
        let able = !task.signals.must_stop() && !task.signals.blocked().contains(signal);
        !task.signals.must_exit() && (signal == SIGKILL || able)
    };
    let chosen = match scope {
        Scope::Thread(task) => wants(task).then(|| task.clone()),
        Scope::Process(_) => {
            let threads = process.threads.lock();
            threads.iter().find(|task| task.is_leader() && wants(task)).or_else(|| threads.iter().find(|task| wants(task))).cloned()
        }
    };
    let Some(task) = chosen else { return };
    let protected = process.ignores_unhandled() && !(outside && signal == SIGKILL);
    let shown = signal != SIGKILL && task.tracee.is_on();
    if default && default_action(signal) == Default::Terminate && !protected && !shown {
        process::begin_group_exit(process, signal as u32);
        return;
    }
    poke(&task);
}

/// Makes a thread look at its signals: out of a sleep that may be interrupted, or on its way through the program.
pub fn poke(task: &Arc<Task>) {
    sched::wake(task);
    sched::kick(task);
}

/// Whether the signal is dropped at once. A blocked one is kept: its action may change before it is unblocked. So is one that a tracer is to
/// see first.
fn is_ignored(scope: Scope<'_>, signal: i32, action: &SigAction, outside: bool) -> bool {
    let process = scope.process();
    let blocked = match scope {
        Scope::Thread(task) => task.signals.blocked().contains(signal),
        Scope::Process(_) => process.threads.lock().iter().all(|task| task.signals.blocked().contains(signal)),
    };
    let shown = || match scope {
        Scope::Thread(task) => task.tracee.is_on(),
        Scope::Process(_) => process.threads.lock().iter().any(|task| task.tracee.is_on()),
    };
    if signal != SIGKILL && (blocked || shown()) {
        return false;
    }
    if process.ignores_unhandled() && action.handler == SIG_DFL && !(outside && SigSet::UNBLOCKABLE.contains(signal)) {
        return true;
    }
    ignored(action, signal)
}

/// Whether an action makes a signal go away without effect.
pub fn ignored(action: &SigAction, signal: i32) -> bool {
    action.handler == SIG_IGN || (action.handler == SIG_DFL && default_action(signal) == Default::Ignore)
}

/// A signal that the thread caused itself and cannot escape: when it is blocked or ignored its action becomes the default one.
pub fn force(task: &Arc<Task>, info: SigInfo) {
    let actions = task.process.signals.actions();
    let action = actions.get(info.signo);
    if action.handler == SIG_IGN || task.signals.blocked().contains(info.signo) {
        actions.set(info.signo, SigAction::default());
        task.signals.set_blocked(task.signals.blocked().without(SigSet::one(info.signo)));
    }
    if actions.get(info.signo).handler == SIG_DFL && !task.tracee.is_on() {
        process::begin_group_exit(&task.process, info.signo as u32);
        return;
    }
    task.signals.with_queue(|queue| queue.push(info, true));
}

/// Takes a waiting signal of `wanted` for the thread: its own queue first, then the process's (sigtimedwait(2), signalfd(2), delivery).
pub fn take(task: &Arc<Task>, wanted: SigSet) -> Option<SigInfo> {
    let mut info = None;
    if !task.signals.pending().and(wanted).is_empty() {
        info = task.signals.with_queue(|queue| queue.take(wanted));
    }
    if info.is_none() && !task.process.signals.pending().and(wanted).is_empty() {
        info = task.process.signals.with_shared(|shared| shared.queue.take(wanted));
    }
    let mut info = info?;
    if info.code == SI_TIMER {
        crate::time::timer_signal_taken(&task.process, &mut info);
    }
    Some(info)
}

/// kill(2), "For a process to have permission to send a signal".
pub fn check_permission(sender: &Task, target: &Process, signal: i32) -> Result<(), Errno> {
    if core::ptr::eq(sender.process.as_ref(), target) {
        return Ok(());
    }
    let own = sender.credentials();
    let Some(other) = target.leader().map(|leader| leader.credentials()) else { return Ok(()) };
    let same = own.euid == other.suid || own.euid == other.uid || own.uid == other.suid || own.uid == other.uid;
    if same || own.capable(CAP_KILL) || (signal == SIGCONT && sender.process.session().id == target.session().id) {
        Ok(())
    } else {
        Err(EPERM)
    }
}

/// The action of a signal became one that ignores it: what waits of it is dropped, even where it is blocked (sigaction(2)).
pub fn forget(process: &Arc<Process>, signal: i32) {
    let set = SigSet::one(signal);
    process.signals.with_shared(|shared| {
        shared.queue.flush(set);
        for task in process.threads.lock().iter() {
            task.signals.with_queue(|queue| queue.flush(set));
        }
    });
}

/// Whether an expiry of a POSIX timer waits to be taken.
pub fn timer_is_queued(scope: Scope<'_>, signal: i32, id: i32) -> bool {
    match scope {
        Scope::Process(process) => process.signals.with_shared(|shared| shared.queue.holds_timer(signal, id)),
        Scope::Thread(task) => task.signals.with_queue(|queue| queue.holds_timer(signal, id)),
    }
}

/// A POSIX timer was set anew or deleted: its queued expiry is dropped.
pub fn forget_timer(process: &Arc<Process>, id: i32) {
    process.signals.with_shared(|shared| {
        shared.queue.flush_timer(id);
        for task in process.threads.lock().iter() {
            task.signals.with_queue(|queue| queue.flush_timer(id));
        }
    });
}
