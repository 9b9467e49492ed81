//! Patched pages of files, kept for every process that maps them, and the trampolines that they jump to.
//!
//! A file's trampolines lie at the same distance from its pages wherever it is mapped (`lead` below), so that one copy of a patched page
//! serves all. A patched page is never changed: the next patch makes a new copy, and who runs on an old one keeps it until a slow
//! call of his own brings him here. Trampolines are only added, and reached only through pages made afterwards.

use super::code::{self, Site, HEADER_SLOTS, SLOT};
use super::flow::{self, Jumps};
use crate::mm::map::FILE_GAP;
use crate::mm::reclaim;
use crate::mm::{Pages, PAGE_SIZE};
use alloc::boxed::Box;
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
    /// Where the page's own jumps lead to; known from its first patched CPUID on, which moves some of them away.
    jumps: Option<Box<Jumps>>,
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
    /// The CPUID at this offset, and those of its page that follow upon it.
    Cpuid { at: usize },
}

/// Guest-physical addresses of the pages before and behind one, as they are mapped now; None: nothing of the file is run there.
pub type Neighbours = [Option<u64>; 2];

impl Wanted {
    /// Offset of the instruction in its page.
    const fn at(self) -> usize {
        match self {
            Self::SystemCall { behind, .. } => behind - code::SYSCALL.len(),
            Self::Cpuid { at } => at,
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

fn contents(address: u64) -> Vec<u8> {
    let mut bytes = alloc::vec![0u8; PAGE_SIZE as usize];
    hal::phys::read(address, &mut bytes);
    bytes
}

/// The jumps of a page and of its neighbours.
struct Around {
    before: Option<Box<Jumps>>,
    own: Box<Jumps>,
    behind: Option<Box<Jumps>>,
}

impl Around {
    fn new(state: &State, index: u64, page: &[u8], [before, behind]: Neighbours) -> Self {
        let (before, behind) = (before.map(contents), behind.map(contents));
        // What a patch has moved away counts, too.
        let known = |index: u64| state.pages.get(&index)?.jumps.clone();
        let jumps = |index: u64, page: &[u8], next: &[u8]| known(index).unwrap_or_else(|| Box::new(Jumps::of(page, next)));
        Self {
            before: before.map(|before| jumps(index.wrapping_sub(1), &before, page)),
            own: jumps(index, page, behind.as_deref().unwrap_or_default()),
            behind: behind.map(|behind| jumps(index + 1, &behind, &[])),
        }
    }

    fn lead_into(&self, offsets: &core::ops::Range<usize>) -> bool {
        let neighbour = |jumps: &Option<Box<Jumps>>, ahead| jumps.as_ref().is_some_and(|jumps| jumps.lead_into(ahead, offsets));
        neighbour(&self.before, 1) || self.own.lead_into(0, offsets) || neighbour(&self.behind, -1)
    }
}

impl State {
    /// Makes a site's trampoline, of those at `base`, and its changes in the page's `bytes`. None: there is no room for it.
    fn add(&mut self, site: Site, bytes: &mut [u8], page_address: u64, base: u64) -> Option<()> {
        let count = code::slots(site);
        if self.slots.len() % PER_PAGE + count > PER_PAGE {
            self.slots.push(Slot::Other);
        }
        let slot = self.slots.len();
        if slot + count > MOST_SLOTS {
            return None;
        }
        let offset = slot_offset(slot);
        let header_at = base + (offset & !(PAGE_SIZE - 1));
        let trampoline = code::trampoline(site, base + offset, bytes, page_address, header_at)?;
        let changes = code::changes(site, page_address, base + offset)?;
        if slot.is_multiple_of(PER_PAGE) {
            let frame = reclaim::try_zeroed()?;
            frame.write(0, &code::header(hal::entry::fast_entry(), hal::cpu::CPUID_TABLE_OF_GS));
            self.trampolines.push(frame);
        }
        self.trampolines.last()?.write((offset % PAGE_SIZE) as usize, &trampoline[..count * SLOT]);
        let (first, second) = match site {
            Site::Cpuid { .. } => (Slot::Other, Slot::Other),
            Site::Number { .. } | Site::Hole { .. } => (Slot::SystemCall { own_bytes: code::own_bytes(site) }, Slot::Continued),
        };
        self.slots.extend([first, second].into_iter().take(count));
        for change in changes.into_iter().flatten() {
            bytes[change.offset..change.offset + change.length].copy_from_slice(&change.bytes[..change.length]);
        }
        Some(())
    }
}

impl FilePatches {
    /// The newest patched copies among pages `[first, end)` with their leads.
    pub fn patched(&self, first: u64, end: u64) -> Vec<(u64, Frame, u64)> {
        let state = self.state.lock();
        state.pages.range(first..end).filter_map(|(&index, page)| Some((index, page.copies.last()?.clone(), page.lead))).collect()
    }

    /// The newest copies in which system calls alone are patched.
    pub fn patched_calls(&self) -> Vec<(u64, Frame, u64)> {
        let state = self.state.lock();
        let calls = state.pages.iter().filter(|(_, page)| page.jumps.is_none());
        calls.filter_map(|(&index, page)| Some((index, page.copies.last()?.clone(), page.lead))).collect()
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
    pub fn patch(
        &self,
        index: u64,
        original: &Page,
        (page_address, base): (u64, u64),
        wanted: Wanted,
        neighbours: Neighbours,
    ) -> Option<Attempt> {
        let mut state = self.state.lock();
        let lead = page_address - base;
        if state.pages.get(&index).is_some_and(|known| known.lead != lead) {
            return None;
        }
        let place = |at: usize| index * PAGE_SIZE + at as u64;
        match state.places.get(&place(wanted.at())) {
            None if state.places.len() >= MOST_PLACES => return None,
            None if matches!(wanted, Wanted::SystemCall { .. }) => {
                state.places.insert(place(wanted.at()), Place::Seen);
                return Some(Attempt::Later);
            }
            Some(Place::Hopeless) => return None,
            Some(Place::Patched) => return state.pages.get(&index)?.copies.last().cloned().map(Attempt::Done),
            None | Some(Place::Seen) => {}
        }
        let mut bytes = match state.pages.get(&index) {
            Some(known) => contents(known.copies.last()?.address()),
            None => contents(original.address()),
        };
        let (sites, jumps): (Vec<(usize, Site)>, _) = match wanted {
            Wanted::SystemCall { behind, number } => {
                (code::examine(&bytes, behind, number).map(|site| (wanted.at(), site)).into_iter().collect(), None)
            }
            Wanted::Cpuid { at } => {
                let jumps = Around::new(&state, index, &bytes, neighbours);
                let mut all = flow::cpuids(&bytes, at);
                all.retain(|&at| !state.places.contains_key(&place(at)));
                let site = |at| Some((at, code::examine_cpuid(&bytes, at, |offsets| jumps.lead_into(offsets))?));
                (all.into_iter().filter_map(site).collect(), Some(jumps.own))
            }
        };
        if sites.first().is_none_or(|&(at, _)| at != wanted.at()) {
            state.places.insert(place(wanted.at()), Place::Hopeless);
            return None;
        }
        let copy = reclaim::try_scratch()?;
        for (at, site) in sites {
            if state.add(site, &mut bytes, page_address, base).is_none() {
                break;
            }
            state.places.insert(place(at), Place::Patched);
        }
        if state.places.get(&place(wanted.at())) != Some(&Place::Patched) {
            return None;
        }
        copy.write(0, &bytes);
        let page = state.pages.entry(index).or_insert(Patched { copies: Vec::new(), lead, jumps: None });
        page.jumps = page.jumps.take().or(jumps);
        page.copies.retain(|old| old.references() > 1);
        page.copies.push(copy.clone());
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
