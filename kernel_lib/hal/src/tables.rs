//! Frames of page tables, kept apart from all others.
//!
//! A paging-based KVM remembers which guest pages were tables and watches them: a store to a former directory is trapped and emulated, a
//! whole REP STOS byte by byte, which costs hundreds of microseconds. So such frames are used for tables again and for nothing else, and a
//! former directory is told from the rest by its first store: two bytes wide, no table's entry, upon which KVM stops watching the page.
//! (Leaf tables need no such thing: the first store to one makes KVM let go of it.)
//!
//! Better still, the whole tree of a space that ended serves the next one: programs lie at much the same places (see `libos::mm::exec`), so
//! its directories fit as they are, KVM's shadows of them included. Its leaf tables are empty; those that are not needed do no harm. KVM
//! keeps shadows of entries that come back with the same values, too: so a tree is best for the same program again (its `kind`). The tree of
//! a fork's child keeps its pages as well: the next child's are copied to the same places, and neither tables nor shadows change.

use crate::cpu;
use crate::frame::{Frame, Run};
use crate::paging;
use crate::sync::SpinLock;
use alloc::vec::Vec;

/// Most frames of each kind that are kept; what is beyond goes back to the others.
const MOST: usize = 1024;

/// Trees kept, and the largest worth it.
const MOST_TREES: usize = 32;
const LARGEST_TREE: usize = 40;
/// Pages that trees keep, one and all.
pub(crate) const MOST_PAGES_OF_TREE: usize = 1024;
const MOST_PAGES: usize = 4096;

struct Kept {
    /// Never used so far, and away from all other memory: where a table lies, KVM maps no huge page.
    fresh: Option<Run>,
    directories: Vec<Frame>,
    leaves: Vec<Frame>,
    /// With the kind of their last space, in the order they came.
    trees: Vec<(u64, Tables)>,
}

static KEPT: SpinLock<Kept> = SpinLock::new(Kept { fresh: None, directories: Vec::new(), leaves: Vec::new(), trees: Vec::new() });

/// The tables of one address space, directories (the root comes first) and leaves.
#[derive(Default)]
pub(crate) struct Tables {
    directories: Vec<Frame>,
    leaves: Vec<Frame>,
    /// Pages that the leaves still map while no space has the tree.
    pub pages: usize,
}

impl Tables {
    /// Lets the pages go that are still mapped; how many.
    pub fn empty(&mut self) -> usize {
        if self.pages != 0 {
            self.leaves.iter().for_each(paging::empty_leaf);
        }
        core::mem::take(&mut self.pages)
    }

    pub fn len(&self) -> usize {
        self.directories.len() + self.leaves.len()
    }

    /// Guest-physical address of the root.
    pub fn root(&self) -> u64 {
        self.directories.first().map_or(0, Frame::address)
    }

    /// Whether the tree is to be emptied and kept whole when its space ends.
    pub fn is_worth_keeping(&self) -> bool {
        self.len() <= LARGEST_TREE
    }

    pub fn keep(&mut self, frame: Frame, directory: bool) {
        if directory {
            self.directories.push(frame);
        } else {
            self.leaves.push(frame);
        }
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        if self.directories.is_empty() && self.leaves.is_empty() {
            return;
        }
        self.empty();
        for frames in self.directories.chunks(16) {
            let mut pages = [0; 16];
            for (page, frame) in pages.iter_mut().zip(frames) {
                *page = frame.pointer() as u64;
            }
            // SAFETY: no vCPU walks these tables any more, and nobody else has their frames.
            unsafe { cpu::unwatch(&pages[..frames.len()]) };
        }
        let mut kept = KEPT.lock();
        let room = MOST - kept.directories.len().min(MOST);
        kept.directories.extend(self.directories.drain(..self.directories.len().min(room)));
        let room = MOST - kept.leaves.len().min(MOST);
        kept.leaves.extend(self.leaves.drain(..self.leaves.len().min(room)));
    }
}

/// Takes pages from the trees that keep them, the oldest first, until they keep no more than `most`; how many.
pub(crate) fn empty_trees(most: usize) -> usize {
    let mut kept = KEPT.lock();
    let pages: usize = kept.trees.iter().map(|(_, tables)| tables.pages).sum();
    let mut gone = 0;
    for (_, tables) in &mut kept.trees {
        if pages - gone <= most {
            break;
        }
        gone += tables.empty();
    }
    gone
}

/// Gives back a tree that maps no more than its `pages`.
pub(crate) fn give_tree(kind: u64, tables: Tables) {
    let mut kept = KEPT.lock();
    if tables.is_worth_keeping() && kept.trees.len() < MOST_TREES {
        kept.trees.push((kind, tables));
        drop(kept);
        empty_trees(MOST_PAGES);
    } else {
        drop(kept);
        drop(tables);
    }
}

/// A tree with tables where programs need them: the last of this kind, or the oldest when there are many.
pub(crate) fn take_tree(kind: u64) -> Option<Tables> {
    let mut kept = KEPT.lock();
    let same = kept.trees.iter().rposition(|(last, _)| *last == kind);
    let at = same.or((kept.trees.len() >= MOST_TREES / 2).then_some(0))?;
    Some(kept.trees.remove(at).1)
}

/// The frames that the layout sets aside for tables.
pub(crate) fn init(fresh: Run) {
    KEPT.lock().fresh = Some(fresh);
}

/// A zeroed frame for a table. None: out of memory.
pub(crate) fn take(directory: bool) -> Option<Frame> {
    let kept = {
        let mut kept = KEPT.lock();
        let again = if directory { kept.directories.pop() } else { kept.leaves.pop() };
        if again.is_none() {
            if let Some(frame) = kept.fresh.as_mut().and_then(Iterator::next) {
                return Some(frame);
            }
        }
        again
    };
    match kept {
        Some(frame) => {
            if !directory {
                // The first store alone is trapped.
                // SAFETY: nobody else has the frame.
                unsafe { frame.pointer().cast::<u64>().write_volatile(0) };
            }
            frame.fill_zero(0, crate::frame::PAGE);
            Some(frame)
        }
        None => Frame::zeroed(),
    }
}
