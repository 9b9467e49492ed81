//! The copy of an address space for fork(2).
//!
//! Copying the writable pages that are in use (0.1 to 0.2 us each) beats copy-on-write (a fault of 25 us and more each, in both
//! processes) up to some hundred pages. Beyond, the parts that surely will be written are copied - the stack, data segments - and the
//! rest is shared without the right to write. vfork and posix_spawn come here not at all: they share the space.

use super::fault::worth_copies;
use super::space::{read_only, AddressSpace, Leftovers};
use super::vma::{Backing, Flags, Mapping, Vma};
use super::{copies, reclaim, PAGE_SIZE};
use crate::errno::{Errno, ENOMEM};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::frame;
use hal::paging::{Entry, Inherit, PageTable};

/// Up to so many private writable pages in use are copied, all of them.
const COPY_ALL: usize = 512;
/// Of a larger space: pages of the stack (from its top), and of small mappings.
const COPY_STACK: u64 = 24;
const COPY_SMALL: u64 = 32;

impl AddressSpace {
    /// A space with the same contents.
    pub fn fork(&self) -> Result<Arc<Self>, Errno> {
        if self.forks.fetch_add(1, Ordering::Relaxed) == 1 {
            self.forks_again();
        }
        reclaim::prepare(COPY_ALL as u64 * 2);
        // The children of one program are of one kind, which is not its own.
        let kind = self.root().kind().wrapping_mul(31).wrapping_add(1);
        let child = Self::with(PageTable::for_copy(kind).ok_or(ENOMEM)?, self.layout());
        let mut left = Leftovers::default();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let mut target = child.inner.lock();
        let target = &mut *target;
        let inherited: Vec<Vma> = inner.map.iter().filter(|vma| !vma.flags.has(Flags::DONT_FORK)).cloned().collect();

        // What is there to copy?
        let mut writable = 0;
        for vma in inherited.iter().filter(|vma| is_copied(vma)) {
            inner.table.scan(vma.start, vma.end, |_, entry| writable += usize::from(entry.ram && entry.rights.write));
        }
        let all = writable <= COPY_ALL && frame::available() > 4096 + writable as u64;

        let patches = self.patching.load(Ordering::Relaxed);
        let patched = if patches { super::patch::for_copy(inner, &mut left) } else { Vec::new() };
        let patched_at = |address| patched.binary_search_by_key(&address, |(address, _)| *address).ok().map(|at| &patched[at].1);

        let mut result = Ok(());
        for vma in &inherited {
            let shared = vma.shared();
            if !vma.flags.has(Flags::WIPE_ON_FORK) {
                let copied = is_copied(vma);
                let eager_from = if all || vma.bytes() <= COPY_SMALL * PAGE_SIZE {
                    vma.start
                } else if vma.flags.has(Flags::GROWS_DOWN) {
                    vma.end - COPY_STACK * PAGE_SIZE
                } else {
                    vma.end
                };
                let choose = |address, entry: &Entry| {
                    if let Some(frame) = patched_at(address) {
                        Inherit::Instead(frame.clone())
                    } else if shared || !entry.rights.write {
                        Inherit::Share(entry.rights)
                    } else if copied && address >= eager_from && frame::available() > 2048 {
                        Inherit::Copy(read_only(entry.rights))
                    } else {
                        Inherit::Share(read_only(entry.rights))
                    }
                };
                let known = known_pages(vma);
                // An earlier child's page, if it is what a fault would bring: children make other calls than their parents, and touch other pages.
                let keep = |address, entry: &Entry| {
                    let is_copy = || known.as_ref().is_some_and(|file| file.holds(vma.index_of(address), entry.address));
                    let is_right = patched_at(address).map_or_else(is_copy, |frame| frame.address() == entry.address);
                    entry.ram && entry.rights == read_only(vma.rights) && is_right
                };
                result = inner.table.inherit(&mut target.table, vma.start, vma.end, &mut left.flush, choose, keep);
            }
            if result.is_err() {
                break;
            }
            let mut copy = vma.clone();
            // mlock(2): locks are not inherited.
            copy.flags = copy.flags.without(Flags::LOCKED).without(Flags::LOCK_ON_FAULT);
            target.map.insert(copy);
        }
        target.table.inherit_no_more();
        target.brk = inner.brk;
        target.patches = inner.patches.clone();
        target.note_peaks();
        inner.table.flush(left.flush);
        child.auxv.lock().clone_from(&self.auxv.lock());
        child.patching.store(patches, Ordering::Relaxed);
        child.dumpable.store(self.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
        result.map_err(|_| ENOMEM)?;
        Ok(child.clone())
    }
}

impl AddressSpace {
    /// What it uses is used by many.
    fn forks_again(&self) {
        let used: Vec<Mapping> = {
            let inner = self.inner.lock();
            let object = |vma: &Vma| match &vma.backing {
                Backing::Object(mapping, _) => worth_copies(mapping.pages.as_ref(), vma.rights, mapping.shared).then(|| mapping.clone()),
                Backing::Anonymous => None,
            };
            inner.map.iter().filter_map(object).collect()
        };
        for mapping in used {
            self.uses(mapping.pages.as_ref(), true);
        }
    }
}

/// The copies of a file, of which a mapping shows what no process writes to.
fn known_pages(vma: &Vma) -> Option<Arc<copies::File>> {
    match &vma.backing {
        Backing::Object(mapping, _) if !vma.shared() && !vma.rights.write => copies::of(mapping.pages.as_ref()),
        _ => None,
    }
}

/// Private and writable: its pages must not be seen changing by the other side.
const fn is_copied(vma: &Vma) -> bool {
    vma.rights.write && !vma.shared()
}
