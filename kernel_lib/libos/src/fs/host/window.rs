//! Windows onto host files: pieces of the DAX window in which the VMM maps a file's pages, cached on the inode.
//!
//! The DAX window is handed out in blocks of 64 KiB to 2 MiB (powers of two). A file's windows all have one size, chosen by the file's
//! size when the first is made; window n shows bytes [n * size, (n + 1) * size). A window lives while somebody holds it or while its file
//! is mapped; idle ones go, oldest file first, when there are too many.

use super::inode::HostInode;
use super::{deferred, request};
use crate::errno::{Errno, EACCES, EFAULT, ENOMEM};
use crate::host::posted;
use abi::layout::DAX_WINDOW;
use abi::request::{memory, Op};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use hal::sync::SpinLock;
use linux_abi::fs::S_IFREG;

const SMALLEST: u64 = 64 << 10;
const ORDERS: usize = 6;
/// Each window is a mapping of the VMM, and Linux gives a process 65,530 of those.
const MOST_WINDOWS: usize = 16384;
/// By how much the DAX window grows.
const GROWTH: u64 = 64 << 20;

pub struct Window {
    gpa: u64,
    order: usize,
    writable: AtomicBool,
    /// Bytes from its start that show the file: never more than whole pages of it, so that nothing behind the end is touched by mistake.
    valid: AtomicU64,
}

impl Window {
    /// Guest-physical address of the byte `offset` into the window.
    pub fn address(&self, offset: u64) -> u64 {
        self.gpa + offset
    }
    fn bytes(&self) -> u64 {
        SMALLEST << self.order
    }
    /// Bytes of it that may be touched.
    pub fn valid(&self) -> u64 {
        self.valid.load(Ordering::Acquire)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
        deferred::unmap(self.gpa, self.bytes(), self.order);
    }
}

/// The windows of one file.
#[derive(Default)]
pub struct FileWindows {
    order: usize,
    map: BTreeMap<u64, Arc<Window>>,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
static FREE: SpinLock<Space> = SpinLock::new(Space { lists: [const { Vec::new() }; ORDERS], next: 0, end: 0 });
static AGE: SpinLock<VecDeque<Weak<HostInode>>> = SpinLock::new(VecDeque::new());

struct Space {
    lists: [Vec<u64>; ORDERS],
    /// Never handed out from here to `end`.
    next: u64,
    end: u64,
}

impl Space {
    fn take(&mut self, order: usize) -> Option<u64> {
        if let Some(gpa) = self.lists[order].pop() {
            return Some(gpa);
        }
        let larger = (order + 1..ORDERS).find(|&larger| !self.lists[larger].is_empty());
        let (mut gpa, mut have) = match larger {
            Some(larger) => (self.lists[larger].pop()?, larger),
            None => {
                let gpa = self.next;
                if gpa + (SMALLEST << (ORDERS - 1)) > self.end {
                    return None;
                }
                self.next += SMALLEST << (ORDERS - 1);
                (gpa, ORDERS - 1)
            }
        };
        while have > order {
            have -= 1;
            self.lists[have].push(gpa + (SMALLEST << have));
        }
        // `gpa` is the lower half each time.
        gpa &= !((SMALLEST << order) - 1);
        Some(gpa)
    }
}

/// The part of the DAX window that is backed at boot.
pub fn init(dax_end: u64) {
    let mut space = FREE.lock();
    space.next = DAX_WINDOW;
    space.end = dax_end.max(DAX_WINDOW);
}

pub fn free(gpa: u64, order: usize) {
    FREE.lock().lists[order].push(gpa);
}

fn allocate(order: usize) -> Result<u64, Errno> {
    posted::reap();
    if COUNT.load(Ordering::Relaxed) >= MOST_WINDOWS {
        drop_idle(64);
    }
    if let Some(gpa) = FREE.lock().take(order) {
        return Ok(gpa);
    }
    // Some may be on their way back.
    if deferred::settle() {
        if let Some(gpa) = FREE.lock().take(order) {
            return Ok(gpa);
        }
    }
    match request::plain(Op::Memory, memory::GROW_DAX, 0, [GROWTH, 0, 0, 0, 0, 0]) {
        Ok(answer) => {
            let mut space = FREE.lock();
            if space.next == 0 {
                space.next = DAX_WINDOW;
            }
            space.end = space.end.max(answer.out[0]);
        }
        Err(_) => drop_idle(1024),
    }
    deferred::settle();
    FREE.lock().take(order).ok_or(ENOMEM)
}

/// Takes windows away from files that nobody maps.
fn drop_idle(mut most: usize) {
    let rounds = AGE.lock().len();
    for _ in 0..rounds {
        if most == 0 {
            return;
        }
        let Some(weak) = AGE.lock().pop_front() else { return };
        let Some(inode) = weak.upgrade() else { continue };
        if inode.mapped.load(Ordering::SeqCst) > 0 {
            AGE.lock().push_back(weak);
            continue;
        }
        let dropped = inode.drop_windows();
        most = most.saturating_sub(dropped);
    }
}

fn order_for(size: u64) -> usize {
    (0..ORDERS - 1).find(|&order| SMALLEST << order >= size).unwrap_or(ORDERS - 1)
}

impl HostInode {
    /// The window that shows byte `offset`, if there is one (writable, if asked), and where in it.
    pub(super) fn window_at(&self, offset: u64, write: bool) -> Option<(Arc<Window>, u64)> {
        let windows = self.windows.lock();
        let bytes = SMALLEST << windows.order;
        let window = windows.map.get(&(offset / bytes))?;
        let shown = offset % bytes < window.valid() && (!write || window.writable.load(Ordering::Acquire));
        shown.then(|| (window.clone(), offset % bytes))
    }

    /// As [`Self::window_at`]; makes the window when there is none. Waits for the host.
    pub(super) fn make_window(&self, offset: u64, write: bool) -> Result<(Arc<Window>, u64), Errno> {
        if let Some(found) = self.window_at(offset, write) {
            return Ok(found);
        }
        if self.kind != S_IFREG {
            return Err(EACCES);
        }
        let handle = self.handle(write)?;
        let (order, index, existing) = {
            let mut windows = self.windows.lock();
            if windows.map.is_empty() {
                windows.order = order_for(self.size.load(Ordering::Acquire));
            }
            let index = offset / (SMALLEST << windows.order);
            (windows.order, index, windows.map.get(&index).cloned())
        };
        let bytes = SMALLEST << order;
        let pages_end = self.size.load(Ordering::Acquire).next_multiple_of(4096);
        let valid = pages_end.saturating_sub(index * bytes).min(bytes);
        if offset % bytes >= valid {
            return Err(EFAULT);
        }
        let window = match existing {
            Some(window) => window,
            None => {
                COUNT.fetch_add(1, Ordering::Relaxed);
                let gpa = allocate(order).inspect_err(|_| {
                    COUNT.fetch_sub(1, Ordering::Relaxed);
                })?;
                Arc::new(Window { gpa, order, writable: AtomicBool::new(false), valid: AtomicU64::new(0) })
            }
        };
        // An existing window becomes writable, or longer, in place: the same address, mapped over.
        let write = write || window.writable.load(Ordering::Acquire);
        let handle = if write { self.handle(true)? } else { handle };
        request::plain(Op::Map, u16::from(write), handle.number(), [index * bytes, valid, window.gpa, 0, 0, 0])?;
        if write {
            window.writable.store(true, Ordering::Release);
        }
        window.valid.fetch_max(valid, Ordering::AcqRel);
        if write {
            self.writable_windows.store(true, Ordering::SeqCst);
            self.contents_changed();
        }
        let mut windows = self.windows.lock();
        if windows.order != order {
            // Somebody else began with another size meanwhile: this one serves its caller and goes.
            return Ok((window, offset % bytes));
        }
        let kept = match windows.map.get(&index) {
            Some(other) if !Arc::ptr_eq(other, &window) && (!write || other.writable.load(Ordering::Relaxed)) => other.clone(),
            _ => {
                let old = windows.map.insert(index, window.clone());
                drop(windows);
                drop(old);
                AGE.lock().push_back(self.me.clone());
                self.settle_writes();
                return Ok((window, offset % bytes));
            }
        };
        drop(windows);
        Ok((kept, offset % bytes))
    }

    /// The file became shorter: what lies behind the new end is not to be touched any more.
    pub(super) fn shorten_windows(&self, size: u64) {
        let windows = self.windows.lock();
        let bytes = SMALLEST << windows.order;
        let end = size.next_multiple_of(4096);
        for (index, window) in &windows.map {
            window.valid.fetch_min(end.saturating_sub(index * bytes), Ordering::AcqRel);
        }
    }

    pub(super) fn has_windows(&self) -> bool {
        !self.windows.lock().map.is_empty()
    }

    /// Drops windows that nobody holds; how many. Not while the file is mapped.
    pub(super) fn drop_windows(&self) -> usize {
        let mut windows = self.windows.lock();
        if self.mapped.load(Ordering::SeqCst) > 0 {
            return 0;
        }
        let idle: Vec<u64> = windows.map.iter().filter(|(_, window)| Arc::strong_count(window) == 1).map(|(index, _)| *index).collect();
        let dropped: Vec<_> = idle.iter().filter_map(|index| windows.map.remove(index)).collect();
        if windows.map.is_empty() {
            self.writable_windows.store(false, Ordering::Relaxed);
        }
        drop(windows);
        dropped.len()
    }
}
