//! The idle loop. Where exits are dear, a vCPU looks for work before it halts (to be woken is two exits and some 80 us), and before it
//! loads another address space (one exit, some 30 us); for as long as work usually takes to come, and only while another vCPU runs a task
//! that may bring it.

use super::{here, is_loaded, pick, pick_loaded, run, steal, RunQueue, PATIENCE, QUEUES};
use crate::process::Task;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicU8, Ordering};
use hal::cpu;
use hal::thread::{self, Runnable, Thread};

/// The longest pause that is looked through, ns: somewhat more than a halt and the wake-up from it take.
const WORTH_LOOKING: u64 = 200_000;
/// Pauses beyond count as this long, so that a few short ones show.
const LONGEST: u64 = 500_000;
/// How long tasks of other address spaces wait for one of the loaded space, ns: as long as the loads take that it saves, to the others
/// and back.
const LINGER: u64 = 60_000;
/// After this they go to an idle vCPU all the same, ns: before their own vCPU loses patience, which may have the busier space loaded.
const TURN: u64 = PATIENCE / 2;
/// A vCPU that has not looked for so long does not run, ns.
const FRESH: u64 = 5_000;
/// A vCPU that was given a task seems to be idle for less than this, ns.
const HAND_OVER: u64 = 20_000;
/// A look that took longer was interrupted by somebody who needs the CPU, ns.
const INTERRUPTED: u64 = 20_000;

/// A vCPU's idle loop as something to switch to.
pub(super) struct Idle {
    thread: Thread,
}

impl Runnable for Idle {
    fn thread(&self) -> &Thread {
        &self.thread
    }
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// What a vCPU looks for: it will see what is put on its queue without being interrupted.
pub(super) struct Looking {
    what: AtomicU8,
    /// When it looked last: the host may have taken its CPU away since.
    seen: AtomicU64,
}

const NOTHING: u8 = 0;
const LOADED: u8 = 1;
const ANY: u8 = 2;

impl Looking {
    pub(super) const fn new() -> Self {
        Self { what: AtomicU8::new(NOTHING), seen: AtomicU64::new(0) }
    }
    /// Whether it will look at its queue by itself, soon or late.
    pub(super) fn for_anything(&self) -> bool {
        self.what.load(Ordering::SeqCst) != NOTHING
    }
    /// Whether a task of the address space that it has loaded would be seen at once.
    pub(super) fn for_loaded(&self, now: u64) -> bool {
        self.for_anything() && now < self.seen.load(Ordering::Relaxed) + FRESH
    }
    /// Whether any task would.
    pub(super) fn for_any(&self, now: u64) -> bool {
        self.what.load(Ordering::SeqCst) == ANY && now < self.seen.load(Ordering::Relaxed) + FRESH
    }
}

/// Whether the vCPUs seldom run at the same time, because others need the host's CPUs: then looking brings nothing, for a while.
struct Crowd {
    /// Rises when a look brings something, falls by [`Crowd::VAIN`] when it does not.
    credit: AtomicI32,
    until: AtomicU64,
}

static CROWD: Crowd = Crowd { credit: AtomicI32::new(Crowd::MOST), until: AtomicU64::new(0) };

impl Crowd {
    const VAIN: i32 = 8;
    const MOST: i32 = 64;
    /// How long nobody looks then, ns.
    const REST: u64 = 20_000_000;

    fn looked(&self, in_vain: bool, now: u64) {
        let credit = self.credit.load(Ordering::Relaxed);
        let mut credit = if in_vain { credit - Self::VAIN } else { (credit + 1).min(Self::MOST) };
        if credit < 0 {
            self.until.store(now + Self::REST, Ordering::Relaxed);
            credit = Self::MOST / 2;
        }
        self.credit.store(credit, Ordering::Relaxed);
    }
}

/// Whether a vCPU that waits for work should look for it at all.
pub(super) fn may_look(now: u64) -> bool {
    !cpu::exits_are_cheap() && now >= CROWD.until.load(Ordering::Relaxed)
}

/// What waiting has been worth lately.
pub(super) struct Pauses {
    /// Moving average of the time without a task, ns.
    usual: AtomicU64,
    /// Rises when one of the loaded address space came while others waited, falls when none came.
    lingering: AtomicU32,
    turns: AtomicU32,
}

impl Pauses {
    /// How much `lingering` rises (it falls by 1): a success saves two loads, a failure costs one.
    const RISE: u32 = 2;
    const MOST: u32 = 16;
    /// Every so many times it is tried in spite of failures.
    const TRIAL: u32 = 16;

    pub(super) const fn new() -> Self {
        Self { usual: AtomicU64::new(WORTH_LOOKING), lingering: AtomicU32::new(Self::MOST / 2), turns: AtomicU32::new(0) }
    }

    /// The vCPU will be needed again and again: it is fetched, or it gave a task to another, and may get one back.
    pub(super) fn expect_short(&self) {
        self.usual.store(WORTH_LOOKING / 2, Ordering::Relaxed);
    }

    fn took(&self, ns: u64) {
        let usual = self.usual.load(Ordering::Relaxed);
        self.usual.store(usual - usual / 8 + ns.min(LONGEST) / 8, Ordering::Relaxed);
    }

    /// How long to look for a task before halting. Not just the usual time: halting too early is dear.
    fn worth(&self, now: u64) -> u64 {
        if !may_look(now) || self.usual.load(Ordering::Relaxed) > WORTH_LOOKING {
            0
        } else {
            WORTH_LOOKING
        }
    }

    fn should_linger(&self) -> bool {
        if self.lingering.load(Ordering::Relaxed) == 0 && self.turns.fetch_add(1, Ordering::Relaxed).is_multiple_of(Self::TRIAL) {
            self.lingering.store(1, Ordering::Relaxed);
        }
        self.lingering.load(Ordering::Relaxed) > 0
    }

    fn lingered(&self, in_vain: bool) {
        let old = self.lingering.load(Ordering::Relaxed);
        let new = if in_vain { old.saturating_sub(1) } else { (old + Self::RISE).min(Self::MOST) };
        self.lingering.store(new, Ordering::Relaxed);
    }
}

/// Whether tasks wait that need another address space, and may wait a little more.
pub(super) fn should_linger(now: u64) -> bool {
    let waits = |queue: &RunQueue| queue.length.load(Ordering::Relaxed) != 0;
    may_look(now) && QUEUES.iter().take(cpu::count()).any(waits) && here().pauses.should_linger()
}

/// Whether another vCPU has a task (who else should bring work?), or may just be taking one (`hand_over`).
fn another_runs(hand_over: bool) -> bool {
    let me = cpu::id();
    let has_task = |queue: &RunQueue| !queue.is_idle.load(Ordering::SeqCst) || queue.length.load(Ordering::Relaxed) != 0;
    (0..cpu::count()).filter(|&cpu| cpu != me).any(|cpu| has_task(&QUEUES[cpu]) || hand_over && QUEUES[cpu].looking.for_anything())
}

/// Waits a little for a task, if it is likely to come. None: it did not, or something else is to be done. `lingers`: tasks of other
/// address spaces wait. `deadline`: of the timers.
fn look(queue: &RunQueue, begun: u64, lingers: bool, deadline: u64) -> Option<Arc<Task>> {
    let full = super::others_want_to_run();
    let worth = if lingers { LINGER } else { queue.pauses.worth(begun) };
    let end = begun + worth;
    let mut now = begun;
    let mut in_vain = false;
    queue.looking.seen.store(now, Ordering::Relaxed);
    queue.looking.what.store(if full { LOADED } else { ANY }, Ordering::SeqCst);
    let found = loop {
        let other = || if lingers { steal(TURN, now) } else { pick().or_else(|| steal(LINGER, now)) };
        let found = pick_loaded(now).or_else(other);
        if found.is_some() || cpu::is_pending() || hal::host::has_events() || !another_runs(now < begun + HAND_OVER) {
            break found;
        }
        core::hint::spin_loop();
        let last = core::mem::replace(&mut now, hal::time::monotonic());
        queue.looking.seen.store(now, Ordering::Relaxed);
        in_vain = now >= end || now.saturating_sub(last) > INTERRUPTED;
        if in_vain || now >= deadline {
            break None;
        }
    };
    if found.is_some() {
        // Before it stops to look: another vCPU that looks must not think that nobody has a task.
        queue.is_idle.store(false, Ordering::SeqCst);
    }
    queue.looking.what.store(NOTHING, Ordering::SeqCst);
    if lingers {
        queue.pauses.lingered(found.as_ref().is_none_or(|task| !is_loaded(task, cpu::id())));
    } else if worth != 0 && (found.is_some() || in_vain) {
        CROWD.looked(in_vain, now);
    }
    found
}

/// Makes the calling boot stack this vCPU's idle thread and runs the idle loop.
pub fn idle_loop() -> ! {
    let queue = here();
    queue.started.store(true, Ordering::SeqCst);
    let idle = queue.idle.get_or_init(|| Arc::new(Idle { thread: Thread::boot() })).clone();
    thread::become_idle(idle);
    cpu::begin_lazy();
    let mut since = hal::time::monotonic();
    loop {
        cpu::clear_pending();
        crate::host::drain_events();
        cpu::take_timer_fired();
        let now = hal::time::monotonic();
        super::run_timers(now);
        let (lingers, deadline) = (should_linger(now), super::next_deadline());
        let found = look(queue, now, lingers, deadline.unwrap_or(u64::MAX));
        let now = hal::time::monotonic();
        if let Some(next) = found.or_else(pick).or_else(|| steal(0, now)) {
            queue.pauses.took(now.saturating_sub(since));
            queue.is_idle.store(false, Ordering::SeqCst);
            cpu::end_lazy();
            run(next, now);
            queue.is_idle.store(true, Ordering::SeqCst);
            cpu::begin_lazy();
            since = hal::time::monotonic();
            continue;
        }
        if lingers || deadline.is_some_and(|at| at <= now) {
            continue;
        }
        crate::fs::host::flush_deferred();
        crate::fs::hurry_output();
        host_interrupts_wanted();
        if crate::mm::reclaim::may_release() {
            crate::boot::control_waits();
        }
        if hal::host::has_events() || super::others_want_to_run() {
            continue;
        }
        cpu::idle(super::next_deadline());
    }
}

/// Events interrupt whenever a vCPU may be asleep or in a program: always, for now (a request that is polled for posts no event at all).
fn host_interrupts_wanted() {
    hal::host::want_interrupts(true);
}
