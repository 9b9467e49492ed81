//! Where frames come from when there are none: more RAM from the host up to the container's limit, then the out-of-memory killer.
//!
//! A small reserve is kept for the library OS itself (page tables, heap), so that a program runs out of memory before we do. Functions
//! named `try_…` do not sleep and answer None at the reserve; the caller lets go of its locks, calls [`make_room`] and tries again.
//! What the library OS allocates for itself goes into the reserve, and a failure there ends the VM. Therefore [`before_call`] sees to it that each
//! system call begins with most of the reserve, and what a call needs by the program's choice is asked for by [`items`].

use crate::errno::{Errno, ENOMEM};
use crate::host;
use crate::sync::Mutex;
use crate::wait::{Interruptible, WaitQueue};
use abi::config::Limits;
use abi::layout::PAGE_SIZE;
use abi::request::{memory, Op, Segment};
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hal::frame::{self, Frame, Run};
use hal::host::Request;
use hal::sync::Once;

/// Pages that programs cannot have.
const RESERVE: u64 = 1024;
/// A system call begins with so many pages at least.
const RESERVE_LEFT: u64 = RESERVE * 3 / 4;
/// Grow ahead of need below this many free pages, when there is room to grow.
const LOW: u64 = 4096;
const MIB: u64 = 1 << 20;
/// Programs get huge pages, which they may use but a little of, as long as so much can be had.
const PLENTY: u64 = 128 * MIB;
const STEP_MIN: u64 = 64 * MIB;
const STEP_MAX: u64 = 512 * MIB;
/// Blocks given back at once, and the smallest: a huge page. A part of one that the host backs so would cost it the huge page, and khugepaged
/// would fill it up again.
const RELEASE_BLOCKS: usize = 512;
const RELEASE_ORDER: usize = 9;
/// Free memory that is not worth giving back, bytes, and how long more of it has to be free, ns.
const KEPT: u64 = 16 * MIB;
const RELEASE_PERIOD: u64 = 1_000_000_000;
/// What there is beside the container's limit and what is in use when the first program starts: the reserve, and as much for what the
/// library OS needs for programs. The runtime makes the guest's RAM larger than the limit by more than all that.
const OVERHEAD: u64 = 2 * RESERVE * PAGE_SIZE;
/// How long to wait for a victim's memory before looking for the next one, ns.
const VICTIM_GRACE: u64 = 100_000_000;

/// What the out-of-memory killer did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victim {
    /// The caller's own process: it must not run on.
    Current,
    /// Another process, which will give its memory back soon.
    Other,
    /// Nobody is left to kill.
    Nobody,
}

static GROWING: Mutex<()> = Mutex::new(());
/// Bytes of RAM that came since the start.
static GROWN: AtomicU64 = AtomicU64::new(0);
static AT_LIMIT: AtomicBool = AtomicBool::new(false);
/// The container's memory limit; 0: none.
static LIMIT: AtomicU64 = AtomicU64::new(0);
/// The most RAM that the VM may have, bytes; 0: as the VM was made with.
static RAM: AtomicU64 = AtomicU64::new(0);
/// Bytes in use before the first program.
static BASELINE: Once<u64> = Once::new();
/// Pages of RAM that is there, but beyond the limit.
static WITHHELD: AtomicU64 = AtomicU64::new(0);
static NOBODY_TO_WAKE: WaitQueue = WaitQueue::new();

/// The most RAM that programs and the library OS may use together, bytes.
fn ram_limit() -> u64 {
    let most = match RAM.load(Ordering::Relaxed) {
        0 => hal::cpu::memory_limits().0,
        most => most,
    };
    match LIMIT.load(Ordering::Relaxed) {
        0 => most,
        limit => limit.saturating_add(BASELINE.get().unwrap_or(&0) + OVERHEAD).min(most),
    }
}

/// What programs may have, bytes: the container's limit or, without one, the RAM there can be.
pub fn total() -> u64 {
    match LIMIT.load(Ordering::Relaxed) {
        0 => ram_limit(),
        limit => limit.min(ram_limit()),
    }
}

/// As Linux's heuristic: more than there can ever be is refused at once (proc(5), overcommit_memory 0). A container's limit does not
/// count there: whoever exceeds it gets to know the out-of-memory killer.
pub fn is_overcommit(bytes: u64) -> bool {
    LIMIT.load(Ordering::Relaxed) == 0 && bytes > ram_limit()
}

/// The container's limit. Called first before the first program; may sleep.
pub fn set_limits(limits: &Limits) {
    BASELINE.get_or_init(in_use);
    let _growing = GROWING.lock();
    LIMIT.store(limits.memory, Ordering::Relaxed);
    RAM.store(limits.ram, Ordering::Relaxed);
    WITHHELD.store(present().saturating_sub(ram_limit()) / PAGE_SIZE, Ordering::Relaxed);
    AT_LIMIT.store(false, Ordering::Relaxed);
}

/// Bytes in use by programs and for them.
pub fn used() -> u64 {
    in_use().saturating_sub(*BASELINE.get().unwrap_or(&0))
}

/// Bytes that can still be had.
pub fn free() -> u64 {
    total().saturating_sub(used())
}

/// Whether memory may be spent to save time.
pub fn has_plenty() -> bool {
    free() >= PLENTY
}

fn in_use() -> u64 {
    present().saturating_sub(frame::available() * PAGE_SIZE)
}

/// Free pages below the limit.
fn available() -> u64 {
    frame::available().saturating_sub(WITHHELD.load(Ordering::Relaxed))
}

fn room(pages: u64) -> bool {
    available() >= RESERVE + pages
}

/// A page that reads as zeros. Does not sleep.
pub fn try_zeroed() -> Option<Frame> {
    room(1).then(Frame::zeroed).flatten()
}

/// Adjacent pages. Does not sleep; None also when there is no such block.
pub fn try_run(order: usize, zero: bool) -> Option<Run> {
    room(1 << order).then(|| Frame::run(order, zero)).flatten()
}

/// A page with whatever contents. Does not sleep.
pub fn try_scratch() -> Option<Frame> {
    room(1).then(Frame::scratch).flatten()
}

/// A page that reads as zeros. May sleep; None: out of memory.
pub fn zeroed_frame() -> Option<Frame> {
    loop {
        if let Some(frame) = try_zeroed() {
            return Some(frame);
        }
        make_room(1).ok()?;
    }
}

/// Grows the guest ahead of need. To be called where sleeping is allowed, before anything that takes many frames.
pub fn prepare(pages: u64) {
    if available() < LOW + pages && !AT_LIMIT.load(Ordering::Relaxed) {
        let _ = grow(pages);
    }
}

/// Frames ran out: grows the guest or kills somebody. Ok: try again. ENOMEM: the caller's own process has to go without. May sleep.
pub fn make_room(pages: u64) -> Result<(), Errno> {
    if room(pages) || grow(pages) || (hal::paging::shrink() as u64 + super::copies::shrink(pages) > 0 && room(pages)) {
        return Ok(());
    }
    if pages > ram_limit() / PAGE_SIZE {
        return Err(ENOMEM);
    }
    match crate::process::oom::kill() {
        Victim::Other => {
            let deadline = hal::time::monotonic() + VICTIM_GRACE;
            while !room(pages) && hal::time::monotonic() < deadline {
                let tick = hal::time::monotonic() + 1_000_000;
                let _ = NOBODY_TO_WAKE.wait(Interruptible::Killable, Some(tick), || None::<()>);
            }
            Ok(())
        }
        _ => Err(ENOMEM),
    }
}

/// A system call begins: it finds what the library OS may need to serve it. Under no lock; may sleep.
pub fn before_call() {
    if available() < LOW {
        refill();
    }
}

#[cold]
fn refill() {
    prepare(0);
    while available() < RESERVE_LEFT {
        if make_room(0).is_err() {
            break;
        }
    }
}

/// A text of a line for each item, as many as programs made. ENOMEM and sleeping as with [`items`].
pub fn report<T>(heading: &str, lines: &[T], line: impl Fn(&T) -> String) -> Result<String, Errno> {
    const LINE: usize = 192;
    let mut text = items(0u8, heading.len() + lines.len() * LINE)?;
    text.clear();
    text.extend_from_slice(heading.as_bytes());
    lines.iter().for_each(|item| text.extend_from_slice(line(item).as_bytes()));
    Ok(String::from_utf8(text).unwrap_or_default())
}

/// `count` copies of `item` in the heap, as many as a program asked for. ENOMEM: they would need the reserve, or more in one piece than there is.
/// May sleep.
pub fn items<T: Clone>(item: T, count: usize) -> Result<Vec<T>, Errno> {
    let pages = count.checked_mul(core::mem::size_of::<T>()).ok_or(ENOMEM)?.div_ceil(PAGE_SIZE as usize) as u64;
    prepare(pages);
    let mut items = Vec::new();
    if !room(pages) || (items.try_reserve_exact(count).is_err() && !(grow(pages) && items.try_reserve_exact(count).is_ok())) {
        return Err(ENOMEM);
    }
    items.resize(count, item);
    Ok(items)
}

/// Asks the host for more RAM. True: there is room now.
fn grow(pages: u64) -> bool {
    let _growing = GROWING.lock();
    if available() >= LOW + pages {
        // Somebody else has just done it.
        return true;
    }
    let present = present();
    let left = ram_limit().saturating_sub(present) & !(2 * MIB - 1);
    let step = (present / 2).clamp(STEP_MIN, STEP_MAX).max(pages * PAGE_SIZE).next_multiple_of(2 * MIB).min(left);
    if step == 0 {
        AT_LIMIT.store(true, Ordering::Relaxed);
        return room(pages);
    }
    let request = Request::new(Op::Memory, 0, [step, 0, 0, 0, 0, 0]).with_flags(memory::GROW);
    match host::call(&request, &[]) {
        Ok(answer) if frame::grow(answer.out[1], answer.out[0]) => {
            GROWN.fetch_add(step, Ordering::Relaxed);
        }
        _ => AT_LIMIT.store(true, Ordering::Relaxed),
    }
    room(pages)
}

/// Bytes of RAM that the VM has.
fn present() -> u64 {
    ram_bytes(hal::cpu::memory_limits().1) + GROWN.load(Ordering::Relaxed)
}

/// Bytes of RAM below guest-physical `end`.
const fn ram_bytes(end: u64) -> u64 {
    if end <= abi::layout::LOW_RAM_END {
        end
    } else {
        end - (abi::layout::HIGH_RAM - abi::layout::LOW_RAM_END)
    }
}

/// Pages that are free and backed when somebody has to look; and whether somebody does.
static LEVEL: AtomicU64 = AtomicU64::new(KEPT / PAGE_SIZE);
static LOOKED_AFTER: AtomicBool = AtomicBool::new(false);

/// A vCPU has nothing to do. True: [`release`] is to be called. Must not sleep.
pub fn may_release() -> bool {
    let backed = frame::backed();
    let level = LEVEL.fetch_min(backed + KEPT / PAGE_SIZE, Ordering::Relaxed);
    backed > level && !LOOKED_AFTER.swap(true, Ordering::Relaxed)
}

/// Gives memory back to the host that was free since the last call, but for [`KEPT`]. When to call it again (monotonic ns), if at all. May sleep.
pub fn release() -> Option<u64> {
    if !LOOKED_AFTER.load(Ordering::Relaxed) {
        return None;
    }
    let before = frame::backed();
    let mut spare = frame::backed_all_the_time().saturating_sub(KEPT / PAGE_SIZE);
    let idle = spare > 0;
    loop {
        let blocks = frame::begin_release(RELEASE_ORDER, RELEASE_BLOCKS, spare);
        if blocks.is_empty() {
            break;
        }
        spare -= blocks.iter().map(|(_, order)| 1 << order).sum::<u64>();
        let segments: Vec<Segment> = blocks.iter().map(|&(gpa, order)| Segment { gpa, bytes: PAGE_SIZE << order }).collect();
        let request = Request::new(Op::Memory, 0, [0; 6]).with_flags(memory::RELEASE);
        frame::finish_release(&blocks, host::call(&request, &segments).is_ok());
    }
    let after = frame::backed();
    if (idle && after >= before) || after <= KEPT / PAGE_SIZE {
        // What is left is in pieces, or little.
        LEVEL.store(after + KEPT / PAGE_SIZE, Ordering::Relaxed);
        LOOKED_AFTER.store(false, Ordering::Relaxed);
        return None;
    }
    Some(hal::time::monotonic() + RELEASE_PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_has_a_hole_below_four_gib() {
        assert_eq!(ram_bytes(64 * MIB), 64 * MIB);
        assert_eq!(ram_bytes(0x1_4000_0000), 4 << 30);
    }
}
