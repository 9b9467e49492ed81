//! CPU time and other usage, of threads, processes and waited-for children (getrusage(2), times(2), clock_gettime(2)).

use super::{Process, Task};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::sync::SpinLock;
use linux_abi::resource::Rusage;
use linux_abi::time::Timeval;

/// Clock ticks a second that programs see (sysconf(_SC_CLK_TCK)).
pub const TICKS: u64 = 100;

/// Counters of one thread. The time it ran comes from the scheduler.
#[derive(Default)]
pub struct TaskTimes {
    /// Time spent in the library OS, ns: by samples, see [`crate::process::system_call`].
    pub system: AtomicU64,
    pub minor_faults: AtomicU64,
    pub major_faults: AtomicU64,
    pub voluntary_switches: AtomicU64,
    pub involuntary_switches: AtomicU64,
    /// When it was made, CLOCK_MONOTONIC ns.
    pub start: AtomicU64,
}

/// Sums: of the threads that have ended, and of the children that were waited for.
pub struct ProcessTimes {
    /// CLOCK_MONOTONIC ns.
    pub start: u64,
    ended: SpinLock<Usage>,
    children: SpinLock<Usage>,
}

#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    /// ns in the program and in the library OS.
    pub user: u64,
    pub system: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
    /// Largest resident set, KiB.
    pub max_resident: u64,
}

impl Usage {
    pub fn add(&mut self, other: &Self) {
        self.user += other.user;
        self.system += other.system;
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
        self.max_resident = self.max_resident.max(other.max_resident);
    }
    pub const fn total(&self) -> u64 {
        self.user + self.system
    }
    pub fn rusage(&self) -> Rusage {
        Rusage {
            utime: Timeval::from_ns(self.user),
            stime: Timeval::from_ns(self.system),
            maxrss: self.max_resident as i64,
            minflt: self.minor_faults as i64,
            majflt: self.major_faults as i64,
            nvcsw: self.voluntary_switches as i64,
            nivcsw: self.involuntary_switches as i64,
            ..Rusage::default()
        }
    }
}

impl ProcessTimes {
    pub fn new() -> Self {
        Self { start: hal::time::monotonic(), ended: SpinLock::new(Usage::default()), children: SpinLock::new(Usage::default()) }
    }
}

impl Default for ProcessTimes {
    fn default() -> Self {
        Self::new()
    }
}

impl Task {
    /// ns that this thread has run.
    pub fn cpu_ns(&self) -> u64 {
        self.sched.cpu_time()
    }

    /// Without the resident set: asking for that may sleep, see [`max_resident`].
    pub fn usage(&self) -> Usage {
        let total = self.cpu_ns();
        let system = self.times.system.load(Ordering::Relaxed).min(total);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            user: total - system,
            system,
            minor_faults: count(&self.times.minor_faults),
            major_faults: count(&self.times.major_faults),
            voluntary_switches: count(&self.times.voluntary_switches),
            involuntary_switches: count(&self.times.involuntary_switches),
            max_resident: 0,
        }
    }
}

/// Largest resident set of the task's memory so far, KiB. May sleep.
pub fn max_resident(task: &Task) -> u64 {
    task.memory().map_or(0, |memory| memory.peak_resident() >> 10)
}

impl Process {
    /// Of all its threads, ended ones too.
    pub fn usage(&self) -> Usage {
        let mut sum = *self.times.ended.lock();
        for task in self.thread_list() {
            sum.add(&task.usage());
        }
        sum
    }
    pub fn cpu_ns(&self) -> u64 {
        let ended = self.times.ended.lock().total();
        ended + self.thread_list().iter().map(|task| task.cpu_ns()).sum::<u64>()
    }
    /// Of the children that were waited for, and theirs.
    pub fn children_usage(&self) -> Usage {
        *self.times.children.lock()
    }
    pub(super) fn thread_ended(&self, usage: &Usage) {
        self.times.ended.lock().add(usage);
    }
    /// A child was reaped: what it and its children used counts from now on.
    pub(super) fn child_reaped(&self, child: &Arc<Self>) {
        let (own, below) = (child.usage(), child.children_usage());
        let mut children = self.times.children.lock();
        children.add(&own);
        children.add(&below);
    }
}
