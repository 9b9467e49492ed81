//! Which task runs where. A run queue a vCPU; a wake-up puts a task on the waker's own queue (staying on the waker's vCPU is worth more
//! than a second one); an idle vCPU steals what has waited a little. Tickless while nobody waits.

use crate::process::Task;
use crate::wait::Interruptible;
use alloc::sync::Arc;

/// The scheduler's part of a task.
#[derive(Default)]
pub struct SchedState {}

/// The task that runs on this vCPU.
pub fn current() -> Arc<Task> {
    unreachable!("written with the context switch")
}

/// Makes a sleeping task runnable. May be called from anywhere, any number of times.
pub fn wake(_task: &Arc<Task>) {}

/// Sleeps until woken, interrupted or past the deadline (monotonic ns); returns at once when `woken()` is already true. Spurious returns are possible.
pub fn sleep(_interruptible: Interruptible, _deadline: Option<u64>, _woken: impl Fn() -> bool) {}

/// Whether another task waits for this vCPU.
pub fn others_want_to_run() -> bool {
    false
}

/// Lets others run (sched_yield).
pub fn yield_now() {}

/// Starts a task: it becomes runnable.
pub fn start(_task: &Arc<Task>) {}

/// Makes a task that runs on another vCPU look at its signals soon.
pub fn kick(_task: &Arc<Task>) {}

/// Ends the current task's execution for good; the task's memory goes when the last reference goes.
pub fn exit() -> ! {
    unreachable!("written with the context switch")
}
