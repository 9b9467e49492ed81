//! One address space (what CLONE_VM shares): the VMAs, the page table, where things are, and the accounts.

use super::vma::{Totals, Vma, VmaMap};
use super::PAGE_SIZE;
use crate::errno::{Errno, ENOMEM};
use crate::sync::Mutex;
use abi::layout::LIBOS_BASE;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hal::paging::{Flush, PageTable, Rights, Root};
use hal::sync::SpinLock;

/// Where a program's parts are (execve lays them out; prctl(PR_SET_MM) may move the marks).
#[derive(Clone, Copy, Default, Debug)]
pub struct Layout {
    /// mmap places mappings below this, top down.
    pub mmap_top: u64,
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    /// The vDSO's way back from signal handlers; 0: not to be used.
    pub sigreturn: u64,
    /// ADDR_COMPAT_LAYOUT and the like are not followed; this one is: no randomization (personality(2)).
    pub fixed: bool,
}

/// What is changed under the lock.
pub(super) struct Inner {
    pub table: PageTable,
    pub map: VmaMap,
    pub layout: Layout,
    /// Present end of brk's area.
    pub brk: u64,
    /// mlockall(MCL_FUTURE): new mappings are locked (and MCL_ONFAULT: not populated).
    pub lock_future: Option<bool>,
    /// Most pages that were ever mapped, and most bytes of VMAs.
    pub peak_resident: usize,
    pub peak_bytes: u64,
    pub patches: super::patch::Patches,
    pub heap: super::heap::Heap,
}

impl Inner {
    /// Pages of RAM and of the window that the program has.
    pub fn resident(&mut self) -> (usize, usize) {
        let (ram, window) = self.table.resident();
        (ram - self.kept_pages(), window)
    }

    pub fn note_peaks(&mut self) {
        let (ram, window) = self.table.resident();
        self.peak_resident = self.peak_resident.max(ram + window);
        self.peak_bytes = self.peak_bytes.max(self.map.totals().bytes);
    }
}

/// An address space. All methods may sleep.
pub struct AddressSpace {
    pub(super) inner: Mutex<Inner>,
    root: Arc<Root>,
    /// The auxiliary vector as the program got it (/proc/PID/auxv).
    pub(super) auxv: SpinLock<Arc<[u8]>>,
    /// System calls may be patched (no GS base of its own); where that was in vain.
    pub(super) patching: AtomicBool,
    pub(super) given_up: SpinLock<super::patch::GivenUp>,
    pub(super) dumpable: AtomicU64,
    pub(super) forks: AtomicU64,
    /// Never used again, unlike the address of what ended.
    pub(super) number: u64,
}

/// Every address space there is, for what happens to an object's pages.
static SPACES: SpinLock<Vec<Weak<AddressSpace>>> = SpinLock::new(Vec::new());

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// VMAs and stale translations that an edit left behind.
#[derive(Default)]
pub(super) struct Leftovers {
    pub flush: Flush,
    pub vmas: Vec<Vma>,
}

impl AddressSpace {
    /// An empty space. `kind`: what will run there, see [`PageTable::new`].
    pub fn new(layout: Layout, kind: u64) -> Result<Arc<Self>, Errno> {
        Ok(Self::with(PageTable::new(kind).ok_or(ENOMEM)?, layout))
    }

    pub(super) fn with(table: PageTable, layout: Layout) -> Arc<Self> {
        let root = table.root().clone();
        let inner = Inner {
            table,
            map: VmaMap::default(),
            brk: layout.start_brk,
            layout,
            lock_future: None,
            peak_resident: 0,
            peak_bytes: 0,
            patches: super::patch::Patches::default(),
            heap: super::heap::Heap::default(),
        };
        let space = Arc::new(Self {
            inner: Mutex::new(inner),
            root,
            auxv: SpinLock::new(Arc::from([])),
            patching: AtomicBool::new(true),
            given_up: SpinLock::default(),
            dumpable: AtomicU64::new(1),
            forks: AtomicU64::new(0),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        });
        let mut spaces = SPACES.lock();
        spaces.retain(|known| known.strong_count() > 0);
        spaces.push(Arc::downgrade(&space));
        space
    }

    /// The page-table root to load when a task of this space runs.
    pub fn root(&self) -> Arc<Root> {
        self.root.clone()
    }

    /// Runs an edit under the lock, makes its removals effective, then drops what it took out.
    pub(super) fn edit<T>(&self, change: impl FnOnce(&mut Inner, &mut Leftovers) -> T) -> T {
        self.edit_heap(|inner, left| {
            inner.give_up_kept(left);
            change(inner, left)
        })
    }

    /// As [`Self::edit`], for an edit of the heap: what is kept above the break stays.
    pub(super) fn edit_heap<T>(&self, change: impl FnOnce(&mut Inner, &mut Leftovers) -> T) -> T {
        let mut left = Leftovers::default();
        let mut inner = self.inner.lock();
        let result = change(&mut inner, &mut left);
        inner.note_peaks();
        inner.table.flush(left.flush);
        drop(inner);
        drop(left.vmas);
        result
    }

    pub fn layout(&self) -> Layout {
        self.inner.lock().layout
    }

    /// prctl(PR_SET_MM_*).
    pub fn set_layout(&self, change: impl FnOnce(&mut Layout)) {
        change(&mut self.inner.lock().layout);
    }

    pub fn totals(&self) -> Totals {
        self.inner.lock().map.totals()
    }

    /// Bytes mapped to RAM frames and to file pages.
    pub fn resident(&self) -> (u64, u64) {
        let (ram, window) = self.inner.lock().resident();
        (ram as u64 * PAGE_SIZE, window as u64 * PAGE_SIZE)
    }

    /// Most bytes that were ever resident (ru_maxrss, VmHWM).
    pub fn peak_resident(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.note_peaks();
        inner.peak_resident as u64 * PAGE_SIZE
    }

    /// The auxiliary vector as execve left it.
    pub fn auxv(&self) -> Arc<[u8]> {
        self.auxv.lock().clone()
    }

    /// prctl(PR_GET_DUMPABLE).
    pub fn dumpable(&self) -> u64 {
        self.dumpable.load(Ordering::Relaxed)
    }

    pub fn set_dumpable(&self, value: u64) {
        self.dumpable.store(value, Ordering::Relaxed);
    }

    /// Identifies a futex word (futex(2)): shared memory by object and offset, private memory by space and address.
    pub fn futex_key(&self, address: u64) -> (u64, u64) {
        let inner = self.inner.lock();
        match inner.map.find(address).map(|vma| (&vma.backing, vma.start)) {
            Some((super::vma::Backing::Object(mapping, offset), start)) if mapping.shared => {
                // Odd, so that no address of a space equals it.
                let (device, inode) = mapping.pages.identity();
                (device.rotate_left(40) ^ inode << 1 | 1, offset + (address - start))
            }
            _ => (core::ptr::from_ref(self) as u64, address),
        }
    }
}

/// Calls `visit` for every address space there is.
pub(super) fn for_each(mut visit: impl FnMut(&Arc<AddressSpace>)) {
    let spaces: Vec<Arc<AddressSpace>> = SPACES.lock().iter().filter_map(Weak::upgrade).collect();
    for space in &spaces {
        visit(space);
    }
}

/// What page-table entries of a VMA may say: any right makes a page readable on x86.
pub(super) const fn page_rights(rights: Rights) -> Rights {
    Rights { read: rights.read || rights.write || rights.execute, ..rights }
}

/// The same without the right to write: for pages that somebody else shares.
pub(super) const fn read_only(rights: Rights) -> Rights {
    Rights { write: false, ..page_rights(rights) }
}

/// Whether `[start, end)` lies in the program's half.
pub(super) const fn is_user(start: u64, end: u64) -> bool {
    start <= end && end <= LIBOS_BASE
}
