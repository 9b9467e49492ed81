//! Page faults, and mapping ahead so that there are few of them: on a paging-based KVM a fault costs 25 to 50 us, an entry that is
//! there already next to nothing.
//!
//! - Anonymous memory: a huge page (2 MiB) where the mapping has room for one and there is plenty of memory, as Linux's transparent huge
//!   pages; else a block of pages around the address, and a sequential toucher gets twice as many each time.
//! - Objects: what the object has at hand around the page. Fetched without the lock; put in under it when the VMA is still the same and
//!   no page was taken away from any object meanwhile.
//! - A write to a private page that is shared copies a block; when nobody shares it any more, all of its neighbourhood becomes writable.

use super::space::{page_rights, read_only, AddressSpace, Inner, Leftovers};
use super::vma::{Backing, Flags, Vma, STACK_GAP};
use super::{copies, reclaim};
use super::{FaultResult, Pages, HUGE_PAGE, PAGE_SIZE};
use crate::errno::{Errno, EAGAIN, EFAULT, ENOMEM};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::frame::{Frame, Page, Run};
use hal::paging::{OutOfMemory, PageTable, Rights};
use hal::upcall::Access;

/// Pages mapped around a first touch, and the most a sequential toucher gets.
const AROUND: u64 = 16;
const AROUND_MOST: u64 = 512;
/// Pages of an object around a fault; pages that a mapping gets at once when it is made.
const OBJECT_AROUND: u64 = 64;
const OBJECT_AHEAD: u64 = 512;
/// As many of a file's copies.
const COPIES_AHEAD: u64 = 16384;
/// Private writable file mappings up to this many pages are copied at once (data segments: relocation writes to nearly all of it, and
/// to copy a hundred pages costs less than a fault). Of larger ones a write copies the block around it.
const COPY_AHEAD: u64 = 128;
/// So many pages are read by a request rather than touched one by one.
const WORTH_READING: u64 = 3;
const BLOCK: u64 = AROUND * PAGE_SIZE;

/// Raised whenever pages are taken away from an object.
static INVALIDATIONS: AtomicU64 = AtomicU64::new(0);

enum Step {
    End(FaultResult),
    /// Frames ran out.
    Memory(u64),
    Fetch(Fetch),
}

/// Pages `[index, index + count)` of an object for addresses from `start` on; the one at `wanted` must come.
struct Fetch {
    pages: Arc<dyn Pages>,
    index: u64,
    count: u64,
    start: u64,
    wanted: u64,
    /// The program will write through a shared mapping.
    write: bool,
    private: bool,
    /// Private, and to be written: copies.
    copy: bool,
}

impl Fetch {
    /// The index of the first page to put in, and the pages.
    fn gather(&self) -> Result<(u64, Vec<Page>), Errno> {
        let wanted = self.index + (self.wanted - self.start) / PAGE_SIZE;
        let copied = self.copies().and_then(|file| file.around(self.pages.as_ref(), self.index, self.index + self.count, wanted));
        if let Some(found) = copied.or_else(|| self.read()) {
            return Ok(found);
        }
        let got = self.pages.around(self.index, self.count as usize, self.write);
        if wanted - self.index < got.len() as u64 {
            return Ok((self.index, got));
        }
        Ok((wanted, alloc::vec![self.pages.page(wanted, self.write)?]))
    }

    /// Pages to be written, read into frames of the program's own: where touching the file's is dear, it takes longer than a request.
    fn read(&self) -> Option<(u64, Vec<Page>)> {
        let in_file = self.pages.size().div_ceil(PAGE_SIZE).saturating_sub(self.index);
        let count = self.count.min(in_file);
        if !self.copy || count < WORTH_READING || self.pages.copied_version().is_none() {
            return None;
        }
        let frames = copies::read(self.pages.as_ref(), self.index, count)?;
        Some((self.index, frames.into_iter().map(Page::Ram).collect()))
    }

    fn copies(&self) -> Option<Arc<copies::File>> {
        self.private.then(|| copies::of(self.pages.as_ref())).flatten()
    }
}

impl AddressSpace {
    /// A program's (or the library OS's) access failed: makes it possible, or says which signal it deserves.
    pub fn fault(&self, access: Access) -> FaultResult {
        reclaim::prepare(AROUND_MOST);
        loop {
            match self.step(access) {
                Step::End(result) => return result,
                Step::Memory(pages) => {
                    if reclaim::make_room(pages).is_err() {
                        return FaultResult::OutOfMemory;
                    }
                }
                Step::Fetch(fetch) => match self.fetch(&fetch) {
                    Ok(()) => return FaultResult::Done,
                    Err(EAGAIN) => {}
                    Err(ENOMEM) => {
                        if reclaim::make_room(AROUND).is_err() {
                            return FaultResult::OutOfMemory;
                        }
                    }
                    Err(_) => return FaultResult::Bus,
                },
            }
        }
    }

    fn step(&self, access: Access) -> Step {
        let mut left = Leftovers::default();
        let mut inner = self.inner.lock();
        let step = handle(&mut inner, &mut left, access);
        inner.table.flush(left.flush);
        step
    }

    /// Gets the pages and puts them in. EAGAIN: something changed meanwhile, look again; EFAULT: behind the end of the object.
    fn fetch(&self, fetch: &Fetch) -> Result<(), Errno> {
        let invalidations = INVALIDATIONS.load(Ordering::Acquire);
        let (first, got) = fetch.gather()?;
        let start = fetch.start + (first - fetch.index) * PAGE_SIZE;
        self.install(fetch, start, first, &got, invalidations)
    }

    fn install(&self, fetch: &Fetch, start: u64, first: u64, got: &[Page], invalidations: u64) -> Result<(), Errno> {
        let mut left = Leftovers::default();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(vma) = inner.map.find(start) else { return Err(EAGAIN) };
        let same = match &vma.backing {
            Backing::Object(mapping, _) => Arc::ptr_eq(&mapping.pages, &fetch.pages) && vma.index_of(start) == first,
            Backing::Anonymous => false,
        };
        if !same || INVALIDATIONS.load(Ordering::Acquire) != invalidations || vma.shared() && vma.rights.write != fetch.write {
            return Err(EAGAIN);
        }
        let (rights, shared) = (vma.rights, vma.shared());
        let end = vma.end.min(start + got.len() as u64 * PAGE_SIZE);
        let at = |address: u64| got.get(((address - start) / PAGE_SIZE) as usize);
        // The wanted page may replace one that was there without the right to write.
        if shared && fetch.write && inner.table.entry(fetch.wanted).is_some() {
            let page = at(fetch.wanted).cloned().ok_or(EAGAIN)?;
            inner.table.map(fetch.wanted, page, page_rights(rights), &mut left.flush).map_err(|_| ENOMEM)?;
        }
        let mut short = false;
        // Copies of a whole huge page become one.
        let whole = fetch.copy && start.is_multiple_of(HUGE_PAGE) && end - start == HUGE_PAGE;
        let mut run = if whole { reclaim::try_run((HUGE_PAGE / PAGE_SIZE).ilog2() as usize, false) } else { None };
        let allowed = !shared && !fetch.copy && self.patching.load(Ordering::Relaxed);
        let copies = super::patch::instead_of(inner, &mut left, allowed, &fetch.pages, (start, first, (end - start) / PAGE_SIZE));
        let filled = inner.table.fill(start, end, fetch.wanted, |address| {
            let page = at(address)?;
            if shared {
                return Some((page.clone(), page_rights(rights)));
            }
            if fetch.copy {
                if matches!(page, Page::Ram(frame) if frame.references() == 1) {
                    // Read for this program alone.
                    return Some((page.clone(), page_rights(rights)));
                }
                let copy = run.as_mut().and_then(Iterator::next).or_else(reclaim::try_scratch);
                short |= copy.is_none();
                let copy = copy?;
                copy.copy_from(page);
                return Some((Page::Ram(copy), page_rights(rights)));
            }
            let index = first + (address - start) / PAGE_SIZE;
            let copy = copies.binary_search_by_key(&index, |(index, _)| *index).ok().map(|at| Page::Ram(copies[at].1.clone()));
            Some((copy.unwrap_or_else(|| page.clone()), read_only(rights)))
        });
        inner.table.flush(left.flush);
        match filled {
            Err(OutOfMemory) => Err(ENOMEM),
            Ok(_) if short && inner.table.entry(fetch.wanted).is_none() => Err(ENOMEM),
            Ok(_) => Ok(()),
        }
    }

    /// Maps what a new file mapping will surely need: whole segments that a program's loader puts in place (`placed`), whole data
    /// segments with copies. A mapping that the loader will cut up first (read-only, anywhere) is left to faults.
    pub(super) fn map_ahead(&self, start: u64, end: u64, placed: bool) {
        let fetch = {
            let inner = self.inner.lock();
            let Some(vma) = inner.map.find(start).filter(|vma| vma.accessible() && vma.end >= end) else { return };
            let Backing::Object(mapping, _) = &vma.backing else { return };
            let count = (end - start) / PAGE_SIZE;
            let copy = vma.rights.write && !mapping.shared;
            let most = if mapping.pages.copied_version().is_some() { OBJECT_AHEAD } else { COPY_AHEAD };
            let worth = if copy { count <= most } else { placed || vma.rights.execute || (mapping.shared && count <= AROUND) };
            if !worth {
                return;
            }
            Fetch {
                pages: mapping.pages.clone(),
                index: vma.index_of(start),
                count,
                start,
                wanted: start,
                write: mapping.shared && vma.rights.write,
                private: !mapping.shared,
                copy,
            }
        };
        let mut fetch = fetch;
        if let Some(file) = fetch.copies() {
            let last = fetch.index + fetch.count.min(COPIES_AHEAD);
            // Of a data segment all of it, else what others have touched.
            while fetch.index < last {
                let invalidations = INVALIDATIONS.load(Ordering::Acquire);
                let pages = fetch.pages.as_ref();
                let found = if fetch.copy { file.around(pages, fetch.index, last, fetch.index) } else { file.next(fetch.index, last) };
                let Some((first, got)) = found else { return };
                fetch.start += (first - fetch.index) * PAGE_SIZE;
                if self.install(&fetch, fetch.start, first, &got, invalidations).is_err() {
                    return;
                }
                fetch.index = first + got.len() as u64;
                fetch.start += got.len() as u64 * PAGE_SIZE;
            }
            return;
        }
        if let Some((first, got)) = fetch.read() {
            let _ = self.install(&fetch, fetch.start, first, &got, INVALIDATIONS.load(Ordering::Acquire));
            return;
        }
        let last = fetch.index + fetch.count.min(OBJECT_AHEAD);
        // An object gives what lies in one of its windows at a time.
        while fetch.index < last {
            let invalidations = INVALIDATIONS.load(Ordering::Acquire);
            let got = fetch.pages.around(fetch.index, (last - fetch.index) as usize, fetch.write);
            // Whatever does not work out is left to faults.
            if got.is_empty() || self.install(&fetch, fetch.start, fetch.index, &got, invalidations).is_err() {
                return;
            }
            fetch.index += got.len() as u64;
            fetch.start += got.len() as u64 * PAGE_SIZE;
        }
    }

    /// Makes `[start, end)` present (MAP_POPULATE, mlock, MADV_POPULATE_*); `write`: writable where the VMA is. ENOMEM: a hole, EFAULT: a
    /// page that cannot be had.
    pub(super) fn populate(&self, start: u64, end: u64, write: bool) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let (stop, writes, skip) = {
                let mut inner = self.inner.lock();
                let inner = &mut *inner;
                let vma = inner.map.find(at).ok_or(ENOMEM)?;
                let (stop, writes) = (vma.end.min(end), write && vma.rights.write);
                let rights = page_rights(vma.rights);
                if vma.anonymous() && vma.accessible() {
                    // Many at a time; `wanted` is each of them, so none counts as mapped ahead.
                    let chunk = stop.min((at & !(HUGE_PAGE - 1)) + HUGE_PAGE);
                    let mut wanted = at;
                    while wanted < chunk && inner.table.entry(wanted).is_some() {
                        wanted += PAGE_SIZE;
                    }
                    let _ = fill_anonymous(&mut inner.table, wanted, chunk, u64::MAX, rights);
                }
                (stop, writes, !vma_accessible(inner, at))
            };
            if skip {
                at = stop;
                continue;
            }
            while at < stop {
                let ready = {
                    let mut inner = self.inner.lock();
                    let needs_own = inner.map.find(at).is_some_and(|vma| vma.rights.write) && writes;
                    inner.table.ask(at);
                    inner.table.entry(at).is_some_and(|entry| entry.rights.read && (!needs_own || entry.rights.write))
                };
                if !ready {
                    let access = Access { address: at, write: writes, execute: false, present: false };
                    match self.fault(access) {
                        FaultResult::Done => {}
                        FaultResult::OutOfMemory => return Err(ENOMEM),
                        _ => return Err(EFAULT),
                    }
                }
                at += PAGE_SIZE;
                if at.is_multiple_of(HUGE_PAGE) {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn vma_accessible(inner: &Inner, address: u64) -> bool {
    inner.map.find(address).is_some_and(Vma::accessible)
}

fn handle(inner: &mut Inner, left: &mut Leftovers, access: Access) -> Step {
    let address = access.address & !(PAGE_SIZE - 1);
    if inner.map.find(address).is_none() && !grow_stack(inner, address) {
        return Step::End(FaultResult::Segv(1));
    }
    let Some(vma) = inner.map.find(address).filter(|vma| !vma.flags.has(Flags::HIDDEN) || access.execute) else {
        return Step::End(FaultResult::Segv(1));
    };
    let refused = (access.write && !vma.rights.write) || (access.execute && !vma.rights.execute) || !vma.accessible();
    if refused {
        return Step::End(FaultResult::Segv(2));
    }
    let (rights, shared) = (vma.rights, vma.shared());
    if let Some(entry) = inner.table.entry(address) {
        let enough = entry.rights.read && (!access.write || entry.rights.write) && (!access.execute || entry.rights.execute);
        if enough {
            // Somebody else was faster, or the translation was a stale one of fewer rights.
            return Step::End(FaultResult::Done);
        }
        if !shared && access.write {
            return if entry.ram && entry.references == 1 { upgrade(inner, address) } else { copy_block(inner, left, address) };
        }
        if !access.write || entry.ram {
            inner.table.protect(address, address + PAGE_SIZE, &mut left.flush, |_, entry| super::map::allowed(entry, rights, shared));
            return Step::End(FaultResult::Done);
        }
    }
    match &vma.backing {
        Backing::Anonymous => anonymous(inner, address),
        Backing::Object(mapping, _) => {
            let copy = access.write && !mapping.shared;
            let (start, end, pages) = if let Some(next) = copy.then(|| next_copies(vma, address)).flatten() {
                next
            } else {
                let span = match huge_page(vma, address) {
                    _ if copy => BLOCK,
                    Some(_) => HUGE_PAGE,
                    None => OBJECT_AROUND * PAGE_SIZE,
                };
                let block = address & !(span - 1);
                (block.max(vma.start), (block + span).min(vma.end), AROUND)
            };
            let fetch = Fetch {
                pages: mapping.pages.clone(),
                index: vma.index_of(start),
                count: (end - start) / PAGE_SIZE,
                start,
                wanted: address,
                write: mapping.shared && rights.write,
                private: !mapping.shared,
                copy,
            };
            if let Some(ahead) = inner.map.find_ahead(address).filter(|_| copy) {
                *ahead = (end, pages as u16);
            }
            Step::Fetch(fetch)
        }
    }
}

/// Where the huge page around an address begins, if it lies within the mapping.
fn huge_page(vma: &Vma, address: u64) -> Option<u64> {
    let start = address & !(HUGE_PAGE - 1);
    (vma.start <= start && start + HUGE_PAGE <= vma.end).then_some(start)
}

/// As [`huge_page`], if it is worth its memory for a private mapping.
fn worth_huge_page(vma: &Vma, address: u64) -> Option<u64> {
    let small = [Flags::GROWS_DOWN, Flags::STACK, Flags::NO_RESERVE, Flags::RANDOM, Flags::NO_HUGE];
    huge_page(vma, address).filter(|_| !small.iter().any(|&flag| vma.flags.has(flag)) && reclaim::has_plenty())
}

/// The pages from `start` on for a sequential toucher who got `pages` the last time: never across the border of a huge page, so that the
/// next ones may be one.
fn next_window(vma: &Vma, start: u64, pages: u64, most: u64) -> u64 {
    let border = (start & !(HUGE_PAGE - 1)) + HUGE_PAGE;
    (start + (pages * 2).min(most) * PAGE_SIZE).min(border).min(vma.end)
}

/// What a writer gets next who goes through a private mapping of a file, perhaps not page by page; and the pages to double then.
fn next_copies(vma: &Vma, address: u64) -> Option<(u64, u64, u64)> {
    let (expected, pages) = vma.ahead;
    let follows = pages != 0 && (expected..expected + BLOCK).contains(&address);
    let most = if reclaim::has_plenty() { AROUND_MOST } else { AROUND };
    let end = next_window(vma, expected, u64::from(pages), most);
    (follows && address < end).then_some((expected, end, (u64::from(pages) * 2).min(most)))
}

/// First touch of anonymous memory.
fn anonymous(inner: &mut Inner, address: u64) -> Step {
    let Some(vma) = inner.map.find(address) else { return Step::End(FaultResult::Segv(1)) };
    let (low, high, rights, down) = (vma.start, vma.end, page_rights(vma.rights), vma.flags.has(Flags::GROWS_DOWN));
    let sparse = vma.flags.has(Flags::RANDOM) || vma.flags.has(Flags::NO_RESERVE) && vma.bytes() > HUGE_PAGE;
    // Never more than a small part of what is free.
    let most = AROUND_MOST.min((hal::frame::available() / 64).max(1)).max(1);
    let (expected, pages) = vma.ahead;
    let sequential = address == expected && pages != 0 && !down;
    let huge = worth_huge_page(vma, address).filter(|&start| inner.table.is_vacant(start, start + HUGE_PAGE));
    let (start, end, pages) = if let Some(start) = huge {
        (start, start + HUGE_PAGE, AROUND_MOST)
    } else if sequential {
        (address, next_window(vma, address, u64::from(pages), most), (u64::from(pages) * 2).min(most))
    } else if sparse {
        (address, (address + 4 * PAGE_SIZE).min(high), 4)
    } else {
        let pages = AROUND.min(most);
        let block = address & !(pages.next_power_of_two() * PAGE_SIZE - 1);
        (block.max(low), (block + pages * PAGE_SIZE).clamp(address + PAGE_SIZE, high), pages)
    };
    if let Some(ahead) = inner.map.find_ahead(address) {
        *ahead = (end, pages as u16);
    }
    let _ = fill_anonymous(&mut inner.table, start, end, address, rights);
    if inner.table.entry(address).is_some() {
        return Step::End(FaultResult::Done);
    }
    // Not even one, or no table: with frames of the reserve's neighbourhood it may still work for this page alone.
    let Some(frame) = reclaim::try_zeroed() else { return Step::Memory(1) };
    match inner.table.fill(address, address + PAGE_SIZE, address, one(frame, rights)) {
        Ok(_) => Step::End(FaultResult::Done),
        Err(OutOfMemory) => Step::Memory(1),
    }
}

fn one(frame: Frame, rights: Rights) -> impl FnMut(u64) -> Option<(Page, Rights)> {
    let mut frame = Some(frame);
    move |_| frame.take().map(|frame| (Page::Ram(frame), rights))
}

/// Maps zero pages where there are none in `[start, end)`. Stops quietly when frames run out. Err: no memory for tables.
pub(super) fn fill_anonymous(table: &mut PageTable, start: u64, end: u64, wanted: u64, rights: Rights) -> Result<usize, OutOfMemory> {
    if start >= end {
        return Ok(0);
    }
    let mut run: Option<Run> = None;
    table.fill(start, end, wanted, |address| {
        if let Some(frame) = run.as_mut().and_then(Iterator::next) {
            return Some((Page::Ram(frame), rights));
        }
        let order = ((end - address) / PAGE_SIZE).ilog2().min(9) as usize;
        run = reclaim::try_run(order, true).or_else(|| reclaim::try_run(order.min(2), true)).or_else(|| reclaim::try_run(0, true));
        run.as_mut().and_then(Iterator::next).map(|frame| (Page::Ram(frame), rights))
    })
}

/// A private page that nobody shares any more, and its neighbours: writable again. No flush: rights are only added.
fn upgrade(inner: &mut Inner, address: u64) -> Step {
    let Some(vma) = inner.map.find(address) else { return Step::End(FaultResult::Segv(1)) };
    let (start, end, rights) =
        ((address & !(HUGE_PAGE - 1)).max(vma.start), ((address & !(HUGE_PAGE - 1)) + HUGE_PAGE).min(vma.end), vma.rights);
    let mut nothing_lost = hal::paging::Flush::new();
    inner.table.protect(
        start,
        end,
        &mut nothing_lost,
        |_, entry| {
            if entry.ram && entry.references == 1 {
                page_rights(rights)
            } else {
                entry.rights
            }
        },
    );
    inner.table.flush(nothing_lost);
    Step::End(FaultResult::Done)
}

/// Copies a whole huge page of which every page is there.
fn copy_huge_page(inner: &mut Inner, left: &mut Leftovers, start: u64, rights: Rights) -> Option<()> {
    let mut pages = Vec::with_capacity(HUGE_PAGE as usize / PAGE_SIZE as usize);
    inner.table.scan(start, start + HUGE_PAGE, |_, entry| {
        if entry.ram {
            pages.push(Page::Window(entry.address));
        }
    });
    if pages.len() < pages.capacity() {
        return None;
    }
    let copies = reclaim::try_run(pages.len().ilog2() as usize, false)?.zip(&pages).map(|(copy, page)| {
        copy.copy_from(page);
        copy
    });
    inner.table.replace(start, copies, rights, &mut left.flush);
    Some(())
}

/// Copies the shared pages of a block: the wanted one, and RAM pages beside it, more of them each time a sequential writer comes back.
fn copy_block(inner: &mut Inner, left: &mut Leftovers, address: u64) -> Step {
    let Some(vma) = inner.map.find(address) else { return Step::End(FaultResult::Segv(1)) };
    let (expected, pages) = vma.ahead;
    let sequential = address == expected && pages != 0;
    let (limit, rights) = (vma.end, page_rights(vma.rights));
    if let Some(start) = worth_huge_page(vma, address).filter(|_| sequential) {
        if copy_huge_page(inner, left, start, rights).is_some() {
            if let Some(ahead) = inner.map.find_ahead(address) {
                ahead.0 = start + HUGE_PAGE;
            }
            return Step::End(FaultResult::Done);
        }
    }
    let pages = if sequential { (u64::from(pages) * 2).min(128) } else { 4 };
    let (start, end) = (address, (address + pages * PAGE_SIZE).min(limit));
    let mut block: Vec<u64> = Vec::new();
    inner.table.scan(start, end, |at, entry| {
        if at == address || (entry.ram && entry.references > 1 && !entry.rights.write) {
            block.push(at);
        }
    });
    for at in block {
        let Some((page, _)) = inner.table.lookup(at) else { continue };
        let Some(copy) = reclaim::try_scratch() else {
            return if at == address { Step::Memory(1) } else { Step::End(FaultResult::Done) };
        };
        copy.copy_from(&page);
        if inner.table.map(at, Page::Ram(copy), rights, &mut left.flush).is_err() {
            return Step::Memory(1);
        }
    }
    if let Some(ahead) = inner.map.find_ahead(address) {
        *ahead = (end, pages as u16);
    }
    Step::End(FaultResult::Done)
}

/// Extends the growing mapping above `address` down to it (mmap(2), MAP_GROWSDOWN): within RLIMIT_STACK and RLIMIT_AS, keeping the
/// guard gap to what lies below.
fn grow_stack(inner: &mut Inner, address: u64) -> bool {
    let Some(vma) = inner.map.above(address).filter(|vma| vma.flags.has(Flags::GROWS_DOWN)) else { return false };
    let (start, end, locked) = (vma.start, vma.end, vma.flags.has(Flags::LOCKED));
    let limits = super::Limits::of(&crate::sched::current());
    let growth = start - address;
    if end - address > limits.stack || address < super::vma::MIN_ADDRESS {
        return false;
    }
    if let Some(below) = inner.map.below(start) {
        if below.accessible() && !below.flags.has(Flags::GROWS_DOWN) && address < below.end + STACK_GAP || address < below.end {
            return false;
        }
    }
    let totals = inner.map.totals();
    if totals.bytes + growth > limits.address_space || (locked && totals.locked + growth > limits.locked) {
        return false;
    }
    inner.map.grow_down(start, address);
    true
}

/// Takes the pages `[first, end)` (page indexes) of the objects with this identity out of every address space, private copies included:
/// truncate(2) and holes. Call it after the object has let the pages go, under no lock that a [`Pages`] method takes.
pub fn invalidate(identity: (u64, u64), first: u64, end: u64) {
    INVALIDATIONS.fetch_add(1, Ordering::AcqRel);
    super::space::for_each(|space| {
        let ranges: Vec<(u64, u64)> = {
            let inner = space.inner.lock();
            inner.map.iter().filter_map(|vma| part_of(vma, identity, first, end)).collect()
        };
        if ranges.is_empty() {
            return;
        }
        space.edit(|inner, left| {
            // What changed meanwhile was mapped after the object had let go.
            for (from, to) in ranges {
                let still = inner.map.find(from).and_then(|vma| part_of(vma, identity, first, end)) == Some((from, to));
                if still {
                    inner.table.unmap(from, to, &mut left.flush);
                }
            }
        });
    });
}

/// Takes an object's file pages away from private mappings: they come back as copies. Not those that would come back patched: a thread
/// may stand among the instructions that a patch replaces.
fn forget_windows(pages: &dyn Pages) {
    let patched = super::patch::patched(pages);
    super::space::for_each(|space| {
        space.edit(|inner, left| {
            let vmas = inner.map.iter().filter(|vma| !vma.shared());
            let parts = vmas.filter_map(|vma| Some((part_of(vma, pages.identity(), 0, u64::MAX)?, vma.index_of(vma.start))));
            for ((start, end), first) in parts.collect::<Vec<_>>() {
                let mut windows = Vec::new();
                inner.table.scan(start, end, |at, entry| {
                    let stays = entry.ram || patched.binary_search(&(first + (at - start) / PAGE_SIZE)).is_ok();
                    windows.extend((!stays).then_some(at));
                });
                for at in windows {
                    inner.table.unmap(at, at + PAGE_SIZE, &mut left.flush);
                }
            }
        });
    });
}

/// A host file's contents were changed: private mappings see it where they showed copies.
pub fn forget_copies(identity: (u64, u64)) {
    let files = copies::take(identity);
    INVALIDATIONS.fetch_add(1, Ordering::AcqRel);
    super::space::for_each(|space| {
        space.edit(|inner, left| {
            let vmas = inner.map.iter().filter(|vma| !vma.shared());
            let parts = vmas.filter_map(|vma| Some((part_of(vma, identity, 0, u64::MAX)?, vma.index_of(vma.start))));
            for ((start, end), first) in parts.collect::<Vec<_>>() {
                let mut stale = Vec::new();
                inner.table.scan(start, end, |at, entry| {
                    let index = first + (at - start) / PAGE_SIZE;
                    stale.extend((entry.ram && files.iter().any(|file| file.holds(index, entry.address))).then_some(at));
                });
                for at in stale {
                    inner.table.unmap(at, at + PAGE_SIZE, &mut left.flush);
                }
            }
        });
    });
}

impl AddressSpace {
    /// A private mapping of an object is used by this space (`again`: and by a copy of it).
    pub(super) fn uses(&self, pages: &dyn Pages, again: bool) {
        if copies::used(pages, self.number, again) {
            forget_windows(pages);
        }
    }
}

/// Whether copies of an object are worth their memory when several programs have such a mapping of it.
pub(super) fn worth_copies(pages: &dyn Pages, rights: Rights, shared: bool) -> bool {
    !shared && (rights.execute || !rights.write && pages.is_exclusive())
}

/// The addresses at which a VMA shows pages `[first, end)` of an object.
fn part_of(vma: &Vma, identity: (u64, u64), first: u64, end: u64) -> Option<(u64, u64)> {
    let Backing::Object(mapping, _) = &vma.backing else { return None };
    if mapping.pages.identity() != identity {
        return None;
    }
    let base = vma.index_of(vma.start);
    let (from, to) = (first.max(base), end.min(base + vma.bytes() / PAGE_SIZE));
    (from < to).then(|| (vma.start + (from - base) * PAGE_SIZE, vma.start + (to - base) * PAGE_SIZE))
}
