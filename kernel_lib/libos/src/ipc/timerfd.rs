//! timerfd_create(2): a timer that is read.
//!
//! An interval timer is armed for its next expiry only; the ones behind it are counted when somebody reads or asks, so that a timer that
//! nobody looks at costs one expiry.

use super::pipe::restart;
use crate::errno::{Errno, EAGAIN, EINVAL};
use crate::fs::{Events, FileOps, OpenFile};
use crate::io::IoBuffer;
use crate::time::clocks::Clock;
use crate::time::{self, Expire, TimerKey};
use crate::wait::{Interruptible, WaitQueue};
use crate::SysResult;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use hal::sync::SpinLock;

#[derive(Default)]
struct State {
    /// Next expiry, monotonic ns; 0: disarmed.
    deadline: u64,
    interval: u64,
    /// The deadline has passed and was not read yet.
    fired: bool,
    key: Option<TimerKey>,
}

pub struct TimerFd {
    clock: Clock,
    myself: Weak<TimerFd>,
    state: SpinLock<State>,
    queue: WaitQueue,
}

impl TimerFd {
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self { clock, myself: myself.clone(), state: SpinLock::default(), queue: WaitQueue::new() })
    }

    /// (time left, interval) in ns.
    pub fn get(&self) -> (u64, u64) {
        let state = self.state.lock();
        (left(&state), state.interval)
    }

    /// Sets first expiry and interval; `first` 0 disarms. `absolute`: on the timer's clock. Gives what [`Self::get`] gave before.
    pub fn set(&self, first: u64, interval: u64, absolute: bool) -> (u64, u64) {
        let deadline = match first {
            0 => 0,
            first if absolute => self.clock.deadline(first).max(1),
            first => hal::time::monotonic().saturating_add(first),
        };
        let mut state = self.state.lock();
        let old = (left(&state), state.interval);
        let key = state.key.take();
        *state = State { deadline, interval, ..State::default() };
        drop(state);
        if let Some(key) = key {
            time::cancel(key);
        }
        self.arm(deadline);
        old
    }

    fn arm(&self, deadline: u64) {
        if deadline == 0 {
            return;
        }
        let Some(myself) = self.myself.upgrade() else { return };
        let key = time::arm(deadline, myself);
        let mut state = self.state.lock();
        let stale = if state.deadline == deadline && !state.fired { state.key.replace(key) } else { Some(key) };
        drop(state);
        if let Some(stale) = stale {
            time::cancel(stale);
        }
    }

    /// How often it expired since the last read; the next expiry is armed.
    fn take(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if !state.fired {
            return None;
        }
        state.fired = false;
        if state.interval == 0 {
            state.deadline = 0;
            return Some(1);
        }
        let ticks = ticks(&state);
        state.deadline = state.deadline.saturating_add(state.interval.saturating_mul(ticks));
        let next = state.deadline;
        drop(state);
        self.arm(next);
        Some(ticks)
    }
}

/// Expiries up to now of an interval timer whose deadline has passed.
fn ticks(state: &State) -> u64 {
    let late = hal::time::monotonic().saturating_sub(state.deadline);
    1 + late.checked_div(state.interval).unwrap_or(0)
}

fn left(state: &State) -> u64 {
    if state.deadline == 0 || (state.fired && state.interval == 0) {
        return 0;
    }
    let now = hal::time::monotonic();
    let next = if state.fired { state.deadline.saturating_add(state.interval.saturating_mul(ticks(state))) } else { state.deadline };
    next.saturating_sub(now).max(1)
}

impl Expire for TimerFd {
    fn expired(self: Arc<Self>, now: u64) {
        let mut state = self.state.lock();
        if state.deadline == 0 || state.deadline > now || state.fired {
            return;
        }
        state.fired = true;
        state.key = None;
        drop(state);
        self.queue.wake_for((Events::IN | Events::RDNORM).0);
    }
}

impl FileOps for TimerFd {
    fn read(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        if buffer.remaining() < 8 {
            return Err(EINVAL);
        }
        let ticks = match self.take() {
            Some(ticks) => ticks,
            None if file.nonblocking() => return Err(EAGAIN),
            None => self.queue.wait(Interruptible::Yes, None, || self.take()).map_err(restart)?,
        };
        buffer.put(&ticks.to_ne_bytes())
    }

    fn poll(&self, _file: &OpenFile) -> Events {
        if self.state.lock().fired {
            Events::IN | Events::RDNORM
        } else {
            Events::default()
        }
    }

    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn release(&self, _file: &OpenFile) {
        let key = self.state.lock().key.take();
        if let Some(key) = key {
            time::cancel(key);
        }
    }

    fn describe(&self, _file: &OpenFile) -> String {
        String::from("anon_inode:[timerfd]")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The timer behind an open file. EINVAL: it is none.
pub fn of(file: &OpenFile) -> Result<&TimerFd, Errno> {
    file.ops_as().ok_or(EINVAL)
}
