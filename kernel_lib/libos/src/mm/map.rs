//! mmap(2), munmap(2), mprotect(2).

use super::fault::{fill_anonymous, worth_copies};
use super::space::{page_rights, AddressSpace, Inner, Leftovers};
use super::vma::{self, Backing, Flags, Mapping, Vma, MIN_ADDRESS, STACK_GAP};
use super::{patch, reclaim};
use super::{Source, HUGE_PAGE, PAGE_SIZE};
use crate::errno::{Errno, EACCES, EAGAIN, EEXIST, EINVAL, ENOMEM, EPERM};
use crate::process::Task;
use abi::layout::LIBOS_BASE;
use core::sync::atomic::Ordering;
use hal::paging::{Entry, Rights};

/// vm.max_map_count.
const MAX_VMAS: usize = 65530;
/// Anonymous mappings up to this size are mapped whole at once: a fault costs more than all their pages.
const EAGER: u64 = 16 * PAGE_SIZE;
/// What a new thread touches at the top of its stack.
const EAGER_STACK: u64 = 8 * PAGE_SIZE;
/// Free room below a file mapping that mmap places, for the trampolines of its patched system calls: within reach of a JMP, and at
/// the same distance in every process.
pub(super) const FILE_GAP: u64 = 16 * PAGE_SIZE;

/// The resource limits that mappings are subject to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub address_space: u64,
    pub data: u64,
    pub stack: u64,
    pub locked: u64,
}

impl Limits {
    pub const NONE: Self = Self { address_space: u64::MAX, data: u64::MAX, stack: u64::MAX, locked: u64::MAX };

    /// A task's: RLIMIT_DATA, STACK, MEMLOCK (unless it has CAP_IPC_LOCK), AS.
    pub fn of(task: &Task) -> Self {
        const CAP_IPC_LOCK: u64 = 1 << 14;
        let may_lock = task.credentials().effective & CAP_IPC_LOCK != 0;
        Self {
            data: task.limit(2),
            stack: task.limit(3),
            locked: if may_lock { u64::MAX } else { task.limit(8) },
            address_space: task.limit(9),
        }
    }
}

/// Where a mapping goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// At the hint if it is free, else anywhere; 0: no hint.
    Anywhere(u64),
    /// MAP_32BIT: below 2 GiB.
    Low(u64),
    /// Exactly there, replacing what is there.
    Fixed(u64),
    /// Exactly there, if it is free.
    FixedIfFree(u64),
}

pub struct Request {
    pub place: Place,
    pub bytes: u64,
    pub rights: Rights,
    pub flags: Flags,
    pub source: Source,
    /// MAP_POPULATE.
    pub populate: bool,
    pub name: &'static str,
}

impl AddressSpace {
    /// mmap(2): the address.
    pub fn map(&self, request: Request, limits: &Limits) -> Result<u64, Errno> {
        let bytes = request.bytes.checked_next_multiple_of(PAGE_SIZE).filter(|&bytes| bytes <= LIBOS_BASE).ok_or(ENOMEM)?;
        reclaim::prepare(bytes.min(EAGER) / PAGE_SIZE);
        let (shared, max_rights, is_file) = match &request.source {
            Source::Anonymous => (false, Rights { read: true, write: true, execute: true }, false),
            Source::Object { shared, max_rights, .. } => (*shared, *max_rights, true),
        };
        if (request.rights.write && !max_rights.write) || (request.rights.execute && !max_rights.execute) {
            return Err(EACCES);
        }
        let private_writable = request.rights.write && !shared;
        if private_writable && !request.flags.has(Flags::NO_RESERVE) && reclaim::is_overcommit(bytes) {
            return Err(ENOMEM);
        }
        let populate = request.populate;
        let anonymous = matches!(request.source, Source::Anonymous);
        let used = match &request.source {
            Source::Object { pages, shared, .. } => worth_copies(pages.as_ref(), request.rights, *shared).then(|| pages.clone()),
            Source::Anonymous => None,
        };
        let fixed = matches!(request.place, Place::Fixed(_) | Place::FixedIfFree(_));
        let (start, locked) = self.edit(|inner, left| -> Result<(u64, bool), Errno> {
            let gap = if is_file && !shared && !fixed { FILE_GAP } else { 0 };
            // Where huge pages can show it.
            let begins_block = match &request.source {
                Source::Anonymous => !request.flags.has(Flags::STACK),
                Source::Object { offset, .. } => offset.is_multiple_of(HUGE_PAGE),
            };
            let align = if bytes >= HUGE_PAGE && begins_block { HUGE_PAGE } else { PAGE_SIZE };
            let start = choose(inner, request.place, bytes, gap, align)?;
            let end = start + bytes;
            let mut flags = request.flags;
            if let Some(on_fault) = inner.lock_future {
                flags = flags.with(Flags::LOCKED);
                if on_fault {
                    flags = flags.with(Flags::LOCK_ON_FAULT);
                }
            }
            let replaced: u64 = match request.place {
                Place::Fixed(_) => inner.map.overlapping(start, end).map(|vma| vma.end.min(end) - vma.start.max(start)).sum(),
                _ => 0,
            };
            let locked = flags.has(Flags::LOCKED);
            if locked && inner.map.totals().locked.saturating_add(bytes) > limits.locked {
                return Err(EAGAIN);
            }
            check_growth(inner, bytes, replaced, private_writable && !flags.has(Flags::GROWS_DOWN), limits)?;
            take_out(inner, left, start, end);
            let backing = match request.source {
                Source::Anonymous => Backing::Anonymous,
                Source::Object { pages, offset, shared, max_rights } => Backing::Object(Mapping::new(pages, shared, max_rights), offset),
            };
            let mut vma = Vma::new(start, end, request.rights, flags, backing);
            vma.name = request.name;
            inner.map.insert(vma);
            if is_file && request.rights.execute && self.patching.load(Ordering::Relaxed) {
                patch::reserve(inner, left, start);
            }
            if anonymous && request.rights.write && bytes <= EAGER && !flags.has(Flags::NO_RESERVE) {
                // Out of frames is no error here: the fault will say so.
                let _ = fill_anonymous(&mut inner.table, start, end, u64::MAX, page_rights(request.rights));
            }
            Ok((start, locked && !flags.has(Flags::LOCK_ON_FAULT)))
        })?;
        if let Some(pages) = used {
            self.uses(pages.as_ref(), false);
        }
        if populate || locked {
            // mmap(2): a failure to populate is not reported.
            let _ = self.populate(start, start + bytes, request.rights.write && !shared);
        } else if is_file {
            self.map_ahead(start, start + bytes, fixed);
        }
        Ok(start)
    }

    /// munmap(2).
    pub fn unmap(&self, start: u64, length: u64) -> Result<(), Errno> {
        let (start, end) = vma::range(start, length).ok_or(EINVAL)?;
        self.edit(|inner, left| {
            let splits = inner.map.find(start).is_some_and(|vma| vma.start < start && vma.end > end);
            if splits && inner.map.len() >= MAX_VMAS {
                return Err(ENOMEM);
            }
            take_out(inner, left, start, end);
            Ok(())
        })
    }

    /// mprotect(2). `grows_down`: PROT_GROWSDOWN, down to the start of the stack that `start` lies in.
    pub fn protect(&self, start: u64, length: u64, rights: Rights, grows_down: bool, limits: &Limits) -> Result<(), Errno> {
        if length == 0 && start.is_multiple_of(PAGE_SIZE) {
            return Ok(());
        }
        if !start.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        let (mut start, end) = vma::range(start, length).ok_or(ENOMEM)?;
        self.edit(|inner, left| {
            if grows_down {
                let vma = inner.map.find(start).ok_or(ENOMEM)?;
                if !vma.flags.has(Flags::GROWS_DOWN) {
                    return Err(EINVAL);
                }
                start = vma.start;
            }
            if inner.map.len() + 2 > MAX_VMAS {
                return Err(ENOMEM);
            }
            let mut at = start;
            while at < end {
                // Mapping by mapping: what lies before a hole or a refusal has its new rights.
                let vma = inner.map.find(at).filter(|vma| !vma.flags.has(Flags::HIDDEN)).ok_or(ENOMEM)?;
                let stop = vma.end.min(end);
                let max = vma.max_rights();
                if (rights.read && !max.read) || (rights.write && !max.write) || (rights.execute && !max.execute) {
                    return Err(EACCES);
                }
                let becomes_data = rights.write && !vma.rights.write && !vma.shared();
                if becomes_data && !vma.flags.has(Flags::GROWS_DOWN) {
                    check_growth(inner, 0, 0, true, &Limits { data: limits.data.saturating_sub(stop - at), ..*limits })?;
                }
                protect_part(inner, left, at, stop, rights);
                at = stop;
            }
            Ok(())
        })
    }
}

impl AddressSpace {
    /// Free room for `bytes`, where mmap would look for it (execve's interpreter, the vDSO).
    pub(super) fn room(&self, bytes: u64, align: u64) -> Result<u64, Errno> {
        let mut inner = self.inner.lock();
        let top = inner.layout.mmap_top;
        inner.map.find_room(bytes, FILE_GAP, top, align.max(PAGE_SIZE)).ok_or(ENOMEM)
    }

    /// Maps zero pages of an anonymous mapping before they are asked for.
    pub(super) fn fill_ahead(&self, start: u64, end: u64) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(vma) = inner.map.find(start).filter(|vma| vma.anonymous()) else { return };
        let rights = page_rights(vma.rights);
        let _ = fill_anonymous(&mut inner.table, start.max(vma.start), end.min(vma.end), u64::MAX, rights);
    }
}

/// The address of a new mapping.
fn choose(inner: &mut Inner, place: Place, bytes: u64, gap: u64, align: u64) -> Result<u64, Errno> {
    let top = inner.layout.mmap_top;
    match place {
        Place::Fixed(address) | Place::FixedIfFree(address) => {
            if address % PAGE_SIZE != 0 {
                return Err(EINVAL);
            }
            let end = address.checked_add(bytes).filter(|&end| end <= LIBOS_BASE).ok_or(ENOMEM)?;
            if address < MIN_ADDRESS {
                return Err(EPERM);
            }
            if matches!(place, Place::FixedIfFree(_)) && !inner.map.is_free(address, end) {
                return Err(EEXIST);
            }
            Ok(address)
        }
        Place::Anywhere(hint) | Place::Low(hint) => {
            let low = matches!(place, Place::Low(_));
            let hint = hint.checked_next_multiple_of(PAGE_SIZE).unwrap_or(0);
            let ceiling = if low { 1 << 31 } else { LIBOS_BASE };
            if hint >= MIN_ADDRESS && hint.checked_add(bytes).is_some_and(|end| end <= ceiling && is_roomy(inner, hint, end)) {
                return Ok(hint);
            }
            if low {
                return inner.map.find_room_within(bytes, 0x4000_0000, 1 << 31).ok_or(ENOMEM);
            }
            inner.map.find_room(bytes, gap, top, align).or_else(|| inner.map.find_room_within(bytes, MIN_ADDRESS, LIBOS_BASE)).ok_or(ENOMEM)
        }
    }
}

/// Free, and not right below a growing stack.
fn is_roomy(inner: &Inner, start: u64, end: u64) -> bool {
    inner.map.is_free(start, end)
        && inner.map.above(end).is_none_or(|next| !next.flags.has(Flags::GROWS_DOWN) || next.start - end >= STACK_GAP)
}

/// RLIMIT_AS, RLIMIT_DATA and the number of mappings.
pub(super) fn check_growth(inner: &Inner, bytes: u64, replaced: u64, data: bool, limits: &Limits) -> Result<(), Errno> {
    let totals = inner.map.totals();
    let sum = totals.bytes.saturating_add(bytes).saturating_sub(replaced);
    if sum > limits.address_space && bytes > replaced {
        return Err(ENOMEM);
    }
    if data && totals.data.saturating_add(bytes) > limits.data {
        return Err(ENOMEM);
    }
    if inner.map.len() >= MAX_VMAS {
        return Err(ENOMEM);
    }
    Ok(())
}

/// Removes mappings and pages of a range.
pub(super) fn take_out(inner: &mut Inner, left: &mut Leftovers, start: u64, end: u64) {
    super::patch::range_goes(inner, left, start, end);
    let gone = inner.map.remove(start, end);
    for vma in &gone {
        inner.table.unmap(vma.start, vma.end, &mut left.flush);
    }
    left.vmas.extend(gone);
}

/// What an entry may say when its VMA has `rights`: a private page that somebody shares stays read-only, and a window page becomes
/// writable only by asking the object for it.
pub(super) fn allowed(entry: &Entry, rights: Rights, shared: bool) -> Rights {
    let mut allowed = page_rights(rights);
    if allowed.write {
        allowed.write = if shared { entry.ram || entry.rights.write } else { entry.ram && entry.references == 1 };
    }
    allowed
}

fn protect_part(inner: &mut Inner, left: &mut Leftovers, start: u64, end: u64, rights: Rights) {
    let Some(vma) = inner.map.find(start) else { return };
    if vma.rights == rights {
        return;
    }
    let (shared, anonymous, is_stack) = (vma.shared(), vma.anonymous(), vma.flags.has(Flags::STACK));
    inner.map.edit(start, end, |vma| vma.rights = rights);
    inner.table.protect(start, end, &mut left.flush, |_, entry| allowed(entry, rights, shared));
    if anonymous && rights.write {
        // A small region, or a thread's stack whose top will be touched at once.
        if end - start <= EAGER {
            let _ = fill_anonymous(&mut inner.table, start, end, u64::MAX, page_rights(rights));
        } else if is_stack {
            let _ = fill_anonymous(&mut inner.table, end - EAGER_STACK, end, u64::MAX, page_rights(rights));
        }
    }
}
