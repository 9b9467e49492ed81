//! Page tables as owned data. An address space has 255 PML4 slots of its own; slot 255 is the library OS's, the same everywhere.
//!
//! Costs (docs/decisions): storing a leaf entry is cheap, a directory entry is trapped on a paging-based KVM, taking rights away needs
//! INVLPG by ring 0 on every vCPU that has the space loaded. So upper levels are built once and kept, additions are never flushed,
//! removals are collected in a [`Flush`] and frames rest in it until the flush is done.
//!
//! Where the 512 pages of a leaf table are neighbours, on a 2 MiB boundary, with the same rights, its directory entry maps them itself: one
//! entry for the hypervisor to shadow instead of 512. The leaf table is kept beside the tree, says the same, and takes its place again before
//! the first page differs. So all that reads entries knows leaf tables only, and what changes them ends with [`PageTable::settle`].

mod flush;
mod inherit;

pub use flush::Flush;

use crate::cpu;
use crate::frame::{Frame, Page, Returns};
use crate::phys;
use crate::sync::SpinLock;
use crate::tables::{self, Tables};
use abi::layout;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// A directory entry that leads to a table.
const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED;
/// In a directory entry: it maps 2 MiB itself.
const HUGE: u64 = 1 << 7;
/// Software: the entry holds a reference to a RAM frame.
const OWNED: u64 = 1 << 9;
/// Software: the page is mapped without any access right (PROT_NONE): not present, but owned.
const PARKED: u64 = 1 << 10;
/// Software: mapped ahead of need; nobody has asked for it yet.
const AHEAD: u64 = 1 << 11;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What a leaf table maps.
const BLOCK: u64 = 512 * 4096;

/// Frames that may wait for one flush (their list is heap memory).
const MOST_RESTING: usize = 16384;

/// No frame for a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

/// Access rights of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rights {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

impl Rights {
    pub const NONE: Self = Self { read: false, write: false, execute: false };
    pub const READ: Self = Self { read: true, write: false, execute: false };
    pub const READ_WRITE: Self = Self { read: true, write: true, execute: false };
    pub const READ_EXECUTE: Self = Self { read: true, write: false, execute: true };

    const fn accessible(self) -> bool {
        self.read || self.write || self.execute
    }

    const fn bits(self) -> u64 {
        (if self.accessible() { PRESENT } else { PARKED })
            | USER
            | ACCESSED
            | if self.write { WRITE | DIRTY } else { 0 }
            | if self.execute { 0 } else { NO_EXECUTE }
    }
}

/// What a vCPU needs to know of an address space: its root, and who has it loaded.
pub struct Root {
    address: u64,
    kind: u64,
    /// Table pages, the root itself among them: kept until no vCPU can walk them any more.
    tables: SpinLock<Tables>,
    /// vCPUs that may hold translations.
    loaded: AtomicU64,
}

impl Root {
    pub fn address(&self) -> u64 {
        self.address
    }
    /// As given to [`PageTable::new`].
    pub fn kind(&self) -> u64 {
        self.kind
    }
    pub(crate) fn loaded(&self) -> &AtomicU64 {
        &self.loaded
    }
}

pub struct PageTable {
    root: alloc::sync::Arc<Root>,
    /// Entries that hold RAM frames, and entries that point to window pages.
    resident: (usize, usize),
    /// Blocks that are mapped by their directory entry, with the address of their leaf table.
    huge: BTreeMap<u64, u64>,
    /// Made by [`PageTable::for_copy`]: up to where [`PageTable::inherit`] has decided. Beyond may be pages of the tree's last space.
    decided: Option<u64>,
}

/// What a leaf entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Guest-physical address of the page.
    pub address: u64,
    /// A counted RAM frame (else a window page), and how many references it has.
    pub ram: bool,
    pub references: u32,
    pub rights: Rights,
    /// Mapped ahead, not asked for.
    pub ahead: bool,
}

/// How a page is inherited (see [`PageTable::inherit`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Inherit {
    /// Not at all.
    Skip,
    /// The same page in both, with these rights in both.
    Share(Rights),
    /// A copy of its own, with the parent's rights; when there is no memory, as `Share` with these rights.
    Copy(Rights),
    /// Another page in its place, with the parent's rights.
    Instead(Frame),
}

const fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level)) as usize & 511
}

const fn block_of(address: u64) -> u64 {
    address & !(BLOCK - 1)
}

impl PageTable {
    /// An empty space. `kind`: a number for what will run there; tables of the same kind that are left over are used first. None: out of
    /// memory.
    pub fn new(kind: u64) -> Option<Self> {
        let mut tables = Self::tables(kind)?;
        tables.empty();
        Some(Self::of(tables, kind, None))
    }

    /// A space for [`Self::inherit`] to fill, in the order of addresses, and [`Self::inherit_no_more`] to end. Its tree may still map the pages of
    /// the last copy of this kind: a page that is copied again goes to the same place, and the hypervisor's shadow of it stays.
    pub fn for_copy(kind: u64) -> Option<Self> {
        Some(Self::of(Self::tables(kind)?, kind, Some(0)))
    }

    fn tables(kind: u64) -> Option<Tables> {
        match tables::take_tree(kind) {
            Some(tables) => Some(tables),
            None => {
                let frame = tables::take(true)?;
                // SAFETY: a whole page of our own.
                unsafe { *phys::pointer::<u64>(frame.address()).add(255) = layout::SHARED_PDPT | TABLE };
                let mut tables = Tables::default();
                tables.keep(frame, true);
                Some(tables)
            }
        }
    }

    fn of(tables: Tables, kind: u64, decided: Option<u64>) -> Self {
        let root = Root { address: tables.root(), kind, tables: SpinLock::new(tables), loaded: AtomicU64::new(0) };
        Self { root: alloc::sync::Arc::new(root), resident: (0, 0), huge: BTreeMap::new(), decided }
    }

    pub fn root(&self) -> &alloc::sync::Arc<Root> {
        &self.root
    }

    /// Pages of tables, for the statistics.
    pub fn table_pages(&self) -> usize {
        self.root.tables.lock().len()
    }

    /// Pages of RAM and of the window that are mapped.
    pub fn resident(&self) -> (usize, usize) {
        self.resident
    }

    fn count(&mut self, entry: u64, sign: isize) {
        if entry & (PRESENT | PARKED) != 0 {
            let count = if entry & OWNED != 0 { &mut self.resident.0 } else { &mut self.resident.1 };
            *count = count.wrapping_add_signed(sign);
        }
    }

    /// The leaf table's entry for `address`; builds the upper levels when `build`.
    fn leaf(&mut self, address: u64, build: bool) -> Option<*mut u64> {
        assert!(address < layout::LIBOS_BASE);
        let mut table = phys::pointer::<u64>(self.root.address());
        for level in (1..=3).rev() {
            // SAFETY: `table` is one of this space's table pages.
            let entry = unsafe { table.add(index(address, level)) };
            // SAFETY: as above.
            let value = unsafe { entry.read_volatile() };
            table = if value & PRESENT != 0 {
                let huge = level == 1 && value & HUGE != 0;
                phys::pointer(if huge { *self.huge.get(&block_of(address))? } else { value & ADDRESS })
            } else if build {
                let frame = tables::take(level > 1)?;
                let next = frame.address();
                self.root.tables.lock().keep(frame, level > 1);
                // SAFETY: as above.
                unsafe { entry.write_volatile(next | TABLE) };
                phys::pointer(next)
            } else {
                return None;
            };
        }
        // SAFETY: as above.
        Some(unsafe { table.add(index(address, 0)) })
    }

    /// The directory entry above `address`'s leaf table.
    fn directory_entry(&self, address: u64) -> Option<*mut u64> {
        let mut table = phys::pointer::<u64>(self.root.address());
        for level in (2..=3).rev() {
            // SAFETY: `table` is one of this space's table pages.
            let value = unsafe { table.add(index(address, level)).read_volatile() };
            if value & PRESENT == 0 {
                return None;
            }
            table = phys::pointer(value & ADDRESS);
        }
        // SAFETY: as above.
        Some(unsafe { table.add(index(address, 1)) })
    }

    /// The directory entry that maps what a leaf table does, if one can.
    fn huge_entry(leaf: *const u64) -> Option<u64> {
        // SAFETY: `leaf` is a whole leaf table.
        let entry = |number: usize| unsafe { leaf.add(number).read_volatile() } & !AHEAD;
        let first = entry(0);
        let may = first & PRESENT != 0 && (first & ADDRESS).is_multiple_of(BLOCK);
        let same = may && (1..512).all(|number| entry(number) == first + number as u64 * 4096);
        same.then_some(first & !OWNED | HUGE)
    }

    /// Maps the block around `address` by its directory entry if that can be, else by its leaf table. Both say the same: nothing is flushed.
    fn settle(&mut self, address: u64) {
        let block = block_of(address);
        let (Some(leaf), Some(entry)) = (self.leaf(block, false), self.directory_entry(block)) else { return };
        let table = phys::address_of(leaf);
        let value = match Self::huge_entry(leaf) {
            Some(huge) => {
                self.huge.insert(block, table);
                huge
            }
            None if self.huge.remove(&block).is_some() => table | TABLE,
            None => return,
        };
        // SAFETY: a directory entry of this space; &mut self is the lock.
        unsafe { entry.write_volatile(value) };
    }

    /// The part of `[at, end)` under the next leaf table that exists.
    fn next_part(&mut self, mut at: u64, end: u64) -> Option<(u64, u64)> {
        while at < end {
            if self.leaf(at, false).is_some() {
                return Some((at, (block_of(at) + BLOCK).min(end)));
            }
            // Past the highest absent level.
            at = self.skip(at);
        }
        None
    }

    fn encode(page: Page, rights: Rights) -> u64 {
        match page {
            Page::Ram(frame) => u64::from(frame.into_raw()) << 12 | rights.bits() | OWNED,
            Page::Window(gpa) => gpa | rights.bits(),
        }
    }

    /// The page of an entry, taking its reference.
    fn decode_owned(entry: u64) -> Option<Page> {
        if entry & (PRESENT | PARKED) == 0 {
            return None;
        }
        let gpa = entry & ADDRESS;
        if entry & OWNED != 0 {
            // SAFETY: OWNED entries hold the reference that `encode` put in; the caller erases the entry.
            Some(Page::Ram(unsafe { Frame::from_raw((gpa >> 12) as u32) }))
        } else {
            Some(Page::Window(gpa))
        }
    }

    fn decode_rights(entry: u64) -> Rights {
        if entry & PRESENT == 0 {
            return Rights::NONE;
        }
        Rights { read: true, write: entry & WRITE != 0, execute: entry & NO_EXECUTE == 0 }
    }

    /// Maps one page, replacing what was there (its page goes to `flush`). Err: no memory for a table; the page is dropped.
    pub fn map(&mut self, address: u64, page: Page, rights: Rights, flush: &mut Flush) -> Result<(), OutOfMemory> {
        let entry = self.leaf(address, true).ok_or(OutOfMemory)?;
        // SAFETY: a leaf entry of this space; &mut self is the lock.
        let old = unsafe { entry.read_volatile() };
        let new = Self::encode(page, rights);
        // SAFETY: as above.
        unsafe { entry.write_volatile(new) };
        if self.huge.contains_key(&block_of(address)) {
            self.settle(address);
        }
        self.count(old, -1);
        self.count(new, 1);
        if old & PRESENT != 0 {
            flush.stale(address);
        }
        if let Some(page) = Self::decode_owned(old) {
            flush.rest.push(page);
        }
        Ok(())
    }

    /// The page at `address` with its rights (a RAM page comes with a reference of its own).
    pub fn lookup(&mut self, address: u64) -> Option<(Page, Rights)> {
        let entry = self.leaf(address, false)?;
        // SAFETY: as in map.
        let value = unsafe { entry.read_volatile() };
        let page = match Self::decode_owned(value)? {
            Page::Ram(frame) => {
                let copy = frame.clone();
                let _ = frame.into_raw();
                Page::Ram(copy)
            }
            window => window,
        };
        Some((page, Self::decode_rights(value)))
    }

    /// What is mapped at `address`, without taking a reference.
    pub fn entry(&mut self, address: u64) -> Option<Entry> {
        let entry = self.leaf(address, false)?;
        // SAFETY: as in map.
        let value = unsafe { entry.read_volatile() };
        (value & (PRESENT | PARKED) != 0).then(|| Self::describe(value))
    }

    /// Somebody asked for the page: it no longer counts as mapped ahead.
    pub fn ask(&mut self, address: u64) {
        if let Some(entry) = self.leaf(address, false) {
            // SAFETY: as in map; a software bit, which no translation depends on.
            unsafe {
                let value = entry.read_volatile();
                if value & AHEAD != 0 {
                    entry.write_volatile(value & !AHEAD);
                }
            }
        }
    }

    fn describe(value: u64) -> Entry {
        let ram = value & OWNED != 0;
        let references = if ram {
            // SAFETY: borrowed for the count only; the entry keeps its reference.
            let frame = unsafe { Frame::from_raw(((value & ADDRESS) >> 12) as u32) };
            let count = frame.references();
            let _ = frame.into_raw();
            count
        } else {
            1
        };
        Entry { address: value & ADDRESS, ram, references, rights: Self::decode_rights(value), ahead: value & AHEAD != 0 }
    }

    /// Maps pages where there are none: `next(address)` gives the page for each absent entry of `[start, end)` in turn; None ends it.
    /// What is there stays. Everything but `wanted` counts as mapped ahead of need. A leaf table that does not exist yet is filled
    /// before it is hung in: one store to a live directory instead of one per page. Gives the pages mapped; Err: no memory for tables.
    pub fn fill(
        &mut self,
        start: u64,
        end: u64,
        wanted: u64,
        mut next: impl FnMut(u64) -> Option<(Page, Rights)>,
    ) -> Result<usize, OutOfMemory> {
        let mut address = start;
        let mut mapped = 0;
        while address < end {
            let stop = (block_of(address) + BLOCK).min(end);
            let existing = self.leaf(address, false);
            let new_table = if existing.is_none() { Some(tables::take(false).ok_or(OutOfMemory)?) } else { None };
            let first = match (&existing, &new_table) {
                (Some(entry), _) => *entry,
                (None, Some(frame)) => phys::pointer::<u64>(frame.address()).wrapping_add(index(address, 0)),
                (None, None) => return Err(OutOfMemory),
            };
            let mut ended = false;
            let before = mapped;
            for (offset, at) in (address..stop).step_by(4096).enumerate() {
                // SAFETY: entries of one leaf table, up to its end; &mut self is the lock.
                let entry = unsafe { first.add(offset) };
                // SAFETY: as above.
                if unsafe { entry.read_volatile() } & (PRESENT | PARKED) != 0 {
                    continue;
                }
                let Some((page, rights)) = next(at) else {
                    ended = true;
                    break;
                };
                let value = Self::encode(page, rights) | if at == wanted { 0 } else { AHEAD };
                // SAFETY: as above.
                unsafe { entry.write_volatile(value) };
                self.count(value, 1);
                mapped += 1;
            }
            let whole = mapped - before == 512;
            if let Some(frame) = new_table.filter(|_| mapped > before) {
                let huge = if whole { Self::huge_entry(first) } else { None };
                let table = frame.address();
                self.hang_in(address, frame, huge.unwrap_or(table | TABLE))?;
                if huge.is_some() {
                    self.huge.insert(block_of(address), table);
                }
            } else if whole {
                self.settle(address);
            }
            if ended {
                break;
            }
            address = stop;
        }
        Ok(mapped)
    }

    /// Puts a filled leaf table into the tree, by this directory entry. On Err its pages are lost to the space: they are given back.
    fn hang_in(&mut self, address: u64, leaf: Frame, leaf_entry: u64) -> Result<(), OutOfMemory> {
        let leaf_table = leaf.address();
        let mut table = phys::pointer::<u64>(self.root.address());
        for level in (1..=3).rev() {
            // SAFETY: `table` is one of this space's table pages.
            let entry = unsafe { table.add(index(address, level)) };
            // SAFETY: as above.
            let value = unsafe { entry.read_volatile() };
            if level > 1 && value & PRESENT != 0 {
                table = phys::pointer(value & ADDRESS);
                continue;
            }
            // The missing levels hang below the leaf's future parent, built from the bottom.
            let (mut child, mut child_entry) = (leaf, leaf_entry);
            for lower in 1..level {
                let Some(frame) = tables::take(true) else {
                    self.discard(leaf_table);
                    return Err(OutOfMemory);
                };
                // SAFETY: a whole fresh page of ours.
                unsafe { *phys::pointer::<u64>(frame.address()).add(index(address, lower)) = child_entry };
                self.root.tables.lock().keep(child, lower > 1);
                child_entry = frame.address() | TABLE;
                child = frame;
            }
            // SAFETY: as above.
            unsafe { entry.write_volatile(child_entry) };
            self.root.tables.lock().keep(child, level > 1);
            return Ok(());
        }
        Ok(())
    }

    /// Gives back the pages of a leaf table that could not be hung in.
    fn discard(&mut self, table: u64) {
        for offset in 0..512 {
            // SAFETY: entries of the leaf table, which no walker has seen.
            let value = unsafe { *phys::pointer::<u64>(table).add(offset) };
            self.count(value, -1);
            drop(Self::decode_owned(value));
        }
    }

    /// Calls `visit(address, entry)` for every leaf entry in use in `[start, end)`; tables that are absent are skipped whole.
    fn each(&mut self, start: u64, end: u64, mut visit: impl FnMut(u64, *mut u64)) {
        let mut at = start;
        while let Some((mut address, stop)) = self.next_part(at, end) {
            let Some(mut entry) = self.leaf(address, false) else { return };
            while address < stop {
                // SAFETY: entries of one leaf table, up to its end.
                unsafe {
                    if entry.read_volatile() & (PRESENT | PARKED) != 0 {
                        visit(address, entry);
                    }
                    entry = entry.add(1);
                }
                address += 4096;
            }
            at = stop;
        }
    }

    fn skip(&self, address: u64) -> u64 {
        let mut table = phys::pointer::<u64>(self.root.address());
        for level in (1..=3).rev() {
            // SAFETY: table pages of this space.
            let value = unsafe { table.add(index(address, level)).read_volatile() };
            if value & PRESENT == 0 {
                let span = 1u64 << (12 + 9 * level);
                return (address & !(span - 1)) + span;
            }
            table = phys::pointer(value & ADDRESS);
        }
        address + 4096
    }

    /// Visits mapped pages in `[start, end)` without taking references.
    pub fn scan(&mut self, start: u64, end: u64, mut visit: impl FnMut(u64, &Entry)) {
        self.each(start, end, |address, entry| {
            // SAFETY: as in each.
            visit(address, &Self::describe(unsafe { entry.read_volatile() }));
        });
    }

    /// Whether nothing is mapped in `[start, end)`.
    pub fn is_vacant(&mut self, start: u64, end: u64) -> bool {
        let mut vacant = true;
        self.each(start, end, |_, _| vacant = false);
        vacant
    }

    /// Puts 512 pages in place of those from `start` on, which are all there and a leaf table's.
    pub fn replace(&mut self, start: u64, pages: impl Iterator<Item = Frame>, rights: Rights, flush: &mut Flush) {
        let mut pages = pages;
        let was_huge = self.huge.contains_key(&start);
        let mut gone = 0;
        self.each(start, start + BLOCK, |_, entry| {
            let Some(frame) = pages.next() else { return };
            // SAFETY: as in map.
            let old = unsafe { entry.read_volatile() };
            // SAFETY: as in map.
            unsafe { entry.write_volatile(Self::encode(Page::Ram(frame), rights)) };
            gone += usize::from(old & OWNED == 0);
            flush.rest.extend(Self::decode_owned(old));
        });
        self.resident = (self.resident.0 + gone, self.resident.1 - gone);
        self.settle(start);
        if was_huge {
            flush.stale_block(start);
        } else {
            flush.everything = true;
        }
    }

    /// Makes pages of `[start, end)` read as zeros: those with these rights that nobody shares. Others are taken away.
    pub fn blank(&mut self, start: u64, end: u64, rights: Rights, flush: &mut Flush) {
        let mut others = Vec::new();
        self.each(start, end, |address, entry| {
            // SAFETY: as in map.
            let found = Self::describe(unsafe { entry.read_volatile() });
            if found.ram && found.references == 1 && found.rights == rights {
                // SAFETY: a whole page of RAM, which this space alone has. A thread that writes it meanwhile harms its own data only.
                unsafe { core::ptr::write_bytes(phys::pointer::<u8>(found.address), 0, 4096) };
            } else {
                others.push(address);
            }
        });
        for address in others {
            self.unmap(address, address + 4096, flush);
        }
    }

    /// Takes pages away; they rest in `flush`. When very many rest there, they are flushed on the way.
    pub fn unmap(&mut self, start: u64, end: u64, flush: &mut Flush) {
        let mut at = start;
        while let Some((from, stop)) = self.next_part(at, end) {
            let was_huge = self.huge.contains_key(&block_of(from));
            let mut gone = (0, 0);
            self.each(from, stop, |address, entry| {
                // SAFETY: as in map.
                let old = unsafe { entry.read_volatile() };
                // SAFETY: as in map.
                unsafe { entry.write_volatile(0) };
                if old & PRESENT != 0 && !was_huge {
                    flush.stale(address);
                }
                if old & OWNED != 0 {
                    gone.0 += 1;
                } else {
                    gone.1 += 1;
                }
                flush.rest.extend(Self::decode_owned(old).filter(|page| matches!(page, Page::Ram(_))));
            });
            if was_huge {
                self.settle(from);
                flush.stale_block(from);
            }
            self.resident.0 -= gone.0;
            self.resident.1 -= gone.1;
            if flush.rest.len() > MOST_RESTING {
                self.flush(core::mem::take(flush));
            }
            at = stop;
        }
    }

    /// Gives every mapped page in the range the rights that `choose(address, entry)` says.
    pub fn protect(&mut self, start: u64, end: u64, flush: &mut Flush, mut choose: impl FnMut(u64, &Entry) -> Rights) {
        let mut at = start;
        while let Some((from, stop)) = self.next_part(at, end) {
            let was_huge = self.huge.contains_key(&block_of(from));
            let (mut changed, mut lost) = (false, false);
            self.each(from, stop, |address, entry| {
                // SAFETY: as in map.
                let old = unsafe { entry.read_volatile() };
                let described = Self::describe(old);
                let before = described.rights;
                let after = choose(address, &described);
                if after == before {
                    return;
                }
                // SAFETY: as in map.
                unsafe { entry.write_volatile(old & (ADDRESS | OWNED | AHEAD) | after.bits()) };
                changed = true;
                let loses = (before.read && !after.accessible()) || (before.write && !after.write) || (before.execute && !after.execute);
                lost |= loses;
                if loses && !was_huge {
                    flush.stale(address);
                }
            });
            if changed && (was_huge || stop - from == BLOCK) {
                self.settle(from);
            }
            if was_huge && lost {
                flush.stale_block(from);
            }
            at = stop;
        }
    }

    /// Moves mapped pages from one range to another (mremap); the target range is empty.
    pub fn relocate(&mut self, from: u64, to: u64, bytes: u64, flush: &mut Flush) -> Result<(), OutOfMemory> {
        let mut moves = Vec::new();
        self.each(from, from + bytes, |address, entry| moves.push((address, entry as u64)));
        let huge: Vec<u64> = self.huge.range(block_of(from)..from + bytes).map(|(block, _)| *block).collect();
        let mut result = Ok(());
        for (address, entry) in moves {
            let Some(target) = self.leaf(to + (address - from), true) else {
                result = Err(OutOfMemory);
                break;
            };
            let entry = entry as *mut u64;
            // SAFETY: both are leaf entries of this space.
            unsafe {
                let value = entry.read_volatile();
                entry.write_volatile(0);
                target.write_volatile(value);
                if value & PRESENT != 0 {
                    flush.stale(address);
                }
            }
        }
        for block in huge {
            self.settle(block);
        }
        result
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        // No vCPU runs a program in this space any more: nothing to flush. A tree that will be used again is emptied, or keeps its pages.
        let empty = self.root.tables.lock().is_worth_keeping();
        let mut may_stay = if empty && self.decided.is_some() && cpu::has_shadow_paging() { tables::MOST_PAGES_OF_TREE } else { 0 };
        let mut staying = 0;
        let mut returns = Returns::default();
        let mut at = 0;
        while let Some((from, stop)) = self.next_part(at, layout::LIBOS_BASE) {
            let huge = self.huge.contains_key(&from);
            self.each(from, stop, |_, entry| {
                // SAFETY: as in map; the entry's reference is taken once, and nobody reads entries of a tree that goes.
                unsafe {
                    let value = entry.read_volatile();
                    if may_stay > 0 && !huge && Self::may_stay(value) {
                        may_stay -= 1;
                        staying += 1;
                        return;
                    }
                    if let Some(Page::Ram(frame)) = Self::decode_owned(value) {
                        returns.add(frame);
                    }
                    if empty {
                        entry.write_volatile(0);
                    }
                }
            });
            if empty && huge {
                self.settle(from);
            }
            at = stop;
        }
        self.root.tables.lock().pages = staying;
    }
}

/// Lets the pages go that a leaf table maps. Nobody has it loaded.
pub(crate) fn empty_leaf(table: &Frame) {
    let mut returns = Returns::default();
    for offset in 0..512 {
        // SAFETY: entries of the leaf table, each with a reference of its own.
        unsafe {
            let entry = phys::pointer::<u64>(table.address()).add(offset);
            let value = entry.read_volatile();
            if value != 0 {
                entry.write_volatile(0);
            }
            if let Some(Page::Ram(frame)) = PageTable::decode_owned(value) {
                returns.add(frame);
            }
        }
    }
}

/// Takes back the pages that trees keep for the next copies of their spaces; how many.
pub fn shrink() -> usize {
    tables::empty_trees(0)
}

impl Drop for Root {
    fn drop(&mut self) {
        tables::give_tree(self.kind, core::mem::take(self.tables.get_mut()));
    }
}

impl Root {
    pub(crate) fn is_loaded_elsewhere(&self, cpu: usize) -> bool {
        self.loaded.load(Ordering::Acquire) & !(1 << cpu) != 0
    }
}
