//! Who traces whom: from PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_TRACEME or a traced parent on, to PTRACE_DETACH or the end of either.

use super::wait::Ended;
use super::State;
use crate::errno::{Errno, EIO, EPERM};
use crate::process::{exit, tree, Process, Task};
use crate::signal::{self, Scope};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;
use linux_abi::capability::CAP_SYS_PTRACE;
use linux_abi::ptrace::{PTRACE_O_EXITKILL, PTRACE_O_KNOWN};
use linux_abi::signal::{SigInfo, SA_NOCLDSTOP, SIGCHLD, SIGKILL, SIGSTOP, SIG_IGN, SI_KERNEL};

/// ptrace(2), "Ptrace access mode checking": one's own process; or that of the same user and group (`ids`: those that count of the
/// caller's) in all three ids, dumpable, with no more capabilities; or any with CAP_SYS_PTRACE.
pub fn may_access(own: &Arc<Task>, ids: (u32, u32), target: &Task) -> bool {
    if Arc::ptr_eq(&own.process, &target.process) {
        return true;
    }
    let (own, other) = (own.credentials(), target.credentials());
    if own.capable(CAP_SYS_PTRACE) {
        return true;
    }
    let same_user = [other.uid, other.euid, other.suid].iter().all(|&uid| uid == ids.0);
    let same_group = [other.gid, other.egid, other.sgid].iter().all(|&gid| gid == ids.1);
    let dumpable = target.process.dumpable.load(Ordering::Relaxed) == 1;
    same_user && same_group && dumpable && other.permitted & !own.permitted == 0
}

/// PTRACE_TRACEME: by the parent.
pub fn trace_me(task: &Arc<Task>) -> Result<(), Errno> {
    let parent = task.process.parent.lock().upgrade().ok_or(EPERM)?;
    link(&parent, task, false, 0)
}

/// PTRACE_ATTACH.
pub fn attach(tracer: &Arc<Task>, target: &Arc<Task>) -> Result<(), Errno> {
    check(tracer, target)?;
    link(&tracer.process, target, false, 0)?;
    signal::queue(Scope::Thread(target), SigInfo::new(SIGSTOP, SI_KERNEL), true)?;
    signal::poke(target);
    Ok(())
}

/// PTRACE_SEIZE.
pub fn seize(tracer: &Arc<Task>, target: &Arc<Task>, options: u64) -> Result<(), Errno> {
    if options & !u64::from(PTRACE_O_KNOWN) != 0 {
        return Err(EIO);
    }
    check(tracer, target)?;
    link(&tracer.process, target, true, options as u32)?;
    signal::poke(target);
    Ok(())
}

fn check(tracer: &Arc<Task>, target: &Arc<Task>) -> Result<(), Errno> {
    let own = tracer.credentials();
    if Arc::ptr_eq(&tracer.process, &target.process) || !may_access(tracer, (own.uid, own.gid), target) {
        return Err(EPERM);
    }
    Ok(())
}

fn link(tracer: &Arc<Process>, task: &Arc<Task>, seized: bool, options: u32) -> Result<(), Errno> {
    tree::with(|_| {
        let mut tracees = tracer.tracer.tracees.lock();
        let mut state = task.tracee.state.lock();
        if task.tracee.is_on() || task.signals.must_exit() || task.is_gone() || tracer.is_zombie() {
            return Err(EPERM);
        }
        *state = State { tracer: Arc::downgrade(tracer), seized, options, ..State::default() };
        task.tracee.on.store(true, Ordering::Relaxed);
        tracees.push(task.clone());
        Ok(())
    })
}

/// A traced thread made another one, which has not run yet: it is traced too (PTRACE_O_TRACEFORK …, CLONE_PTRACE), and stops first.
pub fn adopt(parent: &Task, child: &Arc<Task>) {
    let (tracer, seized, options) = {
        let state = parent.tracee.state.lock();
        (state.tracer.upgrade(), state.seized, state.options)
    };
    let Some(tracer) = tracer else { return };
    if link(&tracer, child, seized, options).is_err() {
        return;
    }
    if seized {
        child.tracee.state.lock().trap = true;
        child.signals.set_trap(true);
    } else {
        let _ = signal::queue(Scope::Thread(child), SigInfo::new(SIGSTOP, SI_KERNEL), true);
    }
}

/// PTRACE_DETACH: the thread goes on with `signal` (0: none).
pub(super) fn detach(tracer: &Process, task: &Arc<Task>, signal: i32) {
    tracer.tracer.tracees.lock().retain(|other| !Arc::ptr_eq(other, task));
    release(task, signal);
}

fn release(task: &Arc<Task>, signal: i32) {
    {
        let mut state = task.tracee.state.lock();
        task.tracee.on.store(false, Ordering::Relaxed);
        let mut stop = state.stop.take();
        if let Some(stop) = &mut stop {
            stop.resumed.get_or_insert(signal);
        }
        *state = State { stop, ..State::default() };
    }
    task.signals.set_trap(false);
    signal::poke(task);
}

/// The tracer has ended: its tracees go on without it, or end with it (PTRACE_O_EXITKILL).
pub fn tracer_ended(process: &Arc<Process>) {
    let (tracees, ended) = tree::with(|_| {
        let tracees = core::mem::take(&mut *process.tracer.tracees.lock());
        (tracees, core::mem::take(&mut *process.tracer.ended.lock()))
    });
    for task in tracees {
        if task.tracee.has_option(PTRACE_O_EXITKILL) {
            signal::send_to_process_forced(&task.process, SigInfo::new(SIGKILL, SI_KERNEL));
        }
        release(&task, 0);
    }
    for held in ended.into_iter().filter_map(|end| end.held) {
        let_go(&held);
    }
}

/// The tracer knows of the process's end: now its parent hears of it.
pub fn let_go(process: &Arc<Process>) {
    process.held.store(false, Ordering::Relaxed);
    exit::notify_parent(process);
}

/// A thread is at its end.
pub fn thread_ended(task: &Arc<Task>, uid: u32) {
    let Some(tracer) = task.tracee.tracer() else { return };
    tracer.tracer.tracees.lock().retain(|other| !Arc::ptr_eq(other, task));
    release(task, 0);
    let process = &task.process;
    if task.is_leader() {
        // Its end is that of the process, which the tracer hears of as the parent, or before it.
        let is_parent = process.parent.lock().upgrade().is_some_and(|parent| Arc::ptr_eq(&parent, &tracer));
        if !is_parent && !process.is_executing() {
            *process.leader_tracer.lock() = Arc::downgrade(&tracer);
        }
        return;
    }
    let status = if process.is_exiting() { process.exit_status() } else { task.tracee.exit_status.load(Ordering::Relaxed) };
    report_end(&tracer, Ended { tid: task.tid(), group: process.group(), uid, status, held: None });
}

/// A process has become a zombie. True: its tracer, which is not its parent, is to hear of it first.
pub fn process_ended(process: &Arc<Process>) -> bool {
    let tracer = core::mem::replace(&mut *process.leader_tracer.lock(), Weak::new()).upgrade();
    let Some(tracer) = tracer.filter(|tracer| tree::with(|_| !tracer.is_zombie() && !process.held.swap(true, Ordering::Relaxed))) else {
        return false;
    };
    let uid = process.exit_uid();
    report_end(
        &tracer,
        Ended { tid: process.pid, group: process.group(), uid, status: process.exit_status(), held: Some(process.clone()) },
    );
    // It may have ended meanwhile, and looked before.
    if tracer.is_zombie() {
        tracer_ended(&tracer);
    }
    true
}

fn report_end(tracer: &Arc<Process>, end: Ended) {
    let (code, value) = exit::split_status(end.status);
    let info = SigInfo::child(code, end.tid, end.uid, value, 0, 0);
    tracer.tracer.ended.lock().push(end);
    tell(tracer, info, false);
}

/// SIGCHLD to the tracer, and whoever waits there.
pub(super) fn tell(tracer: &Arc<Process>, info: SigInfo, stopped: bool) {
    let action = tracer.signals.actions().get(SIGCHLD);
    if action.handler != SIG_IGN && !(stopped && action.flags & SA_NOCLDSTOP != 0) {
        signal::send_to_process(tracer, info);
    }
    tracer.children_changed.wake_all();
}
