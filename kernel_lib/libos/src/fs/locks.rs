//! Advisory locks: flock(2), POSIX record locks and open-file-description locks (fcntl(2)).
//!
//! Record locks belong to a descriptor table (POSIX: what a process has) or to an open file description; flock locks to the latter.
//! Waiting POSIX owners are entered in `WAITING`, so that a circle is found before anybody sleeps in it (EDEADLK).
//! Lock order: an inode's `records` > `WAITING`; both are leaves otherwise.

use super::file::OpenFile;
use super::inode::Inode;
use crate::errno::{Errno, EAGAIN, EDEADLK, EINTR, ERESTARTSYS};
use crate::wait::{Interruptible, WaitQueue};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::sync::{Once, SpinLock};
use linux_abi::fs::{F_RDLCK, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_SH, LOCK_UN};

/// Who holds a record lock. The number is an address: of the descriptor table or of the open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Owner {
    Posix(usize),
    Description(usize),
}

/// A record lock on bytes `start..=last`.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub owner: Owner,
    /// For F_GETLK; -1 for open-file-description locks.
    pub pid: i32,
    pub write: bool,
    pub start: u64,
    pub last: u64,
}

#[derive(Default)]
struct State {
    records: SpinLock<Vec<Record>>,
    /// (open file, exclusive)
    flocks: SpinLock<Vec<(usize, bool)>>,
    released: WaitQueue,
}

/// The locks on one inode; allocated when the first is taken.
#[derive(Default)]
pub struct FileLocks(Once<Box<State>>);

/// POSIX owners that wait, and for whom.
static WAITING: SpinLock<BTreeMap<usize, usize>> = SpinLock::new(BTreeMap::new());
/// Whether any lock was ever taken: closing files is free until then.
static USED: AtomicBool = AtomicBool::new(false);

impl Record {
    fn conflicts(&self, other: &Self) -> bool {
        self.owner != other.owner && (self.write || other.write) && self.start <= other.last && other.start <= self.last
    }
}

/// Replaces the owner's locks in `new`'s range by `new` (or by nothing), joining neighbours of one kind.
fn apply(records: &mut Vec<Record>, new: Record, unlock: bool) {
    let mut result = Vec::with_capacity(records.len() + 2);
    let mut new = new;
    for old in records.drain(..) {
        let touches = old.start <= new.last.saturating_add(1) && new.start <= old.last.saturating_add(1);
        if old.owner != new.owner || !touches {
            result.push(old);
            continue;
        }
        if !unlock && old.write == new.write {
            new.start = new.start.min(old.start);
            new.last = new.last.max(old.last);
            continue;
        }
        if old.start < new.start {
            result.push(Record { last: old.last.min(new.start - 1), ..old });
        }
        if old.last > new.last {
            result.push(Record { start: old.start.max(new.last + 1), ..old });
        }
    }
    if !unlock {
        result.push(new);
    }
    result.sort_by_key(|record| record.start);
    *records = result;
}

/// `owner` is going to wait for `blocker`. EDEADLK: that would close a circle.
fn enter_waiting(owner: usize, blocker: usize) -> Result<(), Errno> {
    let mut waiting = WAITING.lock();
    let mut at = blocker;
    for _ in 0..64 {
        if at == owner {
            return Err(EDEADLK);
        }
        match waiting.get(&at) {
            Some(&next) => at = next,
            None => break,
        }
    }
    waiting.insert(owner, blocker);
    Ok(())
}

impl FileLocks {
    fn state(&self) -> &State {
        USED.store(true, Ordering::Relaxed);
        self.0.get_or_init(Box::default)
    }

    /// F_GETLK: the first lock in the way.
    pub fn conflict(&self, wanted: &Record) -> Option<Record> {
        self.0.get()?.records.lock().iter().find(|record| record.conflicts(wanted)).copied()
    }

    /// Every record lock, for /proc/locks.
    pub fn records(&self) -> Vec<Record> {
        self.0.get().map(|state| state.records.lock().clone()).unwrap_or_default()
    }

    /// Whether it could be taken at once.
    fn try_record(&self, wanted: Record) -> bool {
        let mut records = self.state().records.lock();
        let free = !records.iter().any(|record| record.conflicts(&wanted));
        if free {
            apply(&mut records, wanted, false);
        }
        free
    }
}

/// F_SETLK, F_SETLKW and their OFD kin. `kind`: F_RDLCK, F_WRLCK, F_UNLCK.
pub fn set_record(inode: &Arc<dyn Inode>, kind: i16, wanted: Record, wait: bool) -> Result<(), Errno> {
    let locks = &inode.state().locks;
    let bytes = if wanted.last >= i64::MAX as u64 { 0 } else { wanted.last - wanted.start + 1 };
    if kind == F_UNLCK {
        let state = locks.state();
        apply(&mut state.records.lock(), wanted, true);
        state.released.wake_all();
        return inode.host_lock(F_UNLCK, false, wanted.start, bytes).unwrap_or(Ok(()));
    }
    let wanted = Record { write: kind == F_WRLCK, ..wanted };
    loop {
        if !locks.try_record(wanted) {
            if !wait {
                return Err(EAGAIN);
            }
            wait_for_record(locks.state(), &wanted)?;
            continue;
        }
        // Users of the volume outside of this container.
        match inode.host_lock(kind, false, wanted.start, bytes).unwrap_or(Ok(())) {
            Err(EAGAIN) if wait => {
                apply(&mut locks.state().records.lock(), wanted, true);
                pause()?;
            }
            Err(errno) => {
                apply(&mut locks.state().records.lock(), wanted, true);
                return Err(errno);
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// The host's locks never wait for us: look again after a while.
fn pause() -> Result<(), Errno> {
    static NEVER: WaitQueue = WaitQueue::new();
    let deadline = hal::time::monotonic() + 10_000_000;
    match NEVER.wait(Interruptible::Yes, Some(deadline), || None::<()>) {
        Err(EINTR) => Err(ERESTARTSYS),
        _ => Ok(()),
    }
}

fn wait_for_record(state: &State, wanted: &Record) -> Result<(), Errno> {
    // Looked at whenever a lock is released: the next one in the way may close a circle.
    let look = || match (wanted.owner, state.records.lock().iter().find(|record| record.conflicts(wanted))?.owner) {
        (Owner::Posix(owner), Owner::Posix(blocker)) => Some(enter_waiting(owner, blocker)),
        _ => Some(Ok(())),
    };
    let outcome = state.released.wait(Interruptible::Yes, None, || match look() {
        None => Some(Ok(())),
        Some(Ok(())) => None,
        Some(Err(errno)) => Some(Err(errno)),
    });
    if let Owner::Posix(owner) = wanted.owner {
        WAITING.lock().remove(&owner);
    }
    outcome.map_err(|errno| if errno == EINTR { ERESTARTSYS } else { errno })?
}

/// flock(2). `operation` without LOCK_NB.
pub fn flock(file: &Arc<OpenFile>, inode: &Arc<dyn Inode>, operation: u32, wait: bool) -> Result<(), Errno> {
    let state = inode.state().locks.state();
    let me = Arc::as_ptr(file) as usize;
    if operation == LOCK_UN {
        remove_flock(state, me);
        return inode.host_lock(LOCK_UN as i16, true, 0, 0).unwrap_or(Ok(()));
    }
    let exclusive = operation == LOCK_EX;
    let attempt = || {
        let mut flocks = state.flocks.lock();
        if flocks.iter().any(|&(owner, other)| owner != me && (exclusive || other)) {
            return None;
        }
        flocks.retain(|&(owner, _)| owner != me);
        flocks.push((me, exclusive));
        Some(())
    };
    loop {
        if attempt().is_none() {
            if !wait {
                return Err(EAGAIN);
            }
            // A conversion gives up the old lock before it waits (flock(2)).
            remove_flock(state, me);
            state.released.wait(Interruptible::Yes, None, attempt).map_err(|errno| if errno == EINTR { ERESTARTSYS } else { errno })?;
        }
        let host = if exclusive { LOCK_EX } else { LOCK_SH };
        match inode.host_lock(host as i16, true, 0, 0).unwrap_or(Ok(())) {
            Err(EAGAIN) if wait => {
                remove_flock(state, me);
                pause()?;
            }
            Err(errno) => {
                remove_flock(state, me);
                return Err(errno);
            }
            Ok(()) => return Ok(()),
        }
    }
}

fn remove_flock(state: &State, me: usize) -> bool {
    let mut flocks = state.flocks.lock();
    let before = flocks.len();
    flocks.retain(|&(owner, _)| owner != me);
    let removed = flocks.len() != before;
    drop(flocks);
    if removed {
        state.released.wake_all();
    }
    removed
}

fn remove_owner(inode: &Arc<dyn Inode>, owner: Owner) {
    let Some(state) = inode.state().locks.0.get() else { return };
    let mut records = state.records.lock();
    let before = records.len();
    records.retain(|record| record.owner != owner);
    let removed = records.len() != before;
    drop(records);
    if removed {
        state.released.wake_all();
        let _ = inode.host_lock(F_UNLCK, false, 0, 0);
    }
}

/// The last reference to an open file is gone.
pub fn released(file: &OpenFile) {
    if !USED.load(Ordering::Relaxed) {
        return;
    }
    let Some(inode) = file.inode() else { return };
    let me = core::ptr::from_ref(file) as usize;
    let had_flock = inode.state().locks.0.get().is_some_and(|state| remove_flock(state, me));
    if had_flock {
        let _ = inode.host_lock(LOCK_UN as i16, true, 0, 0);
    }
    remove_owner(inode, Owner::Description(me));
}

/// A descriptor table closed a descriptor of this file: its record locks on the file go, however they were taken (fcntl(2)).
pub fn descriptor_closed(table: usize, file: &OpenFile) {
    if !USED.load(Ordering::Relaxed) {
        return;
    }
    if let Some(inode) = file.inode() {
        remove_owner(inode, Owner::Posix(table));
    }
}

/// The kinds of a record lock as fcntl(2) names them.
pub const fn kind_of(record: &Record) -> i16 {
    if record.write {
        F_WRLCK
    } else {
        F_RDLCK
    }
}
