//! semget(2), semop(2), semctl(2).
//!
//! Invariant: the operations of one semop happen all at once or not at all, under the set's lock; whoever cannot go on sleeps and tries
//! again after every change of the set.

use super::{now, Common, Object, Table, IPC_NOWAIT, READ, WRITE};
use crate::errno::{Errno, E2BIG, EAGAIN, EFBIG, EIDRM, EINTR, EINVAL, ERANGE, ETIMEDOUT};
use crate::mm::reclaim;
use crate::sched;
use crate::wait::{Interruptible, WaitQueue};
use crate::SysResult;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use hal::sync::SpinLock;
use hal::user;
use linux_abi::memory::{IpcPermissions, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const MAX_SETS: usize = 32000;
const MAX_IN_SET: usize = 32000;
const MAX_OPERATIONS: usize = 500;
const MAX_VALUE: i32 = 32767;
const MAX_TOTAL: i32 = 1_024_000_000;
const SEM_UNDO: u16 = 0x1000;
const GETPID: i32 = 11;
const GETVAL: i32 = 12;
const GETALL: i32 = 13;
const GETNCNT: i32 = 14;
const GETZCNT: i32 = 15;
const SETVAL: i32 = 16;
const SETALL: i32 = 17;
const SEM_STAT: i32 = 18;
const SEM_INFO: i32 = 19;
const SEM_STAT_ANY: i32 = 20;

/// struct sembuf.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Operation {
    number: u16,
    change: i16,
    flags: i16,
}

/// struct semid64_ds.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Status {
    permissions: IpcPermissions,
    operated: i64,
    unused1: u64,
    changed: i64,
    unused2: u64,
    count: u64,
    unused3: [u64; 2],
}

#[derive(Clone, Copy, Default)]
struct Semaphore {
    value: i32,
    pid: u32,
    /// Sleepers until it grows, and until it is zero.
    growers: i32,
    zeroers: i32,
}

#[derive(Default)]
struct State {
    semaphores: Vec<Semaphore>,
    /// What a process's end takes back, by semaphore (SEM_UNDO).
    undo: BTreeMap<u32, Vec<i32>>,
}

struct Set {
    common: Common,
    state: SpinLock<State>,
    operated: AtomicI64,
    queue: WaitQueue,
}

impl Object for Set {
    fn common(&self) -> &Common {
        &self.common
    }
}

static SETS: Table<Set> = Table::new(MAX_SETS);
/// Whether any process ever used SEM_UNDO.
static UNDONE: AtomicBool = AtomicBool::new(false);

/// What an attempt came to.
enum Attempt {
    Done,
    /// It would have to wait for this semaphore; to become zero, or to grow.
    Wait {
        number: usize,
        zero: bool,
        nowait: bool,
    },
}

pub fn get(key: i32, count: i32, flags: u32) -> SysResult {
    let count = usize::try_from(count).ok().filter(|&count| count <= MAX_IN_SET).ok_or(EINVAL)?;
    let fits = |set: &Set| if count > set.state.lock().semaphores.len() { Err(EINVAL) } else { Ok(()) };
    let semaphores = reclaim::items(Semaphore::default(), count)?;
    let make = |common| {
        if count == 0 {
            return Err(EINVAL);
        }
        let state = State { semaphores, undo: BTreeMap::new() };
        Ok(Set { common, state: SpinLock::new(state), operated: AtomicI64::new(0), queue: WaitQueue::new() })
    };
    SETS.get(key, flags, fits, make).map(|id| id as usize)
}

impl State {
    fn attempt(&mut self, operations: &[Operation], pid: u32) -> Result<Attempt, Errno> {
        let before: Vec<Semaphore> = self.semaphores.clone();
        for operation in operations {
            let number = usize::from(operation.number);
            let semaphore = &mut self.semaphores[number];
            let value = semaphore.value + i32::from(operation.change);
            let blocked = if operation.change == 0 { semaphore.value != 0 } else { value < 0 };
            if blocked || value > MAX_VALUE {
                self.semaphores = before;
                if !blocked {
                    return Err(ERANGE);
                }
                let nowait = operation.flags as u16 as u32 & IPC_NOWAIT != 0;
                return Ok(Attempt::Wait { number, zero: operation.change == 0, nowait });
            }
            semaphore.value = value;
            semaphore.pid = pid;
        }
        for operation in operations.iter().filter(|operation| operation.flags as u16 & SEM_UNDO != 0 && operation.change != 0) {
            let count = self.semaphores.len();
            let undo = self.undo.entry(pid).or_insert_with(|| alloc::vec![0; count]);
            undo[usize::from(operation.number)] -= i32::from(operation.change);
            UNDONE.store(true, Ordering::Relaxed);
        }
        Ok(Attempt::Done)
    }

    fn count_sleeper(&mut self, number: usize, zero: bool, delta: i32) {
        if let Some(semaphore) = self.semaphores.get_mut(number) {
            *if zero { &mut semaphore.zeroers } else { &mut semaphore.growers } += delta;
        }
    }
}

/// semop(2), semtimedop(2). `deadline`: monotonic ns.
pub fn operate(id: i32, address: u64, count: usize, deadline: Option<u64>) -> SysResult {
    if count == 0 || id < 0 {
        return Err(EINVAL);
    }
    if count > MAX_OPERATIONS {
        return Err(E2BIG);
    }
    let operations: Vec<Operation> = user::read_array(address, count)?;
    let set = SETS.find(id)?;
    if operations.iter().any(|operation| usize::from(operation.number) >= set.state.lock().semaphores.len()) {
        return Err(EFBIG);
    }
    let alters = operations.iter().any(|operation| operation.change != 0);
    set.common.check(if alters { WRITE } else { READ })?;
    let pid = sched::current().process.pid;
    loop {
        if set.common.is_removed() {
            return Err(EIDRM);
        }
        let mut state = set.state.lock();
        let (number, zero) = match state.attempt(&operations, pid)? {
            Attempt::Done => {
                drop(state);
                set.operated.store(now(), Ordering::Relaxed);
                if alters {
                    set.queue.wake_all();
                }
                return Ok(0);
            }
            Attempt::Wait { nowait: true, .. } => return Err(EAGAIN),
            Attempt::Wait { number, zero, .. } => (number, zero),
        };
        state.count_sleeper(number, zero, 1);
        drop(state);
        let ready = || {
            let state = set.state.lock();
            let semaphore = state.semaphores.get(number)?;
            let wanted =
                operations.iter().filter(|operation| usize::from(operation.number) == number).map(|operation| i32::from(operation.change));
            let might = if zero { semaphore.value == 0 } else { wanted.min().is_none_or(|change| semaphore.value + change >= 0) };
            (might || set.common.is_removed()).then_some(())
        };
        let slept = set.queue.wait(Interruptible::Yes, deadline, ready);
        set.state.lock().count_sleeper(number, zero, -1);
        match slept {
            Ok(()) => {}
            Err(ETIMEDOUT) => return Err(EAGAIN),
            Err(_) => return Err(EINTR),
        }
    }
}

/// A process has ended: takes back what it did with SEM_UNDO (semop(2): the value never falls below 0).
pub fn process_ended(pid: u32) {
    if !UNDONE.load(Ordering::Relaxed) {
        return;
    }
    for set in SETS.all() {
        let mut state = set.state.lock();
        let Some(undo) = state.undo.remove(&pid) else { continue };
        for (semaphore, change) in state.semaphores.iter_mut().zip(undo) {
            if change != 0 {
                semaphore.value = (semaphore.value + change).clamp(0, MAX_VALUE);
                semaphore.pid = pid;
            }
        }
        drop(state);
        set.operated.store(now(), Ordering::Relaxed);
        set.queue.wake_all();
    }
}

fn set_value(set: &Set, number: usize, value: i32, pid: u32) -> Result<(), Errno> {
    if !(0..=MAX_VALUE).contains(&value) {
        return Err(ERANGE);
    }
    let mut state = set.state.lock();
    let semaphore = state.semaphores.get_mut(number).ok_or(EINVAL)?;
    (semaphore.value, semaphore.pid) = (value, pid);
    for undo in state.undo.values_mut() {
        undo[number] = 0;
    }
    Ok(())
}

fn changed(set: &Set) -> SysResult {
    set.common.touch();
    set.queue.wake_all();
    Ok(0)
}

/// semctl(2).
pub fn control(id: i32, number: i32, command: i32, argument: u64) -> SysResult {
    match command {
        IPC_INFO | SEM_INFO => return info(command, argument),
        SEM_STAT | SEM_STAT_ANY => {
            let set = SETS.at(id)?;
            if command == SEM_STAT {
                set.common.check(READ)?;
            }
            user::write(argument, &status(&set))?;
            return Ok(set.common.id as usize);
        }
        _ => {}
    }
    let set = SETS.find(id)?;
    let pid = sched::current().process.pid;
    match command {
        IPC_STAT => {
            set.common.check(READ)?;
            user::write(argument, &status(&set)).map(|()| 0)
        }
        IPC_SET => {
            let wanted: Status = user::read(argument)?;
            set.common.check_owner()?;
            set.common.set_permissions(&wanted.permissions);
            Ok(0)
        }
        IPC_RMID => {
            set.common.check_owner()?;
            drop(SETS.remove(id));
            set.queue.wake_all();
            Ok(0)
        }
        GETALL => {
            set.common.check(READ)?;
            let values: Vec<u16> = set.state.lock().semaphores.iter().map(|semaphore| semaphore.value as u16).collect();
            user::write_bytes(argument, values.as_bytes()).map(|()| 0)
        }
        SETALL => {
            set.common.check(WRITE)?;
            let count = set.state.lock().semaphores.len();
            let values: Vec<u16> = user::read_array(argument, count)?;
            if values.iter().any(|&value| i32::from(value) > MAX_VALUE) {
                return Err(ERANGE);
            }
            for (number, value) in values.into_iter().enumerate() {
                set_value(&set, number, i32::from(value), pid)?;
            }
            changed(&set)
        }
        SETVAL => {
            let number = usize::try_from(number).map_err(|_| EINVAL)?;
            set.common.check(WRITE)?;
            set_value(&set, number, argument as i32, pid)?;
            changed(&set)
        }
        GETVAL | GETPID | GETNCNT | GETZCNT => {
            set.common.check(READ)?;
            let number = usize::try_from(number).map_err(|_| EINVAL)?;
            let semaphore = set.state.lock().semaphores.get(number).copied().ok_or(EINVAL)?;
            Ok(match command {
                GETVAL => semaphore.value,
                GETPID => semaphore.pid as i32,
                GETNCNT => semaphore.growers,
                _ => semaphore.zeroers,
            } as usize)
        }
        _ => Err(EINVAL),
    }
}

fn status(set: &Set) -> Status {
    Status {
        permissions: set.common.permissions(),
        operated: set.operated.load(Ordering::Relaxed),
        unused1: 0,
        changed: set.common.changed(),
        unused2: 0,
        count: set.state.lock().semaphores.len() as u64,
        unused3: [0; 2],
    }
}

/// struct seminfo: semmap, semmni, semmns, semmnu, semmsl, semopm, semume, semusz, semvmx, semaem.
fn info(command: i32, argument: u64) -> SysResult {
    let all = SETS.all();
    let used: usize = all.iter().map(|set| set.state.lock().semaphores.len()).sum();
    let (sets, total) = if command == IPC_INFO { (20, MAX_VALUE) } else { (all.len() as i32, used as i32) };
    let fields = [
        MAX_TOTAL,
        MAX_SETS as i32,
        MAX_TOTAL,
        MAX_TOTAL,
        MAX_IN_SET as i32,
        MAX_OPERATIONS as i32,
        MAX_OPERATIONS as i32,
        sets,
        MAX_VALUE,
        total,
    ];
    user::write(argument, &fields)?;
    Ok(SETS.highest())
}

/// /proc/sysvipc/sem.
pub fn report() -> Result<String, Errno> {
    const HEADING: &str = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n";
    reclaim::report(HEADING, &SETS.all(), |set| {
        let s = status(set);
        let p = s.permissions;
        format!(
            "{:10} {:10}  {:4o} {:10} {:5} {:5} {:5} {:5} {:10} {:10}\n",
            p.key, set.common.id, p.mode, s.count, p.uid, p.gid, p.creator_uid, p.creator_gid, s.operated, s.changed
        )
    })
}
