//! futex(2) and futex_waitv(2).

use super::{full, Call, Entry};
use crate::errno::{Errno, EAGAIN, EINTR, EINVAL, ENOSYS, ERESTARTSYS};
use crate::process::futex::{self, pi, Key};
use crate::SysResult;
use alloc::vec::Vec;
use hal::user;
use linux_abi::process::{
    FutexWaitv, FUTEX_BITSET_MATCH_ANY, FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE, FUTEX_CMP_REQUEUE_PI, FUTEX_LOCK_PI, FUTEX_LOCK_PI2,
    FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI, FUTEX_WAKE,
    FUTEX_WAKE_BITSET, FUTEX_WAKE_OP,
};
use linux_abi::time::{Timespec, CLOCK_MONOTONIC, CLOCK_REALTIME};

pub const CALLS: &[Entry] = &[full(202, "futex", sys_futex), full(449, "futex_waitv", sys_futex_waitv)];

/// A timeout as a monotonic deadline.
fn deadline(address: u64, absolute: bool, realtime: bool) -> Result<Option<u64>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    let time = user::read::<Timespec>(address)?.to_ns().ok_or(EINVAL)?;
    let now = hal::time::monotonic();
    Ok(Some(match (absolute, realtime) {
        (false, _) => now.saturating_add(time),
        (true, false) => time,
        (true, true) => now.saturating_add(time.saturating_sub(hal::time::realtime())),
    }))
}

/// A wait without a relative timeout starts anew behind a handler with SA_RESTART (signal(7)).
fn restartable(result: SysResult) -> SysResult {
    result.map_err(|errno| if errno == EINTR { ERESTARTSYS } else { errno })
}

fn sys_futex(call: &mut Call<'_>) -> SysResult {
    let task = call.task;
    let (word, operation, value, time, word2, value3) = (call.args[0], call.int(1), call.uint(2), call.args[3], call.args[4], call.uint(5));
    let private = operation & FUTEX_PRIVATE_FLAG != 0;
    let realtime = operation & FUTEX_CLOCK_REALTIME != 0;
    let command = operation & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
    if realtime && !matches!(command, FUTEX_WAIT | FUTEX_WAIT_BITSET | FUTEX_WAIT_REQUEUE_PI | FUTEX_LOCK_PI2) {
        return Err(ENOSYS);
    }
    let key = || Key::of(task, word, private);
    let key2 = || Key::of(task, word2, private);
    // As counts, VAL and VAL2 are signed ints.
    let count = |value: u32| usize::try_from(value as i32).map_err(|_| EINVAL);
    match command {
        FUTEX_WAIT => match deadline(time, false, realtime)? {
            Some(until) => futex::wait_relative(task, word, private, value, FUTEX_BITSET_MATCH_ANY, until),
            None => restartable(futex::wait(task, word, private, value, FUTEX_BITSET_MATCH_ANY, None)),
        },
        FUTEX_WAIT_BITSET => restartable(futex::wait(task, word, private, value, value3, deadline(time, true, realtime)?)),
        FUTEX_WAKE => futex::wake(key()?, value as usize, FUTEX_BITSET_MATCH_ANY),
        FUTEX_WAKE_BITSET => futex::wake(key()?, value as usize, value3),
        FUTEX_REQUEUE => {
            let (woken, moved) = futex::requeue(key()?, key2()?, count(value)?, count(time as u32)?)?;
            Ok(woken + moved)
        }
        FUTEX_CMP_REQUEUE => {
            let (from, to, most, move_most) = (key()?, key2()?, count(value)?, count(time as u32)?);
            if user::load_u32(word)? != value3 {
                return Err(EAGAIN);
            }
            let (woken, moved) = futex::requeue(from, to, most, move_most)?;
            Ok(woken + moved)
        }
        FUTEX_WAKE_OP => {
            let (first, second) = (key()?, key2()?);
            let also = futex::operate(word2, value3)?;
            let woken = futex::wake(first, value as usize, FUTEX_BITSET_MATCH_ANY)?;
            let more = if also { futex::wake(second, time as u32 as usize, FUTEX_BITSET_MATCH_ANY)? } else { 0 };
            Ok(woken + more)
        }
        FUTEX_LOCK_PI => pi::lock(task, word, private, deadline(time, true, true)?),
        FUTEX_LOCK_PI2 => pi::lock(task, word, private, deadline(time, true, realtime)?),
        FUTEX_TRYLOCK_PI => pi::try_lock(task, word, private),
        FUTEX_UNLOCK_PI => pi::unlock(task, word, private),
        FUTEX_WAIT_REQUEUE_PI => {
            pi::wait_requeue(task, word, value, FUTEX_BITSET_MATCH_ANY, word2, private, deadline(time, true, realtime)?)
        }
        FUTEX_CMP_REQUEUE_PI => {
            if value != 1 {
                return Err(EINVAL);
            }
            pi::requeue(task, word, word2, count(time as u32)?, private, value3)
        }
        _ => Err(ENOSYS),
    }
}

/// futex_waitv(2): the index of a word that was woken.
fn sys_futex_waitv(call: &mut Call<'_>) -> SysResult {
    const FUTEX_32: u32 = 2;
    const MOST: usize = 128;
    let (address, count, flags, time, clock) = (call.args[0], call.size(1), call.uint(2), call.args[3], call.int(4));
    if flags != 0 || count == 0 || count > MOST || address == 0 {
        return Err(EINVAL);
    }
    if time != 0 && clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME {
        return Err(EINVAL);
    }
    let until = deadline(time, true, clock == CLOCK_REALTIME)?;
    let mut words = Vec::with_capacity(count);
    for waiter in user::read_array::<FutexWaitv>(address, count)? {
        let private = FUTEX_PRIVATE_FLAG as u32;
        if waiter.flags & !(private | FUTEX_32) != 0 || waiter.flags & FUTEX_32 == 0 || waiter.reserved != 0 {
            return Err(EINVAL);
        }
        words.push((waiter.uaddr, waiter.flags & private != 0, waiter.val as u32));
    }
    restartable(futex::wait_many(call.task, &words, until))
}
