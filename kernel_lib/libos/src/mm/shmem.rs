//! Memory with a size and holes: the pages of tmpfs files, memfds, shared anonymous mappings and SysV segments.
//!
//! Pages are kept in chunks of 64. The spin lock is a leaf: it is never held while user memory is touched; readers and writers take
//! references to frames under it and copy afterwards.

use super::{invalidate, Pages, HUGE_PAGE, PAGE_SIZE};
use crate::errno::{Errno, EBUSY, EFAULT, EFBIG, EINVAL, ENOMEM, ENOSPC, ENXIO, EPERM};
use crate::io::IoBuffer;
use crate::mm::reclaim;
use crate::SysResult;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::frame::{Frame, Page};
use hal::sync::SpinLock;

const CHUNK: u64 = 64;
/// Pages of a huge page.
const BLOCK: u64 = HUGE_PAGE / PAGE_SIZE;
/// Linux's MAX_LFS_FILESIZE.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// fcntl(2), F_ADD_SEALS.
pub const F_SEAL_SEAL: u32 = 1;
pub const F_SEAL_SHRINK: u32 = 2;
pub const F_SEAL_GROW: u32 = 4;
pub const F_SEAL_WRITE: u32 = 8;
pub const F_SEAL_FUTURE_WRITE: u32 = 16;
pub const F_SEAL_EXEC: u32 = 32;
const ALL_SEALS: u32 = 63;

/// Pages that the files of one file system may use together (tmpfs "size=").
pub struct Quota {
    limit: u64,
    used: AtomicU64,
}

impl Quota {
    /// `limit` in pages.
    pub const fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }
    pub const fn limit(&self) -> u64 {
        self.limit
    }
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
    fn charge(&self, pages: u64) -> bool {
        let limit = self.limit();
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| used.checked_add(pages).filter(|&sum| sum <= limit)).is_ok()
    }
    fn uncharge(&self, pages: u64) {
        self.used.fetch_sub(pages, Ordering::Relaxed);
    }
}

struct State {
    chunks: BTreeMap<u64, Box<[Option<Frame>; CHUNK as usize]>>,
    size: u64,
    present: u64,
    seals: u32,
    /// Shared mappings that are or may become writable.
    writable_mappings: i64,
    /// Raised with every change of the contents that we know of.
    version: u64,
}

impl State {
    const fn new(size: u64) -> Self {
        Self { chunks: BTreeMap::new(), size, present: 0, seals: F_SEAL_SEAL, writable_mappings: 0, version: 0 }
    }

    fn get(&self, index: u64) -> Option<&Frame> {
        self.chunks.get(&(index / CHUNK))?[(index % CHUNK) as usize].as_ref()
    }

    fn set(&mut self, index: u64, frame: Frame) {
        let chunk = self.chunks.entry(index / CHUNK).or_insert_with(|| Box::new([const { None }; CHUNK as usize]));
        chunk[(index % CHUNK) as usize] = Some(frame);
        self.present += 1;
    }

    /// Takes the pages of `[first, end)` out.
    fn remove(&mut self, first: u64, end: u64) -> Vec<Frame> {
        let mut gone = Vec::new();
        if first >= end {
            return gone;
        }
        let mut empty = Vec::new();
        for (&number, chunk) in self.chunks.range_mut(first / CHUNK..=(end - 1) / CHUNK) {
            let base = number * CHUNK;
            for index in first.max(base)..end.min(base + CHUNK) {
                gone.extend(chunk[(index - base) as usize].take());
            }
            if chunk.iter().all(Option::is_none) {
                empty.push(number);
            }
        }
        for number in empty {
            self.chunks.remove(&number);
        }
        self.present -= gone.len() as u64;
        gone
    }
}

/// The page store. Its users add names, attributes and locks of their own.
pub struct SharedMemory {
    state: SpinLock<State>,
    name: String,
    identity: (u64, u64),
    quota: Option<Arc<Quota>>,
    /// Nobody sees which of its pages are holes: it may get more than are asked for.
    anonymous: bool,
}

impl SharedMemory {
    /// `name`, `identity`: what /proc/PID/maps shows, such as "/dev/zero (deleted)".
    pub fn new(name: String, identity: (u64, u64), quota: Option<Arc<Quota>>) -> Arc<Self> {
        Arc::new(Self { state: SpinLock::new(State::new(0)), name, identity, quota, anonymous: false })
    }

    /// Backing of a MAP_SHARED | MAP_ANONYMOUS mapping.
    pub fn anonymous(bytes: u64) -> Arc<Self> {
        let (state, name) = (SpinLock::new(State::new(bytes)), String::from("/dev/zero (deleted)"));
        Arc::new(Self { state, name, identity: (1, next_inode()), quota: None, anonymous: true })
    }

    pub fn size(&self) -> u64 {
        self.state.lock().size
    }

    /// Pages in use.
    pub fn present(&self) -> u64 {
        self.state.lock().present
    }

    /// Bytes read; 0 at the end. Holes read as zeros.
    pub fn read(&self, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        let end = self.size().min(offset.saturating_add(buffer.remaining() as u64));
        let mut at = offset;
        let mut done = 0;
        while at < end {
            let within = at % PAGE_SIZE;
            let bytes = (PAGE_SIZE - within).min(end - at) as usize;
            let frame = self.state.lock().get(at / PAGE_SIZE).cloned();
            let moved = match &frame {
                Some(frame) => buffer.put_physical(frame.address() + within, bytes),
                None => buffer.put_zeros(bytes),
            };
            match moved {
                Ok(0) => break,
                Ok(n) => {
                    done += n;
                    at += n as u64;
                    if n < bytes {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Bytes written; the size grows as needed. ENOSPC: the quota is used up; EFBIG; EPERM: sealed.
    pub fn write(&self, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        let wanted = offset.checked_add(buffer.remaining() as u64).filter(|&end| end <= MAX_SIZE).ok_or(EFBIG)?;
        let mut end = wanted;
        {
            let mut state = self.state.lock();
            if state.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) != 0 {
                return Err(EPERM);
            }
            state.version += 1;
            if state.seals & F_SEAL_GROW != 0 && wanted > state.size {
                end = state.size;
                if end <= offset {
                    return Err(EPERM);
                }
            }
        }
        let mut at = offset;
        let mut done = 0;
        while at < end {
            let within = at % PAGE_SIZE;
            let bytes = (PAGE_SIZE - within).min(end - at) as usize;
            let moved = self.frame(at / PAGE_SIZE).and_then(|frame| buffer.get_physical(frame.address() + within, bytes));
            match moved {
                Ok(0) => break,
                Ok(n) => {
                    done += n;
                    at += n as u64;
                    let mut state = self.state.lock();
                    state.size = state.size.max(at);
                    if n < bytes {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// The frame of a page, made when it is a hole. ENOSPC: over quota; ENOMEM.
    fn frame(&self, index: u64) -> Result<Frame, Errno> {
        if let Some(frame) = self.state.lock().get(index) {
            return Ok(frame.clone());
        }
        if self.quota.as_ref().is_some_and(|quota| !quota.charge(1)) {
            return Err(ENOSPC);
        }
        let Some(fresh) = reclaim::zeroed_frame() else {
            self.uncharge(1);
            return Err(ENOMEM);
        };
        let mut state = self.state.lock();
        if let Some(frame) = state.get(index) {
            // Somebody else was faster.
            let frame = frame.clone();
            drop(state);
            self.uncharge(1);
            return Ok(frame);
        }
        state.set(index, fresh.clone());
        Ok(fresh)
    }

    /// Makes the huge page from `first` on if all of it is a hole: each process that touches it then has one fault for it, not one for
    /// each page (a database's buffers are touched by every one of its processes).
    fn make_huge_page(&self, first: u64) {
        let is_hole = |state: &State| {
            first + BLOCK <= state.size / PAGE_SIZE && state.chunks.range(first / CHUNK..(first + BLOCK) / CHUNK).next().is_none()
        };
        if !reclaim::has_plenty() || !is_hole(&self.state.lock()) {
            return;
        }
        let Some(run) = reclaim::try_run(BLOCK.ilog2() as usize, true) else { return };
        let mut state = self.state.lock();
        if is_hole(&state) {
            for (index, frame) in (first..).zip(run) {
                state.set(index, frame);
            }
        }
    }

    fn uncharge(&self, pages: u64) {
        if let Some(quota) = &self.quota {
            quota.uncharge(pages);
        }
    }

    fn zero_part(&self, start: u64, end: u64) {
        let frame = self.state.lock().get(start / PAGE_SIZE).cloned();
        if let Some(frame) = frame {
            frame.fill_zero((start % PAGE_SIZE) as usize, (end - start) as usize);
        }
    }

    /// ftruncate(2). Mapped pages behind the new end raise SIGBUS from now on.
    pub fn truncate(&self, size: u64) -> Result<(), Errno> {
        if size > MAX_SIZE {
            return Err(EFBIG);
        }
        let first = size.div_ceil(PAGE_SIZE);
        let (gone, shrunk) = {
            let mut state = self.state.lock();
            if size < state.size && state.seals & F_SEAL_SHRINK != 0 || size > state.size && state.seals & F_SEAL_GROW != 0 {
                return Err(EPERM);
            }
            let shrunk = size < state.size;
            state.size = size;
            state.version += 1;
            (if shrunk { state.remove(first, u64::MAX) } else { Vec::new() }, shrunk)
        };
        if shrunk {
            if !size.is_multiple_of(PAGE_SIZE) {
                self.zero_part(size, first * PAGE_SIZE);
            }
            invalidate(self.identity, first, u64::MAX);
        }
        self.uncharge(gone.len() as u64);
        Ok(())
    }

    /// fallocate(2) without FALLOC_FL_PUNCH_HOLE: makes the pages of bytes `[start, end)` present; grows the size unless `keep_size`.
    pub fn allocate(&self, start: u64, end: u64, keep_size: bool) -> Result<(), Errno> {
        if end > MAX_SIZE {
            return Err(EFBIG);
        }
        {
            let state = self.state.lock();
            if !keep_size && end > state.size && state.seals & F_SEAL_GROW != 0 {
                return Err(EPERM);
            }
        }
        let missing = |state: &State| (start / PAGE_SIZE..end.div_ceil(PAGE_SIZE)).filter(|&index| state.get(index).is_none()).count();
        if let Some(quota) = &self.quota {
            // Fail before the first page when it cannot work out.
            let room = quota.limit().saturating_sub(quota.used());
            if (end - start) / PAGE_SIZE > room && missing(&self.state.lock()) as u64 > room {
                return Err(ENOSPC);
            }
        }
        for index in start / PAGE_SIZE..end.div_ceil(PAGE_SIZE) {
            self.frame(index)?;
        }
        let mut state = self.state.lock();
        if !keep_size {
            state.size = state.size.max(end);
        }
        Ok(())
    }

    /// lseek(2) SEEK_DATA (`data`) or SEEK_HOLE: the next such place from `offset` on. ENXIO: behind the end, or no more data.
    pub fn seek(&self, offset: u64, data: bool) -> Result<u64, Errno> {
        let state = self.state.lock();
        if offset >= state.size {
            return Err(ENXIO);
        }
        let mut index = offset / PAGE_SIZE;
        let end = state.size.div_ceil(PAGE_SIZE);
        while index < end {
            match state.chunks.get(&(index / CHUNK)) {
                None if !data => break,
                None => {
                    // Skip to the next chunk there is.
                    index = state.chunks.range(index / CHUNK + 1..).next().map_or(end, |(&number, _)| number * CHUNK);
                }
                Some(chunk) if chunk[(index % CHUNK) as usize].is_some() == data => break,
                Some(_) => index += 1,
            }
        }
        if index >= end {
            return if data { Err(ENXIO) } else { Ok(state.size) };
        }
        Ok(offset.max(index * PAGE_SIZE))
    }

    pub fn seals(&self) -> u32 {
        self.state.lock().seals
    }

    /// memfd_create(2) with MFD_ALLOW_SEALING: starts without the seal that forbids seals.
    pub fn allow_sealing(&self) {
        self.state.lock().seals &= !F_SEAL_SEAL;
    }

    /// fcntl(2), F_ADD_SEALS: EPERM (sealed against it), EBUSY (writable mappings), EINVAL.
    pub fn add_seals(&self, seals: u32) -> Result<(), Errno> {
        if seals & !ALL_SEALS != 0 {
            return Err(EINVAL);
        }
        let mut state = self.state.lock();
        if state.seals & F_SEAL_SEAL != 0 {
            return Err(EPERM);
        }
        if seals & F_SEAL_WRITE != 0 && state.seals & F_SEAL_WRITE == 0 && state.writable_mappings > 0 {
            return Err(EBUSY);
        }
        state.seals |= seals;
        Ok(())
    }
}

impl Pages for SharedMemory {
    fn page(&self, index: u64, _write: bool) -> Result<Page, Errno> {
        if index >= self.size().div_ceil(PAGE_SIZE) {
            return Err(EFAULT);
        }
        self.frame(index).map(Page::Ram).map_err(|error| if error == ENOSPC { EFAULT } else { error })
    }

    fn around(&self, index: u64, most: usize, _write: bool) -> Vec<Page> {
        if self.anonymous && index.is_multiple_of(BLOCK) && most as u64 >= BLOCK {
            self.make_huge_page(index);
        }
        let state = self.state.lock();
        let end = state.size.div_ceil(PAGE_SIZE).min(index.saturating_add(most as u64));
        (index..end).map_while(|index| state.get(index).cloned().map(Page::Ram)).collect()
    }

    fn size(&self) -> u64 {
        self.state.lock().size
    }

    fn identity(&self) -> (u64, u64) {
        self.identity
    }

    fn version(&self) -> Option<u64> {
        let state = self.state.lock();
        (state.writable_mappings == 0).then_some(state.version)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn mapped(&self, delta: i64, writable: bool) {
        if writable {
            let mut state = self.state.lock();
            state.writable_mappings += delta;
            state.version += 1;
        }
    }

    fn may_write_shared(&self) -> Result<(), Errno> {
        if self.state.lock().seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) != 0 {
            return Err(EPERM);
        }
        Ok(())
    }

    fn punch_hole(&self, start: u64, end: u64) -> Result<(), Errno> {
        let (first, last) = (start.div_ceil(PAGE_SIZE), end / PAGE_SIZE);
        if self.may_write_shared().is_err() {
            return Err(EPERM);
        }
        self.state.lock().version += 1;
        if first > last {
            // Within one page.
            self.zero_part(start, end);
            return Ok(());
        }
        if start < first * PAGE_SIZE {
            self.zero_part(start, first * PAGE_SIZE);
        }
        if last * PAGE_SIZE < end {
            self.zero_part(last * PAGE_SIZE, end);
        }
        let gone = self.state.lock().remove(first, last);
        invalidate(self.identity, first, last);
        self.uncharge(gone.len() as u64);
        Ok(())
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let present = self.state.get_mut().present;
        self.uncharge(present);
    }
}

static INODES: AtomicU64 = AtomicU64::new(1);

/// Inode numbers for memory that has no file system.
pub fn next_inode() -> u64 {
    INODES.fetch_add(1, Ordering::Relaxed)
}
