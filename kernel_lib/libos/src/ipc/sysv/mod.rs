//! System V semaphores and message queues (sysvipc(7)): what both have in common is the table of ids and the permission check.
//!
//! Lock order: a table's lock > nothing; an object's own lock > its wait queues.

pub mod message;
pub mod semaphore;

use crate::errno::{Errno, EACCES, EEXIST, EINVAL, ENOENT, ENOSPC, EPERM};
use crate::process::Credentials;
use crate::sched;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use hal::sync::SpinLock;
use linux_abi::capability::{CAP_IPC_OWNER, CAP_SYS_ADMIN};
use linux_abi::memory::{IpcPermissions, IPC_CREAT, IPC_EXCL, IPC_PRIVATE};

pub const IPC_NOWAIT: u32 = 0o4000;
/// Ids are (use of the slot) << 15 | slot.
const SLOT_BITS: u32 = 15;
const SLOT_MASK: i32 = (1 << SLOT_BITS) - 1;
pub const READ: u32 = 4;
pub const WRITE: u32 = 2;

#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
}

/// The part that every object has.
pub struct Common {
    pub id: i32,
    key: i32,
    owner: SpinLock<Owner>,
    creator: (u32, u32),
    removed: AtomicBool,
    changed: AtomicI64,
}

pub fn now() -> i64 {
    (hal::time::realtime() / 1_000_000_000) as i64
}

impl Common {
    fn new(id: i32, key: i32, credentials: &Credentials, mode: u32) -> Self {
        Self {
            id,
            key,
            owner: SpinLock::new(Owner { uid: credentials.euid, gid: credentials.egid, mode: mode & 0o777 }),
            creator: (credentials.euid, credentials.egid),
            removed: AtomicBool::new(false),
            changed: AtomicI64::new(now()),
        }
    }

    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }
    pub fn changed(&self) -> i64 {
        self.changed.load(Ordering::Relaxed)
    }
    pub fn touch(&self) {
        self.changed.store(now(), Ordering::Relaxed);
    }

    /// ipcperms(): `wanted` as rwx bits of one class.
    pub fn check(&self, wanted: u32) -> Result<(), Errno> {
        let task = sched::current();
        let credentials = task.credentials();
        let owner = *self.owner.lock();
        let class = if credentials.euid == owner.uid || credentials.euid == self.creator.0 {
            owner.mode >> 6
        } else if credentials.in_group(owner.gid) || credentials.in_group(self.creator.1) {
            owner.mode >> 3
        } else {
            owner.mode
        };
        if wanted & !class & 7 != 0 && !credentials.capable(CAP_IPC_OWNER) {
            Err(EACCES)
        } else {
            Ok(())
        }
    }

    /// IPC_SET and IPC_RMID are for owner and creator.
    pub fn check_owner(&self) -> Result<(), Errno> {
        let task = sched::current();
        let credentials = task.credentials();
        let own = [self.owner.lock().uid, self.creator.0].contains(&credentials.euid);
        if own || credentials.capable(CAP_SYS_ADMIN) {
            Ok(())
        } else {
            Err(EPERM)
        }
    }

    pub fn permissions(&self) -> IpcPermissions {
        let owner = *self.owner.lock();
        IpcPermissions {
            key: self.key,
            uid: owner.uid,
            gid: owner.gid,
            creator_uid: self.creator.0,
            creator_gid: self.creator.1,
            mode: owner.mode,
            sequence: (self.id >> SLOT_BITS) as u16,
            ..IpcPermissions::default()
        }
    }

    /// IPC_SET.
    pub fn set_permissions(&self, wanted: &IpcPermissions) {
        *self.owner.lock() = Owner { uid: wanted.uid, gid: wanted.gid, mode: wanted.mode & 0o777 };
        self.touch();
    }
}

pub trait Object {
    fn common(&self) -> &Common;
}

/// All objects of a kind.
pub struct Table<T> {
    entries: SpinLock<Entries<T>>,
    most: usize,
}

struct Entries<T> {
    by_slot: BTreeMap<i32, Arc<T>>,
    /// Slots of the objects that have a key.
    by_key: BTreeMap<i32, i32>,
    /// No slot below is free.
    first_free: i32,
    uses: i32,
}

impl<T: Object> Table<T> {
    pub const fn new(most: usize) -> Self {
        Self { entries: SpinLock::new(Entries { by_slot: BTreeMap::new(), by_key: BTreeMap::new(), first_free: 0, uses: 0 }), most }
    }

    /// msgget(2), semget(2): the object of the key, or a new one. `fits` checks one that exists.
    pub fn get(
        &self,
        key: i32,
        flags: u32,
        fits: impl FnOnce(&T) -> Result<(), Errno>,
        make: impl FnOnce(Common) -> Result<T, Errno>,
    ) -> Result<i32, Errno> {
        let credentials = sched::current().credentials();
        let mut entries = self.entries.lock();
        if let Some(object) = entries.by_key.get(&key).and_then(|slot| entries.by_slot.get(slot)).cloned() {
            drop(entries);
            if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL {
                return Err(EEXIST);
            }
            fits(&object)?;
            object.common().check((flags >> 6 | flags >> 3 | flags) & 7)?;
            return Ok(object.common().id);
        }
        if key != IPC_PRIVATE && flags & IPC_CREAT == 0 {
            return Err(ENOENT);
        }
        if entries.by_slot.len() >= self.most {
            return Err(ENOSPC);
        }
        let slot = (entries.first_free..=SLOT_MASK).find(|slot| !entries.by_slot.contains_key(slot)).ok_or(ENOSPC)?;
        let id = (entries.uses & 0xffff) << SLOT_BITS & i32::MAX | slot;
        let object = make(Common::new(id, key, &credentials, flags))?;
        entries.uses += 1;
        entries.first_free = slot + 1;
        entries.by_slot.insert(slot, Arc::new(object));
        if key != IPC_PRIVATE {
            entries.by_key.insert(key, slot);
        }
        Ok(id)
    }

    pub fn find(&self, id: i32) -> Result<Arc<T>, Errno> {
        self.at(id).ok().filter(|object| object.common().id == id).ok_or(EINVAL)
    }

    /// …_STAT: by slot number, or by an id's.
    pub fn at(&self, slot: i32) -> Result<Arc<T>, Errno> {
        self.entries.lock().by_slot.get(&(slot & SLOT_MASK)).cloned().ok_or(EINVAL)
    }

    /// IPC_RMID.
    pub fn remove(&self, id: i32) -> Option<Arc<T>> {
        let mut entries = self.entries.lock();
        let slot = id & SLOT_MASK;
        let object = entries.by_slot.get(&slot).filter(|object| object.common().id == id)?.clone();
        entries.by_slot.remove(&slot);
        // Never there for IPC_PRIVATE.
        entries.by_key.remove(&object.common().key);
        entries.first_free = entries.first_free.min(slot);
        drop(entries);
        object.common().removed.store(true, Ordering::SeqCst);
        Some(object)
    }

    pub fn all(&self) -> alloc::vec::Vec<Arc<T>> {
        self.entries.lock().by_slot.values().cloned().collect()
    }

    /// The highest slot in use: what IPC_INFO gives back.
    pub fn highest(&self) -> usize {
        self.entries.lock().by_slot.last_key_value().map_or(0, |(&slot, _)| slot as usize)
    }
}
