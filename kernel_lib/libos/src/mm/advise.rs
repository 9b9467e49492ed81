//! madvise(2), mincore(2), msync(2), and the mlock(2) family.

use super::map::Limits;
use super::reclaim;
use super::space::AddressSpace;
use super::vma::{self, Backing, Flags};
use super::{Pages, PAGE_SIZE};
use crate::errno::{Errno, EACCES, EAGAIN, EBUSY, EFAULT, EINVAL, ENOMEM, EPERM};
use alloc::sync::Arc;
use alloc::vec::Vec;

pub const MADV_NORMAL: i32 = 0;
const MADV_RANDOM: i32 = 1;
const MADV_SEQUENTIAL: i32 = 2;
const MADV_WILLNEED: i32 = 3;
const MADV_DONTNEED: i32 = 4;
const MADV_FREE: i32 = 8;
const MADV_REMOVE: i32 = 9;
const MADV_DONTFORK: i32 = 10;
const MADV_DOFORK: i32 = 11;
const MADV_MERGEABLE: i32 = 12;
const MADV_UNMERGEABLE: i32 = 13;
const MADV_HUGEPAGE: i32 = 14;
const MADV_NOHUGEPAGE: i32 = 15;
const MADV_DONTDUMP: i32 = 16;
const MADV_DODUMP: i32 = 17;
const MADV_WIPEONFORK: i32 = 18;
const MADV_KEEPONFORK: i32 = 19;
const MADV_COLD: i32 = 20;
const MADV_PAGEOUT: i32 = 21;
const MADV_POPULATE_READ: i32 = 22;
const MADV_POPULATE_WRITE: i32 = 23;
const MADV_DONTNEED_LOCKED: i32 = 24;
const MADV_COLLAPSE: i32 = 25;
const MADV_HWPOISON: i32 = 100;
const MADV_SOFT_OFFLINE: i32 = 101;

/// Flags that an advice sets and takes away.
const fn flag_change(advice: i32) -> Option<(Flags, Flags)> {
    const NONE: Flags = Flags(0);
    Some(match advice {
        MADV_NORMAL => (NONE, Flags::RANDOM.with(Flags::SEQUENTIAL)),
        MADV_RANDOM => (Flags::RANDOM, Flags::SEQUENTIAL),
        MADV_SEQUENTIAL => (Flags::SEQUENTIAL, Flags::RANDOM),
        MADV_DONTFORK => (Flags::DONT_FORK, NONE),
        MADV_DOFORK => (NONE, Flags::DONT_FORK),
        MADV_MERGEABLE => (Flags::MERGEABLE, NONE),
        MADV_UNMERGEABLE => (NONE, Flags::MERGEABLE),
        MADV_HUGEPAGE => (Flags::HUGE, Flags::NO_HUGE),
        MADV_NOHUGEPAGE => (Flags::NO_HUGE, Flags::HUGE),
        MADV_DONTDUMP => (Flags::DONT_DUMP, NONE),
        MADV_DODUMP => (NONE, Flags::DONT_DUMP),
        MADV_WIPEONFORK => (Flags::WIPE_ON_FORK, NONE),
        MADV_KEEPONFORK => (NONE, Flags::WIPE_ON_FORK),
        _ => return None,
    })
}

/// A part of an object that a range maps.
struct Part {
    pages: Arc<dyn Pages>,
    start: u64,
    end: u64,
}

impl AddressSpace {
    /// madvise(2). A hole is ENOMEM, after the rest was done.
    pub fn advise(&self, start: u64, length: u64, advice: i32) -> Result<(), Errno> {
        let known = flag_change(advice).is_some()
            || matches!(
                advice,
                MADV_WILLNEED
                    | MADV_DONTNEED
                    | MADV_FREE
                    | MADV_REMOVE
                    | MADV_COLD
                    | MADV_PAGEOUT
                    | MADV_POPULATE_READ
                    | MADV_POPULATE_WRITE
                    | MADV_DONTNEED_LOCKED
                    | MADV_COLLAPSE
                    | MADV_HWPOISON
                    | MADV_SOFT_OFFLINE
            );
        if !known || !start.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        if length == 0 {
            return Ok(());
        }
        let (start, end) = vma::range(start, length).ok_or(EINVAL)?;
        if let Some((set, clear)) = flag_change(advice) {
            return self.change_flags(start, end, advice, set, clear);
        }
        match advice {
            MADV_DONTNEED | MADV_DONTNEED_LOCKED => self.drop_pages(start, end, advice == MADV_DONTNEED_LOCKED, false),
            MADV_FREE => self.drop_pages(start, end, false, true),
            MADV_REMOVE => self.remove_pages(start, end),
            MADV_POPULATE_READ | MADV_POPULATE_WRITE => self.populate_strictly(start, end, advice == MADV_POPULATE_WRITE),
            // Faults of the library OS's own making (memory-failure testing) need CAP_SYS_ADMIN of the host.
            MADV_HWPOISON | MADV_SOFT_OFFLINE => Err(EPERM),
            MADV_COLLAPSE => Err(EINVAL),
            // Hints that change nothing here: there is no swap, and file pages are the host's to read ahead and to reclaim.
            _ => self.covered(start, end),
        }
    }

    fn covered(&self, start: u64, end: u64) -> Result<(), Errno> {
        if self.inner.lock().map.is_covered(start, end) {
            Ok(())
        } else {
            Err(ENOMEM)
        }
    }

    fn change_flags(&self, start: u64, end: u64, advice: i32, set: Flags, clear: Flags) -> Result<(), Errno> {
        self.edit(|inner, _| {
            let refused = inner.map.overlapping(start, end).any(|vma| match advice {
                MADV_WIPEONFORK => !vma.anonymous(),
                MADV_DOFORK | MADV_DODUMP => vma.flags.has(Flags::SPECIAL),
                _ => false,
            });
            if refused {
                return Err(EINVAL);
            }
            inner.map.edit(start, end, |vma| vma.flags = vma.flags.with(set).without(clear));
            if inner.map.is_covered(start, end) {
                Ok(())
            } else {
                Err(ENOMEM)
            }
        })
    }

    /// MADV_DONTNEED: private pages are forgotten (zeros, or the file again), shared ones only unmapped. MADV_FREE: anonymous only.
    fn drop_pages(&self, start: u64, end: u64, locked: bool, only_anonymous: bool) -> Result<(), Errno> {
        self.edit(|inner, left| {
            let mut ranges = Vec::new();
            let mut covered = start;
            let mut refused = false;
            for vma in inner.map.overlapping(start, end).filter(|vma| !vma.flags.has(Flags::HIDDEN)) {
                if (vma.flags.has(Flags::LOCKED) && !locked) || vma.flags.has(Flags::SPECIAL) || (only_anonymous && !vma.anonymous()) {
                    refused = true;
                    break;
                }
                if covered == vma.start.max(start) {
                    covered = vma.end.min(end);
                }
                ranges.push((vma.start.max(start), vma.end.min(end)));
            }
            for (from, to) in ranges {
                inner.table.unmap(from, to, &mut left.flush);
            }
            if refused {
                return Err(EINVAL);
            }
            if covered < end {
                Err(ENOMEM)
            } else {
                Ok(())
            }
        })
    }

    /// The parts of objects that a range maps. ENOMEM: a hole.
    fn parts(&self, start: u64, end: u64, mut wanted: impl FnMut(&vma::Vma) -> Result<bool, Errno>) -> Result<(Vec<Part>, bool), Errno> {
        let inner = self.inner.lock();
        let mut parts = Vec::new();
        for vma in inner.map.overlapping(start, end) {
            if !wanted(vma)? {
                continue;
            }
            if let Backing::Object(mapping, offset) = &vma.backing {
                let (from, to) = (vma.start.max(start), vma.end.min(end));
                let base = offset + (from - vma.start);
                parts.push(Part { pages: mapping.pages.clone(), start: base, end: base + (to - from) });
            }
        }
        Ok((parts, inner.map.is_covered(start, end)))
    }

    /// MADV_REMOVE: a hole in the object behind a shared writable mapping.
    fn remove_pages(&self, start: u64, end: u64) -> Result<(), Errno> {
        let (parts, covered) = self.parts(start, end, |vma| match vma {
            vma if vma.flags.has(Flags::LOCKED) || vma.anonymous() => Err(EINVAL),
            vma if !vma.shared() || !vma.rights.write => Err(EACCES),
            _ => Ok(true),
        })?;
        for part in parts {
            part.pages.punch_hole(part.start, part.end)?;
        }
        if covered {
            Ok(())
        } else {
            Err(ENOMEM)
        }
    }

    fn populate_strictly(&self, start: u64, end: u64, write: bool) -> Result<(), Errno> {
        {
            let inner = self.inner.lock();
            let refused = inner.map.overlapping(start, end).any(|vma| if write { !vma.rights.write } else { !vma.accessible() });
            if refused {
                return Err(EINVAL);
            }
        }
        self.populate(start, end, write)
    }

    /// Whether there is a mapping at each page of the range.
    pub fn is_mapped(&self, start: u64, length: u64) -> bool {
        vma::range(start, length).is_some_and(|(start, end)| self.covered(start, end).is_ok())
    }

    /// mincore(2): bit 0 of each byte says whether the page is in memory.
    pub fn residency(&self, start: u64, length: u64) -> Result<Vec<u8>, Errno> {
        if !start.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        if length == 0 {
            return Ok(Vec::new());
        }
        let (start, end) = vma::range(start, length).ok_or(ENOMEM)?;
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if !inner.map.is_covered(start, end) {
            return Err(ENOMEM);
        }
        let mut residency = alloc::vec![0u8; ((end - start) / PAGE_SIZE) as usize];
        let (map, table) = (&inner.map, &mut inner.table);
        table.scan(start, end, |address, entry| {
            // A page that was mapped ahead and never written is one that Linux would not have.
            let untouched = entry.ahead && entry.ram && map.find(address).is_some_and(vma::Vma::anonymous) && is_zero(entry.address);
            residency[((address - start) / PAGE_SIZE) as usize] = u8::from(!untouched);
        });
        Ok(residency)
    }

    /// msync(2). `invalidate`: EBUSY for locked memory.
    pub fn sync(&self, start: u64, length: u64, wait: bool, invalidate: bool) -> Result<(), Errno> {
        if length == 0 {
            return Ok(());
        }
        let (start, end) = vma::range(start, length).ok_or(ENOMEM)?;
        let (parts, covered) = self.parts(start, end, |vma| {
            if invalidate && vma.flags.has(Flags::LOCKED) {
                return Err(EBUSY);
            }
            Ok(wait && vma.shared())
        })?;
        for part in parts {
            part.pages.sync(part.start, part.end)?;
        }
        if covered {
            Ok(())
        } else {
            Err(ENOMEM)
        }
    }

    /// mlock(2), mlock2(2) and munlock(2). Everything is resident once touched; locking populates and counts.
    pub fn lock(&self, start: u64, length: u64, on: bool, on_fault: bool, limits: &Limits) -> Result<(), Errno> {
        let offset = start % PAGE_SIZE;
        let start = start - offset;
        if length == 0 {
            return Ok(());
        }
        let (start, end) = length.checked_add(offset).and_then(|length| vma::range(start, length)).ok_or(EINVAL)?;
        if on && limits.locked == 0 {
            return Err(EPERM);
        }
        self.edit(|inner, _| {
            if on {
                let already: u64 = inner
                    .map
                    .overlapping(start, end)
                    .filter(|vma| vma.flags.has(Flags::LOCKED))
                    .map(|vma| vma.end.min(end) - vma.start.max(start))
                    .sum();
                if inner.map.totals().locked + (end - start) - already > limits.locked {
                    return Err(ENOMEM);
                }
            }
            set_locked(inner, start, end, on, on_fault);
            if inner.map.is_covered(start, end) {
                Ok(())
            } else {
                Err(ENOMEM)
            }
        })?;
        if on && !on_fault {
            reclaim::prepare((end - start) / PAGE_SIZE);
            self.populate(start, end, true).map_err(|error| if error == EFAULT { ENOMEM } else { EAGAIN })?;
        }
        Ok(())
    }

    /// mlockall(2) and munlockall(2).
    pub fn lock_all(&self, now: bool, future: bool, on_fault: bool, limits: &Limits) -> Result<(), Errno> {
        let ranges = self.edit(|inner, _| -> Result<Vec<(u64, u64)>, Errno> {
            if now && inner.map.totals().bytes > limits.locked {
                return Err(ENOMEM);
            }
            inner.lock_future = future.then_some(on_fault);
            if !now && future {
                return Ok(Vec::new());
            }
            let ranges: Vec<(u64, u64)> =
                inner.map.iter().filter(|vma| !vma.flags.has(Flags::SPECIAL)).map(|vma| (vma.start, vma.end)).collect();
            for &(start, end) in &ranges {
                set_locked(inner, start, end, now, on_fault);
            }
            Ok(if now && !on_fault { ranges } else { Vec::new() })
        })?;
        for (start, end) in ranges {
            // mlockall(2): pages that cannot be had are no error.
            let _ = self.populate(start, end, true);
        }
        Ok(())
    }
}

fn set_locked(inner: &mut super::space::Inner, start: u64, end: u64, on: bool, on_fault: bool) {
    inner.map.edit(start, end, |vma| {
        vma.flags = vma.flags.without(Flags::LOCKED).without(Flags::LOCK_ON_FAULT);
        if on && !vma.flags.has(Flags::SPECIAL) && !vma.flags.has(Flags::HIDDEN) {
            vma.flags = vma.flags.with(Flags::LOCKED);
            if on_fault {
                vma.flags = vma.flags.with(Flags::LOCK_ON_FAULT);
            }
        }
    });
}

fn is_zero(gpa: u64) -> bool {
    let mut bytes = [0u8; 512];
    (0..PAGE_SIZE / 512).all(|part| {
        hal::phys::read(gpa + part * 512, &mut bytes);
        bytes.iter().all(|&byte| byte == 0)
    })
}
