//! The signal state of a thread and of a thread group.

use super::queue::Queue;
use super::set::SigSet;
use super::stop::Stop;
use crate::process::Task;
use crate::wait::WaitQueue;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hal::sync::SpinLock;
use hal::xstate::XState;
use linux_abi::signal::{SigAction, SigStack, SIG_DFL, SIG_IGN, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK};

/// The thread must end (group exit, execve of another thread, exit(2)).
const EXIT: u32 = 1;
/// The thread must take part in its process's stop.
const STOP: u32 = 2;
/// The thread has something to tell its tracer (ptrace(2)).
const TRAP: u32 = 4;

/// sigaltstack(2).
#[derive(Clone, Copy, Default, Debug)]
pub struct AltStack {
    pub sp: u64,
    pub size: u64,
    /// SS_AUTODISARM.
    pub flags: i32,
}

impl AltStack {
    /// Whether `sp` lies on it; with SS_AUTODISARM never, as Linux has it.
    pub const fn contains(&self, sp: u64) -> bool {
        self.flags & SS_AUTODISARM == 0 && sp > self.sp && sp - self.sp <= self.size
    }
    /// As sigaltstack(2) reports it with the stack pointer at `sp`.
    pub const fn report(&self, sp: u64) -> SigStack {
        let state = if self.size == 0 {
            SS_DISABLE
        } else if self.contains(sp) {
            SS_ONSTACK
        } else {
            0
        };
        SigStack { sp: self.sp, flags: state | self.flags, pad: 0, size: self.size }
    }
}

/// What the last exception of a thread left for its signal frame.
#[derive(Clone, Copy, Default, Debug)]
pub struct FaultRegisters {
    pub trapno: u64,
    pub error: u64,
    pub cr2: u64,
}

/// The signal state of one thread.
#[derive(Default)]
pub struct TaskSignals {
    /// Changed by its own thread only.
    blocked: AtomicU64,
    /// The mask to come back to after a call that replaced it for its duration (sigsuspend, ppoll …).
    saved: SpinLock<Option<SigSet>>,
    /// What `queue` holds, readable without its lock.
    pending: AtomicU64,
    queue: SpinLock<Queue>,
    flags: AtomicU32,
    pub alt_stack: SpinLock<AltStack>,
    pub fault: SpinLock<FaultRegisters>,
    /// What the last signal frame was written from or read to.
    pub(super) spare_xstate: SpinLock<Option<XState>>,
}

impl TaskSignals {
    /// For a new thread of a program: mask and alternate stack as sigaltstack(2) and clone(2) say.
    pub fn new(blocked: SigSet, alt_stack: AltStack) -> Self {
        Self { blocked: AtomicU64::new(blocked.0), alt_stack: SpinLock::new(alt_stack), ..Self::default() }
    }

    /// A signal waits that this thread would take now, or it has to stop or end.
    pub fn deliverable(&self, task: &Task) -> bool {
        let pending = self.pending.load(Ordering::SeqCst) | task.process.signals.pending.load(Ordering::SeqCst);
        pending & !self.blocked.load(Ordering::Relaxed) != 0 || self.flags.load(Ordering::SeqCst) != 0
    }

    /// This thread has to end.
    pub fn fatal(&self, _task: &Task) -> bool {
        self.must_exit()
    }

    pub fn must_exit(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & EXIT != 0
    }
    pub fn must_stop(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & (STOP | EXIT) == STOP
    }
    pub fn set_exit(&self) {
        self.flags.fetch_or(EXIT, Ordering::SeqCst);
    }
    pub fn must_trap(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & TRAP != 0
    }
    pub fn set_stop(&self, on: bool) {
        self.set(STOP, on);
    }
    pub fn set_trap(&self, on: bool) {
        self.set(TRAP, on);
    }
    fn set(&self, flag: u32, on: bool) {
        if on {
            self.flags.fetch_or(flag, Ordering::SeqCst);
        } else {
            self.flags.fetch_and(!flag, Ordering::SeqCst);
        }
    }

    pub fn blocked(&self) -> SigSet {
        SigSet(self.blocked.load(Ordering::Relaxed))
    }
    /// By the thread itself. SIGKILL and SIGSTOP stay unblocked.
    pub fn set_blocked(&self, mask: SigSet) {
        self.blocked.store(mask.without(SigSet::UNBLOCKABLE).0, Ordering::SeqCst);
    }

    /// Replaces the mask for the duration of the present call (ppoll(2), sigsuspend(2)): it comes back behind the handler, or when the
    /// call ends without one.
    pub fn replace_mask(&self, mask: SigSet) {
        *self.saved.lock() = Some(self.blocked());
        self.set_blocked(mask);
    }
    /// The mask that a handler's frame has to restore; ends the replacement.
    pub(super) fn take_saved(&self) -> Option<SigSet> {
        self.saved.lock().take()
    }
    /// The call ended without a handler.
    pub fn restore_mask(&self) {
        if let Some(mask) = self.take_saved() {
            self.set_blocked(mask);
        }
    }

    pub(super) fn with_queue<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock();
        let result = change(&mut queue);
        self.pending.store(queue.pending().0, Ordering::SeqCst);
        result
    }
    /// Signals that wait for this thread alone.
    pub fn pending(&self) -> SigSet {
        SigSet(self.pending.load(Ordering::SeqCst))
    }
}

/// The table of actions: shared by CLONE_SIGHAND.
pub struct Actions {
    table: SpinLock<[SigAction; 64]>,
}

impl Default for Actions {
    fn default() -> Self {
        Self { table: SpinLock::new([SigAction::default(); 64]) }
    }
}

impl Actions {
    pub fn get(&self, signal: i32) -> SigAction {
        self.table.lock()[signal as usize - 1]
    }
    pub fn set(&self, signal: i32, action: SigAction) -> SigAction {
        core::mem::replace(&mut self.table.lock()[signal as usize - 1], action)
    }
    /// A copy for fork(2).
    pub fn duplicate(&self) -> Arc<Self> {
        Arc::new(Self { table: SpinLock::new(*self.table.lock()) })
    }
    /// After execve(2): handlers are default again, ignored signals stay ignored. `all` (CLONE_CLEAR_SIGHAND): the handlers only, too.
    pub fn reset(&self) {
        for action in self.table.lock().iter_mut() {
            let handler = if action.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            *action = SigAction { handler, ..SigAction::default() };
        }
    }
    /// (ignored, caught) for /proc/PID/status.
    pub fn summary(&self) -> (SigSet, SigSet) {
        let table = self.table.lock();
        let mut sets = (SigSet::EMPTY, SigSet::EMPTY);
        for (signal, action) in (1..).zip(table.iter()) {
            match action.handler {
                SIG_DFL => {}
                SIG_IGN => sets.0 = sets.0.union(SigSet::one(signal)),
                _ => sets.1 = sets.1.union(SigSet::one(signal)),
            }
        }
        sets
    }
}

/// What the process's signal lock guards.
#[derive(Default)]
pub struct Shared {
    pub(super) queue: Queue,
    pub(super) stop: Stop,
}

/// The signal state of a thread group.
#[derive(Default)]
pub struct ProcessSignals {
    actions: SpinLock<Arc<Actions>>,
    /// What the shared queue holds, readable without its lock.
    pending: AtomicU64,
    shared: SpinLock<Shared>,
    /// Woken whenever a signal is queued to the process or one of its threads: signalfd(2), sigtimedwait(2).
    pub arrival: WaitQueue,
}

impl ProcessSignals {
    pub fn new(actions: Arc<Actions>) -> Self {
        Self { actions: SpinLock::new(actions), ..Self::default() }
    }
    pub fn actions(&self) -> Arc<Actions> {
        self.actions.lock().clone()
    }
    /// execve(2): the table is the process's own again.
    pub fn unshare_actions(&self) {
        let own = self.actions().duplicate();
        own.reset();
        *self.actions.lock() = own;
    }
    /// Signals that wait for any thread of the process.
    pub fn pending(&self) -> SigSet {
        SigSet(self.pending.load(Ordering::SeqCst))
    }
    pub(super) fn with_shared<T>(&self, change: impl FnOnce(&mut Shared) -> T) -> T {
        let mut shared = self.shared.lock();
        let result = change(&mut shared);
        self.pending.store(shared.queue.pending().0, Ordering::SeqCst);
        result
    }
}
