//! Clocks, sleeping, interval timers and POSIX timers.

use super::{full, partial, refused, Call, Entry};
use crate::errno::{Errno, EINVAL, EOPNOTSUPP, EPERM};
use crate::process::tree;
use crate::time::interval::{Notify, Timer};
use crate::time::{nanosleep, Clock};
use crate::SysResult;
use alloc::sync::Arc;
use hal::user;
use linux_abi::signal::SIGALRM;
use linux_abi::time::{
    Itimerspec, Itimerval, Sigevent, Timespec, Timeval, Timex, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME,
    CLOCK_REALTIME_COARSE, CLOCK_THREAD_CPUTIME_ID, NS_PER_SEC, SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_THREAD_ID, STA_UNSYNC,
    TIMER_ABSTIME, TIME_ERROR,
};

pub const CALLS: &[Entry] = &[
    full(35, "nanosleep", sys_nanosleep),
    full(36, "getitimer", sys_getitimer),
    full(37, "alarm", sys_alarm),
    partial(38, "setitimer", sys_setitimer, "ITIMER_VIRTUAL counts all CPU time"),
    full(96, "gettimeofday", sys_gettimeofday),
    full(100, "times", sys_times),
    partial(159, "adjtimex", |call| adjust(call.args[0]), "read only: the host keeps the time"),
    refused(164, "settimeofday", |_| Err(EPERM), "the host keeps the time"),
    full(201, "time", sys_time),
    full(222, "timer_create", sys_timer_create),
    full(223, "timer_settime", sys_timer_settime),
    full(224, "timer_gettime", sys_timer_gettime),
    full(225, "timer_getoverrun", |call| Ok(call.task.process.timers.posix(call.int(0))?.last_overrun() as usize)),
    full(226, "timer_delete", sys_timer_delete),
    refused(227, "clock_settime", sys_clock_settime, "the host keeps the time"),
    full(228, "clock_gettime", sys_clock_gettime),
    full(229, "clock_getres", sys_clock_getres),
    full(230, "clock_nanosleep", sys_clock_nanosleep),
    partial(305, "clock_adjtime", sys_clock_adjtime, "read only: the host keeps the time"),
];

/// clock_gettime(2).
fn sys_clock_gettime(call: &mut Call<'_>) -> SysResult {
    let ns = match call.int(0) {
        CLOCK_REALTIME => hal::time::realtime(),
        CLOCK_MONOTONIC => hal::time::monotonic(),
        id => Clock::of(call.task, id)?.now()?,
    };
    user::write(call.args[1], &Timespec::from_ns(ns)).map(|()| 0)
}

/// clock_getres(2).
fn sys_clock_getres(call: &mut Call<'_>) -> SysResult {
    /// Of the coarse clocks: one tick of a kernel with HZ=250.
    const TICK: u64 = 4_000_000;
    let id = call.int(0);
    Clock::of(call.task, id)?;
    let ns = if matches!(id, CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE) { TICK } else { 1 };
    if call.args[1] == 0 {
        Ok(0)
    } else {
        user::write(call.args[1], &Timespec::from_ns(ns)).map(|()| 0)
    }
}

/// clock_settime(2): as without CAP_SYS_TIME.
fn sys_clock_settime(call: &mut Call<'_>) -> SysResult {
    if call.int(0) != CLOCK_REALTIME {
        return Err(EINVAL);
    }
    user::read::<Timespec>(call.args[1])?.to_ns().ok_or(EINVAL)?;
    Err(EPERM)
}

/// gettimeofday(2).
fn sys_gettimeofday(call: &mut Call<'_>) -> SysResult {
    if call.args[0] != 0 {
        user::write(call.args[0], &Timeval::from_ns(hal::time::realtime()))?;
    }
    if call.args[1] != 0 {
        // struct timezone: UTC.
        user::write(call.args[1], &0u64)?;
    }
    Ok(0)
}

/// time(2).
fn sys_time(call: &mut Call<'_>) -> SysResult {
    let seconds = hal::time::realtime() / NS_PER_SEC;
    if call.args[0] != 0 {
        user::write(call.args[0], &seconds)?;
    }
    Ok(seconds as usize)
}

/// times(2): in ticks of 1/100 s; the value is the time since some point in the past.
fn sys_times(call: &mut Call<'_>) -> SysResult {
    const TICK: u64 = NS_PER_SEC / crate::process::accounting::TICKS;
    if call.args[0] != 0 {
        let process = &call.task.process;
        let (own, children) = (process.usage(), process.children_usage());
        let ticks = |ns: u64| (ns / TICK) as i64;
        let tms = linux_abi::process::Tms {
            utime: ticks(own.user),
            stime: ticks(own.system),
            cutime: ticks(children.user),
            cstime: ticks(children.system),
        };
        user::write(call.args[0], &tms)?;
    }
    Ok((hal::time::monotonic() / TICK) as usize)
}

/// nanosleep(2).
fn sys_nanosleep(call: &mut Call<'_>) -> SysResult {
    let ns = user::read::<Timespec>(call.args[0])?.to_ns().ok_or(EINVAL)?;
    nanosleep(call.task, Clock::Monotonic, hal::time::monotonic().saturating_add(ns), Some(call.args[1]))
}

/// clock_nanosleep(2).
fn sys_clock_nanosleep(call: &mut Call<'_>) -> SysResult {
    let (id, absolute) = (call.int(0), call.int(1) & TIMER_ABSTIME != 0);
    let clock = Clock::of(call.task, id)?;
    Clock::may_have_timers(id)?;
    if id == CLOCK_THREAD_CPUTIME_ID {
        return Err(EOPNOTSUPP);
    }
    let ns = user::read::<Timespec>(call.args[2])?.to_ns().ok_or(EINVAL)?;
    if absolute {
        return nanosleep(call.task, clock, ns, None);
    }
    // A relative sleep is not affected by changes of the time of day.
    let clock = if clock.is_cpu() { clock } else { Clock::Monotonic };
    let until = clock.now()?.saturating_add(ns);
    nanosleep(call.task, clock, until, Some(call.args[3]))
}

fn which_interval(number: i32) -> Result<usize, Errno> {
    usize::try_from(number).ok().filter(|&which| which < 3).ok_or(EINVAL)
}

fn interval_value((left, interval): (u64, u64)) -> Itimerval {
    // What is left is never shown as nothing while the timer runs.
    let left = if left == 0 { 0 } else { left.max(1000) };
    Itimerval { interval: Timeval::from_ns(interval), value: Timeval::from_ns(left) }
}

/// getitimer(2).
fn sys_getitimer(call: &mut Call<'_>) -> SysResult {
    let process = &call.task.process;
    let timer = process.timers.interval(process, which_interval(call.int(0))?);
    user::write(call.args[1], &interval_value(timer.get())).map(|()| 0)
}

/// setitimer(2).
fn sys_setitimer(call: &mut Call<'_>) -> SysResult {
    let which = which_interval(call.int(0))?;
    // A null pointer disarms: a feature of Linux that it warns of.
    let new: Itimerval = if call.args[1] == 0 { Itimerval::default() } else { user::read(call.args[1])? };
    let (value, interval) = (new.value.to_ns().ok_or(EINVAL)?, new.interval.to_ns().ok_or(EINVAL)?);
    let process = &call.task.process;
    let timer = process.timers.interval(process, which);
    let deadline = if value == 0 { None } else { Some(timer.clock.now()?.saturating_add(value)) };
    let before = timer.set(deadline, interval);
    if call.args[2] != 0 {
        user::write(call.args[2], &interval_value(before))?;
    }
    Ok(0)
}

/// alarm(2): seconds that were left, rounded, but not to nothing.
fn sys_alarm(call: &mut Call<'_>) -> SysResult {
    let process = &call.task.process;
    let timer = process.timers.interval(process, 0);
    let seconds = u64::from(call.uint(0));
    let deadline = (seconds != 0).then(|| hal::time::monotonic().saturating_add(seconds * NS_PER_SEC));
    let (left, _) = timer.set(deadline, 0);
    let rounded = (left + NS_PER_SEC / 2) / NS_PER_SEC;
    Ok(if left == 0 { 0 } else { rounded.max(1) } as usize)
}

/// timer_create(2).
fn sys_timer_create(call: &mut Call<'_>) -> SysResult {
    let id = call.int(0);
    let clock = Clock::of(call.task, id)?;
    Clock::may_have_timers(id)?;
    let event: Option<Sigevent> = if call.args[1] == 0 { None } else { Some(user::read(call.args[1])?) };
    let process = &call.task.process;
    let thread = match &event {
        Some(event) if event.notify == SIGEV_THREAD_ID => {
            let task = tree::find_task(event.thread_id as u32).filter(|task| Arc::ptr_eq(&task.process, process)).ok_or(EINVAL)?;
            Some(Arc::downgrade(&task))
        }
        Some(event) if !matches!(event.notify, SIGEV_SIGNAL | SIGEV_NONE | SIGEV_THREAD) => return Err(EINVAL),
        _ => None,
    };
    if event.as_ref().is_some_and(|event| event.notify != SIGEV_NONE && !crate::signal::set::is_valid(event.signo)) {
        return Err(EINVAL);
    }
    let timer = process.timers.create(|id| {
        let notify = match &event {
            None => Notify::Queued { id, signal: SIGALRM, value: id as u64, thread: None },
            Some(event) if event.notify == SIGEV_NONE => Notify::Nobody,
            Some(event) => Notify::Queued { id, signal: event.signo, value: event.value, thread },
        };
        Timer::new(process, clock, notify)
    })?;
    user::write(call.args[2], &timer).inspect_err(|_| {
        let _ = process.timers.delete(timer);
    })?;
    Ok(0)
}

fn timer_value((left, interval): (u64, u64)) -> Itimerspec {
    Itimerspec { interval: Timespec::from_ns(interval), value: Timespec::from_ns(left) }
}

/// timer_settime(2).
fn sys_timer_settime(call: &mut Call<'_>) -> SysResult {
    if call.args[2] == 0 {
        return Err(EINVAL);
    }
    let new: Itimerspec = user::read(call.args[2])?;
    let (value, interval) = (new.value.to_ns().ok_or(EINVAL)?, new.interval.to_ns().ok_or(EINVAL)?);
    let timer = call.task.process.timers.posix(call.int(0))?;
    let deadline = match value {
        0 => None,
        _ if call.int(1) & TIMER_ABSTIME != 0 => Some(value),
        _ => Some(timer.clock.now()?.saturating_add(value)),
    };
    // Before the timer runs anew: its next signal must not be lost.
    crate::signal::forget_timer(&call.task.process, call.int(0));
    let before = timer.set(deadline, interval);
    if call.args[3] != 0 {
        user::write(call.args[3], &timer_value(before))?;
    }
    Ok(0)
}

/// timer_gettime(2).
fn sys_timer_gettime(call: &mut Call<'_>) -> SysResult {
    let timer = call.task.process.timers.posix(call.int(0))?;
    user::write(call.args[1], &timer_value(timer.get())).map(|()| 0)
}

/// timer_delete(2).
fn sys_timer_delete(call: &mut Call<'_>) -> SysResult {
    call.task.process.timers.delete(call.int(0))?;
    crate::signal::forget_timer(&call.task.process, call.int(0));
    Ok(0)
}

/// adjtimex(2) without the right to change anything: an unsynchronized clock.
fn adjust(address: u64) -> SysResult {
    const ADJ_OFFSET_SS_READ: u32 = 0xa001;
    let request: Timex = user::read(address)?;
    if request.modes != 0 && request.modes != ADJ_OFFSET_SS_READ {
        return Err(EPERM);
    }
    let answer = Timex {
        modes: request.modes,
        status: STA_UNSYNC,
        maxerror: 16_000_000,
        esterror: 16_000_000,
        constant: 2,
        precision: 1,
        tolerance: 32_768_000,
        time: Timeval::from_ns(hal::time::realtime()),
        tick: 10_000,
        ..Timex::default()
    };
    user::write(address, &answer)?;
    Ok(TIME_ERROR)
}

fn sys_clock_adjtime(call: &mut Call<'_>) -> SysResult {
    if call.int(0) != CLOCK_REALTIME {
        return Err(crate::errno::EOPNOTSUPP);
    }
    adjust(call.args[1])
}
