//! The end of threads and processes (_exit(2), exit_group(2)).

use super::{futex, session, tree, Process, Task};
use crate::fs::behind;
use crate::{boot, ptrace, sched, signal, tty};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_abi::signal::{
    SigInfo, CLD_DUMPED, CLD_EXITED, CLD_KILLED, SA_NOCLDWAIT, SIGCHLD, SIGCONT, SIGHUP, SIGKILL, SIG_IGN, SI_KERNEL, SI_USER,
};

pub(super) const ZOMBIE: u8 = 1;
pub(super) const REAPED: u8 = 2;

/// Every thread of the process is to end; `status` is its wait(2) status unless an exit is under way already.
pub fn begin_group_exit(process: &Arc<Process>, status: u32) {
    process.exit.lock().get_or_insert(status);
    process.signals.cancel_stop();
    for task in process.thread_list() {
        end_thread(&task);
    }
}

/// Makes one thread end on its way back to the program.
pub(super) fn end_thread(task: &Arc<Task>) {
    task.signals.set_exit();
    sched::wake(task);
    sched::kick(task);
}

/// exit(2): this thread only. It ends when the call returns.
pub fn end_current(task: &Arc<Task>, status: u32) {
    if task.is_leader() {
        task.process.leader_status.store(status, Ordering::Relaxed);
    }
    task.tracee.exit_status.store(status, Ordering::Relaxed);
    task.signals.set_exit();
}

/// A new task that never ran is taken back (clone(2) failed late).
pub(super) fn abandon(task: &Arc<Task>) {
    let process = &task.process;
    drop((task.set_memory(None), task.set_files(None), task.set_fs(None)));
    tree::with(|tree| {
        process.threads.lock().retain(|other| !Arc::ptr_eq(other, task));
        tree.remove_task(task);
        if process.threads.lock().is_empty() {
            process.state.store(ZOMBIE, Ordering::Release);
            reap_in(tree, process);
        }
    });
}

/// The thread's end, at the bottom of its kernel stack.
pub fn finish(task: Arc<Task>) -> ! {
    let process = task.process.clone();
    let mut usage = task.usage();
    usage.max_resident = super::accounting::max_resident(&task);
    futex::leave_memory(&task);
    if process.threads.lock().len() == 1 {
        process.timers.clear();
    }
    let uid = task.credentials().uid;
    let memory = task.set_memory(None);
    if let Some(waiting) = task.vfork.lock().take() {
        waiting.complete();
    }
    drop(memory);
    drop(task.set_files(None));
    drop(task.set_fs(None));
    ptrace::thread_ended(&task, uid);
    // The last thread's program file, timers and terminal go below, outside of the tree's lock.
    let last = tree::with(|tree| {
        let mut threads = process.threads.lock();
        threads.retain(|other| !Arc::ptr_eq(other, &task));
        tree.remove_task(&task);
        task.gone.store(true, Ordering::Release);
        process.thread_ended(&usage);
        threads.is_empty()
    });
    process.thread_gone.wake_all();
    if last {
        process.exit_uid.store(uid, Ordering::Relaxed);
        end_process(&process);
    } else {
        signal::thread_left(&process);
    }
    drop(process);
    drop(task);
    sched::exit()
}

/// What is to be done once the tree's lock is free.
#[derive(Default)]
struct Aftermath {
    orphaned: Vec<Arc<Process>>,
    death_signals: Vec<(Arc<Task>, i32)>,
    /// Zombies that changed hands: their new parent has to hear of them.
    inherited: Vec<Arc<Process>>,
}

fn end_process(process: &Arc<Process>) {
    {
        let mut exit = process.exit.lock();
        exit.get_or_insert(process.leader_status.load(Ordering::Relaxed));
    }
    if process.is_init() {
        boot::init_ended(process.exit_status());
    }
    if process.exec_token.load(Ordering::Relaxed) != 0 {
        tty::drain_of(process);
        behind::drain(Some(process.pid));
    }
    crate::ipc::sysv::semaphore::process_ended(process.pid);
    leave_terminal(process);
    let after = tree::with(|tree| {
        let mut after = Aftermath { orphaned: session::orphaned_by(tree, process), ..Aftermath::default() };
        hand_over_children(tree, process, &mut after);
        process.state.store(ZOMBIE, Ordering::Release);
        after
    });
    drop(core::mem::take(&mut *process.executable.lock()));
    session::hang_up(after.orphaned);
    for (task, signal) in after.death_signals {
        signal::send_to_task(&task, SigInfo::from_process(signal, SI_USER, process.pid, process.exit_uid.load(Ordering::Relaxed)));
    }
    for child in after.inherited {
        notify_parent(&child);
    }
    process.ended.wake_all();
    ptrace::tracer_ended(process);
    if !ptrace::process_ended(process) {
        notify_parent(process);
    }
}

/// A session leader gives its terminal back; the foreground group hears of it (setsid(2), credentials(7)).
fn leave_terminal(process: &Arc<Process>) {
    if !process.is_session_leader() {
        return;
    }
    let session = process.session();
    let Some(terminal) = session.terminal.lock().take() else { return };
    let foreground = terminal.foreground();
    terminal.leader_ended();
    if foreground != 0 {
        signal::send_to_group(foreground, SigInfo::new(SIGHUP, SI_KERNEL));
        signal::send_to_group(foreground, SigInfo::new(SIGCONT, SI_KERNEL));
    }
}

/// The nearest living ancestor that is a subreaper (prctl(2)), or PID 1.
fn reaper(tree: &tree::Tree, process: &Arc<Process>) -> Option<Arc<Process>> {
    let mut at = process.parent.lock().upgrade();
    while let Some(ancestor) = at {
        if ancestor.subreaper.load(Ordering::Relaxed) && !ancestor.is_exiting() && !ancestor.is_zombie() {
            return Some(ancestor);
        }
        at = ancestor.parent.lock().upgrade();
    }
    tree.process(1).filter(|init| !Arc::ptr_eq(init, process))
}

fn hand_over_children(tree: &tree::Tree, process: &Arc<Process>, after: &mut Aftermath) {
    let children = core::mem::take(&mut *process.children.lock());
    if children.is_empty() {
        return;
    }
    let reaper = reaper(tree, process);
    for child in children {
        *child.parent.lock() = reaper.as_ref().map_or(Weak::new(), Arc::downgrade);
        child.exit_signal.store(SIGCHLD as u32, Ordering::Relaxed);
        for task in child.thread_list() {
            let signal = task.parent_death_signal.load(Ordering::Relaxed);
            if signal != 0 {
                after.death_signals.push((task, signal as i32));
            }
        }
        if child.is_zombie() {
            after.inherited.push(child.clone());
        }
        if let Some(reaper) = &reaper {
            reaper.children.lock().push(child);
        }
    }
}

/// Splits a wait(2) status into si_code and si_status.
pub const fn split_status(status: u32) -> (i32, i32) {
    match status & 0x7f {
        0 => (CLD_EXITED, (status >> 8 & 0xff) as i32),
        signal if status & 0x80 != 0 => (CLD_DUMPED, signal as i32),
        signal => (CLD_KILLED, signal as i32),
    }
}

/// A zombie tells its parent; when that does not care (SIGCHLD ignored, SA_NOCLDWAIT) or is not in the container, it is gone at once.
pub fn notify_parent(process: &Arc<Process>) {
    let token = process.exec_token.load(Ordering::Relaxed);
    if token != 0 {
        boot::exec_ended(token, process.exit_status());
        return reap(process);
    }
    let Some(parent) = process.parent.lock().upgrade() else { return reap(process) };
    let signal = process.exit_signal.load(Ordering::Relaxed) as i32;
    let action = parent.signals.actions().get(SIGCHLD);
    let ignored = action.handler == SIG_IGN;
    let unattended = signal == SIGCHLD && (ignored || action.flags & SA_NOCLDWAIT != 0);
    if signal != 0 && !(signal == SIGCHLD && ignored) {
        let (code, status) = split_status(process.exit_status());
        let usage = process.usage();
        let ticks = |ns: u64| (ns / (1_000_000_000 / super::accounting::TICKS)) as i64;
        let uid = process.exit_uid.load(Ordering::Relaxed);
        let mut info = SigInfo::child(code, process.pid, uid, status, ticks(usage.user), ticks(usage.system));
        info.signo = signal;
        signal::send_to_process(&parent, info);
    }
    if unattended {
        reap(process);
    }
    parent.children_changed.wake_all();
}

/// A zombie leaves the tree.
fn reap(process: &Arc<Process>) {
    tree::with(|tree| reap_in(tree, process));
}

/// As [`reap`] with the tree locked. False: somebody else was first.
pub(super) fn reap_in(tree: &mut tree::Tree, process: &Arc<Process>) -> bool {
    if process.state.compare_exchange(ZOMBIE, REAPED, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return false;
    }
    if let Some(parent) = process.parent.lock().upgrade() {
        parent.children.lock().retain(|child| !Arc::ptr_eq(child, process));
    }
    tree.remove_process(process);
    true
}

/// The container ends: every process but PID 1 is killed (pid_namespaces(7)).
pub fn kill_all() {
    for process in tree::processes().iter().filter(|process| !process.is_init()) {
        signal::send_to_process_forced(process, SigInfo::new(SIGKILL, SI_KERNEL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_split_as_wait_reports_them() {
        assert_eq!(split_status(3 << 8), (CLD_EXITED, 3));
        assert_eq!(split_status(9), (CLD_KILLED, 9));
        assert_eq!(split_status(0x8b), (CLD_DUMPED, 11));
    }
}
