//! Clocks (clock_gettime(2), clock_getres(2), clock_getcpuclockid(3)).

use crate::errno::{Errno, EINVAL, EOPNOTSUPP};
use crate::process::{tree, Process, Task};
use alloc::sync::{Arc, Weak};
use linux_abi::time::{
    CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_REALTIME, CLOCK_REALTIME_ALARM, CLOCK_REALTIME_COARSE, CLOCK_TAI, CLOCK_THREAD_CPUTIME_ID,
};

/// Shortest step of a CPU-time timer: the estimate of when it expires is never finer, ns.
const CPU_STEP: u64 = 1_000_000;

/// A clock, resolved to what it measures.
#[derive(Clone)]
pub enum Clock {
    /// CLOCK_MONOTONIC, _RAW, _COARSE and CLOCK_BOOTTIME: one and the same here.
    Monotonic,
    /// CLOCK_REALTIME and CLOCK_TAI (no leap seconds are known, so TAI is the same).
    Realtime,
    Process(Weak<Process>),
    Thread(Weak<Task>),
}

impl Clock {
    /// The clock of an id. Negative ids name CPU clocks: `~pid << 3 | 4 (a thread's) | kind` (include/linux/posix-timers.h).
    pub fn of(task: &Arc<Task>, id: i32) -> Result<Self, Errno> {
        match id {
            CLOCK_REALTIME | CLOCK_REALTIME_COARSE | CLOCK_REALTIME_ALARM | CLOCK_TAI => Ok(Self::Realtime),
            CLOCK_MONOTONIC | CLOCK_MONOTONIC_RAW | CLOCK_MONOTONIC_COARSE | CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => Ok(Self::Monotonic),
            CLOCK_PROCESS_CPUTIME_ID => Ok(Self::Process(Arc::downgrade(&task.process))),
            CLOCK_THREAD_CPUTIME_ID => Ok(Self::Thread(Arc::downgrade(task))),
            0.. => Err(EINVAL),
            _ => Self::of_cpu_clock(task, id),
        }
    }

    fn of_cpu_clock(task: &Arc<Task>, id: i32) -> Result<Self, Errno> {
        // Kind 3 is a clock behind a descriptor: there are none.
        if id & 3 == 3 {
            return Err(EINVAL);
        }
        let pid = !(id >> 3) as u32;
        if id & 4 != 0 {
            let thread = if pid == 0 { Some(task.clone()) } else { tree::find_task(pid) };
            let thread = thread.filter(|thread| Arc::ptr_eq(&thread.process, &task.process)).ok_or(EINVAL)?;
            return Ok(Self::Thread(Arc::downgrade(&thread)));
        }
        let process = if pid == 0 { Some(task.process.clone()) } else { tree::find_process(pid) };
        Ok(Self::Process(Arc::downgrade(&process.ok_or(EINVAL)?)))
    }

    /// ns on this clock. EINVAL: what it measured is gone.
    pub fn now(&self) -> Result<u64, Errno> {
        match self {
            Self::Monotonic => Ok(hal::time::monotonic()),
            Self::Realtime => Ok(hal::time::realtime()),
            Self::Process(process) => process.upgrade().map(|process| process.cpu_ns()).ok_or(EINVAL),
            Self::Thread(task) => task.upgrade().map(|task| task.cpu_ns()).ok_or(EINVAL),
        }
    }

    pub const fn is_cpu(&self) -> bool {
        matches!(self, Self::Process(_) | Self::Thread(_))
    }

    /// When `time` on this clock will be reached, on the monotonic clock; of a CPU clock the earliest moment that is possible.
    pub fn deadline(&self, time: u64) -> u64 {
        let now = hal::time::monotonic();
        let left = time.saturating_sub(self.now().unwrap_or(0));
        match self {
            Self::Monotonic => time,
            Self::Realtime => now.saturating_add(left),
            Self::Thread(_) => now.saturating_add(left.max(CPU_STEP)),
            Self::Process(process) => {
                let threads = process.upgrade().map_or(1, |process| process.threads.lock().len()).clamp(1, hal::cpu::count());
                now.saturating_add((left / threads as u64).max(CPU_STEP))
            }
        }
    }

    /// timer_create(2): clocks that only show the time.
    pub const fn may_have_timers(id: i32) -> Result<(), Errno> {
        match id {
            CLOCK_MONOTONIC_RAW | CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE => Err(EOPNOTSUPP),
            _ => Ok(()),
        }
    }
}
