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

/// A page's patched copies, newest last. Old ones stay while they are mapped: they tell a page of ours from one that the program changed.
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
    /// What is known of places, by their offsets in the file.
    places: BTreeMap<u64, Place>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// See [`code::own_bytes`].
    SystemCall {
        own_bytes: usize,
    },
    /// The second one of a system call.
    Continued,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A system call came from there, by any process.
    Seen,
    Patched,
    Hopeless,
}

/// Places remembered of a file.
const MOST_PLACES: usize = 4096;

/// What is to be patched.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// The SYSCALL that ends at this offset of its page, called with this number.
    SystemCall { behind: usize, number: u64 },
    /// The CPUID at this offset.
    Cpuid { at: usize },
}

impl Wanted {
    /// Offset of the instruction in its page.
    const fn at(self) -> usize {
        match self {
            Self::SystemCall { behind, .. } => behind - code::SYSCALL.len(),
            Self::Cpuid { at } => at,
        }
    }

    fn examine(self, page: &[u8]) -> Option<code::Site> {
        match self {
            Self::SystemCall { behind, number } => code::examine(page, behind, number),
            Self::Cpuid { at } => code::examine_cpuid(page, at),
        }
    }
}

/// How wanting a patch ended.
pub enum Attempt {
    /// The newest copy of the page, the place patched, be it earlier.
    Done(Frame),
    /// Not worth it until it is wanted again.
    Later,
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
    /// file or a copy of ours. A system call is patched when it is seen for the second time, by whatever process: what a program does
    /// once in its life is done by the next one too. None: cannot be patched.
    pub fn patch(&self, index: u64, original: &Page, page_address: u64, base: u64, wanted: Wanted) -> Option<Attempt> {
        let mut state = self.state.lock();
        let lead = page_address - base;
        if state.pages.get(&index).is_some_and(|known| known.lead != lead) {
            return None;
        }
        let place = index * PAGE_SIZE + wanted.at() as u64;
        match state.places.get(&place) {
            None if state.places.len() >= MOST_PLACES => return None,
            None if matches!(wanted, Wanted::SystemCall { .. }) => {
                state.places.insert(place, Place::Seen);
                return Some(Attempt::Later);
            }
            Some(Place::Hopeless) => return None,
            Some(Place::Patched) => return state.pages.get(&index)?.copies.last().cloned().map(Attempt::Done),
            None | Some(Place::Seen) => {}
        }
        let mut bytes = alloc::vec![0u8; PAGE_SIZE as usize];
        match state.pages.get(&index) {
            Some(known) => known.copies.last()?.read(0, &mut bytes),
            None => hal::phys::read(original.address(), &mut bytes),
        }
        let Some(site) = wanted.examine(&bytes) else {
            state.places.insert(place, Place::Hopeless);
            return None;
        };
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
        let (first, second) = match wanted {
            Wanted::SystemCall { .. } => (Slot::SystemCall { own_bytes: code::own_bytes(site) }, Slot::Continued),
            Wanted::Cpuid { .. } => (Slot::Other, Slot::Other),
        };
        state.slots.extend([first, second].into_iter().take(count));
        for change in changes.into_iter().flatten() {
            bytes[change.offset..change.offset + change.length].copy_from_slice(&change.bytes[..change.length]);
        }
        copy.write(0, &bytes);
        state.places.insert(place, Place::Patched);
        let copies = &mut state.pages.entry(index).or_insert(Patched { copies: Vec::new(), lead }).copies;
        copies.retain(|old| old.references() > 1);
        copies.push(copy.clone());
        Some(Attempt::Done(copy))
    }

    /// What `rip`, `offset` bytes into the trampolines at `base`, stands for.
    pub fn pending(&self, base: u64, offset: u64) -> Option<code::Pending> {
        let state = self.state.lock();
        let frame = state.trampolines.get((offset / PAGE_SIZE) as usize)?;
        let in_page = ((offset % PAGE_SIZE) as usize / SLOT).checked_sub(HEADER_SLOTS).filter(|&slot| slot < PER_PAGE)?;
        let mut number = (offset / PAGE_SIZE) as usize * PER_PAGE + in_page;
        if state.slots.get(number) == Some(&Slot::Continued) {
            number -= 1;
        }
        let Some(&Slot::SystemCall { own_bytes }) = state.slots.get(number) else { return None };
        let start = slot_offset(number);
        let mut bytes = [0; 2 * SLOT];
        let length = bytes.len().min((PAGE_SIZE - start % PAGE_SIZE) as usize);
        frame.read((start % PAGE_SIZE) as usize, &mut bytes[..length]);
        code::Pending::at(&bytes, own_bytes, base + start, base + offset)
    }
}
