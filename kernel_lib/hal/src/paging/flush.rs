//! What a change of page tables leaves to be done: translations to be forgotten, then pages to be let go.

use super::PageTable;
use crate::cpu;
use crate::frame::{Page, Returns};
use alloc::vec::Vec;

/// Removed pages and stale translations: dropped only after the flush.
#[derive(Default)]
pub struct Flush {
    pages: Vec<u64>,
    pub(super) everything: bool,
    pub(super) rest: Vec<Page>,
}

impl Flush {
    pub fn new() -> Self {
        Self::default()
    }
    pub(super) fn stale(&mut self, address: u64) {
        if self.pages.len() < 32 {
            self.pages.push(address);
        } else {
            self.everything = true;
        }
    }
    /// A block was mapped by its directory entry, which was stored to since. A hypervisor that shadows tables sees every such store, and
    /// has forgotten what it knew.
    pub(super) fn stale_block(&mut self, block: u64) {
        if !cpu::has_shadow_paging() {
            self.stale(block);
        }
    }
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() && !self.everything
    }
}

impl PageTable {
    /// Makes the removals effective on every vCPU that has this space loaded, then lets the resting pages go.
    pub fn flush(&self, flush: Flush) {
        if !flush.is_empty() {
            cpu::flush(&self.root, &flush.pages, flush.everything);
        }
        let mut returns = Returns::default();
        for page in flush.rest {
            if let Page::Ram(frame) = page {
                returns.add(frame);
            }
        }
    }
}
