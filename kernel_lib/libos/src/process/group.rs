//! A process: a thread group, its relations and what its threads share besides memory and files.

use super::accounting::ProcessTimes;
use super::session::Session;
use super::Task;
use crate::fs::{Executing, Location};
use crate::ptrace::Tracer;
use crate::signal::ProcessSignals;
use crate::time::ProcessTimers;
use crate::wait::WaitQueue;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU8, Ordering};
use hal::sync::SpinLock;
use linux_abi::resource::{
    RLIMIT_CORE, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_RTPRIO, RLIMIT_SIGPENDING, RLIMIT_STACK,
    RLIM_INFINITY, RLIM_NLIMITS,
};

/// A thread group.
pub struct Process {
    pub pid: u32,
    /// Sent to the parent at the end; 0: nothing (clone(2) without SIGCHLD).
    pub exit_signal: AtomicU32,
    /// Relations: changed under the tree's lock.
    pub parent: SpinLock<Weak<Process>>,
    pub children: SpinLock<Vec<Arc<Process>>>,
    /// Threads that have not ended. Emptied at the end, which breaks the cycle with [`Task::process`].
    pub threads: SpinLock<Vec<Arc<Task>>>,
    group: AtomicU32,
    pub(super) session: SpinLock<Arc<Session>>,
    pub signals: ProcessSignals,
    pub limits: SpinLock<[(u64, u64); RLIM_NLIMITS]>,
    /// 0: alive, 1: zombie, 2: reaped.
    pub(super) state: AtomicU8,
    /// wait(2) status, once the group's exit has begun.
    pub(super) exit: SpinLock<Option<u32>>,
    /// What the leader gave exit(2): the status when the group's exit was nobody's decision.
    pub(super) leader_status: AtomicU32,
    /// Real user id of a zombie.
    pub(super) exit_uid: AtomicU32,
    /// Woken when a child changes state: wait4(2).
    pub children_changed: WaitQueue,
    /// Woken when this process becomes a zombie: pidfd's readiness.
    pub ended: WaitQueue,
    /// Woken when one of its threads has gone: execve(2) waits for the others.
    pub(super) thread_gone: WaitQueue,
    /// PR_SET_CHILD_SUBREAPER.
    pub subreaper: AtomicBool,
    /// It has called execve since fork: setpgid(2) by the parent is too late.
    pub executed: AtomicBool,
    /// membarrier(2): registered commands.
    pub membarrier: AtomicU32,
    /// PR_SET_DUMPABLE.
    pub dumpable: AtomicU32,
    pub oom_score_adj: AtomicI32,
    /// What runs: /proc/PID/exe, its path as resolved, and the mark that nobody writes to the file.
    pub executable: SpinLock<(Option<Location>, String, Option<Arc<Executing>>)>,
    pub times: ProcessTimes,
    pub timers: ProcessTimers,
    /// io_setup(2).
    pub aio: crate::ipc::aio::Contexts,
    /// The control message's token, for a process that was started from outside (its end is reported there, not to a parent); else 0.
    pub exec_token: AtomicU32,
    /// One of its threads is in execve and ends the others.
    pub(super) executing: AtomicBool,
    /// What it traces (ptrace(2)).
    pub tracer: Tracer,
    /// Who traced the leader when that ended, if not the parent.
    pub leader_tracer: SpinLock<Weak<Process>>,
    /// A zombie that its tracer has yet to wait for: its parent does not see it.
    pub held: AtomicBool,
}

impl Process {
    pub fn new(pid: u32, parent: Weak<Process>, group: u32, session: Arc<Session>, signals: ProcessSignals) -> Self {
        Self {
            pid,
            exit_signal: AtomicU32::new(0),
            parent: SpinLock::new(parent),
            children: SpinLock::new(Vec::new()),
            threads: SpinLock::new(Vec::new()),
            group: AtomicU32::new(group),
            session: SpinLock::new(session),
            signals,
            limits: SpinLock::new(default_limits()),
            state: AtomicU8::new(0),
            exit: SpinLock::new(None),
            leader_status: AtomicU32::new(0),
            exit_uid: AtomicU32::new(0),
            children_changed: WaitQueue::new(),
            ended: WaitQueue::new(),
            thread_gone: WaitQueue::new(),
            subreaper: AtomicBool::new(false),
            executed: AtomicBool::new(false),
            aio: Default::default(),
            membarrier: AtomicU32::new(0),
            dumpable: AtomicU32::new(1),
            oom_score_adj: AtomicI32::new(0),
            executable: SpinLock::new((None, String::new(), None)),
            times: ProcessTimes::new(),
            timers: ProcessTimers::default(),
            exec_token: AtomicU32::new(0),
            executing: AtomicBool::new(false),
            tracer: Tracer::default(),
            leader_tracer: SpinLock::new(Weak::new()),
            held: AtomicBool::new(false),
        }
    }

    pub fn group(&self) -> u32 {
        self.group.load(Ordering::Relaxed)
    }
    pub(super) fn set_group(&self, group: u32) {
        self.group.store(group, Ordering::Relaxed);
    }
    /// PID 1, with which the container ends.
    pub const fn is_init(&self) -> bool {
        self.pid == 1
    }
    /// Signals without a handler do not reach it: pid_namespaces(7), "The namespace init process".
    pub fn ignores_unhandled(&self) -> bool {
        self.is_init() && !crate::boot::container().is_some_and(|container| container.spec.ordinary_init)
    }
    pub fn is_zombie(&self) -> bool {
        self.state.load(Ordering::Acquire) != 0
    }
    pub fn is_reaped(&self) -> bool {
        self.state.load(Ordering::Acquire) == 2
    }
    /// getppid(2): 0 when the parent is outside of the container.
    pub fn parent_pid(&self) -> u32 {
        self.parent.lock().upgrade().map_or(0, |parent| parent.pid)
    }
    pub fn thread_list(&self) -> Vec<Arc<Task>> {
        self.threads.lock().clone()
    }
    /// The leader, or, when that has ended before the others, any thread.
    pub fn leader(&self) -> Option<Arc<Task>> {
        let threads = self.threads.lock();
        threads.iter().find(|task| task.is_leader()).or_else(|| threads.first()).cloned()
    }
    /// The group's exit has begun.
    pub fn is_exiting(&self) -> bool {
        self.exit.lock().is_some()
    }
    pub fn is_executing(&self) -> bool {
        self.executing.load(Ordering::Acquire)
    }
    /// Real user id of a zombie.
    pub fn exit_uid(&self) -> u32 {
        self.exit_uid.load(Ordering::Relaxed)
    }
    /// wait(2) status of a zombie.
    pub fn exit_status(&self) -> u32 {
        self.exit.lock().unwrap_or(0)
    }
}

/// What runc gives a container that asks for nothing, and Linux's own defaults.
pub fn default_limits() -> [(u64, u64); RLIM_NLIMITS] {
    let mut limits = [(RLIM_INFINITY, RLIM_INFINITY); RLIM_NLIMITS];
    limits[RLIMIT_STACK].0 = 8 << 20;
    limits[RLIMIT_CORE].0 = 0;
    limits[RLIMIT_NPROC] = (63_000, 63_000);
    limits[RLIMIT_NOFILE] = (1024, 1 << 20);
    limits[RLIMIT_MEMLOCK] = (8 << 20, 8 << 20);
    limits[RLIMIT_SIGPENDING] = (63_000, 63_000);
    limits[RLIMIT_MSGQUEUE] = (819_200, 819_200);
    limits[RLIMIT_NICE] = (0, 0);
    limits[RLIMIT_RTPRIO] = (0, 0);
    limits
}
