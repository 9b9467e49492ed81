//! Sleeping and waking. A [`WaitQueue`] stands for "something about this object changed"; whoever waits looks at its own condition again
//! after every wake-up, so spurious wake-ups are harmless and lost ones are impossible (registered before looked at).

use crate::errno::{Errno, EINTR, ETIMEDOUT};
use crate::process::Task;
use crate::sched;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use hal::sync::SpinLock;

/// Something that a wake-up reaches: a sleeping task, or an epoll instance that records readiness.
pub trait Waiter: Send + Sync {
    /// Called with the queue's lock held: must be quick, must not touch the queue.
    fn wake(&self);
    /// As [`Self::wake`], when the waker knows which EPOLL* bits may have become true (0: any). Epoll leaves out what it was not asked for.
    /// Whether somebody was waiting for it.
    fn wake_for(&self, _events: u32) -> bool {
        self.wake();
        true
    }
    /// One of several that do the same work: once one of them was waiting, the others need not be woken (EPOLLEXCLUSIVE).
    fn is_exclusive(&self) -> bool {
        false
    }
}

/// Wakes one sleeping task; made for each sleep.
struct Sleeper {
    task: Arc<Task>,
    woken: AtomicBool,
}

impl Waiter for Sleeper {
    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            sched::wake(&self.task);
        }
    }
}

#[derive(Default)]
pub struct WaitQueue {
    waiters: SpinLock<Vec<Weak<dyn Waiter>>>,
    count: AtomicUsize,
}

/// How a sleep may end early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interruptible {
    /// A signal ends it with EINTR.
    Yes,
    /// Only a fatal signal ends it.
    Killable,
    /// Nothing does: for waits that are bounded by the host.
    No,
}

impl WaitQueue {
    pub const fn new() -> Self {
        Self { waiters: SpinLock::new(Vec::new()), count: AtomicUsize::new(0) }
    }

    /// Adds a waiter; it stays until removed or dropped.
    pub fn register(&self, waiter: &Arc<dyn Waiter>) {
        let mut waiters = self.waiters.lock();
        waiters.push(Arc::downgrade(waiter));
        self.count.store(waiters.len(), Ordering::SeqCst);
    }

    pub fn unregister(&self, waiter: &Arc<dyn Waiter>) {
        let mut waiters = self.waiters.lock();
        waiters.retain(|known| known.strong_count() > 0 && !core::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(waiter)));
        self.count.store(waiters.len(), Ordering::SeqCst);
    }

    pub fn has_waiters(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Wakes everybody.
    pub fn wake_all(&self) {
        self.wake(usize::MAX);
    }

    /// Wakes the one that waits longest (and everything that only records, like epoll, up to it).
    pub fn wake_one(&self) {
        self.wake(1);
    }

    /// Wakes everybody, telling which EPOLL* bits may have become true.
    pub fn wake_for(&self, events: u32) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut taken = false;
        for waiter in self.waiters.lock().iter().filter_map(Weak::upgrade) {
            let exclusive = waiter.is_exclusive();
            if !(exclusive && taken) {
                taken |= waiter.wake_for(events) && exclusive;
            }
        }
    }

    /// Waits until nothing is `left`, if it becomes less within `patience` ns each time.
    pub fn drain(&self, patience: u64, left: impl Fn() -> usize) {
        let mut before = usize::MAX;
        loop {
            let now = left();
            if now == 0 || now >= before {
                return;
            }
            before = now;
            let deadline = hal::time::monotonic().saturating_add(patience);
            let _ = self.wait(Interruptible::No, Some(deadline), || (left() < before).then_some(()));
        }
    }

    fn wake(&self, mut most: usize) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let waiters = self.waiters.lock();
        for waiter in waiters.iter().filter_map(Weak::upgrade) {
            waiter.wake();
            most -= 1;
            if most == 0 {
                return;
            }
        }
    }

    /// Sleeps until `condition` gives a value. EINTR on a signal (by `interruptible`), ETIMEDOUT past `deadline` (monotonic ns).
    pub fn wait<T>(&self, interruptible: Interruptible, deadline: Option<u64>, condition: impl FnMut() -> Option<T>) -> Result<T, Errno> {
        wait_on(&[self], interruptible, deadline, condition)
    }
}

/// Sleeps on several queues at once (poll, select): as [`WaitQueue::wait`].
pub fn wait_on<T>(
    queues: &[&WaitQueue],
    interruptible: Interruptible,
    deadline: Option<u64>,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, Errno> {
    if let Some(value) = condition() {
        return Ok(value);
    }
    let task = sched::current();
    loop {
        let sleeper = Arc::new(Sleeper { task: task.clone(), woken: AtomicBool::new(false) });
        let waiter: Arc<dyn Waiter> = sleeper.clone();
        for queue in queues {
            queue.register(&waiter);
        }
        let outcome = if let Some(value) = condition() {
            Some(Ok(value))
        } else if task.interrupted(interruptible) {
            Some(Err(EINTR))
        } else if deadline.is_some_and(|at| hal::time::monotonic() >= at) {
            Some(Err(ETIMEDOUT))
        } else {
            sched::sleep(interruptible, deadline, || sleeper.woken.load(Ordering::Acquire));
            None
        };
        for queue in queues {
            queue.unregister(&waiter);
        }
        if let Some(outcome) = outcome {
            return outcome;
        }
        if let Some(value) = condition() {
            return Ok(value);
        }
    }
}
