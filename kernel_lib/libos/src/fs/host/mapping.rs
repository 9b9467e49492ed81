//! Mapped host files: pages are the host's page cache, shown through windows. Nothing is copied until a private mapping is written.

use super::inode::HostInode;
use super::request;
use crate::errno::{Errno, EFAULT, EOPNOTSUPP};
use crate::fs::Location;
use crate::mm::Pages;
use abi::request::{Op, Segment, Stat, Time};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::frame::Page;
use hal::host::Request;
use linux_abi::fs::FALLOC_FL_KEEP_SIZE;

const PAGE: u64 = 4096;

/// Seconds without a change after which a file's times tell the next one.
const SETTLING: i64 = 2;

/// A number for what the attributes say of the contents.
fn version(stat: &Stat) -> u64 {
    let time = |time: &Time| (time.sec as u64) << 30 ^ u64::from(time.nsec);
    time(&stat.mtime) ^ time(&stat.ctime).rotate_left(20) ^ stat.size << 40
}

/// The mappable object of an open file. It counts as an open: the file outlives its name while it is mapped.
pub struct Mapping {
    inode: Arc<HostInode>,
    location: Option<Location>,
}

impl Mapping {
    pub fn new(inode: Arc<HostInode>, location: Option<Location>) -> Arc<Self> {
        inode.opened();
        Arc::new(Self { inode, location })
    }

    fn pages_in_file(&self) -> u64 {
        self.inode.size.load(Ordering::Acquire).div_ceil(PAGE)
    }

    /// Whether touching a page may find the host without room for it: in a file with holes, on a file system that is nearly full.
    fn may_lack_room(&self, write: bool) -> bool {
        let stat = self.inode.known();
        stat.blocks * 512 < stat.size && self.inode.tree.is_nearly_full(write)
    }

    /// Such a page is asked for beforehand: a touch that the host cannot serve would have no answer (decision 7). Err: there is no room.
    fn fill_hole(&self, index: u64) -> Result<(), Errno> {
        let bytes = PAGE.min(self.inode.size.load(Ordering::Acquire).saturating_sub(index * PAGE));
        let Ok(handle) = self.inode.handle(true) else { return Ok(()) };
        let args = [u64::from(FALLOC_FL_KEEP_SIZE), index * PAGE, bytes, 0, 0, 0];
        match request::plain(Op::Allocate, 0, handle.number(), args) {
            Err(EOPNOTSUPP) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.inode.closed();
    }
}

impl Pages for Mapping {
    fn page(&self, index: u64, write: bool) -> Result<Page, Errno> {
        if index >= self.pages_in_file() {
            // Somebody else may have made a shared file longer.
            if self.inode.exclusive() {
                return Err(EFAULT);
            }
            self.inode.fresh_stat()?;
            if index >= self.pages_in_file() {
                return Err(EFAULT);
            }
        }
        if self.may_lack_room(write) {
            self.fill_hole(index)?;
        }
        let (window, offset) = self.inode.make_window(index * PAGE, write)?;
        Ok(Page::Window(window.address(offset)))
    }

    fn around(&self, index: u64, most: usize, write: bool) -> Vec<Page> {
        if index >= self.pages_in_file() || self.may_lack_room(write) {
            return Vec::new();
        }
        let Ok((window, offset)) = self.inode.make_window(index * PAGE, write) else { return Vec::new() };
        let in_window = window.valid().saturating_sub(offset) / PAGE;
        let in_file = self.pages_in_file().saturating_sub(index);
        let count = in_window.min(in_file).min(most as u64);
        (0..count).map(|n| Page::Window(window.address(offset + n * PAGE))).collect()
    }

    fn size(&self) -> u64 {
        self.inode.size.load(Ordering::Acquire)
    }

    fn identity(&self) -> (u64, u64) {
        self.inode.key
    }

    fn version(&self) -> Option<u64> {
        // A file that somebody else changes in place while it runs shows old pages in part, as with private copies; its next open
        // sees a new time.
        if self.inode.writable_windows.load(Ordering::Relaxed) {
            return None;
        }
        self.inode.settled().map(|stat| version(&stat))
    }

    fn copied_version(&self) -> Option<u64> {
        if !hal::cpu::has_shadow_paging() || self.inode.writable_windows.load(Ordering::Relaxed) {
            return None;
        }
        let stat = self.inode.settled()?;
        // Times are coarse: of a file that has just been changed, they may not tell the next change.
        let now = crate::fs::inode::now();
        (stat.ctime.sec.saturating_add(SETTLING) < now.sec).then(|| version(&stat))
    }

    fn is_exclusive(&self) -> bool {
        self.inode.exclusive()
    }

    fn read(&self, offset: u64, to: &[Segment]) -> Result<u64, Errno> {
        self.inode.copied.store(true, Ordering::SeqCst);
        let handle = self.inode.handle(false)?;
        crate::host::call(&Request::new(Op::Read, handle.number(), [offset, 0, 0, 0, 0, 0]), to).map(|answer| answer.value)
    }

    fn name(&self) -> String {
        let Some(location) = &self.location else { return String::new() };
        let root = crate::sched::current().fs().root();
        String::from_utf8_lossy(&location.display_path(&root)).into_owned()
    }

    fn mapped(&self, delta: i64, _writable: bool) {
        self.inode.mapped.fetch_add(delta, Ordering::SeqCst);
    }

    fn sync(&self, start: u64, end: u64) -> Result<(), Errno> {
        self.inode.mark_stale();
        let handle = self.inode.handle(false)?;
        request::plain(Op::Sync, 3, handle.number(), [start, end - start, 7, 0, 0, 0]).map(|_| ())
    }
}
