//! System calls as calls: a SYSCALL instruction costs a ring change that a jump to the library OS does not. A site that is seen twice is
//! replaced, in a private copy of its page, by a jump to a trampoline (`code`); the copies are shared by all processes (`cache`). CPUID
//! is replaced likewise: it exits from the VM, and the C library executes it 60 times when a program starts.
//!
//! Only pages of files are patched, never writable or changed ones, and never in a program that uses GS base (the fast entry finds its
//! vCPU by it). A space's trampolines lie in a hidden VMA in the gap that mmap leaves below a file mapping. Whoever takes that VMA
//! away takes the patched pages along: the file's own come back by faults.
//!
//! Lock order: address space > a file's patches > the list of files.

mod cache;
mod code;
mod flow;

use super::copies;
use super::map::FILE_GAP;
use super::space::{AddressSpace, Inner, Leftovers};
use super::vma::{is_same, Backing, Flags, Vma};
use super::{Pages, PAGE_SIZE};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use cache::{Attempt, FilePatches, Wanted};
use code::Pending;
use core::sync::atomic::Ordering;
use hal::context::UserContext;
use hal::frame::{Frame, Page};
use hal::paging::{Entry, Rights};

/// Places that cannot be patched in a space, by the address of the instruction: some of them, the others are tried again.
pub(super) struct GivenUp([u64; 64]);

impl Default for GivenUp {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl GivenUp {
    fn slot(&mut self, address: u64) -> &mut u64 {
        &mut self.0[(address ^ address >> 6 ^ address >> 12) as usize % 64]
    }
}

/// A space's trampolines: start of the hidden VMA to the file they belong to.
#[derive(Clone, Default)]
pub(super) struct Patches {
    areas: BTreeMap<u64, Area>,
}

#[derive(Clone)]
struct Area {
    file: Arc<FilePatches>,
    pages: Arc<dyn Pages>,
}

impl AddressSpace {
    /// A system call came in by the SYSCALL instruction: patches its site when it is worth it. Called before the call is served.
    pub fn slow_call(&self, context: &UserContext) {
        // The whole site lies on one page.
        let address = context.rip - code::SYSCALL.len() as u64;
        let page_address = address & !(PAGE_SIZE - 1);
        let wanted = Wanted::SystemCall { behind: (context.rip - page_address) as usize, number: context.orig_rax };
        self.patch_at(address, page_address, wanted, true);
    }

    /// Whether the place is patched now, so that the program may execute it again.
    fn patch_at(&self, address: u64, page_address: u64, wanted: Wanted, shown: bool) -> bool {
        if !self.patching.load(Ordering::Relaxed) || *self.given_up.lock().slot(address) == address {
            return false;
        }
        let done = self.edit(|inner, left| patch(inner, left, page_address, wanted, shown));
        if done.is_none() {
            *self.given_up.lock().slot(address) = address;
        }
        done.is_some()
    }

    /// A general-protection fault came in: true if it was a CPUID (which the VMM made a fault), and the program may go on. `alone`: no other
    /// thread runs in this space, which could stand among the instructions that a patch overwrites. Else the patch is for those that map
    /// the page next.
    pub fn trapped_cpuid(&self, context: &mut UserContext, alone: bool) -> bool {
        let mut instruction = [0; 2];
        if !hal::cpu::has_cpuid_tables() || hal::user::read_bytes(context.rip, &mut instruction).is_err() || instruction != code::CPUID {
            return false;
        }
        let page_address = context.rip & !(PAGE_SIZE - 1);
        // Where an exit is cheap it is not worth it.
        let patched = hal::cpu::has_shadow_paging() && {
            // The neighbours are looked at, too (`patch`), so they are to be mapped.
            for near in [page_address - 1, page_address + PAGE_SIZE] {
                let _ = hal::user::read_bytes(near, &mut [0]);
            }
            self.patch_at(context.rip, page_address, Wanted::Cpuid { at: (context.rip - page_address) as usize }, alone)
        };
        if !patched {
            let [a, b, c, d] = hal::cpu::cpuid(context.rax as u32, context.rcx as u32).map(u64::from);
            (context.rax, context.rbx, context.rcx, context.rdx) = (a, b, c, d);
            context.rip += 2;
        }
        true
    }

    /// The program sets a GS base of its own (arch_prctl(2), ARCH_SET_GS) or is traced (ptrace(2)): no patched calls from now on. The trampolines
    /// stay, for other threads may stand in them; the caller's context is to be led out ([`Self::leave_trampoline`]).
    pub fn forbid_patches(&self) {
        if !self.patching.swap(false, Ordering::Relaxed) {
            return;
        }
        self.edit(|inner, left| {
            let areas: Vec<Area> = inner.patches.areas.values().cloned().collect();
            for area in areas {
                for address in patched_pages(inner, &area) {
                    inner.table.unmap(address, address + PAGE_SIZE, &mut left.flush);
                }
            }
        });
    }

    /// Before a signal frame is built or registers are shown: a program counter in a trampoline becomes the place it stands for.
    pub fn leave_trampoline(&self, context: &mut UserContext) {
        if let Some(pending) = self.pending(context.rip) {
            context.rip = pending.original();
        }
    }

    /// A step (the trap flag) led into a trampoline. True: the context is now that of a program behind its SYSCALL, which is to be served. False:
    /// it is that of a program, not in a trampoline.
    pub fn stepped_into_trampoline(&self, context: &mut UserContext) -> bool {
        let Some(pending) = self.pending(context.rip) else { return false };
        if let Some(number) = pending.number {
            context.rax = u64::from(number);
        }
        if pending.behind_number() + code::SYSCALL.len() as u64 != pending.back {
            // Other instructions come first. They stand in the program, too.
            context.rip = pending.behind_number();
            return false;
        }
        context.orig_rax = context.rax;
        context.rip = pending.back;
        true
    }

    fn pending(&self, rip: u64) -> Option<Pending> {
        let inner = self.inner.lock();
        let (&base, area) = inner.patches.areas.range(..=rip).next_back()?;
        if rip - base >= FILE_GAP {
            return None;
        }
        area.file.pending(base, rip - base)
    }
}

/// Patches a place of the page at `page_address`, in this space if it is to be `shown` there, or leaves it for later. None: impossible,
/// or not shown.
fn patch(inner: &mut Inner, left: &mut Leftovers, page_address: u64, wanted: Wanted, shown: bool) -> Option<()> {
    let vma = inner.map.find(page_address).filter(|vma| may_patch(vma))?;
    let Backing::Object(mapping, _) = &vma.backing else { return None };
    let (pages, index, rights) = (mapping.pages.clone(), vma.index_of(page_address), vma.rights);
    let file = cache::of(pages.as_ref(), true)?;
    let entry = inner.table.entry(page_address)?;
    if !is_unchanged(&file, pages.as_ref(), index, &entry) {
        return None;
    }
    let base = area_below(inner, page_address, &pages)?;
    let neighbours = match wanted {
        Wanted::SystemCall { .. } => [None; 2],
        Wanted::Cpuid { .. } => [neighbour(inner, page_address - PAGE_SIZE, &pages)?, neighbour(inner, page_address + PAGE_SIZE, &pages)?],
    };
    let Attempt::Done(copy) = file.patch(index, &Page::Window(entry.address), (page_address, base), wanted, neighbours)? else {
        return Some(());
    };
    if !shown {
        return None;
    }
    set_up(inner, left, base, &file, &pages)?;
    if copy.address() == entry.address {
        // Patched already, and yet the call was slow: somebody jumps to the SYSCALL itself.
        return None;
    }
    inner.table.map(page_address, Page::Ram(copy), rights, &mut left.flush).ok()
}

/// The page at `address` if code of the object is mapped there. None: it is, but not present.
fn neighbour(inner: &mut Inner, address: u64, pages: &Arc<dyn Pages>) -> Option<Option<u64>> {
    let same = |vma: &&Vma| vma.rights.execute && matches!(&vma.backing, Backing::Object(mapping, _) if is_same(&mapping.pages, pages));
    match inner.map.find(address).filter(same) {
        Some(_) => inner.table.entry(address).map(|entry| Some(entry.address)),
        None => Some(None),
    }
}

/// The indexes of an object's pages that have patched copies, in order.
pub(super) fn patched(pages: &dyn Pages) -> Vec<u64> {
    cache::of(pages, false).map_or_else(Vec::new, |file| file.indexes())
}

fn may_patch(vma: &Vma) -> bool {
    vma.rights.execute && !vma.rights.write && !vma.shared() && !vma.flags.has(Flags::SPECIAL) && !vma.flags.has(Flags::HIDDEN)
}

/// Where the trampolines of the file that is mapped around `address` are or belong: in the gap below its lowest mapping.
fn area_below(inner: &Inner, address: u64, pages: &Arc<dyn Pages>) -> Option<u64> {
    let mut lowest = inner.map.find(address)?;
    while let Some(below) = inner.map.below(lowest.start) {
        let same = below.end == lowest.start && matches!(&below.backing, Backing::Object(mapping, _) if is_same(&mapping.pages, pages));
        if !same {
            break;
        }
        lowest = below;
    }
    lowest.start.checked_sub(FILE_GAP).filter(|&base| base >= super::vma::MIN_ADDRESS)
}

/// Takes the place for a new mapping's trampolines before anything else does.
pub(super) fn reserve(inner: &mut Inner, left: &mut Leftovers, address: u64) {
    let Some(Backing::Object(mapping, _)) = inner.map.find(address).filter(|vma| may_patch(vma)).map(|vma| &vma.backing) else { return };
    let pages = mapping.pages.clone();
    if let (Some(file), Some(base)) = (cache::of(pages.as_ref(), true), area_below(inner, address, &pages)) {
        let _ = set_up(inner, left, base, &file, &pages);
    }
}

/// Makes the trampolines of a file present at `base`: new ones as well as those that came since. None: the place is taken.
fn set_up(inner: &mut Inner, left: &mut Leftovers, base: u64, file: &Arc<FilePatches>, pages: &Arc<dyn Pages>) -> Option<()> {
    match inner.patches.areas.get(&base) {
        Some(area) if Arc::ptr_eq(&area.file, file) => {}
        Some(_) => return None,
        None => {
            if !inner.map.is_free(base, base + FILE_GAP) {
                return None;
            }
            inner.map.insert(Vma::new(base, base + FILE_GAP, Rights::READ_EXECUTE, Flags::HIDDEN, Backing::Anonymous));
            inner.patches.areas.insert(base, Area { file: file.clone(), pages: pages.clone() });
        }
    }
    for (number, frame) in file.trampolines().into_iter().enumerate() {
        let at = base + number as u64 * PAGE_SIZE;
        if inner.table.entry(at).is_none() {
            inner.table.map(at, Page::Ram(frame), Rights::READ_EXECUTE, &mut left.flush).ok()?;
        }
    }
    Some(())
}

/// The patched copies to be mapped instead of the object's pages `[first, first + count)` at `start`; their trampolines are made present.
pub(super) fn instead_of(
    inner: &mut Inner,
    left: &mut Leftovers,
    allowed: bool,
    pages: &Arc<dyn Pages>,
    (start, first, count): (u64, u64, u64),
) -> Vec<(u64, Frame)> {
    if !allowed || !inner.map.find(start).is_some_and(may_patch) {
        return Vec::new();
    }
    let Some(file) = cache::of(pages.as_ref(), false) else { return Vec::new() };
    let mut copies = Vec::new();
    for (index, frame, lead) in file.patched(first, first + count) {
        let address = start + (index - first) * PAGE_SIZE;
        let Some(base) = address.checked_sub(lead).filter(|&base| base >= super::vma::MIN_ADDRESS) else { continue };
        if set_up(inner, left, base, &file, pages).is_some() {
            copies.push((index, frame));
        }
    }
    copies
}

/// The newest patched pages for a copy of this space, by address: its only thread would come to each of them by a slow call, for its parent
/// never makes the calls of a child. Not where CPUID is patched: it may stand among the instructions that changed.
pub(super) fn for_copy(inner: &mut Inner, left: &mut Leftovers) -> Vec<(u64, Frame)> {
    let mut found = Vec::new();
    for (base, area) in inner.patches.areas.clone() {
        if set_up(inner, left, base, &area.file, &area.pages).is_none() {
            continue;
        }
        for (index, frame, lead) in area.file.patched_calls() {
            let address = base + lead;
            let same =
                |vma: &&Vma| may_patch(vma) && matches!(&vma.backing, Backing::Object(mapping, _) if is_same(&mapping.pages, &area.pages));
            if inner.map.find(address).filter(same).is_some_and(|vma| vma.index_of(address) == index) {
                let entry = inner.table.entry(address);
                if entry.is_none_or(|entry| is_unchanged(&area.file, area.pages.as_ref(), index, &entry)) {
                    found.push((address, frame));
                }
            }
        }
    }
    found.sort_unstable_by_key(|(address, _)| *address);
    found
}

/// Whether a page is the file's own or a copy of ours, not the program's.
fn is_unchanged(file: &FilePatches, pages: &dyn Pages, index: u64, entry: &Entry) -> bool {
    let is_the_files = || copies::of(pages).is_some_and(|copies| copies.holds(index, entry.address));
    !entry.ram || file.is_copy(index, entry.address).is_some() || is_the_files()
}

/// A range is about to lose its mappings: trampolines in it go with their patched pages, and trampolines whose file goes go too.
pub(super) fn range_goes(inner: &mut Inner, left: &mut Leftovers, start: u64, end: u64) {
    if inner.patches.areas.is_empty() {
        return;
    }
    let touched: Vec<u64> = inner
        .patches
        .areas
        .keys()
        .copied()
        .filter(|&base| (base < end && start < base + FILE_GAP) || (start <= base + FILE_GAP && base + FILE_GAP < end))
        .collect();
    for base in touched {
        forget(inner, left, base);
    }
}

/// A range is about to be moved: its patched pages would jump astray. The file's own come back by faults.
pub(super) fn range_moves(inner: &mut Inner, left: &mut Leftovers, start: u64, end: u64) {
    if inner.patches.areas.is_empty() {
        return;
    }
    range_goes(inner, left, start, end);
    let mut ours = Vec::new();
    for vma in inner.map.overlapping(start, end).filter(|vma| may_patch(vma)) {
        let Backing::Object(mapping, _) = &vma.backing else { continue };
        let Some(file) = cache::of(mapping.pages.as_ref(), false) else { continue };
        inner.table.scan(vma.start.max(start), vma.end.min(end), |address, entry| {
            if entry.ram && file.is_copy(vma.index_of(address), entry.address).is_some() {
                ours.push(address);
            }
        });
    }
    for address in ours {
        inner.table.unmap(address, address + PAGE_SIZE, &mut left.flush);
    }
}

/// Takes a space's trampolines at `base` away, and the pages that jump to them.
fn forget(inner: &mut Inner, left: &mut Leftovers, base: u64) {
    let Some(area) = inner.patches.areas.remove(&base) else { return };
    for address in patched_pages(inner, &area) {
        inner.table.unmap(address, address + PAGE_SIZE, &mut left.flush);
    }
    inner.table.unmap(base, base + FILE_GAP, &mut left.flush);
    left.vmas.extend(inner.map.remove(base, base + FILE_GAP));
}

/// Where a space shows patched copies of an area's file.
fn patched_pages(inner: &mut Inner, area: &Area) -> Vec<u64> {
    let mut pages = Vec::new();
    for vma in inner.map.iter().filter(|vma| !vma.shared()) {
        let Backing::Object(mapping, _) = &vma.backing else { continue };
        if !is_same(&mapping.pages, &area.pages) {
            continue;
        }
        let first = vma.index_of(vma.start);
        for index in area.file.indexes().into_iter().filter(|index| (first..first + vma.bytes() / PAGE_SIZE).contains(index)) {
            let address = vma.start + (index - first) * PAGE_SIZE;
            if inner.table.entry(address).is_some_and(|entry| entry.ram && area.file.is_copy(index, entry.address).is_some()) {
                pages.push(address);
            }
        }
    }
    pages
}
