//! Which task runs where. A run queue a vCPU; a wake-up puts a task on the waker's own queue (staying on the waker's vCPU is worth more
//! than a second one), or on that of a vCPU which looks for work, best one where its address space is loaded. An idle vCPU takes what has
//! waited. Tickless while nobody waits. Why: docs/decisions/0005.
//!
//! A task is in exactly one of these states, and each change has one owner:
//!
//! ```text
//! RUNNING ──sleep()──▶ SLEEPING ──wake()──▶ QUEUED ──pick()──▶ RUNNING
//!    └──yield/preempt──────────────────────▶ QUEUED
//! ```
//!
//! `wake` may find the task still on its way to sleep on another vCPU: nobody takes it before that vCPU has left its stack (`hal::thread`).

mod idle;

pub use idle::idle_loop;

use crate::process::Task;
use crate::wait::Interruptible;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, AtomicUsize, Ordering};
use hal::cpu;
use hal::sync::{Once, SpinLock};
use hal::thread::{self, Runnable, Thread};
use idle::{Idle, Looking, Pauses};

const RUNNING: u8 = 0;
const SLEEPING: u8 = 1;
const QUEUED: u8 = 2;

/// How long a task runs before one that waits takes its place, ns.
const SLICE: u64 = 4_000_000;
/// How long a task waits before an idle vCPU is fetched for it, ns.
const PATIENCE: u64 = 1_000_000;

/// Another vCPU is fetched when so many address spaces were loaded within [`PATIENCE`], but not more often than every [`SLICE`].
const MANY_LOADS: u64 = 3;

/// The scheduler's part of a task.
#[derive(Default)]
pub struct SchedState {
    state: AtomicU8,
    /// vCPU it ran on last.
    cpu: AtomicUsize,
    /// Allowed vCPUs; 0: all.
    pub affinity: AtomicU64,
    /// Monotonic ns when it got the vCPU, and the sum of its earlier turns.
    since: AtomicU64,
    used: AtomicU64,
    turns: AtomicU64,
    /// Monotonic ns when it was queued.
    queued: AtomicU64,
}

impl SchedState {
    /// How often it was put on a vCPU: changes whenever it may have moved.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// CPU time used so far, ns.
    pub fn cpu_time(&self) -> u64 {
        let since = self.since.load(Ordering::Relaxed);
        let running = if since == 0 { 0 } else { hal::time::monotonic().saturating_sub(since) };
        self.used.load(Ordering::Relaxed) + running
    }

    /// The vCPU it ran on last.
    pub fn last_cpu(&self) -> usize {
        self.cpu.load(Ordering::Relaxed)
    }

    pub fn is_sleeping(&self) -> bool {
        self.state.load(Ordering::Relaxed) == SLEEPING
    }

    fn allows(&self, cpu: usize) -> bool {
        let mask = self.affinity.load(Ordering::Relaxed);
        mask == 0 || mask & (1 << cpu) != 0
    }

    fn has_waited(&self, ns: u64, now: u64) -> bool {
        now >= self.queued.load(Ordering::Relaxed).saturating_add(ns)
    }
}

impl Runnable for Task {
    fn thread(&self) -> &Thread {
        &self.thread
    }
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

struct RunQueue {
    tasks: SpinLock<VecDeque<Arc<Task>>>,
    length: AtomicUsize,
    idle: Once<Arc<Idle>>,
    /// The vCPU is in its idle loop (or was never started).
    is_idle: AtomicBool,
    looking: Looking,
    pauses: Pauses,
    started: AtomicBool,
    slice_end: AtomicU64,
    loads: Loads,
}

/// Address spaces loaded of late.
struct Loads {
    since: AtomicU64,
    count: AtomicU64,
    /// When another vCPU was fetched to share them.
    fetched: AtomicU64,
}

impl Loads {
    const fn new() -> Self {
        Self { since: AtomicU64::new(0), count: AtomicU64::new(0), fetched: AtomicU64::new(0) }
    }

    /// Counts one; whether it is time for another vCPU, on which some of these spaces could stay loaded.
    fn is_one_too_many(&self, now: u64) -> bool {
        if now.saturating_sub(self.since.load(Ordering::Relaxed)) > PATIENCE {
            self.since.store(now, Ordering::Relaxed);
            self.count.store(0, Ordering::Relaxed);
        }
        let many = self.count.fetch_add(1, Ordering::Relaxed) + 1 >= MANY_LOADS;
        let is_time = many && now.saturating_sub(self.fetched.load(Ordering::Relaxed)) > SLICE;
        if is_time {
            self.fetched.store(now, Ordering::Relaxed);
        }
        is_time
    }
}

static QUEUES: [RunQueue; 64] = [const {
    RunQueue {
        tasks: SpinLock::new(VecDeque::new()),
        length: AtomicUsize::new(0),
        idle: Once::new(),
        is_idle: AtomicBool::new(true),
        looking: Looking::new(),
        pauses: Pauses::new(),
        started: AtomicBool::new(false),
        slice_end: AtomicU64::new(0),
        loads: Loads::new(),
    }
}; 64];

/// Sleeping tasks with a deadline: (monotonic ns, tid) to task.
static SLEEPERS: SpinLock<BTreeMap<(u64, usize), Arc<Task>>> = SpinLock::new(BTreeMap::new());

fn here() -> &'static RunQueue {
    &QUEUES[cpu::id()]
}

/// The task that runs on this vCPU. Only tasks may ask (not the idle loop).
pub fn current() -> Arc<Task> {
    try_current().expect("called by a task")
}

/// The task that runs on this vCPU; None in the idle loop.
pub fn try_current() -> Option<Arc<Task>> {
    thread::current()?.as_any().downcast::<Task>().ok()
}

/// Whether a task can run on a vCPU without a load of CR3 that matters.
fn is_loaded(task: &Task, cpu: usize) -> bool {
    cpu::exits_are_cheap() || task.thread.is_loaded(cpu)
}

/// The vCPU on whose queue a task goes.
fn place(task: &Task, now: u64) -> usize {
    let me = cpu::id();
    let others = || (0..cpu::count()).filter(|&cpu| cpu != me && task.sched.allows(cpu) && QUEUES[cpu].started.load(Ordering::Relaxed));
    if !task.sched.allows(me) {
        return others().next().unwrap_or_else(|| {
            // Its vCPU has not been started yet: start it, it will steal what it is allowed to run.
            start_cpu_for(task);
            me
        });
    }
    if is_loaded(task, me) {
        return me;
    }
    let loaded = others().find(|&cpu| QUEUES[cpu].looking.for_loaded(now) && is_loaded(task, cpu));
    loaded.or_else(|| others().find(|&cpu| QUEUES[cpu].looking.for_any(now))).unwrap_or(me)
}

fn enqueue(task: Arc<Task>) {
    let now = hal::time::monotonic();
    task.sched.queued.store(now, Ordering::Relaxed);
    let target = place(&task, now);
    let queue = &QUEUES[target];
    let mut tasks = queue.tasks.lock();
    tasks.push_back(task);
    queue.length.store(tasks.len(), Ordering::SeqCst);
    drop(tasks);
    if target != cpu::id() {
        if queue.looking.for_anything() {
            here().pauses.expect_short();
        } else {
            cpu::kick(target);
        }
    } else if !queue.is_idle.load(Ordering::Relaxed) {
        cpu::set_timer(now + patience());
    }
}

/// How long a task may wait before something is done for it: an idle vCPU fetched, or the end of a slice enforced. A vCPU that looks for
/// work, or becomes idle later, takes it by itself.
fn patience() -> u64 {
    let halted = |queue: &RunQueue| queue.is_idle.load(Ordering::Relaxed) && !queue.looking.for_anything();
    if QUEUES.iter().take(cpu::count()).any(halted) {
        PATIENCE
    } else {
        SLICE
    }
}

fn start_cpu_for(task: &Task) {
    if let Some(cpu) = (0..cpu::count()).find(|&cpu| task.sched.allows(cpu)) {
        if !QUEUES[cpu].started.swap(true, Ordering::SeqCst) {
            cpu::start(cpu);
        }
    }
}

/// Makes a sleeping task runnable. May be called from anywhere, any number of times.
pub fn wake(task: &Arc<Task>) {
    if task.sched.state.compare_exchange(SLEEPING, QUEUED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        enqueue(task.clone());
    }
}

/// Starts a new task: it becomes runnable.
pub fn start(task: &Arc<Task>) {
    task.sched.state.store(QUEUED, Ordering::Release);
    enqueue(task.clone());
}

/// Sleeps until woken, interrupted or past the deadline (monotonic ns); returns at once when `woken()` is already true. Spurious
/// returns are possible.
pub fn sleep(interruptible: Interruptible, deadline: Option<u64>, woken: impl Fn() -> bool) {
    let task = current();
    task.sched.state.store(SLEEPING, Ordering::SeqCst);
    if (woken() || task.interrupted(interruptible))
        && task.sched.state.compare_exchange(SLEEPING, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    {
        return;
    }
    // Somebody queued us in between: run on when our turn comes.
    let key = deadline.map(|at| (at, Arc::as_ptr(&task).cast::<u8>() as usize));
    if let Some(key) = key {
        SLEEPERS.lock().insert(key, task.clone());
    }
    switch_away();
    if let Some(key) = key {
        SLEEPERS.lock().remove(&key);
    }
}

/// Whether another task waits for this vCPU.
pub fn others_want_to_run() -> bool {
    here().length.load(Ordering::Relaxed) != 0
}

/// Lets others run (sched_yield).
pub fn yield_now() {
    if others_want_to_run() {
        let task = current();
        task.sched.state.store(QUEUED, Ordering::Release);
        enqueue(task);
        leave_to(|_| pick());
    }
}

/// The current task's affinity has changed: goes to a vCPU that it allows.
pub fn leave_forbidden_cpu() {
    let task = current();
    if !task.sched.allows(cpu::id()) {
        task.sched.state.store(QUEUED, Ordering::Release);
        enqueue(task);
        switch_away();
    }
}

/// Bit mask of the vCPUs that run.
pub fn started_cpus() -> u64 {
    (0..cpu::count()).filter(|&cpu| QUEUES[cpu].started.load(Ordering::Relaxed)).fold(0, |mask, cpu| mask | 1 << cpu)
}

/// Makes a task that runs on another vCPU look at its signals soon.
pub fn kick(task: &Arc<Task>) {
    let cpu = task.sched.cpu.load(Ordering::Relaxed);
    if task.sched.state.load(Ordering::Acquire) == RUNNING && QUEUES[cpu].started.load(Ordering::Relaxed) {
        cpu::kick(cpu);
    }
}

/// Ends the current task's execution for good; the task's memory goes when the last reference goes.
pub fn exit() -> ! {
    current().sched.state.store(SLEEPING, Ordering::Release);
    // Nobody holds a wake-up for it: it has left every wait queue.
    loop {
        switch_away();
    }
}

fn take_from(queue: &RunQueue, wanted: impl Fn(&Task) -> bool) -> Option<Arc<Task>> {
    if queue.length.load(Ordering::SeqCst) == 0 {
        return None;
    }
    let mut tasks = queue.tasks.lock();
    let index = tasks.iter().position(|task| wanted(task))?;
    let task = tasks.remove(index);
    queue.length.store(tasks.len(), Ordering::SeqCst);
    task
}

/// One whose stack another vCPU has yet to leave must not be waited for: that vCPU may wait for this one's.
fn may_run(task: &Task, cpu: usize) -> bool {
    task.sched.allows(cpu) && (!task.thread.is_running() || task.thread.is_current())
}

/// The task of this vCPU's queue that waits longest.
fn pick() -> Option<Arc<Task>> {
    let me = cpu::id();
    take_from(&QUEUES[me], |task| may_run(task, me))
}

/// The task of this vCPU's queue, or of another's, that can run without a load of CR3; but one that has lost patience comes first.
fn pick_loaded(now: u64) -> Option<Arc<Task>> {
    let me = cpu::id();
    let impatient = take_from(&QUEUES[me], |task| may_run(task, me) && task.sched.has_waited(PATIENCE, now));
    let mine = impatient.or_else(|| take_from(&QUEUES[me], |task| may_run(task, me) && is_loaded(task, me)));
    mine.or_else(|| take_from_others(|task, other| !cpu::exits_are_cheap() && is_loaded(task, me) && !is_loaded(task, other)))
}

/// Takes a task from another vCPU's queue that has waited for so long: done by an idle vCPU that was fetched for it, or that has just
/// become idle.
fn steal(waited: u64, now: u64) -> Option<Arc<Task>> {
    take_from_others(|task, _| task.sched.has_waited(waited, now))
}

fn take_from_others(wanted: impl Fn(&Task, usize) -> bool) -> Option<Arc<Task>> {
    let me = cpu::id();
    let mut others = (0..cpu::count()).filter(|&other| other != me);
    others.find_map(|other| take_from(&QUEUES[other], |task| may_run(task, me) && wanted(task, other)))
}

/// Switches to the next task or to the idle loop. The current task is SLEEPING or QUEUED.
fn switch_away() {
    leave_to(|now| pick_loaded(now).or_else(|| if idle::should_linger(now) { None } else { pick() }));
}

fn leave_to(next: impl FnOnce(u64) -> Option<Arc<Task>>) {
    let now = hal::time::monotonic();
    let task = current();
    let since = task.sched.since.swap(0, Ordering::Relaxed);
    task.sched.used.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
    drop(task);
    match next(now) {
        Some(next) => run(next, now),
        None => thread::switch_to(here().idle.get().expect("set at boot").clone()),
    }
    arm_for_turn();
}

/// Runs a picked task; returns when the caller's own turn comes again.
fn run(next: Arc<Task>, now: u64) {
    next.sched.state.store(RUNNING, Ordering::Release);
    next.sched.cpu.store(cpu::id(), Ordering::Relaxed);
    next.sched.since.store(now.max(1), Ordering::Relaxed);
    here().slice_end.store(now + SLICE, Ordering::Relaxed);
    if next.sched.turns.fetch_add(1, Ordering::Relaxed) == 0 {
        // A new task does not come back from `leave_to`.
        arm_for_turn();
    }
    if !is_loaded(&next, cpu::id()) && here().loads.is_one_too_many(now) && idle::may_look(now) {
        fetch_idle_cpu();
    }
    thread::switch_to(next);
}

/// Programs the timer for a turn that begins. Done after the switch: before it, the exit would keep the task that leaves from running
/// elsewhere.
fn arm_for_turn() {
    arm(others_want_to_run().then(|| hal::time::monotonic() + patience()));
}

/// What an interrupt brought: events of the host, timers, the end of a slice. Called on the way back to a program.
pub fn on_interrupt() {
    crate::host::drain_events();
    if !cpu::take_timer_fired() {
        // Somebody may have queued a task here.
        if others_want_to_run() {
            arm(Some(hal::time::monotonic() + patience()));
        }
        return;
    }
    let now = hal::time::monotonic();
    run_timers(now);
    if !others_want_to_run() {
        return arm(None);
    }
    fetch_idle_cpu();
    let slice_end = here().slice_end.load(Ordering::Relaxed);
    if now >= slice_end {
        yield_now();
    } else {
        arm(Some(slice_end));
    }
}

/// Wakes (or starts) an idle vCPU to take a waiting task, unless one looks for tasks anyway.
fn fetch_idle_cpu() {
    let me = cpu::id();
    if (0..cpu::count()).any(|cpu| cpu != me && QUEUES[cpu].looking.for_any(hal::time::monotonic())) {
        return;
    }
    for (number, queue) in QUEUES.iter().enumerate().take(cpu::count()) {
        if number == me || !queue.is_idle.load(Ordering::Relaxed) {
            continue;
        }
        if queue.started.swap(true, Ordering::SeqCst) {
            queue.pauses.expect_short();
            cpu::kick(number);
        } else {
            cpu::start(number);
        }
        return;
    }
}

fn run_timers(now: u64) {
    loop {
        let due = {
            let mut sleepers = SLEEPERS.lock();
            match sleepers.first_key_value() {
                Some((key, _)) if key.0 <= now => sleepers.pop_first(),
                _ => None,
            }
        };
        let Some((_, task)) = due else { break };
        wake(&task);
    }
    crate::time::run_expired(now);
}

/// When a timer interrupt is due. A sleeping task may be woken late by its timer slack (prctl(2), PR_SET_TIMERSLACK), so that wake-ups
/// fall together.
fn next_deadline() -> Option<u64> {
    let mut latest = crate::time::next_deadline().unwrap_or(u64::MAX);
    for ((deadline, _), task) in SLEEPERS.lock().iter() {
        if *deadline >= latest {
            break;
        }
        latest = latest.min(deadline.saturating_add(task.timer_slack.get()));
    }
    (latest != u64::MAX).then_some(latest)
}

/// Deadlines are watched by whoever is awake: programs the timer for the earliest, or for `limit` if that comes first.
fn arm(limit: Option<u64>) {
    if let Some(at) = [next_deadline(), limit].into_iter().flatten().min() {
        cpu::set_timer(at);
    }
}
