//! The structures. Fields that several families use are here; each family keeps its own state in a struct of its own module.

use crate::fs::{FdTable, FsContext};
use crate::mm::AddressSpace;
use crate::sched::SchedState;
use crate::wait::Interruptible;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hal::sync::SpinLock;
use hal::thread::Thread;

/// One thread. Its identity for the scheduler, signals and credentials; what it shares with others hangs off Arcs.
pub struct Task {
    pub tid: u32,
    pub process: Arc<Process>,
    /// Kernel stack, saved registers.
    pub thread: Thread,
    pub sched: SchedState,
    /// CLONE_FILES.
    files: SpinLock<Option<Arc<FdTable>>>,
    /// CLONE_FS: root, current directory, umask.
    fs: SpinLock<Arc<FsContext>>,
    /// CLONE_VM; None for a task that is exiting or belongs to the library OS.
    memory: SpinLock<Option<Arc<AddressSpace>>>,
    /// Credentials are replaced as a whole (copy on write).
    credentials: SpinLock<Arc<crate::process::Credentials>>,
    /// comm, 15 bytes and a NUL.
    pub name: SpinLock<[u8; 16]>,
    /// set_tid_address / CLONE_CHILD_CLEARTID.
    pub clear_child_tid: AtomicU64,
    pub robust_list: AtomicU64,
    pub signals: crate::signal::TaskSignals,
}

/// A thread group.
pub struct Process {
    pub pid: u32,
    pub parent: SpinLock<Weak<Process>>,
    pub children: SpinLock<Vec<Arc<Process>>>,
    pub threads: SpinLock<Vec<Weak<Task>>>,
    pub group: AtomicU32,
    pub session: AtomicU32,
    pub signals: crate::signal::ProcessSignals,
    pub limits: SpinLock<[(u64, u64); 16]>,
}

impl Task {
    pub fn files(&self) -> Arc<FdTable> {
        self.files.lock().clone().unwrap_or_default()
    }
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.lock().clone()
    }
    pub fn memory(&self) -> Option<Arc<AddressSpace>> {
        self.memory.lock().clone()
    }
    pub fn credentials(&self) -> Arc<crate::process::Credentials> {
        self.credentials.lock().clone()
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
}
