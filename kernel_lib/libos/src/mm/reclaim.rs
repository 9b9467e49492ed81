//! Where frames come from when there are none: more RAM from the host up to the container's limit, then the out-of-memory killer.
//!
//! A small reserve is kept for the library OS itself (page tables, heap), so that a program runs out of memory before we do. Functions
//! named `try_…` do not sleep and answer None at the reserve; the caller lets go of its locks, calls [`make_room`] and tries again.

use crate::errno::{Errno, ENOMEM};
use crate::host;
use crate::sync::Mutex;
use crate::wait::{Interruptible, WaitQueue};
use abi::layout::PAGE_SIZE;
use abi::request::{memory, Op, Segment};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hal::frame::{self, Frame, Run};
use hal::host::Request;
use hal::sync::Once;

/// Pages that programs cannot have.
const RESERVE: u64 = 1024;
/// Grow ahead of need below this many free pages, when there is room to grow.
const LOW: u64 = 4096;
const MIB: u64 = 1 << 20;
const STEP_MIN: u64 = 64 * MIB;
const STEP_MAX: u64 = 512 * MIB;
/// Blocks given back at once, and the smallest worth it (2^4 pages).
const RELEASE_BLOCKS: usize = 512;
const RELEASE_ORDER: usize = 4;
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

static KILLER: Once<fn() -> Victim> = Once::new();
static GROWING: Mutex<u64> = Mutex::new(0);
static AT_LIMIT: AtomicBool = AtomicBool::new(false);
static LIMIT: AtomicU64 = AtomicU64::new(0);
static NOBODY_TO_WAKE: WaitQueue = WaitQueue::new();

/// The process family's killer: picks the process with the highest badness, sends it SIGKILL, counts it.
pub fn set_killer(killer: fn() -> Victim) {
    KILLER.get_or_init(|| killer);
}

/// The container's memory limit in bytes: what it was started with, or what an update allows since (never more than the former).
pub fn limit() -> u64 {
    let most = hal::cpu::memory_limits().0;
    match LIMIT.load(Ordering::Relaxed) {
        0 => most,
        limit => limit.min(most),
    }
}

/// An update of the limit while the container runs.
pub fn set_limit(bytes: u64) {
    LIMIT.store(bytes, Ordering::Relaxed);
    AT_LIMIT.store(false, Ordering::Relaxed);
}

/// Bytes in use by programs and by the library OS.
pub fn used() -> u64 {
    let (backed, fresh, total) = frame::statistics();
    (total - backed - fresh) * PAGE_SIZE
}

/// Bytes that can still be had.
pub fn free() -> u64 {
    limit().saturating_sub(used())
}

fn room(pages: u64) -> bool {
    frame::available() >= RESERVE + pages
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
    if frame::available() < LOW + pages && !AT_LIMIT.load(Ordering::Relaxed) {
        let _ = grow(pages);
    }
}

/// Frames ran out: grows the guest or kills somebody. Ok: try again. ENOMEM: the caller's own process has to go without. May sleep.
pub fn make_room(pages: u64) -> Result<(), Errno> {
    if room(pages) || grow(pages) {
        return Ok(());
    }
    if pages > limit() / PAGE_SIZE {
        return Err(ENOMEM);
    }
    match KILLER.get().map(|killer| killer()) {
        Some(Victim::Other) => {
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

/// Asks the host for more RAM. True: there is room now.
fn grow(pages: u64) -> bool {
    let mut grown = GROWING.lock();
    if frame::available() >= LOW + pages {
        // Somebody else has just done it.
        return true;
    }
    let (_, ram_end) = hal::cpu::memory_limits();
    let present = ram_bytes(ram_end) + *grown;
    let left = limit().saturating_sub(present) & !(2 * MIB - 1);
    let step = (present / 2).clamp(STEP_MIN, STEP_MAX).max((pages * PAGE_SIZE).next_multiple_of(2 * MIB)).min(left);
    if step == 0 {
        AT_LIMIT.store(true, Ordering::Relaxed);
        return room(pages);
    }
    let request = Request::new(Op::Memory, 0, [step, 0, 0, 0, 0, 0]).with_flags(memory::GROW);
    match host::call(&request, &[]) {
        Ok(answer) if frame::grow(answer.out[1], answer.out[0]) => *grown += step,
        _ => AT_LIMIT.store(true, Ordering::Relaxed),
    }
    room(pages)
}

/// Bytes of RAM below guest-physical `end`.
const fn ram_bytes(end: u64) -> u64 {
    if end <= abi::layout::LOW_RAM_END {
        end
    } else {
        end - (abi::layout::HIGH_RAM - abi::layout::LOW_RAM_END)
    }
}

/// Gives free memory back to the host. Called when the guest is idle; may sleep. True: there is more to give.
pub fn release() -> bool {
    let blocks = frame::begin_release(RELEASE_ORDER, RELEASE_BLOCKS);
    if blocks.is_empty() {
        return false;
    }
    let segments: Vec<Segment> = blocks.iter().map(|&(gpa, order)| Segment { gpa, bytes: PAGE_SIZE << order }).collect();
    let request = Request::new(Op::Memory, 0, [0; 6]).with_flags(memory::RELEASE);
    let released = host::call(&request, &segments).is_ok();
    frame::finish_release(&blocks, released);
    released && blocks.len() == RELEASE_BLOCKS
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
