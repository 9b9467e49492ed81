//! msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use super::{now, Common, Object, Table, IPC_NOWAIT, READ, WRITE};
use crate::errno::{Errno, E2BIG, EAGAIN, EFAULT, EIDRM, EINTR, EINVAL, ENOMSG, EPERM};
use crate::ipc::links::{capable, CAP_SYS_RESOURCE};
use crate::mm::reclaim;
use crate::sched;
use crate::wait::{Interruptible, WaitQueue};
use crate::SysResult;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use hal::user;
use linux_abi::memory::{IpcPermissions, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const MAX_QUEUES: usize = 32000;
const MAX_MESSAGE: usize = 8192;
const MAX_BYTES: u64 = 16384;
const MSG_STAT: i32 = 11;
const MSG_INFO: i32 = 12;
const MSG_STAT_ANY: i32 = 13;
const MSG_NOERROR: u32 = 0o10000;
const MSG_EXCEPT: u32 = 0o20000;
const MSG_COPY: u32 = 0o40000;

/// struct msqid64_ds.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Status {
    permissions: IpcPermissions,
    sent: i64,
    received: i64,
    changed: i64,
    bytes: u64,
    count: u64,
    most_bytes: u64,
    last_sender: u32,
    last_receiver: u32,
    unused: [u64; 2],
}

struct Message {
    kind: i64,
    text: Vec<u8>,
}

struct State {
    messages: VecDeque<Message>,
    bytes: u64,
    most_bytes: u64,
    sent: i64,
    received: i64,
    last_sender: u32,
    last_receiver: u32,
}

struct Queue {
    common: Common,
    state: SpinLock<State>,
    queue: WaitQueue,
}

impl Object for Queue {
    fn common(&self) -> &Common {
        &self.common
    }
}

static QUEUES: Table<Queue> = Table::new(MAX_QUEUES);

pub fn get(key: i32, flags: u32) -> SysResult {
    let make = |common| {
        let state =
            State { messages: VecDeque::new(), bytes: 0, most_bytes: MAX_BYTES, sent: 0, received: 0, last_sender: 0, last_receiver: 0 };
        Ok(Queue { common, state: SpinLock::new(state), queue: WaitQueue::new() })
    };
    QUEUES.get(key, flags, |_| Ok(()), make).map(|id| id as usize)
}

fn sleep(queue: &Queue, ready: impl Fn(&State) -> bool) -> Result<(), Errno> {
    let woken = || (queue.common.is_removed() || ready(&queue.state.lock())).then_some(());
    queue.queue.wait(Interruptible::Yes, None, woken).map_err(|_| EINTR)
}

/// msgsnd(2).
pub fn send(id: i32, address: u64, bytes: usize, flags: u32) -> SysResult {
    if bytes > MAX_MESSAGE || id < 0 {
        return Err(EINVAL);
    }
    let kind: i64 = user::read(address)?;
    if kind < 1 {
        return Err(EINVAL);
    }
    let mut text = reclaim::items(0, bytes)?;
    user::read_bytes(address.checked_add(8).ok_or(EFAULT)?, &mut text)?;
    let queue = QUEUES.find(id)?;
    queue.common.check(WRITE)?;
    let pid = sched::current().process.pid;
    let fits = |state: &State| state.bytes + bytes as u64 <= state.most_bytes && (state.messages.len() as u64) < state.most_bytes;
    loop {
        if queue.common.is_removed() {
            return Err(EIDRM);
        }
        let mut state = queue.state.lock();
        if fits(&state) {
            state.bytes += bytes as u64;
            (state.sent, state.last_sender) = (now(), pid);
            state.messages.push_back(Message { kind, text });
            drop(state);
            queue.queue.wake_all();
            return Ok(0);
        }
        drop(state);
        if flags & IPC_NOWAIT != 0 {
            return Err(EAGAIN);
        }
        sleep(&queue, fits)?;
    }
}

/// Which message a msgrcv asks for.
fn choose(state: &State, wanted: i64, flags: u32) -> Option<usize> {
    let messages = state.messages.iter().enumerate();
    match wanted {
        _ if flags & MSG_COPY != 0 => usize::try_from(wanted).ok().filter(|&index| index < state.messages.len()),
        0 => (!state.messages.is_empty()).then_some(0),
        1.. if flags & MSG_EXCEPT != 0 => messages.into_iter().find(|(_, message)| message.kind != wanted).map(|(index, _)| index),
        1.. => messages.into_iter().find(|(_, message)| message.kind == wanted).map(|(index, _)| index),
        _ => {
            let limit = wanted.checked_neg().unwrap_or(i64::MAX);
            // The first message of the lowest type.
            messages
                .into_iter()
                .filter(|(_, message)| message.kind <= limit)
                .min_by_key(|(_, message)| message.kind)
                .map(|(index, _)| index)
        }
    }
}

/// msgrcv(2).
pub fn receive(id: i32, address: u64, bytes: usize, wanted: i64, flags: u32) -> SysResult {
    if id < 0 || bytes > i64::MAX as usize {
        return Err(EINVAL);
    }
    let copy = flags & MSG_COPY != 0;
    if copy && (flags & MSG_EXCEPT != 0 || flags & IPC_NOWAIT == 0) {
        return Err(EINVAL);
    }
    let queue = QUEUES.find(id)?;
    queue.common.check(READ)?;
    let pid = sched::current().process.pid;
    loop {
        if queue.common.is_removed() {
            return Err(EIDRM);
        }
        let mut state = queue.state.lock();
        if let Some(index) = choose(&state, wanted, flags) {
            let length = state.messages.get(index).map_or(0, |message| message.text.len());
            if length > bytes && flags & MSG_NOERROR == 0 {
                return Err(E2BIG);
            }
            let message = if copy {
                state.messages.get(index).map(|message| Message { kind: message.kind, text: message.text.clone() })
            } else {
                state.messages.remove(index)
            };
            let Some(message) = message else { continue };
            if !copy {
                state.bytes -= length as u64;
                (state.received, state.last_receiver) = (now(), pid);
            }
            drop(state);
            queue.queue.wake_all();
            let fits = length.min(bytes);
            user::write(address, &message.kind)?;
            user::write_bytes(address.checked_add(8).ok_or(EFAULT)?, &message.text[..fits])?;
            return Ok(fits);
        }
        drop(state);
        if flags & IPC_NOWAIT != 0 {
            return Err(ENOMSG);
        }
        sleep(&queue, |state| choose(state, wanted, flags).is_some())?;
    }
}

fn status(queue: &Queue) -> Status {
    let state = queue.state.lock();
    Status {
        permissions: queue.common.permissions(),
        sent: state.sent,
        received: state.received,
        changed: queue.common.changed(),
        bytes: state.bytes,
        count: state.messages.len() as u64,
        most_bytes: state.most_bytes,
        last_sender: state.last_sender,
        last_receiver: state.last_receiver,
        unused: [0; 2],
    }
}

/// msgctl(2).
pub fn control(id: i32, command: i32, argument: u64) -> SysResult {
    match command {
        IPC_INFO | MSG_INFO => return info(command, argument),
        MSG_STAT | MSG_STAT_ANY => {
            let queue = QUEUES.at(id)?;
            if command == MSG_STAT {
                queue.common.check(READ)?;
            }
            user::write(argument, &status(&queue))?;
            return Ok(queue.common.id as usize);
        }
        IPC_STAT | IPC_SET | IPC_RMID => {}
        _ => return Err(EINVAL),
    }
    let queue = QUEUES.find(id)?;
    match command {
        IPC_STAT => {
            queue.common.check(READ)?;
            user::write(argument, &status(&queue))?;
        }
        IPC_SET => {
            let wanted: Status = user::read(argument)?;
            queue.common.check_owner()?;
            if wanted.most_bytes > MAX_BYTES && !capable(CAP_SYS_RESOURCE) {
                return Err(EPERM);
            }
            queue.state.lock().most_bytes = wanted.most_bytes;
            queue.common.set_permissions(&wanted.permissions);
            queue.queue.wake_all();
        }
        _ => {
            queue.common.check_owner()?;
            drop(QUEUES.remove(id));
            queue.queue.wake_all();
        }
    }
    Ok(0)
}

/// struct msginfo: msgpool, msgmap, msgmax, msgmnb, msgmni, msgssz, msgtql, msgseg (16 bits).
fn info(command: i32, argument: u64) -> SysResult {
    let all = QUEUES.all();
    let (mut pool, mut map, mut total) = (MAX_BYTES as i32 * MAX_QUEUES as i32 / 1024, MAX_BYTES as i32, MAX_BYTES as i32);
    if command == MSG_INFO {
        pool = all.len() as i32;
        map = all.iter().map(|queue| queue.state.lock().messages.len() as i32).sum();
        total = all.iter().map(|queue| queue.state.lock().bytes as i32).sum();
    }
    let fields = [pool, map, MAX_MESSAGE as i32, MAX_BYTES as i32, MAX_QUEUES as i32, 16, total, 0xffff];
    user::write(argument, &fields)?;
    Ok(QUEUES.highest())
}

/// /proc/sysvipc/msg.
pub fn report() -> Result<String, Errno> {
    const HEADING: &str =
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n";
    reclaim::report(HEADING, &QUEUES.all(), |queue| {
        let s = status(queue);
        let p = s.permissions;
        format!(
            "{:10} {:10}  {:4o}  {:10} {:10} {:5} {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10}\n",
            p.key,
            queue.common.id,
            p.mode,
            s.bytes,
            s.count,
            s.last_sender,
            s.last_receiver,
            p.uid,
            p.gid,
            p.creator_uid,
            p.creator_gid,
            s.sent,
            s.received,
            s.changed
        )
    })
}
