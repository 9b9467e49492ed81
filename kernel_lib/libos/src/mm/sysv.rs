//! System V shared memory (shmget(2), shmat(2), shmctl(2)): named segments of [`SharedMemory`].
//!
//! A segment that was removed lives on, nameless, until its last attachment goes. Attachments are the VMAs that map it, counted by
//! [`Pages::mapped`]. `SEGMENTS` is a spin lock and a leaf, but for the frames that go with a segment.

use super::map::{Limits, Place, Request};
use super::reclaim;
use super::shmem::SharedMemory;
use super::vma::{Backing, Flags};
use super::{AddressSpace, Pages, Source, PAGE_SIZE};
use crate::errno::{Errno, EACCES, EEXIST, EIDRM, EINVAL, ENOENT, ENOSPC, EPERM};
use crate::process::{Credentials, Task};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use hal::frame::Page;
use hal::paging::Rights;
use hal::sync::SpinLock;
use linux_abi::memory::*;

/// kernel.shmmni, kernel.shmmax, kernel.shmall.
pub const MOST_SEGMENTS: usize = 4096;
pub const MOST_BYTES: u64 = u64::MAX - (1 << 24);
pub const MOST_PAGES: u64 = MOST_BYTES;
const CAP_IPC_OWNER: u64 = 1 << 15;
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// Device number that /proc/PID/maps shows for segments.
const DEVICE: u64 = 5;

#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
    creator_uid: u32,
    creator_gid: u32,
    mode: u32,
}

pub struct Segment {
    id: i32,
    key: AtomicI64,
    memory: Arc<SharedMemory>,
    bytes: u64,
    owner: SpinLock<Owner>,
    attached: AtomicI64,
    attach_time: AtomicI64,
    detach_time: AtomicI64,
    change_time: AtomicI64,
    creator: u32,
    last: AtomicU32,
}

#[derive(Default)]
struct Segments {
    by_id: BTreeMap<i32, Arc<Segment>>,
    /// How often an index was used: ids are not reused soon (Linux: IPCMNI_SHIFT).
    sequence: u32,
}

static SEGMENTS: SpinLock<Segments> = SpinLock::new(Segments { by_id: BTreeMap::new(), sequence: 0 });

fn now() -> i64 {
    (hal::time::realtime() / 1_000_000_000) as i64
}

impl Segment {
    fn removed(&self) -> bool {
        self.owner.lock().mode & SHM_DEST != 0
    }

    /// ipcperms(): `wanted` as rwx bits of one class.
    fn check(&self, credentials: &Credentials, wanted: u32) -> Result<(), Errno> {
        let owner = *self.owner.lock();
        let groups = |gid: u32| credentials.egid == gid || credentials.groups.contains(&gid);
        let class = if credentials.euid == owner.uid || credentials.euid == owner.creator_uid {
            owner.mode >> 6
        } else if groups(owner.gid) || groups(owner.creator_gid) {
            owner.mode >> 3
        } else {
            owner.mode
        };
        if wanted & !class & 7 != 0 && credentials.effective & CAP_IPC_OWNER == 0 {
            Err(EACCES)
        } else {
            Ok(())
        }
    }

    /// IPC_SET and IPC_RMID are for owner and creator.
    fn check_owner(&self, credentials: &Credentials) -> Result<(), Errno> {
        let owner = *self.owner.lock();
        let own = credentials.euid == owner.uid || credentials.euid == owner.creator_uid;
        if own || credentials.effective & CAP_SYS_ADMIN != 0 {
            Ok(())
        } else {
            Err(EPERM)
        }
    }

    fn status(&self) -> ShmStatus {
        let owner = *self.owner.lock();
        ShmStatus {
            permissions: IpcPermissions {
                key: self.key.load(Ordering::Relaxed) as i32,
                uid: owner.uid,
                gid: owner.gid,
                creator_uid: owner.creator_uid,
                creator_gid: owner.creator_gid,
                mode: owner.mode,
                sequence: (self.id as u32 >> 15) as u16,
                ..IpcPermissions::default()
            },
            bytes: self.bytes,
            attached: self.attach_time.load(Ordering::Relaxed),
            detached: self.detach_time.load(Ordering::Relaxed),
            changed: self.change_time.load(Ordering::Relaxed),
            creator_pid: self.creator,
            last_pid: self.last.load(Ordering::Relaxed),
            attach_count: self.attached.load(Ordering::Relaxed) as u64,
            unused: [0; 2],
        }
    }
}

impl Pages for Segment {
    fn page(&self, index: u64, write: bool) -> Result<Page, Errno> {
        self.memory.page(index, write)
    }
    fn around(&self, index: u64, most: usize, write: bool) -> Vec<Page> {
        self.memory.around(index, most, write)
    }
    fn size(&self) -> u64 {
        self.memory.size()
    }
    fn identity(&self) -> (u64, u64) {
        (DEVICE, self.id as u64)
    }
    fn name(&self) -> String {
        format!("/SYSV{:08x} (deleted)", self.key.load(Ordering::Relaxed) as u32)
    }
    fn mapped(&self, delta: i64, _writable: bool) {
        let time = if delta > 0 { &self.attach_time } else { &self.detach_time };
        time.store(now(), Ordering::Relaxed);
        let left = self.attached.fetch_add(delta, Ordering::AcqRel) + delta;
        if left == 0 && self.removed() {
            // The caller's mapping holds the segment still.
            SEGMENTS.lock().by_id.remove(&self.id);
        }
    }
}

fn find(id: i32) -> Result<Arc<Segment>, Errno> {
    SEGMENTS.lock().by_id.get(&id).cloned().ok_or(EINVAL)
}

/// shmget(2).
pub fn get(task: &Task, key: i32, bytes: u64, flags: u32) -> Result<i32, Errno> {
    let credentials = task.credentials();
    if key != IPC_PRIVATE {
        let known = SEGMENTS.lock().by_id.values().find(|segment| segment.key.load(Ordering::Relaxed) == i64::from(key)).cloned();
        if let Some(segment) = known {
            if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL {
                return Err(EEXIST);
            }
            segment.check(&credentials, flags >> 6 & 7 | flags >> 3 & 7 | flags & 7)?;
            return if bytes > segment.bytes { Err(EINVAL) } else { Ok(segment.id) };
        }
        if flags & IPC_CREAT == 0 {
            return Err(ENOENT);
        }
    }
    let rounded = bytes.checked_next_multiple_of(PAGE_SIZE).filter(|&rounded| rounded != 0 && bytes <= MOST_BYTES).ok_or(EINVAL)?;
    if super::reclaim::is_overcommit(rounded) && flags & linux_abi::memory::MAP_NORESERVE == 0 {
        return Err(crate::errno::ENOMEM);
    }
    let mut segments = SEGMENTS.lock();
    if segments.by_id.len() >= MOST_SEGMENTS {
        return Err(ENOSPC);
    }
    let used: BTreeSet<i32> = segments.by_id.keys().map(|id| id & 0x7fff).collect();
    let index = (0..MOST_SEGMENTS as i32).find(|index| !used.contains(index)).ok_or(ENOSPC)?;
    let id = index | ((segments.sequence & 0xffff) as i32) << 15 & i32::MAX;
    segments.sequence += 1;
    let memory = SharedMemory::new(String::new(), (DEVICE, id as u64), None);
    let owner = Owner {
        uid: credentials.euid,
        gid: credentials.egid,
        creator_uid: credentials.euid,
        creator_gid: credentials.egid,
        mode: flags & 0o777,
    };
    let segment = Arc::new(Segment {
        id,
        key: AtomicI64::new(i64::from(key)),
        memory: memory.clone(),
        bytes,
        owner: SpinLock::new(owner),
        attached: AtomicI64::new(0),
        attach_time: AtomicI64::new(0),
        detach_time: AtomicI64::new(0),
        change_time: AtomicI64::new(now()),
        creator: task.process.pid,
        last: AtomicU32::new(0),
    });
    if key == IPC_PRIVATE {
        segment.key.store(0, Ordering::Relaxed);
    }
    segments.by_id.insert(id, segment);
    drop(segments);
    // A fresh object has no mappings, so growing it touches nothing but its size.
    memory.truncate(rounded)?;
    Ok(id)
}

/// shmat(2): the address.
pub fn attach(task: &Task, space: &AddressSpace, id: i32, address: u64, flags: u32) -> Result<u64, Errno> {
    if id < 0 {
        return Err(EINVAL);
    }
    let place = match address {
        0 if flags & SHM_REMAP != 0 => return Err(EINVAL),
        0 => Place::Anywhere(0),
        address if address % PAGE_SIZE != 0 && flags & SHM_RND == 0 => return Err(EINVAL),
        address if address < PAGE_SIZE && flags & SHM_REMAP != 0 => return Err(EINVAL),
        address if flags & SHM_REMAP != 0 => Place::Fixed(address & !(PAGE_SIZE - 1)),
        address => Place::FixedIfFree(address & !(PAGE_SIZE - 1)),
    };
    let segment = find(id)?;
    let (write, execute) = (flags & SHM_RDONLY == 0, flags & SHM_EXEC != 0);
    segment.check(&task.credentials(), 4 | u32::from(write) << 1 | u32::from(execute))?;
    if segment.removed() && segment.attached.load(Ordering::Acquire) == 0 {
        return Err(EIDRM);
    }
    segment.last.store(task.process.pid, Ordering::Relaxed);
    let bytes = segment.size();
    let max_rights = Rights { read: true, write, execute: true };
    let request = Request {
        place,
        bytes,
        rights: Rights { read: true, write, execute },
        flags: Flags::default(),
        source: Source::Object { pages: segment, offset: 0, shared: true, max_rights },
        populate: false,
        name: "",
    };
    space.map(request, &Limits::of(task)).map_err(|error| if error == EEXIST { EINVAL } else { error })
}

/// shmdt(2): every part of the attachment that was made at `address`.
pub fn detach(task: &Task, space: &AddressSpace, address: u64) -> Result<(), Errno> {
    let parts = {
        let inner = space.inner.lock();
        let mut parts: Vec<(u64, u64)> = Vec::new();
        let mut segment = None;
        for vma in inner.map.iter().skip_while(|vma| vma.start < address) {
            let Backing::Object(mapping, offset) = &vma.backing else { continue };
            let identity = mapping.pages.identity();
            if identity.0 != DEVICE || !mapping.shared || vma.start - address != *offset || segment.is_some_and(|known| known != identity) {
                continue;
            }
            segment = Some(identity);
            parts.push((vma.start, vma.bytes()));
        }
        if let Some((_, id)) = segment {
            if let Some(segment) = SEGMENTS.lock().by_id.get(&(id as i32)) {
                segment.last.store(task.process.pid, Ordering::Relaxed);
            }
        }
        parts
    };
    if parts.is_empty() {
        return Err(EINVAL);
    }
    for (start, bytes) in parts {
        space.unmap(start, bytes)?;
    }
    Ok(())
}

/// shmctl(2).
pub fn control(task: &Task, id: i32, command: i32, buffer: u64) -> Result<usize, Errno> {
    let credentials = task.credentials();
    match command {
        IPC_INFO | SHM_INFO => {
            let segments = SEGMENTS.lock();
            let highest = segments.by_id.keys().map(|id| id & 0x7fff).max().unwrap_or(0);
            let (count, pages): (i32, u64) =
                segments.by_id.values().fold((0, 0), |(n, pages), segment| (n + 1, pages + segment.bytes.div_ceil(PAGE_SIZE)));
            let resident = segments.by_id.values().map(|segment| segment.memory.present()).sum();
            drop(segments);
            if command == IPC_INFO {
                let limits = ShmLimits {
                    most_bytes: MOST_BYTES,
                    least_bytes: 1,
                    most_segments: MOST_SEGMENTS as u64,
                    most_attached: MOST_SEGMENTS as u64,
                    most_pages: MOST_PAGES,
                    unused: [0; 4],
                };
                hal::user::write(buffer, &limits)?;
            } else {
                let usage = ShmUsage { used_ids: count, total_pages: pages, resident_pages: resident, ..ShmUsage::default() };
                hal::user::write(buffer, &usage)?;
            }
            Ok(highest as usize)
        }
        IPC_STAT | SHM_STAT | SHM_STAT_ANY => {
            let segment = if command == IPC_STAT {
                find(id)?
            } else {
                SEGMENTS.lock().by_id.values().find(|segment| segment.id & 0x7fff == id & 0x7fff).cloned().ok_or(EINVAL)?
            };
            if command != SHM_STAT_ANY {
                segment.check(&credentials, 4)?;
            }
            hal::user::write(buffer, &segment.status())?;
            Ok(if command == IPC_STAT { 0 } else { segment.id as usize })
        }
        IPC_SET => {
            let wanted: ShmStatus = hal::user::read(buffer)?;
            let segment = find(id)?;
            segment.check_owner(&credentials)?;
            let mut owner = segment.owner.lock();
            owner.uid = wanted.permissions.uid;
            owner.gid = wanted.permissions.gid;
            owner.mode = owner.mode & !0o777 | wanted.permissions.mode & 0o777;
            segment.change_time.store(now(), Ordering::Relaxed);
            Ok(0)
        }
        IPC_RMID => {
            let segment = find(id)?;
            segment.check_owner(&credentials)?;
            segment.owner.lock().mode |= SHM_DEST;
            segment.key.store(0, Ordering::Relaxed);
            if segment.attached.load(Ordering::Acquire) == 0 {
                let gone = SEGMENTS.lock().by_id.remove(&id);
                drop(gone);
            }
            Ok(0)
        }
        SHM_LOCK | SHM_UNLOCK => {
            let segment = find(id)?;
            segment.check_owner(&credentials)?;
            let mut owner = segment.owner.lock();
            owner.mode = if command == SHM_LOCK { owner.mode | SHM_LOCKED } else { owner.mode & !SHM_LOCKED };
            Ok(0)
        }
        _ => Err(EINVAL),
    }
}

/// /proc/sysvipc/shm.
pub fn report() -> Result<String, Errno> {
    const HEADING: &str = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n";
    let segments: Vec<Arc<Segment>> = SEGMENTS.lock().by_id.values().cloned().collect();
    reclaim::report(HEADING, &segments, |segment| {
        let (s, resident) = (segment.status(), segment.memory.present() * PAGE_SIZE);
        let p = s.permissions;
        format!(
            "{:10} {:10}  {:4o} {:21} {:5} {:5}  {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10} {resident:21} {:21}\n",
            p.key,
            segment.id,
            p.mode,
            s.bytes,
            s.creator_pid,
            s.last_pid,
            s.attach_count,
            p.uid,
            p.gid,
            p.creator_uid,
            p.creator_gid,
            s.attached,
            s.detached,
            s.changed,
            0
        )
    })
}
