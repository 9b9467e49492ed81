//! Patched system calls: a placeholder of the data that address spaces carry.

use super::space::{Inner, Leftovers};
use super::Pages;
use hal::frame::Page;
use hal::paging::Rights;

#[derive(Clone, Default)]
pub(super) struct Patches {}

impl Patches {
    /// The patched copy of an object's page, to be mapped in its stead.
    pub fn instead_of(&self, _pages: &dyn Pages, _index: u64, _address: u64, _rights: Rights) -> Option<Page> {
        None
    }
}

/// A range is about to lose its mappings.
pub(super) fn range_goes(_inner: &mut Inner, _left: &mut Leftovers, _start: u64, _end: u64) {}
