//! eventfd(2), signalfd(2), timerfd_create(2), timerfd_settime(2), timerfd_gettime(2).

use super::{full, partial, Call, Entry};
use crate::errno::{Errno, EINVAL, EPERM};
use crate::fs::{FileOps, OpenFile};
use crate::ipc::eventfd::EventFd;
use crate::ipc::links::capable;
use crate::ipc::signalfd::{self, SignalFd};
use crate::ipc::timerfd::{self, TimerFd};
use crate::signal::SigSet;
use crate::time::clocks::Clock;
use crate::SysResult;
use alloc::sync::Arc;
use linux_abi::capability::CAP_WAKE_ALARM;
use linux_abi::fs::{O_CLOEXEC, O_NONBLOCK, O_RDWR};
use linux_abi::time::{CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_REALTIME_ALARM};

pub const CALLS: &[Entry] = &[
    full(282, "signalfd", signalfd),
    full(283, "timerfd_create", timerfd_create),
    full(284, "eventfd", eventfd),
    partial(286, "timerfd_settime", timerfd_settime, "TFD_TIMER_CANCEL_ON_SET never cancels: the guest's clock does not jump"),
    full(287, "timerfd_gettime", timerfd_gettime),
    full(289, "signalfd4", signalfd4),
    full(290, "eventfd2", eventfd2),
];

const RLIMIT_NOFILE: usize = 7;
const EFD_SEMAPHORE: u32 = 1;
const SIGSET_BYTES: usize = 8;
const TFD_TIMER_ABSTIME: u32 = 1;
const TFD_TIMER_CANCEL_ON_SET: u32 = 2;
const SECOND: u64 = 1_000_000_000;

fn install(call: &Call<'_>, ops: Arc<dyn FileOps>, flags: u32) -> SysResult {
    let file = OpenFile::new(ops, O_RDWR | flags & O_NONBLOCK);
    call.task.files().insert(file, flags & O_CLOEXEC != 0, 0, call.task.limit(RLIMIT_NOFILE)).map(|fd| fd as usize)
}

fn make_eventfd(call: &Call<'_>, flags: u32) -> SysResult {
    if flags & !(EFD_SEMAPHORE | O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(EINVAL);
    }
    install(call, EventFd::new(u64::from(call.uint(0)), flags & EFD_SEMAPHORE != 0), flags)
}

fn eventfd(call: &mut Call<'_>) -> SysResult {
    make_eventfd(call, 0)
}

fn eventfd2(call: &mut Call<'_>) -> SysResult {
    make_eventfd(call, call.uint(1))
}

fn make_signalfd(call: &Call<'_>, flags: u32) -> SysResult {
    if call.size(2) != SIGSET_BYTES || flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(EINVAL);
    }
    let mask = SigSet(hal::user::read(call.args[1])?);
    if call.int(0) == -1 {
        return install(call, SignalFd::new(mask), flags);
    }
    let file = call.task.files().get(call.int(0))?;
    signalfd::of(&file)?.set_mask(mask);
    Ok(call.int(0) as usize)
}

fn signalfd(call: &mut Call<'_>) -> SysResult {
    make_signalfd(call, 0)
}

fn signalfd4(call: &mut Call<'_>) -> SysResult {
    make_signalfd(call, call.uint(3))
}

fn timerfd_create(call: &mut Call<'_>) -> SysResult {
    let (clock, flags) = (call.int(0), call.uint(1));
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(EINVAL);
    }
    match clock {
        CLOCK_REALTIME | CLOCK_MONOTONIC | CLOCK_BOOTTIME => {}
        CLOCK_REALTIME_ALARM | CLOCK_BOOTTIME_ALARM if capable(CAP_WAKE_ALARM) => {}
        CLOCK_REALTIME_ALARM | CLOCK_BOOTTIME_ALARM => return Err(EPERM),
        _ => return Err(EINVAL),
    }
    install(call, TimerFd::new(Clock::of(call.task, clock)?), flags)
}

/// Seconds and nanoseconds, checked.
fn nanoseconds([seconds, fraction]: [i64; 2]) -> Result<u64, Errno> {
    if seconds < 0 || !(0..SECOND as i64).contains(&fraction) {
        return Err(EINVAL);
    }
    Ok((seconds as u64).saturating_mul(SECOND).saturating_add(fraction as u64).min(i64::MAX as u64))
}

/// struct itimerspec: interval, then value.
fn store(address: u64, (left, interval): (u64, u64)) -> Result<(), Errno> {
    hal::user::write(address, &[interval / SECOND, interval % SECOND, left / SECOND, left % SECOND])
}

fn timerfd_settime(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(1);
    let [interval_seconds, interval_ns, seconds, ns]: [i64; 4] = hal::user::read(call.args[2])?;
    if flags & !(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(EINVAL);
    }
    let (first, interval) = (nanoseconds([seconds, ns])?, nanoseconds([interval_seconds, interval_ns])?);
    let file = call.task.files().get(call.int(0))?;
    let old = timerfd::of(&file)?.set(first, interval, flags & TFD_TIMER_ABSTIME != 0);
    if call.args[3] != 0 {
        store(call.args[3], old)?;
    }
    Ok(0)
}

fn timerfd_gettime(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    store(call.args[1], timerfd::of(&file)?.get()).map(|()| 0)
}
