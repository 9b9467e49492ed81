//! What a child gets from its parent's page tables (fork), and from those of the last child (docs/decisions/0020).

use super::{block_of, index, Entry, Flush, Inherit, OutOfMemory, PageTable, ADDRESS, AHEAD, OWNED, PRESENT, WRITE};
use crate::frame::{Frame, Page};
use abi::layout;

impl PageTable {
    /// Fills a child's table from this one for `[start, end)` (fork): `choose` says how each page is inherited, `keep` whether one that the last
    /// child had, and this space has not, is there in this child too. Rights that this space loses go to `flush`. Err: no memory for tables.
    pub fn inherit(
        &mut self,
        child: &mut Self,
        start: u64,
        end: u64,
        flush: &mut Flush,
        mut choose: impl FnMut(u64, &Entry) -> Inherit,
        mut keep: impl FnMut(u64, &Entry) -> bool,
    ) -> Result<(), OutOfMemory> {
        let (mut added, mut result) = ((0, 0), Ok(()));
        child.decide(start, |_, _| false);
        let mut at = start;
        while let Some((from, stop)) = self.next_part(at, end) {
            let block = block_of(from);
            let was_huge = self.huge.contains_key(&block);
            let mut leaf = None;
            let (mut failed, mut changed, mut lost) = (false, false, false);
            self.each(from, stop, |address, entry| {
                // SAFETY: as in map.
                let value = unsafe { entry.read_volatile() };
                let described = Self::describe(value);
                let choice = choose(address, &described);
                if choice == Inherit::Skip || failed {
                    return;
                }
                child.decide(address, &mut keep);
                child.decided = Some(address + 4096);
                leaf = leaf.or_else(|| child.leaf(block, true));
                let Some(leaf) = leaf else {
                    failed = true;
                    return;
                };
                // SAFETY: the child's leaf entry; nobody runs in the child yet.
                let slot = unsafe { leaf.add(index(address, 0)) };
                // SAFETY: as above.
                let had = unsafe { slot.read_volatile() };
                let copied = matches!(choice, Inherit::Copy(_));
                let (page, child_rights, own_rights) = match choice {
                    Inherit::Copy(_) if Self::copy_again(&described, had, value & AHEAD) => {
                        added.0 += 1;
                        return;
                    }
                    Inherit::Instead(frame) => (Page::Ram(frame), described.rights, described.rights),
                    Inherit::Copy(rights) | Inherit::Share(rights) => {
                        let copy = if copied { Frame::copy_of(&Page::Window(described.address)) } else { None };
                        match copy {
                            Some(frame) => (Page::Ram(frame), described.rights, described.rights),
                            None if described.ram => {
                                // SAFETY: borrowed to clone; the entry keeps its reference.
                                let frame = unsafe { Frame::from_raw((described.address >> 12) as u32) };
                                let shared = frame.clone();
                                let _ = frame.into_raw();
                                (Page::Ram(shared), rights, rights)
                            }
                            None => (Page::Window(described.address), rights, rights),
                        }
                    }
                    Inherit::Skip => return,
                };
                if matches!(page, Page::Ram(_)) {
                    added.0 += 1;
                } else {
                    added.1 += 1;
                }
                let encoded = Self::encode(page, child_rights) | value & AHEAD;
                if encoded != had {
                    // SAFETY: as above.
                    unsafe { slot.write_volatile(encoded) };
                }
                // What was there, or the second reference to the same.
                drop(Self::decode_owned(had));
                if own_rights != described.rights {
                    // SAFETY: as in map.
                    unsafe { entry.write_volatile(value & (ADDRESS | OWNED | AHEAD) | own_rights.bits()) };
                    changed = true;
                    if described.rights.write && !own_rights.write {
                        lost = true;
                        if !was_huge {
                            flush.stale(address);
                        }
                    }
                }
            });
            if was_huge {
                if changed {
                    self.settle(block);
                }
                if lost {
                    flush.stale_block(block);
                }
                child.settle(block);
            }
            if failed {
                result = Err(OutOfMemory);
                break;
            }
            at = stop;
        }
        child.decide(end, keep);
        child.resident.0 += added.0;
        child.resident.1 += added.1;
        result
    }

    /// What was not inherited so far is not there.
    pub fn inherit_no_more(&mut self) {
        self.decide(layout::LIBOS_BASE, |_, _| false);
    }

    /// Decides about pages of the tree's last space that lie before `end` and were not inherited. Nobody has the tree loaded.
    fn decide(&mut self, end: u64, mut keep: impl FnMut(u64, &Entry) -> bool) {
        let from = self.decided.map_or(end, |decided| decided.min(end));
        if from == end {
            return;
        }
        let mut kept = 0;
        self.each(from, end, |address, entry| {
            // SAFETY: as in map; the reference goes with the entry.
            unsafe {
                let value = entry.read_volatile();
                if keep(address, &Self::describe(value)) {
                    kept += 1;
                } else {
                    entry.write_volatile(0);
                    drop(Self::decode_owned(value));
                }
            }
        });
        self.resident.0 += kept;
        self.decided = Some(end);
    }

    /// Copies a page over the one that the last copy of this space had there, if nothing else has changed.
    fn copy_again(page: &Entry, had: u64, ahead: u64) -> bool {
        let same = had & !ADDRESS == page.rights.bits() | OWNED | ahead && Self::describe(had).references == 1;
        if same {
            // SAFETY: the entry's own frame, which nobody else has; it keeps its reference.
            let frame = unsafe { Frame::from_raw(((had & ADDRESS) >> 12) as u32) };
            frame.copy_from(&Page::Window(page.address));
            let _ = frame.into_raw();
        }
        same
    }

    /// Whether the page of a space that ends may stay for the next copy: its own, or one that nobody writes to.
    pub(super) fn may_stay(entry: u64) -> bool {
        let owned = PRESENT | OWNED;
        entry & owned == owned && (entry & WRITE == 0 || Self::describe(entry).references == 1)
    }
}
