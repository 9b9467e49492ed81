//! Sleeping for a time (nanosleep(2), clock_nanosleep(2)), and calls that go on after an interruption that no handler saw
//! (restart_syscall(2)).

use super::clocks::Clock;
use crate::errno::{Errno, EINVAL, ERESTARTNOHAND, ERESTART_RESTARTBLOCK};
use crate::process::Task;
use crate::sched;
use crate::wait::Interruptible;
use crate::SysResult;
use alloc::sync::Arc;
use hal::user;
use linux_abi::time::Timespec;

/// How an interrupted call with a relative timeout goes on.
#[derive(Clone)]
pub enum Restart {
    Sleep { clock: Clock, until: u64, remaining: u64 },
    Futex { address: u64, private: bool, expected: u32, bitset: u32, deadline: u64 },
}

/// Sleeps until `until` on `clock`. `remaining`: where a relative sleep stores what was left; None: the sleep is to an absolute time.
pub fn nanosleep(task: &Arc<Task>, clock: Clock, until: u64, remaining: Option<u64>) -> SysResult {
    if matches!(&clock, Clock::Thread(thread) if core::ptr::eq(thread.as_ptr(), Arc::as_ptr(task))) {
        return Err(EINVAL);
    }
    loop {
        if clock.now()? >= until {
            return Ok(0);
        }
        if task.interrupted(Interruptible::Yes) {
            break;
        }
        sched::sleep(Interruptible::Yes, Some(clock.deadline(until)), || false);
    }
    let Some(address) = remaining else { return Err(ERESTARTNOHAND) };
    store_remaining(&clock, until, address)?;
    *task.restart.lock() = Some(Restart::Sleep { clock, until, remaining: address });
    Err(ERESTART_RESTARTBLOCK)
}

fn store_remaining(clock: &Clock, until: u64, address: u64) -> Result<(), Errno> {
    if address == 0 {
        return Ok(());
    }
    user::write(address, &Timespec::from_ns(until.saturating_sub(clock.now()?)))
}

impl Restart {
    /// restart_syscall(2).
    pub fn resume(self, task: &Arc<Task>) -> SysResult {
        match self {
            Self::Sleep { clock, until, remaining } => nanosleep(task, clock, until, Some(remaining)),
            Self::Futex { address, private, expected, bitset, deadline } => {
                crate::process::futex::wait_relative(task, address, private, expected, bitset, deadline)
            }
        }
    }
}
