//! brk(2).
//!
//! malloc gives the top of its heap back and takes it again, with each large block that a program uses for a moment: git does for every
//! object. Where page tables are shadowed, to take these pages away and to have them touched again is a dozen traps of 20 us, and to zero
//! them 5 us. So a program that has done this a few times keeps the pages above its break for a moment, mapped; they are zeroed when the
//! break comes back, and go after [`MOMENT`], with any other change of the address space, or for want of memory.

use super::fault::fill_anonymous;
use super::map::{check_growth, take_out, Limits};
use super::reclaim;
use super::space::{for_each, AddressSpace, Inner, Leftovers};
use super::vma::{Backing, Flags, Vma, STACK_GAP};
use super::PAGE_SIZE;
use crate::time::{self, Expire};
use abi::layout::LIBOS_BASE;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::paging::Rights;

/// What brk adds is mapped at once up to this: a fault costs more than all these pages.
const EAGER: u64 = 34 * PAGE_SIZE;
/// How long pages are kept, ns.
const MOMENT: u64 = 20_000_000;
/// Times that a break has to come back within a moment.
const OFTEN: u32 = 4;
/// Bytes above the break that are kept at most. No stack comes so near.
const MOST: u64 = STACK_GAP;

/// Where the break was.
#[derive(Default)]
pub(super) struct Heap {
    /// Behind the pages that are kept above the break; 0: there are none.
    kept: u64,
    /// When the break was last taken down, and how often it came back soon.
    down: u64,
    returns: u32,
}

impl Heap {
    fn goes_down(&mut self, now: u64) {
        self.down = now;
    }

    fn comes_back(&mut self, now: u64) {
        if self.down != 0 {
            self.returns = if now.saturating_sub(self.down) < MOMENT { self.returns.saturating_add(1) } else { 0 };
            self.down = 0;
        }
    }

    const fn swings(&self) -> bool {
        self.returns >= OFTEN
    }
}

impl Inner {
    /// The end of the heap's last page.
    const fn heap_end(&self) -> u64 {
        self.brk.next_multiple_of(PAGE_SIZE)
    }

    /// Pages that are kept above the break.
    pub fn kept_pages(&mut self) -> usize {
        let (start, end, mut count) = (self.heap_end(), self.heap.kept, 0);
        if end > start {
            self.table.scan(start, end, |_, _| count += 1);
        }
        count
    }

    /// Takes away what is kept above the break.
    pub fn give_up_kept(&mut self, left: &mut Leftovers) {
        let end = core::mem::take(&mut self.heap.kept);
        if end != 0 {
            self.table.unmap(self.heap_end(), end, &mut left.flush);
        }
    }

    /// Whether pages between these breaks may be kept.
    fn may_keep(&self, new_end: u64, old_end: u64) -> bool {
        hal::cpu::has_shadow_paging()
            && self.heap.swings()
            && old_end.max(self.heap.kept) - new_end <= MOST
            && reclaim::has_plenty()
            && self.map.above(old_end).is_none_or(|next| !next.flags.has(Flags::GROWS_DOWN))
    }

    fn shrink_heap(&mut self, left: &mut Leftovers, new_end: u64, old_end: u64) {
        let now = hal::time::monotonic();
        if self.may_keep(new_end, old_end) {
            super::patch::range_goes(self, left, new_end, old_end);
            left.vmas.extend(self.map.remove(new_end, old_end));
            self.heap.kept = self.heap.kept.max(old_end);
            give_up_after(now);
        } else {
            self.give_up_kept(left);
            take_out(self, left, new_end, old_end);
        }
        self.heap.goes_down(now);
    }

    fn grow_heap(&mut self, left: &mut Leftovers, old_end: u64, new_end: u64) {
        self.heap.comes_back(hal::time::monotonic());
        let kept = self.heap.kept.min(new_end);
        if kept > old_end {
            self.table.blank(old_end, kept, Rights::READ_WRITE, &mut left.flush);
        }
        if new_end >= self.heap.kept {
            self.heap.kept = 0;
        }
        let flags = Flags::HEAP.with(self.lock_future.map_or(Flags::default(), |_| Flags::LOCKED));
        let mut vma = Vma::new(old_end, new_end, Rights::READ_WRITE, flags, Backing::Anonymous);
        vma.name = "[heap]";
        self.map.insert(vma);
        let _ = fill_anonymous(&mut self.table, old_end, new_end.min(old_end + EAGER), u64::MAX, Rights::READ_WRITE);
    }
}

impl AddressSpace {
    /// brk(2): the end of the data segment after the call, which is the old one when the request cannot be met.
    pub fn brk(&self, wanted: u64, limits: &Limits) -> u64 {
        reclaim::prepare(EAGER / PAGE_SIZE);
        self.edit_heap(|inner, left| {
            let (base, now) = (inner.layout.start_brk, inner.brk);
            if wanted < base || wanted > LIBOS_BASE {
                return now;
            }
            let (old_end, new_end) = (inner.heap_end(), wanted.next_multiple_of(PAGE_SIZE));
            if new_end < old_end {
                inner.shrink_heap(left, new_end, old_end);
            } else if new_end > old_end {
                let data = wanted - base + (inner.layout.end_data - inner.layout.start_data);
                let bytes = new_end - old_end;
                let free = inner.map.is_free(old_end, new_end)
                    && inner.map.above(new_end).is_none_or(|next| !next.flags.has(Flags::GROWS_DOWN) || next.start - new_end >= STACK_GAP);
                if data > limits.data || !free || reclaim::is_overcommit(bytes) || check_growth(inner, bytes, 0, true, limits).is_err() {
                    return now;
                }
                inner.grow_heap(left, old_end, new_end);
            }
            inner.brk = wanted;
            wanted
        })
    }
}

static TIMED: AtomicBool = AtomicBool::new(false);

fn give_up_after(now: u64) {
    if !TIMED.swap(true, Ordering::AcqRel) {
        let _ = time::arm(now + MOMENT, Arc::new(Moment));
    }
}

/// The moment is over for some: the control task is to call [`give_up`].
struct Moment;

impl Expire for Moment {
    fn expired(self: Arc<Self>, _now: u64) {
        crate::boot::control_waits();
    }
}

/// Gives up what has been kept for a moment, if it is time to look. May sleep.
pub fn give_up(now: u64) {
    if !TIMED.swap(false, Ordering::AcqRel) {
        return;
    }
    for_each(|space| {
        space.edit_heap(|inner, left| {
            if inner.heap.kept == 0 {
                return;
            }
            if now.saturating_sub(inner.heap.down) >= MOMENT {
                inner.give_up_kept(left);
            } else {
                give_up_after(now);
            }
        });
    });
}
