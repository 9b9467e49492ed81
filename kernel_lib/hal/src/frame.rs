//! Page frames: a buddy allocator over lazily backed RAM, with a reference count a frame.
//!
//! Three pools. `used` holds frames that the host has backed and whose contents are old; `fresh` holds frames that read as zeros and
//! cost a host fault when touched first. Allocation prefers `used`. [`begin_release`] and [`finish_release`] move blocks from `used` to
//! `fresh` when their memory is given back to the host. `reserve` is one block set aside for the library OS's heap, which has nobody to
//! tell that there is no memory, or none in one piece: what is left in the other pools may all be single pages.
//!
//! Lock order: `POOLS` is a leaf; nothing is called under it.

use crate::phys;
use crate::sync::SpinLock;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub const PAGE: usize = 4096;
/// Largest block: 2^13 pages, 32 MiB.
pub const MAX_ORDER: usize = 13;
const CHUNK_SHIFT: u64 = 26;
const CHUNK: u64 = 1 << CHUNK_SHIFT;
const CHUNKS: usize = (abi::layout::RAM_END_MAX >> CHUNK_SHIFT) as usize;
const NONE: u32 = 0;
/// The heap's reserve: 2 MiB.
const RESERVE_ORDER: usize = 9;

#[repr(C)]
struct Meta {
    references: AtomicU32,
    /// Free-list links, valid while the block whose head this is is free.
    next: u32,
    previous: u32,
    /// Order of the free block that begins here.
    order: u8,
    /// 0: allocated or inside a block; 1: head of a free block in `used`; 2: in `fresh`; 3: in `reserve`.
    pool: u8,
    pad: u16,
}

/// Virtual address of each chunk's metadata; 0: no memory there.
static CHUNK_META: [AtomicU64; CHUNKS] = [const { AtomicU64::new(0) }; CHUNKS];

fn meta_pointer(pfn: u32) -> Option<*mut Meta> {
    let chunk = (u64::from(pfn) << 12 >> CHUNK_SHIFT) as usize;
    let base = CHUNK_META.get(chunk)?.load(Ordering::Acquire);
    if base == 0 {
        return None;
    }
    let index = pfn as usize & (CHUNK as usize / PAGE - 1);
    Some((base as *mut Meta).wrapping_add(index))
}

fn meta(pfn: u32) -> *mut Meta {
    meta_pointer(pfn).expect("frame outside of RAM")
}

struct Pool {
    heads: [u32; MAX_ORDER + 1],
    pages: u64,
    /// Fewest pages since somebody asked.
    low: u64,
    tag: u8,
}

impl Pool {
    const fn new(tag: u8) -> Self {
        Self { heads: [NONE; MAX_ORDER + 1], pages: 0, low: 0, tag }
    }

    fn push(&mut self, pfn: u32, order: usize) {
        let head = self.heads[order];
        // SAFETY: POOLS is locked; metadata of free blocks belongs to the pools.
        unsafe {
            let m = &mut *meta(pfn);
            m.next = head;
            m.previous = NONE;
            m.order = order as u8;
            m.pool = self.tag;
            if head != NONE {
                (*meta(head)).previous = pfn;
            }
        }
        self.heads[order] = pfn;
        self.pages += 1 << order;
        free_pages().fetch_add(1 << order, Ordering::Relaxed);
    }

    fn remove(&mut self, pfn: u32, order: usize) {
        // SAFETY: as in push.
        unsafe {
            let m = &mut *meta(pfn);
            if m.previous == NONE {
                self.heads[order] = m.next;
            } else {
                (*meta(m.previous)).next = m.next;
            }
            if m.next != NONE {
                (*meta(m.next)).previous = m.previous;
            }
            m.pool = 0;
        }
        self.pages -= 1 << order;
        free_pages().fetch_sub(1 << order, Ordering::Relaxed);
    }

    fn take(&mut self, order: usize) -> Option<u32> {
        let found = (order..=MAX_ORDER).find(|&o| self.heads[o] != NONE)?;
        let pfn = self.heads[found];
        self.remove(pfn, found);
        for smaller in (order..found).rev() {
            self.push(pfn + (1 << smaller), smaller);
        }
        self.low = self.low.min(self.pages);
        Some(pfn)
    }

    fn give(&mut self, mut pfn: u32, mut order: usize) {
        while order < MAX_ORDER {
            let buddy = pfn ^ (1 << order);
            let Some(m) = meta_pointer(buddy) else { break };
            // SAFETY: as in push.
            let (pool, buddy_order) = unsafe { ((*m).pool, (*m).order) };
            if pool != self.tag || buddy_order as usize != order {
                break;
            }
            self.remove(buddy, order);
            pfn = pfn.min(buddy);
            order += 1;
        }
        self.push(pfn, order);
    }
}

struct Pools {
    used: Pool,
    fresh: Pool,
    reserve: Pool,
    /// The page that the reserve begins with.
    reserved: u32,
    end: u64,
}

impl Pools {
    fn give(&mut self, pfn: u32, order: usize) {
        let in_reserve = self.reserved != NONE && (self.reserved..self.reserved + (1 << RESERVE_ORDER)).contains(&pfn);
        let pool = if in_reserve { &mut self.reserve } else { &mut self.used };
        pool.give(pfn, order);
    }
}

static POOLS: SpinLock<Pools> =
    SpinLock::new(Pools { used: Pool::new(1), fresh: Pool::new(2), reserve: Pool::new(3), reserved: NONE, end: 0 });

/// Pages free in both pools, readable without the lock and from outside.
fn free_pages() -> &'static AtomicU64 {
    &crate::cpu::counters().frames_free
}

/// Adds RAM that the VMM has just given (answer to MEMORY GROW). Nonsense is ignored: false.
pub fn grow(start: u64, end: u64) -> bool {
    let known = POOLS.lock().end;
    if start < known || end <= start || end > abi::layout::RAM_END_MAX || (start | end) & (PAGE as u64 - 1) != 0 {
        return false;
    }
    // RAM is contiguous but for the hole below 4 GiB.
    if start < abi::layout::LOW_RAM_END && end > abi::layout::LOW_RAM_END {
        add_ram(start, abi::layout::LOW_RAM_END);
        if end > abi::layout::HIGH_RAM {
            add_ram(abi::layout::HIGH_RAM, end);
        }
    } else {
        add_ram(start, end);
    }
    true
}

/// Adds RAM `[start, end)`, guest-physical, page aligned. Metadata is carved from the beginning of each 64 MiB chunk's part.
pub(crate) fn add_ram(start: u64, end: u64) {
    let mut at = start;
    while at < end {
        let chunk_end = ((at & !(CHUNK - 1)) + CHUNK).min(end);
        let slot = &CHUNK_META[(at >> CHUNK_SHIFT) as usize];
        let mut first = at;
        if slot.load(Ordering::Acquire) == 0 {
            let bytes = (CHUNK as usize / PAGE * core::mem::size_of::<Meta>()) as u64;
            if chunk_end - at <= bytes {
                at = chunk_end;
                continue;
            }
            slot.store(phys::pointer::<u8>(at) as u64, Ordering::Release);
            first = at + bytes;
        }
        let mut pools = POOLS.lock();
        crate::cpu::counters().frames_total.fetch_add((chunk_end - first) >> 12, Ordering::Relaxed);
        pools.end = pools.end.max(chunk_end);
        let mut pfn = (first >> 12) as u32;
        let last = (chunk_end >> 12) as u32;
        while pfn < last {
            let mut order = (pfn.trailing_zeros() as usize).min(MAX_ORDER);
            while pfn + (1 << order) > last {
                order -= 1;
            }
            pools.fresh.push(pfn, order);
            pfn += 1 << order;
        }
        drop(pools);
        at = chunk_end;
    }
}

/// Sets the heap's reserve aside. Once, when the first RAM is there.
pub(crate) fn set_reserve() {
    let mut pools = POOLS.lock();
    if let Some(pfn) = pools.fresh.take(RESERVE_ORDER) {
        pools.reserved = pfn;
        pools.reserve.push(pfn, RESERVE_ORDER);
    }
}

/// Pages free, without taking a lock.
pub fn available() -> u64 {
    free_pages().load(Ordering::Relaxed)
}

/// A block of `2^order` pages; true: it reads as zeros. None: out of memory (grow the guest, or reclaim, then try again).
fn take(order: usize) -> Option<(u32, bool)> {
    let mut pools = POOLS.lock();
    if let Some(pfn) = pools.used.take(order) {
        return Some((pfn, false));
    }
    pools.fresh.take(order).map(|pfn| (pfn, true))
}

fn give(pfn: u32, order: usize) {
    POOLS.lock().give(pfn, order);
}

/// One page of RAM, counted: a clone is another reference, the last drop frees it.
#[derive(PartialEq, Eq, Debug)]
pub struct Frame(u32);

impl Frame {
    /// A page that reads as zeros.
    pub fn zeroed() -> Option<Self> {
        let (pfn, zero) = take(0)?;
        let frame = Self::own(pfn);
        if !zero {
            // SAFETY: the frame is ours alone.
            unsafe { core::ptr::write_bytes(frame.pointer(), 0, PAGE) };
        }
        Some(frame)
    }

    /// A page with whatever contents.
    pub fn scratch() -> Option<Self> {
        take(0).map(|(pfn, _)| Self::own(pfn))
    }

    /// A copy of any page (RAM or DAX window).
    pub fn copy_of(page: &Page) -> Option<Self> {
        let frame = Self::scratch()?;
        // SAFETY: source is a whole page of the direct map; the target is ours alone. A racing writer tears only its own data.
        unsafe { core::ptr::copy_nonoverlapping(phys::pointer::<u8>(page.address()), frame.pointer(), PAGE) };
        Some(frame)
    }

    /// Overwrites the page with a copy of any page (RAM or DAX window).
    pub fn copy_from(&self, page: &Page) {
        // SAFETY: both are whole pages of the direct map, held by the caller. A racing writer tears only its own data.
        unsafe { core::ptr::copy(phys::pointer::<u8>(page.address()), self.pointer(), PAGE) };
    }

    /// `2^order` adjacent pages that read as zeros (`zero`) or hold whatever. One lock for all of them, and one segment for the host.
    pub fn run(order: usize, zero: bool) -> Option<Run> {
        let (pfn, is_zero) = take(order)?;
        if zero && !is_zero {
            // SAFETY: the block is ours alone.
            unsafe { core::ptr::write_bytes(phys::pointer::<u8>(u64::from(pfn) << 12), 0, PAGE << order) };
        }
        Some(Run { next: pfn, end: pfn + (1 << order) })
    }

    /// Frames below the image that the layout sets aside: they read as zeros and are in no pool.
    ///
    /// # Safety
    /// Once for each range, after its chunk's RAM was added.
    pub(crate) unsafe fn set_aside(start: u64, end: u64) -> Run {
        Run { next: (start >> 12) as u32, end: (end >> 12) as u32 }
    }

    fn own(pfn: u32) -> Self {
        // SAFETY: freshly taken block.
        unsafe { (*meta(pfn)).references.store(1, Ordering::Relaxed) };
        Self(pfn)
    }

    pub fn address(&self) -> u64 {
        u64::from(self.0) << 12
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        phys::pointer(self.address())
    }

    /// How many references there are (1: only this one).
    pub fn references(&self) -> u32 {
        // SAFETY: the frame is alive.
        unsafe { (*meta(self.0)).references.load(Ordering::Acquire) }
    }

    /// Copies bytes out of the page. Panics when the range leaves it.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= PAGE);
        // SAFETY: in range; programs may write concurrently, which tears only their own data.
        unsafe { core::ptr::copy_nonoverlapping(self.pointer().add(offset), out.as_mut_ptr(), out.len()) }
    }

    /// Copies bytes into the page. Panics when the range leaves it.
    pub fn write(&self, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= PAGE);
        // SAFETY: as in read.
        unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), self.pointer().add(offset), data.len()) }
    }

    pub fn fill_zero(&self, offset: usize, bytes: usize) {
        assert!(offset + bytes <= PAGE);
        // SAFETY: as in read.
        unsafe { core::ptr::write_bytes(self.pointer().add(offset), 0, bytes) }
    }

    pub(crate) fn into_raw(self) -> u32 {
        let pfn = self.0;
        core::mem::forget(self);
        pfn
    }

    /// # Safety
    /// Gives back a reference that [`Self::into_raw`] took.
    pub(crate) unsafe fn from_raw(pfn: u32) -> Self {
        Self(pfn)
    }
}

impl Clone for Frame {
    fn clone(&self) -> Self {
        // SAFETY: the frame is alive.
        unsafe { (*meta(self.0)).references.fetch_add(1, Ordering::Relaxed) };
        Self(self.0)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: the frame is alive until the count falls to 0.
        if unsafe { (*meta(self.0)).references.fetch_sub(1, Ordering::AcqRel) } == 1 {
            give(self.0, 0);
        }
    }
}

/// Drops frames. Neighbours that nobody has any more go back together: a huge page as one block.
#[derive(Default)]
pub(crate) struct Returns {
    first: u32,
    end: u32,
}

impl Returns {
    pub fn add(&mut self, frame: Frame) {
        let pfn = frame.into_raw();
        // SAFETY: the frame is alive until the count falls to 0.
        if unsafe { (*meta(pfn)).references.fetch_sub(1, Ordering::AcqRel) } != 1 {
            return;
        }
        if pfn != self.end {
            give_run(self.first, self.end);
            self.first = pfn;
        }
        self.end = pfn + 1;
    }
}

impl Drop for Returns {
    fn drop(&mut self) {
        give_run(self.first, self.end);
    }
}

fn give_run(mut first: u32, end: u32) {
    if first == end {
        return;
    }
    let mut pools = POOLS.lock();
    while first < end {
        let order = first.trailing_zeros().min((end - first).ilog2()).min(MAX_ORDER as u32);
        pools.used.give(first, order as usize);
        first += 1 << order;
    }
}

/// Frames of one block, handed out in order; what is not taken goes back.
pub struct Run {
    next: u32,
    end: u32,
}

impl Iterator for Run {
    type Item = Frame;
    fn next(&mut self) -> Option<Frame> {
        if self.next == self.end {
            return None;
        }
        self.next += 1;
        Some(Frame::own(self.next - 1))
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next) as usize;
        (left, Some(left))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for frame in self {
            drop(frame);
        }
    }
}

/// `2^order` contiguous pages, owned once (stacks, large heap blocks).
pub struct Block {
    pfn: u32,
    order: u8,
}

impl Block {
    pub fn new(order: usize) -> Option<Self> {
        take(order).map(|(pfn, _)| Self { pfn, order: order as u8 })
    }
    /// For the heap: from its reserve when there is nothing else.
    pub(crate) fn for_heap(order: usize) -> Option<Self> {
        Self::new(order).or_else(|| POOLS.lock().reserve.take(order).map(|pfn| Self { pfn, order: order as u8 }))
    }
    pub fn address(&self) -> u64 {
        u64::from(self.pfn) << 12
    }
    pub(crate) fn into_address(self) -> u64 {
        let address = self.address();
        core::mem::forget(self);
        address
    }
    pub(crate) fn from_address(address: u64, order: usize) -> Self {
        Self { pfn: (address >> 12) as u32, order: order as u8 }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        give(self.pfn, self.order as usize);
    }
}

/// What a page-table entry can point to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    Ram(Frame),
    /// Guest-physical address of a page of the DAX window. Its owner keeps the window mapped while any address space maps it.
    Window(u64),
}

impl Page {
    pub fn address(&self) -> u64 {
        match self {
            Self::Ram(frame) => frame.address(),
            Self::Window(gpa) => *gpa,
        }
    }
}

/// Free pages that the host backs.
pub fn backed() -> u64 {
    POOLS.lock().used.pages
}

/// As [`backed`], the fewest since the last call.
pub fn backed_all_the_time() -> u64 {
    let mut pools = POOLS.lock();
    let used = &mut pools.used;
    core::mem::replace(&mut used.low, used.pages)
}

/// Takes free, host-backed blocks of at least `min_order` out of the pool, at most `most` of them with at most `pages` together; hand them
/// to [`finish_release`] once the host has their memory back. (address, order) each.
pub fn begin_release(min_order: usize, most: usize, mut pages: u64) -> Vec<(u64, usize)> {
    let mut blocks = Vec::with_capacity(most);
    let mut pools = POOLS.lock();
    for order in (min_order..=MAX_ORDER).rev() {
        while blocks.len() < most && pages >= 1 << order && pools.used.heads[order] != NONE {
            let pfn = pools.used.heads[order];
            pools.used.remove(pfn, order);
            pages -= 1 << order;
            blocks.push((u64::from(pfn) << 12, order));
        }
    }
    blocks
}

/// Puts blocks from [`begin_release`] back; `released`: they read as zeros now.
pub fn finish_release(blocks: &[(u64, usize)], released: bool) {
    let mut pools = POOLS.lock();
    for &(address, order) in blocks {
        let pool = if released { &mut pools.fresh } else { &mut pools.used };
        pool.give((address >> 12) as u32, order);
    }
}
