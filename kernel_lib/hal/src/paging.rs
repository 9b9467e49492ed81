//! Page tables as owned data. An address space has 255 PML4 slots of its own; slot 255 is the library OS's, the same everywhere.
//!
//! Costs (docs/decisions): storing a leaf entry is cheap, a directory entry is trapped on a paging-based KVM, taking rights away needs
//! INVLPG by ring 0 on every vCPU that has the space loaded. So upper levels are built once and kept, additions are never flushed,
//! removals are collected in a [`Flush`] and frames rest in it until the flush is done.

use crate::cpu;
use crate::frame::{Frame, Page};
use crate::phys;
use crate::sync::SpinLock;
use abi::layout;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// Software: the entry holds a reference to a RAM frame.
const OWNED: u64 = 1 << 9;
/// Software: the page is mapped without any access right (PROT_NONE): not present, but owned.
const PARKED: u64 = 1 << 10;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

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

/// Removed pages and stale translations: dropped only after the flush.
#[derive(Default)]
pub struct Flush {
    pages: Vec<u64>,
    everything: bool,
    rest: Vec<Page>,
}

impl Flush {
    pub fn new() -> Self {
        Self::default()
    }
    fn stale(&mut self, address: u64) {
        if self.pages.len() < 32 {
            self.pages.push(address);
        } else {
            self.everything = true;
        }
    }
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() && !self.everything
    }
}

/// What a vCPU needs to know of an address space: its root, and who has it loaded.
pub struct Root {
    frame: Frame,
    /// Lower-level table pages: kept until no vCPU can walk them any more.
    tables: SpinLock<Vec<Frame>>,
    /// vCPUs that may hold translations.
    loaded: AtomicU64,
}

impl Root {
    pub fn address(&self) -> u64 {
        self.frame.address()
    }
    pub(crate) fn loaded(&self) -> &AtomicU64 {
        &self.loaded
    }
}

pub struct PageTable {
    root: alloc::sync::Arc<Root>,
}

const fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level)) as usize & 511
}

impl PageTable {
    /// An empty space. None: out of memory.
    pub fn new() -> Option<Self> {
        let frame = Frame::zeroed()?;
        let table = phys::pointer::<u64>(frame.address());
        // SAFETY: a whole page of our own.
        unsafe { *table.add(255) = layout::SHARED_PDPT | PRESENT | WRITE | USER | ACCESSED };
        Some(Self { root: alloc::sync::Arc::new(Root { frame, tables: SpinLock::default(), loaded: AtomicU64::new(0) }) })
    }

    pub fn root(&self) -> &alloc::sync::Arc<Root> {
        &self.root
    }

    /// Pages of tables, for the statistics.
    pub fn table_pages(&self) -> usize {
        self.root.tables.lock().len() + 1
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
                phys::pointer(value & ADDRESS)
            } else if build {
                let frame = Frame::zeroed()?;
                let next = frame.address();
                self.root.tables.lock().push(frame);
                // SAFETY: as above.
                unsafe { entry.write_volatile(next | PRESENT | WRITE | USER | ACCESSED) };
                phys::pointer(next)
            } else {
                return None;
            };
        }
        // SAFETY: as above.
        Some(unsafe { table.add(index(address, 0)) })
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
    pub fn map(&mut self, address: u64, page: Page, rights: Rights, flush: &mut Flush) -> Result<(), ()> {
        let entry = self.leaf(address, true).ok_or(())?;
        // SAFETY: a leaf entry of this space; &mut self is the lock.
        let old = unsafe { entry.read_volatile() };
        // SAFETY: as above.
        unsafe { entry.write_volatile(Self::encode(page, rights)) };
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

    /// Calls `visit(address, entry)` for every leaf entry in use in `[start, end)`; tables that are absent are skipped whole.
    fn each(&mut self, start: u64, end: u64, mut visit: impl FnMut(u64, *mut u64)) {
        let mut address = start;
        while address < end {
            let Some(first) = self.leaf(address, false) else {
                // Skip to the next table that can exist, by the highest absent level.
                address = self.skip(address);
                continue;
            };
            let stop = ((address | 0x1f_ffff) + 1).min(end);
            let mut entry = first;
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

    /// Visits mapped pages in `[start, end)` without taking references: (address, physical address, is RAM, rights).
    pub fn scan(&mut self, start: u64, end: u64, mut visit: impl FnMut(u64, u64, bool, Rights)) {
        self.each(start, end, |address, entry| {
            // SAFETY: as in each.
            let value = unsafe { entry.read_volatile() };
            visit(address, value & ADDRESS, value & OWNED != 0, Self::decode_rights(value));
        });
    }

    /// Takes pages away; they rest in `flush`.
    pub fn unmap(&mut self, start: u64, end: u64, flush: &mut Flush) {
        self.each(start, end, |address, entry| {
            // SAFETY: as in map.
            let old = unsafe { entry.read_volatile() };
            // SAFETY: as in map.
            unsafe { entry.write_volatile(0) };
            if old & PRESENT != 0 {
                flush.stale(address);
            }
            flush.rest.extend(Self::decode_owned(old));
        });
    }

    /// Gives every mapped page in the range the rights that `choose(address, is RAM, frame references, present rights)` says.
    pub fn protect(&mut self, start: u64, end: u64, flush: &mut Flush, mut choose: impl FnMut(u64, bool, u32, Rights) -> Rights) {
        self.each(start, end, |address, entry| {
            // SAFETY: as in map.
            let old = unsafe { entry.read_volatile() };
            let owned = old & OWNED != 0;
            let references = if owned {
                // SAFETY: borrowed for the count only.
                let frame = unsafe { Frame::from_raw(((old & ADDRESS) >> 12) as u32) };
                let count = frame.references();
                let _ = frame.into_raw();
                count
            } else {
                1
            };
            let before = Self::decode_rights(old);
            let after = choose(address, owned, references, before);
            if after == before {
                return;
            }
            // SAFETY: as in map.
            unsafe { entry.write_volatile(old & (ADDRESS | OWNED) | after.bits()) };
            let loses = (before.read && !after.accessible()) || (before.write && !after.write) || (before.execute && !after.execute);
            if loses {
                flush.stale(address);
            }
        });
    }

    /// Moves mapped pages from one range to another (mremap); the target range is empty.
    pub fn relocate(&mut self, from: u64, to: u64, bytes: u64, flush: &mut Flush) -> Result<(), ()> {
        let mut moves = Vec::new();
        self.each(from, from + bytes, |address, entry| moves.push((address, entry as u64)));
        for (address, entry) in moves {
            let target = self.leaf(to + (address - from), true).ok_or(())?;
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
        Ok(())
    }

    /// Makes the removals effective on every vCPU that has this space loaded, then lets the resting pages go.
    pub fn flush(&self, flush: Flush) {
        if !flush.is_empty() {
            cpu::flush(&self.root, &flush.pages, flush.everything);
        }
        drop(flush.rest);
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        let mut flush = Flush::new();
        self.unmap(0, layout::LIBOS_BASE, &mut flush);
        drop(flush.rest);
    }
}

impl Root {
    pub(crate) fn is_loaded_elsewhere(&self, cpu: usize) -> bool {
        self.loaded.load(Ordering::Acquire) & !(1 << cpu) != 0
    }
}
