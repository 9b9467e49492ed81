//! Everything that expires, ordered by deadline (monotonic ns). timerfd, POSIX timers and interval timers use it; sleeping tasks have
//! their deadlines in the scheduler.
//!
//! `QUEUE` is a leaf lock: expiries are run outside of it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::sync::SpinLock;

/// Something that expires. Called on whatever vCPU notices first, outside of any lock; must not sleep. A timer that was cancelled at the
/// same moment may still be called: it has to look at its own state.
pub trait Expire: Send + Sync {
    fn expired(self: Arc<Self>, now: u64);
}

/// An armed timer: (deadline, serial number).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TimerKey(u64, u64);

static QUEUE: SpinLock<BTreeMap<TimerKey, Arc<dyn Expire>>> = SpinLock::new(BTreeMap::new());
static SERIAL: AtomicU64 = AtomicU64::new(0);
/// First deadline of the queue; u64::MAX: none.
static EARLIEST: AtomicU64 = AtomicU64::new(u64::MAX);

fn note_earliest(queue: &BTreeMap<TimerKey, Arc<dyn Expire>>) {
    EARLIEST.store(queue.first_key_value().map_or(u64::MAX, |(key, _)| key.0), Ordering::SeqCst);
}

/// Arms a timer for `deadline`. It fires once.
pub fn arm(deadline: u64, timer: Arc<dyn Expire>) -> TimerKey {
    let key = TimerKey(deadline, SERIAL.fetch_add(1, Ordering::Relaxed));
    {
        let mut queue = QUEUE.lock();
        queue.insert(key, timer);
        note_earliest(&queue);
    }
    // This vCPU is awake, so it is the one that watches.
    hal::cpu::set_timer(deadline);
    key
}

/// Takes an armed timer back. False: it has fired, or is about to.
pub fn cancel(key: TimerKey) -> bool {
    let removed = {
        let mut queue = QUEUE.lock();
        let removed = queue.remove(&key);
        note_earliest(&queue);
        removed
    };
    removed.is_some()
}

/// The earliest deadline of any timer (monotonic ns).
pub fn next_deadline() -> Option<u64> {
    match EARLIEST.load(Ordering::SeqCst) {
        u64::MAX => None,
        deadline => Some(deadline),
    }
}

/// Fires every timer that is due. Must not sleep.
pub fn run_expired(now: u64) {
    if EARLIEST.load(Ordering::SeqCst) > now {
        return;
    }
    let due: Vec<Arc<dyn Expire>> = {
        let mut queue = QUEUE.lock();
        let later = queue.split_off(&TimerKey(now.saturating_add(1), 0));
        let due = core::mem::replace(&mut *queue, later);
        note_earliest(&queue);
        due.into_values().collect()
    };
    for timer in due {
        timer.expired(now);
    }
}
