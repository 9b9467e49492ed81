//! What is mapped where: an interval map of VMAs. Pure: no page table, no locks.
//!
//! Invariants: VMAs are page aligned, not empty, do not overlap and lie below `LIBOS_BASE`; neighbours that could be one are one,
//! except where an edit is under way. The accounts ([`VmaMap::bytes`] and the like) are always the sums over the VMAs.

use super::{Pages, PAGE_SIZE};
use abi::layout::LIBOS_BASE;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::paging::Rights;

/// Lowest address that a program may map (vm.mmap_min_addr).
pub const MIN_ADDRESS: u64 = 0x1_0000;
/// Distance that a growing stack keeps from what lies below it (Linux's stack_guard_gap).
pub const STACK_GAP: u64 = 256 * PAGE_SIZE;

/// Properties of a VMA beyond its rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u32);

impl Flags {
    pub const GROWS_DOWN: Self = Self(1);
    pub const LOCKED: Self = Self(1 << 1);
    pub const NO_RESERVE: Self = Self(1 << 2);
    /// MAP_STACK: a thread's stack; its top is mapped ahead when it becomes writable.
    pub const STACK: Self = Self(1 << 3);
    pub const DONT_FORK: Self = Self(1 << 4);
    pub const WIPE_ON_FORK: Self = Self(1 << 5);
    pub const DONT_DUMP: Self = Self(1 << 6);
    pub const HUGE: Self = Self(1 << 7);
    pub const NO_HUGE: Self = Self(1 << 8);
    pub const RANDOM: Self = Self(1 << 9);
    pub const SEQUENTIAL: Self = Self(1 << 10);
    pub const MERGEABLE: Self = Self(1 << 11);
    /// Ours, not the program's: not in /proc/PID/maps (trampolines of patched system calls).
    pub const HIDDEN: Self = Self(1 << 12);
    /// Of the image: [vdso], [vvar]. Cannot grow, is not counted as data.
    pub const SPECIAL: Self = Self(1 << 13);
    /// brk's area.
    pub const HEAP: Self = Self(1 << 14);
    /// Pages are copied into the child in any case (the initial stack).
    pub const MAIN_STACK: Self = Self(1 << 15);
    pub const LOCK_ON_FAULT: Self = Self(1 << 16);

    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// A counted mapping of an object: as many of these as VMAs that map it.
pub struct Mapping {
    pub pages: Arc<dyn Pages>,
    pub shared: bool,
    /// Most that mprotect may give.
    pub max_rights: Rights,
}

impl Mapping {
    pub fn new(pages: Arc<dyn Pages>, shared: bool, max_rights: Rights) -> Self {
        pages.mapped(1, shared && max_rights.write);
        Self { pages, shared, max_rights }
    }

    fn same(&self, other: &Self) -> bool {
        is_same(&self.pages, &other.pages) && self.shared == other.shared && self.max_rights == other.max_rights
    }
}

/// Whether two objects show the same contents: a file may be mapped through several open files.
pub fn is_same(one: &Arc<dyn Pages>, other: &Arc<dyn Pages>) -> bool {
    Arc::ptr_eq(one, other) || one.identity() == other.identity()
}

impl Clone for Mapping {
    fn clone(&self) -> Self {
        Self::new(self.pages.clone(), self.shared, self.max_rights)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.pages.mapped(-1, self.shared && self.max_rights.write);
    }
}

#[derive(Clone)]
pub enum Backing {
    Anonymous,
    /// Byte offset of the VMA's start in the object.
    Object(Mapping, u64),
}

#[derive(Clone)]
pub struct Vma {
    pub start: u64,
    pub end: u64,
    pub rights: Rights,
    pub flags: Flags,
    pub backing: Backing,
    /// Name for /proc/PID/maps: "[stack]", "[vdso]"; objects have their own.
    pub name: &'static str,
    /// Where a sequential reader would fault next, and how many pages to map then.
    pub ahead: (u64, u16),
}

impl Vma {
    pub fn new(start: u64, end: u64, rights: Rights, flags: Flags, backing: Backing) -> Self {
        Self { start, end, rights, flags, backing, name: "", ahead: (0, 0) }
    }

    pub const fn bytes(&self) -> u64 {
        self.end - self.start
    }

    pub const fn shared(&self) -> bool {
        matches!(&self.backing, Backing::Object(mapping, _) if mapping.shared)
    }

    pub const fn anonymous(&self) -> bool {
        matches!(self.backing, Backing::Anonymous)
    }

    /// What mprotect may give at most.
    pub const fn max_rights(&self) -> Rights {
        match &self.backing {
            Backing::Anonymous => Rights { read: true, write: true, execute: true },
            Backing::Object(mapping, _) => mapping.max_rights,
        }
    }

    pub const fn accessible(&self) -> bool {
        self.rights.read || self.rights.write || self.rights.execute
    }

    /// Page index in the object of an address (objects only).
    pub const fn index_of(&self, address: u64) -> u64 {
        match &self.backing {
            Backing::Object(_, offset) => (*offset + (address - self.start)) / PAGE_SIZE,
            Backing::Anonymous => 0,
        }
    }

    /// The right part, beginning at `at`.
    fn split_off(&mut self, at: u64) -> Self {
        let mut right = self.clone();
        right.start = at;
        if let Backing::Object(_, offset) = &mut right.backing {
            *offset += at - self.start;
        }
        self.end = at;
        right
    }

    /// Whether `next`, which begins where this ends, continues it.
    fn continues(&self, next: &Self) -> bool {
        self.end == next.start
            && self.rights == next.rights
            && self.flags == next.flags
            && self.name == next.name
            && match (&self.backing, &next.backing) {
                (Backing::Anonymous, Backing::Anonymous) => true,
                (Backing::Object(a, at), Backing::Object(b, next_at)) => a.same(b) && at + self.bytes() == *next_at,
                _ => false,
            }
    }

    /// Counted against RLIMIT_DATA: private and writable, no stack (getrlimit(2)).
    const fn is_data(&self) -> bool {
        self.rights.write && !self.shared() && !self.flags.has(Flags::GROWS_DOWN)
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Totals {
    /// All of it, hidden VMAs excepted.
    pub bytes: u64,
    pub data: u64,
    pub stack: u64,
    pub locked: u64,
    pub executable: u64,
}

#[derive(Default)]
pub struct VmaMap {
    vmas: BTreeMap<u64, Vma>,
    totals: Totals,
    /// Top-down search starts here; holes above are at most `largest_skipped` long.
    search_from: u64,
    largest_skipped: u64,
}

impl VmaMap {
    pub fn totals(&self) -> Totals {
        self.totals
    }

    pub fn len(&self) -> usize {
        self.vmas.len()
    }

    fn account(&mut self, vma: &Vma, sign: i64) {
        if vma.flags.has(Flags::HIDDEN) {
            return;
        }
        let bytes = vma.bytes();
        let add = |total: &mut u64, counts: bool| {
            if counts {
                *total = total.wrapping_add((bytes as i64 * sign) as u64);
            }
        };
        add(&mut self.totals.bytes, true);
        add(&mut self.totals.data, vma.is_data());
        add(&mut self.totals.stack, vma.flags.has(Flags::GROWS_DOWN));
        add(&mut self.totals.locked, vma.flags.has(Flags::LOCKED));
        add(&mut self.totals.executable, vma.rights.execute && !vma.rights.write);
    }

    /// The VMA that contains `address`.
    pub fn find(&self, address: u64) -> Option<&Vma> {
        self.vmas.range(..=address).next_back().map(|(_, vma)| vma).filter(|vma| address < vma.end)
    }

    /// For the bookkeeping of faults; ranges and rights are changed through [`Self::edit`] only.
    pub fn find_ahead(&mut self, address: u64) -> Option<&mut (u64, u16)> {
        self.vmas.range_mut(..=address).next_back().map(|(_, vma)| vma).filter(|vma| address < vma.end).map(|vma| &mut vma.ahead)
    }

    /// The first VMA that begins at or above `address`.
    pub fn above(&self, address: u64) -> Option<&Vma> {
        self.vmas.range(address..).next().map(|(_, vma)| vma)
    }

    /// The last VMA that ends at or below `address`.
    pub fn below(&self, address: u64) -> Option<&Vma> {
        self.vmas.range(..address).next_back().map(|(_, vma)| vma).filter(|vma| vma.end <= address)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.vmas.values()
    }

    /// VMAs that overlap `[start, end)`.
    pub fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = &Vma> {
        let first = self.find(start).map_or(start, |vma| vma.start);
        self.vmas.range(first..end.max(first)).map(|(_, vma)| vma)
    }

    pub fn is_free(&self, start: u64, end: u64) -> bool {
        self.overlapping(start, end).next().is_none()
    }

    /// Whether `[start, end)` is mapped without a hole.
    pub fn is_covered(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        for vma in self.overlapping(start, end) {
            if vma.start > at {
                return false;
            }
            at = vma.end;
        }
        at >= end
    }

    fn split(&mut self, at: u64) {
        let Some(start) = self.find(at).map(|vma| vma.start).filter(|&start| start < at) else { return };
        if let Some(vma) = self.vmas.get_mut(&start) {
            let right = vma.split_off(at);
            self.vmas.insert(at, right);
        }
    }

    /// Takes `[start, end)` out.
    pub fn remove(&mut self, start: u64, end: u64) -> Vec<Vma> {
        self.split(start);
        self.split(end);
        let keys: Vec<u64> = self.vmas.range(start..end).map(|(&key, _)| key).collect();
        let gone: Vec<Vma> = keys.iter().filter_map(|key| self.vmas.remove(key)).collect();
        for vma in &gone {
            self.account(vma, -1);
        }
        // The next search must see this room: it begins at the VMA above it.
        if let Some(last) = gone.last().filter(|last| last.end > self.search_from) {
            self.search_from = self.above(last.end).map_or(0, |next| next.start);
        }
        gone
    }

    /// Puts a VMA in; its range is free. Joins it with its neighbours.
    pub fn insert(&mut self, vma: Vma) {
        self.account(&vma, 1);
        let start = vma.start;
        self.vmas.insert(start, vma);
        self.join(start);
        if let Some(merged) = self.find(start).map(|vma| vma.end) {
            self.join(merged);
        }
    }

    /// Joins the VMA that begins at `at` with the one that ends there.
    fn join(&mut self, at: u64) {
        let Some((&left, before)) = self.vmas.range(..at).next_back() else { return };
        let joins = self.vmas.get(&at).is_some_and(|after| before.continues(after));
        if joins {
            if let Some(after) = self.vmas.remove(&at) {
                if let Some(before) = self.vmas.get_mut(&left) {
                    before.end = after.end;
                }
            }
        }
    }

    /// Changes every VMA in `[start, end)` (splitting at its ends), then joins neighbours that became alike.
    pub fn edit(&mut self, start: u64, end: u64, mut change: impl FnMut(&mut Vma)) {
        self.split(start);
        self.split(end);
        let keys: Vec<u64> = self.vmas.range(start..end).map(|(&key, _)| key).collect();
        for key in &keys {
            if let Some(mut vma) = self.vmas.remove(key) {
                self.account(&vma, -1);
                change(&mut vma);
                self.account(&vma, 1);
                self.vmas.insert(*key, vma);
            }
        }
        for key in keys {
            self.join(key);
        }
        self.join(end);
    }

    /// Extends a VMA downwards (stack growth).
    pub fn grow_down(&mut self, start: u64, new_start: u64) {
        if let Some(mut vma) = self.vmas.remove(&start) {
            self.account(&vma, -1);
            vma.start = new_start;
            self.account(&vma, 1);
            self.vmas.insert(new_start, vma);
        }
    }

    /// Room for `bytes` with `gap` free bytes below it, as high as possible below `top`; None: there is none above [`MIN_ADDRESS`].
    pub fn find_room(&mut self, bytes: u64, gap: u64, top: u64, align: u64) -> Option<u64> {
        let need = bytes.checked_add(gap)?;
        if need > self.largest_skipped && self.search_from != 0 && self.search_from < top {
            if let Some(found) = self.search(need, gap, self.search_from, MIN_ADDRESS, align) {
                return Some(found);
            }
        }
        self.largest_skipped = 0;
        self.search_from = 0;
        self.search(need, gap, top, MIN_ADDRESS, align)
    }

    /// As [`Self::find_room`] in `[bottom, top)`, without a memory of earlier searches.
    pub fn find_room_within(&self, bytes: u64, bottom: u64, top: u64) -> Option<u64> {
        let mut ceiling = top;
        for vma in self.vmas.range(..top).rev().map(|(_, vma)| vma) {
            if let Some(place) = place(vma.end.max(bottom), ceiling, bytes, 0, PAGE_SIZE) {
                return Some(place);
            }
            ceiling = ceiling.min(floor_of(vma));
            if ceiling <= bottom {
                return None;
            }
        }
        place(bottom, ceiling, bytes, 0, PAGE_SIZE)
    }

    fn search(&mut self, need: u64, gap: u64, top: u64, bottom: u64, align: u64) -> Option<u64> {
        let mut ceiling = top;
        let mut largest = self.largest_skipped;
        let mut found = None;
        for vma in self.vmas.range(..top).rev().map(|(_, vma)| vma) {
            if let Some(start) = place(vma.end.max(bottom), ceiling, need, gap, align) {
                found = Some(start);
                break;
            }
            largest = largest.max(ceiling.saturating_sub(vma.end));
            ceiling = ceiling.min(floor_of(vma));
            if ceiling <= bottom {
                return None;
            }
        }
        let start = found.or_else(|| place(bottom, ceiling, need, gap, align))?;
        self.search_from = start;
        self.largest_skipped = largest.max(ceiling - start - need);
        Some(start + gap)
    }
}

/// Lowest address that others may use up to: a growing stack keeps its distance.
fn floor_of(vma: &Vma) -> u64 {
    if vma.flags.has(Flags::GROWS_DOWN) {
        vma.start.saturating_sub(STACK_GAP)
    } else {
        vma.start
    }
}

/// The highest start of `bytes` within `[low, high)` whose `gap`th byte is aligned.
fn place(low: u64, high: u64, bytes: u64, gap: u64, align: u64) -> Option<u64> {
    let start = ((high.checked_sub(bytes)? + gap) & !(align - 1)).checked_sub(gap)?;
    (start >= low).then_some(start)
}

/// Page aligned range `[start, start + length)` within the program's half. None: empty, unaligned start, overflow or beyond the end.
pub fn range(start: u64, length: u64) -> Option<(u64, u64)> {
    let bytes = length.checked_add(PAGE_SIZE - 1)? & !(PAGE_SIZE - 1);
    let end = start.checked_add(bytes)?;
    (start.is_multiple_of(PAGE_SIZE) && end <= LIBOS_BASE && bytes != 0).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous(start: u64, end: u64, rights: Rights) -> Vma {
        Vma::new(start, end, rights, Flags::default(), Backing::Anonymous)
    }

    fn spans(map: &VmaMap) -> Vec<(u64, u64)> {
        map.iter().map(|vma| (vma.start >> 12, vma.end >> 12)).collect()
    }

    #[test]
    fn neighbours_that_are_alike_are_one() {
        let mut map = VmaMap::default();
        map.insert(anonymous(0x20000, 0x21000, Rights::READ));
        map.insert(anonymous(0x22000, 0x23000, Rights::READ));
        map.insert(anonymous(0x21000, 0x22000, Rights::READ));
        assert_eq!(spans(&map), [(0x20, 0x23)]);
        map.insert(anonymous(0x23000, 0x24000, Rights::NONE));
        assert_eq!(map.len(), 2);
        assert_eq!(map.totals().bytes, 0x4000);
    }

    #[test]
    fn removal_splits_and_accounts() {
        let mut map = VmaMap::default();
        map.insert(anonymous(0x20000, 0x30000, Rights::READ_WRITE));
        let gone = map.remove(0x24000, 0x25000);
        assert_eq!(gone.len(), 1);
        assert_eq!(spans(&map), [(0x20, 0x24), (0x25, 0x30)]);
        assert_eq!(map.totals().data, 0xf000);
        assert!(!map.is_covered(0x20000, 0x30000));
        assert!(map.is_covered(0x25000, 0x30000));
    }

    #[test]
    fn an_edit_splits_and_joins_again() {
        let mut map = VmaMap::default();
        map.insert(anonymous(0x20000, 0x30000, Rights::READ_WRITE));
        map.edit(0x24000, 0x28000, |vma| vma.rights = Rights::READ);
        assert_eq!(map.len(), 3);
        map.edit(0x24000, 0x28000, |vma| vma.rights = Rights::READ_WRITE);
        assert_eq!(spans(&map), [(0x20, 0x30)]);
        assert_eq!(map.totals().data, 0x10000);
    }

    #[test]
    fn room_is_found_top_down() {
        let mut map = VmaMap::default();
        let top = 0x7f00_0000_0000;
        let first = map.find_room(0x3000, 0, top, PAGE_SIZE).unwrap();
        assert_eq!(first, top - 0x3000);
        map.insert(anonymous(first, first + 0x3000, Rights::READ));
        let second = map.find_room(0x1000, 0x1000, top, PAGE_SIZE).unwrap();
        assert_eq!(second, top - 0x4000);
        map.insert(anonymous(second, second + 0x1000, Rights::READ_WRITE));
        // A hole that opens above is used again.
        map.remove(first, first + 0x1000);
        assert_eq!(map.find_room(0x1000, 0, top, PAGE_SIZE), Some(first));
        // What does not fit there goes below.
        assert_eq!(map.find_room(0x2000, 0, top, PAGE_SIZE), Some(second - 0x2000));
    }

    #[test]
    fn a_growing_stack_keeps_its_distance() {
        let mut map = VmaMap::default();
        let top = 0x7f00_0000_0000;
        map.insert(Vma::new(top - 0x1000, top, Rights::READ_WRITE, Flags::GROWS_DOWN, Backing::Anonymous));
        assert_eq!(map.find_room(0x1000, 0, top, PAGE_SIZE), Some(top - 0x2000 - STACK_GAP));
    }

    #[test]
    fn ranges_are_checked() {
        assert_eq!(range(0x1000, 1), Some((0x1000, 0x2000)));
        assert_eq!(range(0x1001, 1), None);
        assert_eq!(range(0x1000, 0), None);
        assert_eq!(range(0x1000, u64::MAX), None);
        assert_eq!(range(LIBOS_BASE - 0x1000, 0x2000), None);
    }
}
