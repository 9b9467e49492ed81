//! System V semaphores and message queues (semget(2), msgget(2) …), POSIX message queues (mq_open(2) …).

use super::{full, partial, Call, Entry};
use crate::errno::{Errno, EINVAL, ENOSYS};
use crate::ipc::mqueue::{self, Notice};
use crate::ipc::sysv::{message, semaphore};
use crate::time::Clock;
use crate::SysResult;
use linux_abi::fs::{O_CLOEXEC, O_NONBLOCK};

pub const CALLS: &[Entry] = &[
    full(64, "semget", |call| semaphore::get(call.int(0), call.int(1), call.uint(2))),
    full(65, "semop", |call| semaphore::operate(call.int(0), call.args[1], call.size(2), None)),
    full(66, "semctl", |call| semaphore::control(call.int(0), call.int(1), call.int(2), call.args[3])),
    full(68, "msgget", |call| message::get(call.int(0), call.uint(1))),
    full(69, "msgsnd", |call| message::send(call.int(0), call.args[1], call.size(2), call.uint(3))),
    full(70, "msgrcv", |call| message::receive(call.int(0), call.args[1], call.size(2), call.args[3] as i64, call.uint(4))),
    full(71, "msgctl", |call| message::control(call.int(0), call.int(1), call.args[2])),
    full(220, "semtimedop", semtimedop),
    full(240, "mq_open", mq_open),
    full(241, "mq_unlink", mq_unlink),
    full(242, "mq_timedsend", mq_timedsend),
    full(243, "mq_timedreceive", mq_timedreceive),
    partial(244, "mq_notify", mq_notify, "SIGEV_THREAD is answered ENOSYS"),
    full(245, "mq_getsetattr", mq_getsetattr),
];

const RLIMIT_NOFILE: usize = 7;
const SECOND: u64 = 1_000_000_000;
const MAX_NAME: usize = 256;

fn nanoseconds(address: u64) -> Result<u64, Errno> {
    let [seconds, ns]: [i64; 2] = hal::user::read(address)?;
    if seconds < 0 || !(0..SECOND as i64).contains(&ns) {
        return Err(EINVAL);
    }
    Ok((seconds as u64).saturating_mul(SECOND).saturating_add(ns as u64))
}

fn semtimedop(call: &mut Call<'_>) -> SysResult {
    let deadline = match call.args[3] {
        0 => None,
        address => Some(hal::time::monotonic().saturating_add(nanoseconds(address)?)),
    };
    semaphore::operate(call.int(0), call.args[1], call.size(2), deadline)
}

fn queue_name(address: u64) -> Result<alloc::vec::Vec<u8>, Errno> {
    hal::user::read_string(address, MAX_NAME)
}

fn mq_open(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(1);
    let name = queue_name(call.args[0])?;
    // struct mq_attr: flags, most messages, most bytes of one, messages now, reserved.
    let attributes = match call.args[3] {
        0 => None,
        address => {
            let [_, messages, bytes, _]: [i64; 4] = hal::user::read(address)?;
            Some((messages, bytes))
        }
    };
    let file = mqueue::open(&name, flags, call.uint(2), attributes)?;
    call.task.files().insert(file, flags & O_CLOEXEC != 0, 0, call.task.limit(RLIMIT_NOFILE)).map(|fd| fd as usize)
}

fn mq_unlink(call: &mut Call<'_>) -> SysResult {
    mqueue::unlink(&queue_name(call.args[0])?).map(|()| 0)
}

/// An absolute CLOCK_REALTIME limit as monotonic ns.
fn absolute(address: u64) -> Result<Option<u64>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    Ok(Some(Clock::Realtime.deadline(nanoseconds(address)?)))
}

fn mq_timedsend(call: &mut Call<'_>) -> SysResult {
    let deadline = absolute(call.args[4])?;
    let file = call.task.files().get(call.int(0))?;
    let [_, _, most, _] = mqueue::attributes(&file)?;
    // Longer ones are refused before their bytes are looked at.
    let bytes = call.size(2);
    let mut data = alloc::vec![0; bytes.min(most as usize + 1)];
    if bytes <= most as usize {
        hal::user::read_bytes(call.args[1], &mut data)?;
    }
    mqueue::send(&file, data, call.uint(3), deadline)
}

fn mq_timedreceive(call: &mut Call<'_>) -> SysResult {
    let deadline = absolute(call.args[4])?;
    let file = call.task.files().get(call.int(0))?;
    let (data, priority) = mqueue::receive(&file, call.size(2), deadline)?;
    hal::user::write_bytes(call.args[1], &data)?;
    if call.args[3] != 0 {
        hal::user::write(call.args[3], &priority)?;
    }
    Ok(data.len())
}

fn mq_notify(call: &mut Call<'_>) -> SysResult {
    const SIGEV_SIGNAL: i32 = 0;
    const SIGEV_NONE: i32 = 1;
    const SIGEV_THREAD: i32 = 2;
    let notice = match call.args[1] {
        0 => None,
        address => {
            // struct sigevent: value, signal, kind.
            let [value, rest]: [u64; 2] = hal::user::read(address)?;
            let (number, kind) = (rest as i32, (rest >> 32) as i32);
            Some(match kind {
                SIGEV_NONE => Notice::Nothing,
                SIGEV_SIGNAL if crate::signal::set::is_valid(number) => Notice::Signal { number, value },
                SIGEV_THREAD => return Err(ENOSYS),
                _ => return Err(EINVAL),
            })
        }
    };
    let file = call.task.files().get(call.int(0))?;
    mqueue::notify(&file, notice).map(|()| 0)
}

fn mq_getsetattr(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    let old = mqueue::attributes(&file)?;
    if call.args[1] != 0 {
        let [flags, ..]: [i64; 4] = hal::user::read(call.args[1])?;
        if flags & !i64::from(O_NONBLOCK) != 0 {
            return Err(EINVAL);
        }
        file.set_flags(file.flags() & !O_NONBLOCK | flags as u32);
    }
    if call.args[2] != 0 {
        let [flags, messages, bytes, count] = old;
        hal::user::write(call.args[2], &[flags, messages, bytes, count, 0, 0, 0, 0])?;
    }
    Ok(0)
}
