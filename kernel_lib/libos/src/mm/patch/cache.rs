//! Patched pages of files, kept for every process that maps them, and the trampolines that they jump to.
//!
//! A file's trampolines lie at the same distance from its pages wherever it is mapped (`lead` below), so that one copy of a patched page
//! serves all. A patched page is never changed: the next patch makes a new copy, and who runs on an old one keeps it until a slow
//! call of his own brings him here. Trampolines are only added, and reached only through pages made afterwards.

use super::code::{self, HEADER_SLOTS, SLOT};
use crate::mm::map::FILE_GAP;
use crate::mm::reclaim;
use crate::mm::{Pages, PAGE_SIZE};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::frame::{Frame, Page};
use hal::sync::SpinLock;

/// A file in a state: (device, inode, version).
type Key = (u64, u64, u64);

/// Files remembered; the oldest state goes when there are more.
const MOST_FILES: usize = 256;

struct Files {
    known: BTreeMap<Key, Arc<FilePatches>>,
    order: Vec<Key>,
}

static FILES: SpinLock<Files> = SpinLock::new(Files { known: BTreeMap::new(), order: Vec::new() });

/// A page's patched copies, newest last. Old ones stay: they tell a page of ours from one that the program changed.
struct Patched {
    copies: Vec<Frame>,
    /// Distance from the trampolines' start up to the page.
    lead: u64,
}

#[derive(Default)]
struct State {
    pages: BTreeMap<u64, Patched>,
    trampolines: Vec<Frame>,
    /// What each slot in use holds.
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    SystemCall,
    Other,
}

/// What is to be patched.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// The SYSCALL that ends at this offset of its page, called with this number.
    SystemCall { behind: usize, number: u64 },
    /// The CPUID at this offset.
    Cpuid { at: usize },
}

impl Wanted {
    fn is_there(self, page: &[u8]) -> bool {
        match self {
            Self::SystemCall { behind, .. } => {
                // Of the first kind the SYSCALL stays.
                let jumps = behind.checked_sub(7).is_some_and(|at| page[at] == 0xe9);
                behind.checked_sub(2).is_some_and(|at| page.get(at..behind) == Some(&code::SYSCALL)) && !jumps
            }
            Self::Cpuid { at } => page.get(at..at + 2) == Some(&code::CPUID),
        }
    }

    fn examine(self, page: &[u8]) -> Option<code::Site> {
        match self {
            Self::SystemCall { behind, number } => code::examine(page, behind, number),
            Self::Cpuid { at } => code::examine_cpuid(page, at),
        }
    }
}

#[derive(Default)]
pub struct FilePatches {
    state: SpinLock<State>,
}

/// What is known of a file. `create`: from now on something is. None also for files whose contents may change at any time.
pub fn of(pages: &dyn Pages, create: bool) -> Option<Arc<FilePatches>> {
    let version = pages.version()?;
    let (device, inode) = pages.identity();
    let key = (device, inode, version);
    let mut files = FILES.lock();
    if let Some(known) = files.known.get(&key) {
        return Some(known.clone());
    }
    if !create {
        return None;
    }
    let mut gone = None;
    if files.order.len() >= MOST_FILES {
        let oldest = files.order.remove(0);
        gone = files.known.remove(&oldest);
    }
    let fresh = Arc::new(FilePatches::default());
    files.known.insert(key, fresh.clone());
    files.order.push(key);
    drop(files);
    drop(gone);
    Some(fresh)
}

/// Slots of a page of trampolines behind its header.
const PER_PAGE: usize = PAGE_SIZE as usize / SLOT - HEADER_SLOTS;
const MOST_SLOTS: usize = PER_PAGE * (FILE_GAP / PAGE_SIZE) as usize;

const fn slot_offset(slot: usize) -> u64 {
    (slot / PER_PAGE) as u64 * PAGE_SIZE + ((slot % PER_PAGE + HEADER_SLOTS) * SLOT) as u64
}

impl FilePatches {
    /// The newest patched copies among pages `[first, end)` with their leads.
    pub fn patched(&self, first: u64, end: u64) -> Vec<(u64, Frame, u64)> {
        let state = self.state.lock();
        state.pages.range(first..end).filter_map(|(&index, page)| Some((index, page.copies.last()?.clone(), page.lead))).collect()
    }

    /// Pages that have patched copies.
    pub fn indexes(&self) -> Vec<u64> {
        self.state.lock().pages.keys().copied().collect()
    }

    /// The pages of trampolines.
    pub fn trampolines(&self) -> Vec<Frame> {
        self.state.lock().trampolines.clone()
    }

    /// Whether a RAM page that is mapped for page `index` is a copy of ours, and whether it is the newest.
    pub fn is_copy(&self, index: u64, address: u64) -> Option<bool> {
        let state = self.state.lock();
        let copies = &state.pages.get(&index)?.copies;
        copies.iter().any(|frame| frame.address() == address).then(|| copies.last().is_some_and(|last| last.address() == address))
    }

    /// Patches a place of page `index`, mapped at `page_address` with its trampolines at `base`. `original`: the page as mapped now, of the
    /// file or a copy of ours. The newest copy, be it that the place was patched before; None: cannot be patched.
    pub fn patch(&self, index: u64, original: &Page, page_address: u64, base: u64, wanted: Wanted) -> Option<Frame> {
        let mut state = self.state.lock();
        let lead = page_address - base;
        let mut bytes = alloc::vec![0u8; PAGE_SIZE as usize];
        match state.pages.get(&index) {
            Some(known) if known.lead != lead => return None,
            Some(known) => {
                let newest = known.copies.last()?;
                newest.read(0, &mut bytes);
                if !wanted.is_there(&bytes) {
                    return Some(newest.clone());
                }
            }
            None => hal::phys::read(original.address(), &mut bytes),
        }
        let site = wanted.examine(&bytes)?;
        let count = code::slots(site);
        if state.slots.len() % PER_PAGE + count > PER_PAGE {
            state.slots.push(Slot::Other);
        }
        let slot = state.slots.len();
        if slot + count > MOST_SLOTS {
            return None;
        }
        let offset = slot_offset(slot);
        let header_at = base + (offset & !(PAGE_SIZE - 1));
        let trampoline = code::trampoline(site, base + offset, &bytes, page_address, header_at)?;
        let changes = code::changes(site, page_address, base + offset)?;
        let copy = reclaim::try_scratch()?;
        if slot.is_multiple_of(PER_PAGE) {
            let frame = reclaim::try_zeroed()?;
            frame.write(0, &code::header(hal::entry::fast_entry(), hal::cpu::CPUID_TABLE_OF_GS));
            state.trampolines.push(frame);
        }
        state.trampolines.last()?.write((offset % PAGE_SIZE) as usize, &trampoline[..count * SLOT]);
        let kind = if matches!(wanted, Wanted::SystemCall { .. }) { Slot::SystemCall } else { Slot::Other };
        state.slots.extend(core::iter::repeat_n(kind, count));
        for change in changes.into_iter().flatten() {
            bytes[change.offset..change.offset + change.length].copy_from_slice(&change.bytes[..change.length]);
        }
        copy.write(0, &bytes);
        state.pages.entry(index).or_insert(Patched { copies: Vec::new(), lead }).copies.push(copy.clone());
        Some(copy)
    }

    /// What `rip`, `offset` bytes into the trampolines at `base`, stands for.
    pub fn pending(&self, base: u64, offset: u64) -> Option<code::Pending> {
        let state = self.state.lock();
        let frame = state.trampolines.get((offset / PAGE_SIZE) as usize)?;
        let in_page = ((offset % PAGE_SIZE) as usize / SLOT).checked_sub(HEADER_SLOTS).filter(|&slot| slot < PER_PAGE)?;
        let number = (offset / PAGE_SIZE) as usize * PER_PAGE + in_page;
        if state.slots.get(number) != Some(&Slot::SystemCall) {
            return None;
        }
        let start = ((in_page + HEADER_SLOTS) * SLOT) as u64;
        let mut bytes = [0; SLOT];
        frame.read(start as usize, &mut bytes);
        code::Pending::at(&bytes, base + (offset & !(PAGE_SIZE - 1)) + start, base + offset)
    }
}
