//! Which task runs where. A run queue a vCPU; a wake-up puts a task on the waker's own queue (staying on the waker's vCPU is worth more
//! than a second one); an idle vCPU takes what has waited for a slice. Tickless while nobody waits.
//!
//! A task is in exactly one of these states, and each change has one owner:
//!
//! ```text
//! RUNNING ──sleep()──▶ SLEEPING ──wake()──▶ QUEUED ──pick()──▶ RUNNING
//!    └──yield/preempt──────────────────────▶ QUEUED
//! ```
//!
//! `wake` may find the task still on its way to sleep on another vCPU: the switch waits until that vCPU has left its stack (`hal::thread`).

use crate::process::Task;
use crate::wait::Interruptible;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, AtomicUsize, Ordering};
use hal::cpu;
use hal::sync::{Once, SpinLock};
use hal::thread::{self, Runnable, Thread};

const RUNNING: u8 = 0;
const SLEEPING: u8 = 1;
const QUEUED: u8 = 2;

/// How long a task runs before one that waits takes its place, ns.
const SLICE: u64 = 4_000_000;
/// How long a task waits before an idle vCPU is fetched for it, ns.
const PATIENCE: u64 = 1_000_000;

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
}

/// A vCPU's idle loop as something to switch to.
struct Idle {
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
    started: AtomicBool,
    slice_end: AtomicU64,
}

static QUEUES: [RunQueue; 64] = [const {
    RunQueue {
        tasks: SpinLock::new(VecDeque::new()),
        length: AtomicUsize::new(0),
        idle: Once::new(),
        is_idle: AtomicBool::new(true),
        started: AtomicBool::new(false),
        slice_end: AtomicU64::new(0),
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

fn enqueue(task: Arc<Task>) {
    let mut target = cpu::id();
    if !task.sched.allows(target) {
        target = (0..cpu::count()).find(|&cpu| task.sched.allows(cpu) && QUEUES[cpu].started.load(Ordering::Relaxed)).unwrap_or(target);
        if target == cpu::id() {
            // Its vCPU has not been started yet: start it, it will steal what it is allowed to run.
            start_cpu_for(&task);
        }
    }
    let queue = &QUEUES[target];
    let mut tasks = queue.tasks.lock();
    tasks.push_back(task);
    queue.length.store(tasks.len(), Ordering::SeqCst);
    drop(tasks);
    if target != cpu::id() {
        cpu::kick(target);
    } else if !queue.is_idle.load(Ordering::Relaxed) {
        cpu::set_timer(hal::time::monotonic() + patience());
    }
}

/// How long a task may wait before something is done for it: an idle vCPU fetched, or the end of a slice enforced. A vCPU that becomes
/// idle later takes it by itself.
fn patience() -> u64 {
    let idle = (0..cpu::count()).any(|cpu| QUEUES[cpu].is_idle.load(Ordering::Relaxed));
    if idle {
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
        switch_away();
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

fn pick() -> Option<Arc<Task>> {
    let me = cpu::id();
    take_from(&QUEUES[me], |task| task.sched.allows(me))
}

/// Takes a task from another vCPU's queue: done by an idle vCPU that was fetched for it, or that has just become idle. One whose stack
/// the other has yet to leave is the other's to go on with.
fn steal() -> Option<Arc<Task>> {
    let me = cpu::id();
    let wanted = |task: &Task| task.sched.allows(me) && !task.thread.is_running();
    (0..cpu::count()).filter(|&other| other != me).find_map(|other| take_from(&QUEUES[other], wanted))
}

/// Switches to the next task or to the idle loop. The current task is SLEEPING or QUEUED.
fn switch_away() {
    let now = hal::time::monotonic();
    let task = current();
    let since = task.sched.since.swap(0, Ordering::Relaxed);
    task.sched.used.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
    drop(task);
    match pick() {
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
        // A new task does not come back from `switch_away`.
        arm_for_turn();
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

/// Wakes (or starts) an idle vCPU to take a waiting task.
fn fetch_idle_cpu() {
    let me = cpu::id();
    for (number, queue) in QUEUES.iter().enumerate().take(cpu::count()) {
        if number == me || !queue.is_idle.load(Ordering::Relaxed) {
            continue;
        }
        if queue.started.swap(true, Ordering::SeqCst) {
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

/// Makes the calling boot stack this vCPU's idle thread and runs the idle loop.
pub fn idle_loop() -> ! {
    let queue = here();
    queue.started.store(true, Ordering::SeqCst);
    let idle = queue.idle.get_or_init(|| Arc::new(Idle { thread: Thread::boot() })).clone();
    thread::become_idle(idle);
    loop {
        crate::host::drain_events();
        cpu::take_timer_fired();
        let now = hal::time::monotonic();
        run_timers(now);
        if let Some(next) = pick().or_else(steal) {
            queue.is_idle.store(false, Ordering::SeqCst);
            run(next, now);
            queue.is_idle.store(true, Ordering::SeqCst);
            continue;
        }
        crate::fs::host::flush_deferred();
        host_interrupts_wanted();
        if crate::mm::reclaim::may_release() {
            crate::boot::control_waits();
        }
        if hal::host::has_events() || others_want_to_run() {
            continue;
        }
        cpu::idle(next_deadline());
    }
}

/// Events interrupt whenever a vCPU may be asleep or in a program: always, for now (a request that is polled for posts no event at all).
fn host_interrupts_wanted() {
    hal::host::want_interrupts(true);
}
