//! Timers that send signals: setitimer(2), timer_create(2), RLIMIT_CPU.
//!
//! Each has a deadline on its own clock; what stands in the queue is the earliest monotonic moment at which that can be reached. A timer on
//! a CPU clock that is found to be early is armed again.

use super::clocks::Clock;
use super::timers::{arm, cancel, Expire, TimerKey};
use crate::errno::{Errno, EAGAIN, EINVAL};
use crate::process::{Process, Task};
use crate::signal;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use hal::sync::SpinLock;
use linux_abi::resource::{RLIMIT_CPU, RLIM_INFINITY};
use linux_abi::signal::{SigInfo, SIGALRM, SIGKILL, SIGPROF, SIGVTALRM, SIGXCPU, SI_KERNEL};
use linux_abi::time::NS_PER_SEC;

/// Most POSIX timers of a process (RLIMIT_SIGPENDING bounds them in Linux).
const TIMERS_MOST: usize = 4096;
/// DELAYTIMER_MAX.
const OVERRUN_MOST: u64 = i32::MAX as u64;
/// How soon a timer looks again whose signal nobody takes.
const TICK: u64 = 1_000_000;

/// Whom an expiry tells.
pub enum Notify {
    Nobody,
    /// A plain signal from the kernel (setitimer).
    Process(i32),
    /// SIGEV_SIGNAL, SIGEV_THREAD_ID: with si_value, once at a time.
    Queued {
        id: i32,
        signal: i32,
        value: u64,
        thread: Option<Weak<Task>>,
    },
    /// RLIMIT_CPU: SIGXCPU every second from the soft limit on, SIGKILL at the hard one.
    CpuLimit,
}

#[derive(Default)]
struct State {
    /// Next expiry on the timer's clock; None: disarmed.
    deadline: Option<u64>,
    interval: u64,
    key: Option<TimerKey>,
    /// Expiries since the last signal was taken, besides the one that queued the next.
    overrun: u64,
    /// Of the signal that was taken last.
    last_overrun: u64,
}

pub struct Timer {
    pub clock: Clock,
    notify: Notify,
    process: Weak<Process>,
    state: SpinLock<State>,
}

impl Timer {
    pub fn new(process: &Arc<Process>, clock: Clock, notify: Notify) -> Arc<Self> {
        Arc::new(Self { clock, notify, process: Arc::downgrade(process), state: SpinLock::new(State::default()) })
    }

    /// Sets the next expiry (`None`: disarms) and the interval; gives what was (ns left, interval).
    pub fn set(self: &Arc<Self>, deadline: Option<u64>, interval: u64) -> (u64, u64) {
        let mut state = self.state.lock();
        let before = self.left(&state);
        if let Some(key) = state.key.take() {
            cancel(key);
        }
        state.deadline = deadline;
        state.interval = interval;
        state.overrun = 0;
        self.arm(&mut state);
        before
    }

    fn arm(self: &Arc<Self>, state: &mut State) {
        state.key = state.deadline.map(|deadline| arm(self.clock.deadline(deadline), self.clone()));
    }

    /// While the last signal waits to be taken, expiries are only counted: those of a short interval would leave the program no time to
    /// take it. [`Self::taken`] arms the timer properly.
    fn arm_later(self: &Arc<Self>, state: &mut State) {
        let later = hal::time::monotonic() + TICK;
        state.key = state.deadline.map(|deadline| arm(self.clock.deadline(deadline).max(later), self.clone()));
    }

    /// Counts what has expired since the deadline, and sets the next one. How many expiries that were.
    fn advance(state: &mut State, now: u64) -> u64 {
        let Some(deadline) = state.deadline.filter(|deadline| now >= *deadline) else { return 0 };
        let missed = (now - deadline).checked_div(state.interval).unwrap_or(0);
        state.deadline = (state.interval != 0).then(|| deadline + (missed + 1) * state.interval);
        missed + 1
    }

    /// The signal of an expiry was taken. Gives the overrun.
    fn taken(self: &Arc<Self>) -> u64 {
        let now = self.clock.now().unwrap_or(0);
        let mut state = self.state.lock();
        if let Some(key) = state.key.take() {
            cancel(key);
        }
        if state.interval != 0 {
            state.overrun += Self::advance(&mut state, now);
        }
        self.arm(&mut state);
        state.last_overrun = core::mem::take(&mut state.overrun).min(OVERRUN_MOST);
        state.last_overrun
    }

    fn left(&self, state: &State) -> (u64, u64) {
        let now = self.clock.now().unwrap_or(0);
        let left = state.deadline.map_or(0, |deadline| match now.checked_sub(deadline) {
            Some(late) if state.interval != 0 => state.interval - late % state.interval,
            _ => deadline.saturating_sub(now).max(1),
        });
        (left, state.interval)
    }

    /// (ns until the next expiry, interval); 0: disarmed.
    pub fn get(&self) -> (u64, u64) {
        self.left(&self.state.lock())
    }

    pub fn last_overrun(&self) -> i32 {
        self.state.lock().last_overrun as i32
    }

    fn cancel(&self) {
        let mut state = self.state.lock();
        state.deadline = None;
        if let Some(key) = state.key.take() {
            cancel(key);
        }
    }

    /// Whether the last expiry's signal waits to be taken. The queue itself is asked: signals leave it in other ways too, when they are
    /// ignored for instance.
    fn is_pending(&self, process: &Arc<Process>) -> bool {
        match &self.notify {
            Notify::Queued { id, signal, thread: None, .. } => signal::timer_is_queued(signal::Scope::Process(process), *signal, *id),
            Notify::Queued { id, signal, thread: Some(thread), .. } => {
                thread.upgrade().is_some_and(|task| signal::timer_is_queued(signal::Scope::Thread(&task), *signal, *id))
            }
            _ => false,
        }
    }

    fn send(self: &Arc<Self>, process: &Arc<Process>) {
        match &self.notify {
            Notify::Nobody => {}
            Notify::Process(signal) => signal::send_to_process(process, SigInfo::new(*signal, SI_KERNEL)),
            Notify::Queued { id, signal, value, thread } => {
                let info = SigInfo::timer(*signal, *id, *value);
                match thread {
                    None => signal::send_to_process(process, info),
                    Some(thread) => {
                        if let Some(task) = thread.upgrade() {
                            signal::send_to_task(&task, info);
                        }
                    }
                }
            }
            Notify::CpuLimit => cpu_limit_reached(process),
        }
    }
}

impl Expire for Timer {
    fn expired(self: Arc<Self>, _now: u64) {
        let Some(process) = self.process.upgrade() else { return };
        let Ok(now) = self.clock.now() else { return };
        // One signal at a time: expiries in between are counted (timer_getoverrun(2)).
        let pending = self.is_pending(&process);
        {
            let mut state = self.state.lock();
            state.key = None;
            let expiries = Self::advance(&mut state, now);
            if expiries == 0 {
                return self.arm(&mut state);
            }
            state.overrun += expiries - u64::from(!pending);
            match self.notify {
                Notify::Queued { .. } => self.arm_later(&mut state),
                _ => self.arm(&mut state),
            }
        }
        if !pending {
            self.send(&process);
        }
    }
}

/// The timers of a process. None is inherited by fork; POSIX timers end with execve.
#[derive(Default)]
pub struct ProcessTimers {
    interval: SpinLock<[Option<Arc<Timer>>; 3]>,
    posix: SpinLock<BTreeMap<i32, Arc<Timer>>>,
    cpu_limit: SpinLock<Option<Arc<Timer>>>,
}

impl ProcessTimers {
    /// The timer ITIMER_* number `which`, made when first asked for.
    pub fn interval(&self, process: &Arc<Process>, which: usize) -> Arc<Timer> {
        self.interval.lock()[which]
            .get_or_insert_with(|| match which {
                0 => Timer::new(process, Clock::Monotonic, Notify::Process(SIGALRM)),
                // User time alone is not told apart well enough to time by: both count all CPU time.
                1 => Timer::new(process, Clock::Process(Arc::downgrade(process)), Notify::Process(SIGVTALRM)),
                _ => Timer::new(process, Clock::Process(Arc::downgrade(process)), Notify::Process(SIGPROF)),
            })
            .clone()
    }

    /// timer_create(2): the id. `make` builds the timer with it.
    pub fn create(&self, make: impl FnOnce(i32) -> Arc<Timer>) -> Result<i32, Errno> {
        let mut timers = self.posix.lock();
        if timers.len() >= TIMERS_MOST {
            return Err(EAGAIN);
        }
        let id = timers.last_key_value().map_or(0, |(id, _)| id.wrapping_add(1) & i32::MAX);
        let id = if timers.contains_key(&id) { (0..=i32::MAX).find(|id| !timers.contains_key(id)).ok_or(EAGAIN)? } else { id };
        timers.insert(id, make(id));
        Ok(id)
    }

    pub fn posix(&self, id: i32) -> Result<Arc<Timer>, Errno> {
        self.posix.lock().get(&id).cloned().ok_or(EINVAL)
    }

    pub fn delete(&self, id: i32) -> Result<(), Errno> {
        let timer = self.posix.lock().remove(&id).ok_or(EINVAL)?;
        timer.cancel();
        Ok(())
    }

    /// execve(2).
    pub fn clear_posix(&self) {
        let timers = core::mem::take(&mut *self.posix.lock());
        timers.values().for_each(|timer| timer.cancel());
    }

    /// The process ends.
    pub fn clear(&self) {
        self.clear_posix();
        let timers = core::mem::take(&mut *self.interval.lock());
        let limit = self.cpu_limit.lock().take();
        timers.into_iter().flatten().chain(limit).for_each(|timer| timer.cancel());
    }

    /// RLIMIT_CPU was set, or inherited.
    pub fn watch_cpu_limit(&self, process: &Arc<Process>) {
        let (soft, hard) = process.limits.lock()[RLIMIT_CPU];
        let first = soft.min(hard);
        let mut watching = self.cpu_limit.lock();
        if first == RLIM_INFINITY {
            if let Some(timer) = watching.take() {
                timer.cancel();
            }
            return;
        }
        let clock = Clock::Process(Arc::downgrade(process));
        let timer = watching.get_or_insert_with(|| Timer::new(process, clock, Notify::CpuLimit));
        timer.set(Some(first.saturating_mul(NS_PER_SEC)), NS_PER_SEC);
    }
}

fn cpu_limit_reached(process: &Arc<Process>) {
    let (soft, hard) = process.limits.lock()[RLIMIT_CPU];
    let seconds = process.cpu_ns() / NS_PER_SEC;
    if seconds >= hard {
        signal::send_to_process_forced(process, SigInfo::new(SIGKILL, SI_KERNEL));
    } else if seconds >= soft {
        signal::send_to_process(process, SigInfo::new(SIGXCPU, SI_KERNEL));
    }
}

/// A timer's signal was taken from its queue: fills in the overrun.
pub fn timer_signal_taken(process: &Process, info: &mut SigInfo) {
    if let Ok(timer) = process.timers.posix(info.pid() as i32) {
        info.set_overrun(timer.taken() as i32);
    }
}
