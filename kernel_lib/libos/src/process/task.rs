//! One thread, and what hangs off it. Fields that several families use are here; each family keeps its own state in a struct of its own
//! module.

use super::accounting::TaskTimes;
use super::rseq::RseqState;
use super::seccomp::Seccomp;
use super::{Begin, Completion, Credentials, Process};
use crate::fs::{FdTable, FsContext};
use crate::mm::AddressSpace;
use crate::ptrace::Tracee;
use crate::sched::SchedState;
use crate::signal::TaskSignals;
use crate::wait::Interruptible;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use hal::sync::SpinLock;
use hal::thread::Thread;

/// One thread. Its identity for the scheduler, signals and credentials; what it shares with others hangs off Arcs.
pub struct Task {
    /// Changes once at most: when a thread that is not the leader calls execve(2).
    tid: AtomicU32,
    pub process: Arc<Process>,
    /// Kernel stack, saved registers.
    pub thread: Thread,
    pub sched: SchedState,
    /// CLONE_FILES. None for a task that is exiting or belongs to the library OS.
    files: SpinLock<Option<Arc<FdTable>>>,
    /// CLONE_FS: root, current directory, umask.
    fs: SpinLock<Option<Arc<FsContext>>>,
    /// CLONE_VM; None for a task that is exiting or belongs to the library OS.
    memory: SpinLock<Option<Arc<AddressSpace>>>,
    /// Credentials are replaced as a whole (copy on write).
    credentials: SpinLock<Arc<Credentials>>,
    /// comm, 15 bytes and a NUL.
    pub name: SpinLock<[u8; 16]>,
    /// set_tid_address / CLONE_CHILD_CLEARTID.
    pub clear_child_tid: AtomicU64,
    pub robust_list: AtomicU64,
    pub signals: TaskSignals,
    pub rseq: RseqState,
    pub seccomp: Seccomp,
    pub tracee: Tracee,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: AtomicBool,
    pub personality: AtomicU32,
    /// PR_SET_PDEATHSIG.
    pub parent_death_signal: AtomicU32,
    pub timer_slack: TimerSlack,
    pub scheduling: Scheduling,
    pub times: TaskTimes,
    /// What to do before the program's first instruction.
    pub(super) begin: SpinLock<Begin>,
    /// vfork(2): who waits for this task to leave the parent's memory.
    pub(super) vfork: SpinLock<Option<Arc<Completion>>>,
    /// An interrupted call with a relative timeout goes on from here (restart_syscall(2)).
    pub restart: SpinLock<Option<crate::time::Restart>>,
    /// It has left the tree.
    pub(super) gone: AtomicBool,
}

/// PR_SET_TIMERSLACK: the value, and the one that 0 brings back; ns.
pub struct TimerSlack {
    current: AtomicU64,
    default: AtomicU64,
}

impl Default for TimerSlack {
    fn default() -> Self {
        Self { current: AtomicU64::new(50_000), default: AtomicU64::new(50_000) }
    }
}

impl TimerSlack {
    pub fn get(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }
    pub fn set(&self, value: u64) {
        self.current.store(if value == 0 { self.default.load(Ordering::Relaxed) } else { value }, Ordering::Relaxed);
    }
    pub(super) fn inherit(&self, from: &Self) {
        self.current.store(from.get(), Ordering::Relaxed);
        self.default.store(from.get(), Ordering::Relaxed);
    }
}

/// What sched(7) keeps of a thread besides its affinity: stored and reported; the scheduler has one class.
#[derive(Default)]
pub struct Scheduling {
    /// SCHED_*, with SCHED_RESET_ON_FORK.
    pub policy: AtomicI32,
    pub nice: AtomicI32,
    pub priority: AtomicI32,
    /// ioprio_set(2): class << 13 | level.
    pub io_priority: AtomicI32,
}

impl Scheduling {
    /// fork(2): as the parent, unless that asked for a reset.
    pub(super) fn inherit(&self, from: &Self) {
        let (policy, nice) = (from.policy.load(Ordering::Relaxed), from.nice.load(Ordering::Relaxed));
        if policy & linux_abi::process::SCHED_RESET_ON_FORK == 0 {
            self.policy.store(policy, Ordering::Relaxed);
            self.priority.store(from.priority.load(Ordering::Relaxed), Ordering::Relaxed);
            self.nice.store(nice, Ordering::Relaxed);
            self.io_priority.store(from.io_priority.load(Ordering::Relaxed), Ordering::Relaxed);
        } else {
            self.nice.store(nice.max(0), Ordering::Relaxed);
        }
    }
}

/// What a new task takes over from the one that makes it.
pub struct Inherit {
    pub files: Option<Arc<FdTable>>,
    pub fs: Option<Arc<FsContext>>,
    pub memory: Option<Arc<AddressSpace>>,
    pub credentials: Arc<Credentials>,
    pub name: [u8; 16],
    pub signals: TaskSignals,
}

impl Task {
    pub fn new(tid: u32, process: Arc<Process>, thread: Thread, inherit: Inherit) -> Self {
        thread.set_root(inherit.memory.as_ref().map(|memory| memory.root()));
        Self {
            tid: AtomicU32::new(tid),
            process,
            thread,
            sched: SchedState::default(),
            files: SpinLock::new(inherit.files),
            fs: SpinLock::new(inherit.fs),
            memory: SpinLock::new(inherit.memory),
            credentials: SpinLock::new(inherit.credentials),
            name: SpinLock::new(inherit.name),
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            signals: inherit.signals,
            rseq: RseqState::default(),
            seccomp: Seccomp::default(),
            tracee: Tracee::default(),
            no_new_privs: AtomicBool::new(false),
            personality: AtomicU32::new(0),
            parent_death_signal: AtomicU32::new(0),
            timer_slack: TimerSlack::default(),
            scheduling: Scheduling::default(),
            times: TaskTimes::default(),
            begin: SpinLock::new(Begin::Nothing),
            vfork: SpinLock::new(None),
            restart: SpinLock::new(None),
            gone: AtomicBool::new(false),
        }
    }

    pub fn tid(&self) -> u32 {
        self.tid.load(Ordering::Relaxed)
    }
    pub(super) fn set_tid(&self, tid: u32) {
        self.tid.store(tid, Ordering::Relaxed);
    }
    /// It has left the tree.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
    pub fn is_leader(&self) -> bool {
        self.tid() == self.process.pid
    }

    pub fn files(&self) -> Arc<FdTable> {
        self.files.lock().clone().unwrap_or_default()
    }
    /// Replaces the descriptor table; drop the old one outside of any lock.
    #[must_use]
    pub fn set_files(&self, files: Option<Arc<FdTable>>) -> Option<Arc<FdTable>> {
        core::mem::replace(&mut *self.files.lock(), files)
    }
    /// Only for tasks of programs that are not at their very end.
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.lock().clone().expect("a task of a program has root and current directory until its end")
    }
    /// Of any task, for others to look at: None once it is at its end.
    pub fn try_fs(&self) -> Option<Arc<FsContext>> {
        self.fs.lock().clone()
    }
    #[must_use]
    pub fn set_fs(&self, fs: Option<Arc<FsContext>>) -> Option<Arc<FsContext>> {
        core::mem::replace(&mut *self.fs.lock(), fs)
    }
    pub fn memory(&self) -> Option<Arc<AddressSpace>> {
        self.memory.lock().clone()
    }
    /// Replaces the address space (execve, exit) and loads it when this task runs here; drop the old one outside of any lock.
    #[must_use]
    pub fn set_memory(&self, memory: Option<Arc<AddressSpace>>) -> Option<Arc<AddressSpace>> {
        self.thread.set_root(memory.as_ref().map(|memory| memory.root()));
        let old = core::mem::replace(&mut *self.memory.lock(), memory);
        if self.thread.is_current() {
            self.thread.activate();
        }
        old
    }
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.lock().clone()
    }
    pub fn set_credentials(&self, credentials: Credentials) {
        let old = core::mem::replace(&mut *self.credentials.lock(), Arc::new(credentials));
        drop(old);
    }
    /// Whether capability number `capability` is in effect.
    pub fn capable(&self, capability: u32) -> bool {
        self.credentials.lock().capable(capability)
    }
    /// Soft limit RLIMIT_* number `resource`.
    pub fn limit(&self, resource: usize) -> u64 {
        self.process.limits.lock()[resource].0
    }
    /// Whether a sleep of this kind must end because of a signal.
    pub fn interrupted(&self, how: Interruptible) -> bool {
        match how {
            Interruptible::Yes => self.signals.deliverable(self),
            Interruptible::Killable => self.signals.fatal(self),
            Interruptible::No => false,
        }
    }
    /// comm without its NULs.
    pub fn comm(&self) -> alloc::vec::Vec<u8> {
        let name = *self.name.lock();
        name.iter().copied().take_while(|&byte| byte != 0).collect()
    }
    /// Sets comm to at most 15 bytes.
    pub fn set_comm(&self, name: &[u8]) {
        let mut comm = [0; 16];
        for (to, &from) in comm.iter_mut().take(15).zip(name.iter().take_while(|&&byte| byte != 0)) {
            *to = from;
        }
        *self.name.lock() = comm;
    }
}
