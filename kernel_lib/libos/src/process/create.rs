//! New threads and processes (clone(2), clone3(2), fork(2), vfork(2)), and what they do before the program's first instruction.

use super::pidfd::PidFd;
use super::start::StartRequest;
use super::{exit, tree, Inherit, Process, Task};
use crate::errno::{Errno, EAGAIN, EINVAL, ENOMEM, EPERM};
use crate::fs::OpenFile;
use crate::ptrace;
use crate::sched;
use crate::signal::{AltStack, ProcessSignals, TaskSignals};
use crate::wait::{Interruptible, WaitQueue};
use crate::SysResult;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::context::UserContext;
use hal::thread::Thread;
use hal::user;
use linux_abi::capability::{CAP_SYS_ADMIN, CAP_SYS_RESOURCE};
use linux_abi::process::{
    CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, CLONE_CLEAR_SIGHAND, CLONE_DETACHED, CLONE_FILES, CLONE_FS, CLONE_INTO_CGROUP, CLONE_NEWNS,
    CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEW_ANY, CLONE_PARENT, CLONE_PARENT_SETTID, CLONE_PIDFD, CLONE_PTRACE, CLONE_SETTLS, CLONE_SIGHAND,
    CLONE_THREAD, CLONE_UNTRACED, CLONE_VFORK, CLONE_VM,
};
use linux_abi::ptrace::{PTRACE_EVENT_CLONE, PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK, PTRACE_EVENT_VFORK_DONE};
use linux_abi::resource::{RLIMIT_NOFILE, RLIMIT_NPROC};
use linux_abi::signal::SIGCHLD;

/// Decoded arguments of clone and clone3.
#[derive(Default)]
pub struct CloneRequest {
    pub flags: u64,
    /// 0: none.
    pub exit_signal: u32,
    /// Initial stack pointer; 0: the parent's.
    pub stack: u64,
    pub tls: u64,
    pub parent_tid: u64,
    pub child_tid: u64,
    /// Where the pidfd is stored.
    pub pidfd: u64,
    /// clone3's set_tid: wanted id; 0: any.
    pub set_tid: u32,
}

/// What a new task does before its program's first instruction.
#[derive(Default)]
pub enum Begin {
    #[default]
    Nothing,
    /// CLONE_CHILD_SETTID: stores its id in its own memory.
    StoreTid(u64),
    /// A process from outside: becomes its program.
    Execute(Box<StartRequest>),
}

/// vfork(2): the parent waits until the child has left its memory.
#[derive(Default)]
pub struct Completion {
    done: AtomicBool,
    queue: WaitQueue,
}

impl Completion {
    pub fn complete(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.queue.wake_all();
    }
    fn wait(&self) {
        let _ = self.queue.wait(Interruptible::Killable, None, || self.done.load(Ordering::SeqCst).then_some(()));
    }
}

fn validate(task: &Task, request: &CloneRequest) -> Result<(), Errno> {
    let has = |flag| request.flags & flag != 0;
    let nonsense = (has(CLONE_THREAD) && !has(CLONE_SIGHAND))
        || (has(CLONE_SIGHAND) && !has(CLONE_VM))
        || (has(CLONE_SIGHAND) && has(CLONE_CLEAR_SIGHAND))
        || (has(CLONE_NEWNS) && has(CLONE_FS))
        || (has(CLONE_THREAD) && request.flags & (CLONE_NEWUSER | CLONE_NEWPID) != 0)
        || (has(CLONE_PARENT) && task.process.is_init())
        || (has(CLONE_PIDFD) && request.flags & (CLONE_DETACHED | CLONE_THREAD) != 0)
        || request.exit_signal > 64;
    if nonsense {
        return Err(EINVAL);
    }
    // A container is one set of namespaces: none is made inside, as for an unprivileged user of Linux.
    if request.flags & (CLONE_NEW_ANY | CLONE_INTO_CGROUP) != 0 {
        return Err(EPERM);
    }
    Ok(())
}

/// RLIMIT_NPROC counts the threads of a real user id (getrlimit(2)).
fn within_limit(task: &Task) -> bool {
    let limit = task.limit(RLIMIT_NPROC);
    if u64::from(tree::count()) < limit {
        return true;
    }
    let credentials = task.credentials();
    if credentials.uid == 0 || credentials.capable(CAP_SYS_RESOURCE) || credentials.capable(CAP_SYS_ADMIN) {
        return true;
    }
    let processes = tree::processes();
    let own = processes.iter().flat_map(|process| process.thread_list()).filter(|other| other.credentials().uid == credentials.uid);
    (own.count() as u64) < limit
}

/// clone(2): the new task's id. With CLONE_VFORK returns when the child has left the parent's memory.
pub fn clone(task: &Arc<Task>, context: &mut UserContext, request: &CloneRequest) -> SysResult {
    validate(task, request)?;
    if !within_limit(task) {
        return Err(EAGAIN);
    }
    let has = |flag| request.flags & flag != 0;
    let memory = task.memory().ok_or(EINVAL)?;
    let files = task.files();
    let inherit = Inherit {
        files: Some(if has(CLONE_FILES) { files.clone() } else { files.duplicate()? }),
        fs: Some(if has(CLONE_FS) { task.fs() } else { task.fs().duplicate() }),
        memory: Some(if has(CLONE_VM) { memory.clone() } else { memory.fork()? }),
        credentials: task.credentials(),
        name: *task.name.lock(),
        signals: TaskSignals::new(task.signals.blocked(), inherited_stack(task, request.flags)),
    };
    let thread = new_thread(task, context, request)?;
    let child = enter(task, request, thread, inherit)?;
    if has(CLONE_PARENT_SETTID) {
        let _ = user::write(request.parent_tid, &child.tid());
    }
    if has(CLONE_CHILD_CLEARTID) {
        child.clear_child_tid.store(request.child_tid, Ordering::Relaxed);
    }
    if has(CLONE_CHILD_SETTID) {
        *child.begin.lock() = Begin::StoreTid(request.child_tid);
    }
    if has(CLONE_PIDFD) {
        if let Err(errno) = store_pidfd(task, &child, request.pidfd) {
            exit::abandon(&child);
            return Err(errno);
        }
    }
    let tid = child.tid() as usize;
    let completion = has(CLONE_VFORK).then(|| Arc::new(Completion::default()));
    *child.vfork.lock() = completion.clone();
    let event = ptrace_event(task, request);
    if task.tracee.is_on() && (event.is_some() || has(CLONE_PTRACE)) {
        ptrace::adopt(task, &child);
    }
    sched::start(&child);
    drop(child);
    if let Some(event) = event {
        ptrace::event(task, context, event, tid as u64);
    }
    if let Some(completion) = completion {
        completion.wait();
        ptrace::event(task, context, PTRACE_EVENT_VFORK_DONE, tid as u64);
    }
    Ok(tid)
}

/// The event that the tracer gets of a clone, if it wants it (ptrace(2), PTRACE_O_TRACECLONE).
fn ptrace_event(task: &Task, request: &CloneRequest) -> Option<u32> {
    let event = if request.flags & CLONE_VFORK != 0 {
        PTRACE_EVENT_VFORK
    } else if request.exit_signal == SIGCHLD as u32 && request.flags & CLONE_THREAD == 0 {
        PTRACE_EVENT_FORK
    } else {
        PTRACE_EVENT_CLONE
    };
    (request.flags & CLONE_UNTRACED == 0 && task.tracee.has_option(1 << event)).then_some(event)
}

/// sigaltstack(2): a thread that shares memory starts without one, except behind vfork.
fn inherited_stack(task: &Task, flags: u64) -> AltStack {
    if flags & (CLONE_VM | CLONE_VFORK) == CLONE_VM {
        AltStack::default()
    } else {
        *task.signals.alt_stack.lock()
    }
}

fn new_thread(task: &Task, context: &UserContext, request: &CloneRequest) -> Result<Thread, Errno> {
    let mut registers = *context;
    registers.rax = 0;
    registers.orig_rax = u64::MAX;
    registers.fast = 0;
    if request.stack != 0 {
        registers.rsp = request.stack;
    }
    let fs_base = if request.flags & CLONE_SETTLS != 0 { request.tls } else { task.thread.fs_base() };
    let thread = Thread::user(&registers, task.thread.save_xstate(), fs_base).ok_or(ENOMEM)?;
    thread.set_gs_base(task.thread.gs_base());
    Ok(thread)
}

/// Gives the new task an id, a process and its place in the tree.
fn enter(task: &Arc<Task>, request: &CloneRequest, thread: Thread, inherit: Inherit) -> Result<Arc<Task>, Errno> {
    let parent = &task.process;
    let has = |flag| request.flags & flag != 0;
    tree::with(|tree| {
        if task.signals.must_exit() {
            return Err(EAGAIN);
        }
        let id = if request.set_tid == 0 { tree.allocate()? } else { tree.allocate_exact(request.set_tid)? };
        let process = if has(CLONE_THREAD) { parent.clone() } else { new_process(task, request, id) };
        let child = Arc::new(Task::new(id, process.clone(), thread, inherit));
        inherit_attributes(task, &child);
        process.threads.lock().push(child.clone());
        tree.add_task(&child);
        if has(CLONE_THREAD) {
            child.signals.set_stop(process.signals.is_stopping());
            if process.is_exiting() {
                child.signals.set_exit();
            }
        } else {
            if let Some(adopter) = process.parent.lock().upgrade() {
                adopter.children.lock().push(process.clone());
            }
            tree.add_process(&process);
        }
        Ok(child)
    })
}

fn new_process(task: &Arc<Task>, request: &CloneRequest, pid: u32) -> Arc<Process> {
    let parent = &task.process;
    let has = |flag| request.flags & flag != 0;
    let actions = parent.signals.actions();
    let actions = if has(CLONE_SIGHAND) { actions } else { actions.duplicate() };
    if has(CLONE_CLEAR_SIGHAND) {
        actions.reset();
    }
    let adopter = if has(CLONE_PARENT) { parent.parent.lock().clone() } else { Arc::downgrade(parent) };
    let process = Process::new(pid, adopter, parent.group(), parent.session(), ProcessSignals::new(actions));
    let exit_signal = if has(CLONE_PARENT) { parent.exit_signal.load(Ordering::Relaxed) } else { request.exit_signal };
    process.exit_signal.store(exit_signal, Ordering::Relaxed);
    *process.limits.lock() = *parent.limits.lock();
    process.dumpable.store(parent.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
    process.oom_score_adj.store(parent.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
    *process.executable.lock() = parent.executable.lock().clone();
    Arc::new(process)
}

/// What fork(2) and prctl(2) say is inherited.
fn inherit_attributes(task: &Arc<Task>, child: &Arc<Task>) {
    let (from, to) = (task.as_ref(), child.as_ref());
    to.no_new_privs.store(from.no_new_privs.load(Ordering::Relaxed), Ordering::Relaxed);
    to.personality.store(from.personality.load(Ordering::Relaxed), Ordering::Relaxed);
    to.timer_slack.inherit(&from.timer_slack);
    to.scheduling.inherit(&from.scheduling);
    to.sched.affinity.store(from.sched.affinity.load(Ordering::Relaxed), Ordering::Relaxed);
    to.seccomp.inherit(&from.seccomp);
    if !Arc::ptr_eq(&task.process, &child.process) {
        to.rseq.inherit(&from.rseq);
    }
}

fn store_pidfd(task: &Arc<Task>, child: &Arc<Task>, address: u64) -> Result<(), Errno> {
    const O_RDWR: u32 = 2;
    let file = OpenFile::new(Arc::new(PidFd { process: child.process.clone() }), O_RDWR);
    let fd = task.files().insert(file, true, 0, task.limit(RLIMIT_NOFILE))?;
    user::write(address, &fd).inspect_err(|_| drop(task.files().remove(fd)))
}

/// The first thing a new task does, on its own stack, on its way to the program.
pub(super) fn begin(task: &Arc<Task>, context: &mut UserContext) {
    let begin = core::mem::take(&mut *task.begin.lock());
    match begin {
        Begin::Nothing => {}
        Begin::StoreTid(address) => {
            let _ = user::write(address, &task.tid());
        }
        Begin::Execute(request) => request.run(task, context),
    }
}
