//! Reads and writes of regular host files.
//!
//! A file of an exclusive tree that is read repeatedly is copied straight out of its windows, without a host request; overwrites go into
//! them the same way. What changes the size, and everything on shared volumes, is a host request on the program's own pages.

use super::handle::Handle;
use super::inode::HostInode;
use super::readahead::Chunk;
use super::request;
use super::window::Window;
use crate::errno::{Errno, EFBIG, EINVAL, EISDIR};
use crate::fs::file::{FileOps, OpenFile, SeekFrom};
use crate::fs::inode::now;
use crate::host::posted;
use crate::io::IoBuffer;
use crate::mm::Pages;
use crate::SysResult;
use abi::request::{Op, Stat};
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::Ordering;
use linux_abi::fs::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, O_DSYNC, S_IFDIR, S_IFREG};

/// Reads of a file that go to the host before it gets windows, and the size from which a single read is left to the host.
const COLD_READS: u32 = 2;
const LARGE: usize = 128 << 10;
/// Most bytes of a write that is posted, and the end up to which any file system takes a file.
const POSTED_BYTES: usize = 16 << 10;
const POSTED_END: u64 = 1 << 30;

/// Where a read gets its bytes.
enum Source {
    Window(Arc<Window>, u64),
    Chunk(Arc<Chunk>),
    Host,
}

impl HostInode {
    pub(super) fn opened(&self) {
        self.opens.fetch_add(1, Ordering::AcqRel);
    }

    /// The last user of a file without a name frees it on the host. What the host has mounted below a volume it can unmount once nobody uses
    /// it any more: nothing is kept of it.
    pub(super) fn closed(&self) {
        if self.opens.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        self.drop_chunk();
        if self.is_nameless() || !self.exclusive() && self.key.0 != self.tree.device {
            self.drop_windows();
            self.drop_handles();
        }
    }

    fn read_exclusive(&self, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        let size = self.size.load(Ordering::Acquire);
        let want = (buffer.remaining() as u64).min(size.saturating_sub(offset)) as usize;
        let mut done = 0;
        while done < want {
            let at = offset + done as u64;
            let left = want - done;
            let moved = match self.source(at, left) {
                Source::Window(window, inside) => {
                    let bytes = left.min(window.valid().saturating_sub(inside) as usize);
                    buffer.put_physical(window.address(inside), bytes)
                }
                Source::Chunk(chunk) => chunk.copy(buffer, at, left).inspect(|moved| self.has_read(at + *moved as u64)),
                Source::Host => self.read_from_host(buffer, at, left).inspect(|moved| self.has_read(at + *moved as u64)),
            };
            match moved {
                Ok(0) => break,
                Ok(moved) => done += moved,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// READ, which opens the file at the same time when it is not open on the host.
    pub(super) fn read_from_host(&self, buffer: &mut IoBuffer<'_>, offset: u64, most: usize) -> SysResult {
        if let Some(handle) = self.known_handle() {
            return request::read_at(handle.number(), buffer, offset, most);
        }
        let (base, path) = self.name()?;
        match request::open_and_read((base.number(), &path), buffer, offset, most, |number| drop(self.keep_handle(false, number)))? {
            // The end, or the host had a reason not to read: it tells it to a READ.
            0 => request::read_at(self.handle(false)?.number(), buffer, offset, most),
            moved => Ok(moved),
        }
    }

    fn source(&self, at: u64, bytes: usize) -> Source {
        if let Some((window, inside)) = self.window_at(at, false) {
            return Source::Window(window, inside);
        }
        if bytes >= LARGE {
            return Source::Host;
        }
        if let Some(chunk) = self.chunk(at, bytes) {
            return Source::Chunk(chunk);
        }
        if self.goes_on(at) || self.heat.fetch_add(1, Ordering::Relaxed) < COLD_READS {
            return Source::Host;
        }
        self.make_window(at, false).map_or(Source::Host, |(window, inside)| Source::Window(window, inside))
    }

    /// An overwrite of allocated blocks through a writable window. None: not possible that way, or not worth it: the first write to a page
    /// after each sync is a fault in the host, which costs more than a request.
    fn overwrite(&self, buffer: &mut IoBuffer<'_>, offset: u64) -> Option<SysResult> {
        if !self.exclusive() {
            return None;
        }
        let bytes = buffer.remaining();
        let size = self.size.load(Ordering::Acquire);
        let allocated = self.known().blocks * 512 >= size;
        if bytes == 0 || bytes >= LARGE || offset + bytes as u64 > size || !allocated || self.synced.load(Ordering::Relaxed) {
            return None;
        }
        let (window, inside) = match self.window_at(offset, true) {
            Some(found) => found,
            None if self.heat.fetch_add(1, Ordering::Relaxed) < COLD_READS => return None,
            None => self.make_window(offset, true).ok()?,
        };
        if inside + bytes as u64 > window.valid() {
            return None;
        }
        let moved = buffer.get_physical(window.address(inside), bytes);
        self.owe_mtime(now());
        Some(moved)
    }

    fn write_locked(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        let sync = file.flags() & O_DSYNC != 0;
        if !sync {
            if let Some(done) = self.overwrite(buffer, offset) {
                return done;
            }
        }
        self.write_error()?;
        let handle = self.handle(true)?;
        if !sync && self.may_post_write(offset, buffer.remaining()) {
            return self.post_write(&handle, buffer, offset);
        }
        let seen = self.changes();
        let (done, stat) = request::write_at(handle.number(), buffer, offset)?;
        if done > 0 {
            self.forget_mtime();
            if self.learn_since(Some(seen), &stat) {
                self.contents_changed();
            } else {
                self.wrote(offset + done as u64);
            }
        }
        if sync {
            self.sync_now(file.flags() & linux_abi::fs::O_SYNC != linux_abi::fs::O_SYNC)?;
        }
        Ok(done)
    }

    /// Whether a write can be left to the host: it will find room, and nobody looks at the file but by requests.
    fn may_post_write(&self, offset: u64, bytes: usize) -> bool {
        self.exclusive()
            && (1..=POSTED_BYTES).contains(&bytes)
            && offset + (bytes as u64) < POSTED_END
            && posted::has_room()
            && !self.has_windows()
            && !self.tree.is_nearly_full(true)
    }

    fn post_write(&self, handle: &Handle, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        let mut data = alloc::vec![0; buffer.remaining()];
        let done = buffer.get(&mut data)?;
        data.truncate(done);
        self.unwritten.fetch_add(1, Ordering::SeqCst);
        self.forget_mtime();
        self.wrote(offset + done as u64);
        request::post_write(self.arc()?, handle.number(), data, offset, self.changes());
        // One that was being made meanwhile shows what the host has.
        if self.has_windows() {
            self.settle_writes();
        }
        Ok(done)
    }

    /// A posted write has ended.
    pub(super) fn has_written(&self, seen: u64, outcome: Result<&Stat, Errno>) {
        self.unwritten.fetch_sub(1, Ordering::SeqCst);
        match outcome {
            Ok(stat) => {
                self.learn_since(Some(seen), stat);
            }
            Err(errno) => {
                self.lost.store(errno.0, Ordering::Relaxed);
                self.mark_stale();
            }
        }
    }

    /// Waits for posted writes: somebody is about to look past the requests.
    pub(super) fn settle_writes(&self) {
        if self.unwritten.load(Ordering::SeqCst) != 0 {
            posted::settle();
        }
    }

    /// The error of a posted write, told once, by the next write or fsync(2), as Linux tells those of write-back.
    fn write_error(&self) -> Result<(), Errno> {
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            errno => Err(Errno(errno)),
        }
    }

    fn wrote(&self, end: u64) {
        self.size.fetch_max(end, Ordering::AcqRel);
        self.amend(|stat| stat.size = stat.size.max(end));
        self.mark_stale();
        self.contents_changed();
    }

    fn sync_now(&self, data_only: bool) -> Result<(), Errno> {
        self.synced.store(true, Ordering::Relaxed);
        self.settle_mtime()?;
        request::plain(Op::Sync, u16::from(data_only), self.handle(false)?.number(), [0; 6])?;
        self.write_error()
    }
}

impl FileOps for HostInode {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, _file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        if self.kind == S_IFDIR {
            return Err(EISDIR);
        }
        if self.exclusive() {
            return self.read_exclusive(buffer, offset);
        }
        let most = buffer.remaining();
        request::read_at(self.handle(false)?.number(), buffer, offset, most)
    }

    fn write_at(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        if offset.checked_add(buffer.remaining() as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Err(EFBIG);
        }
        let _content = self.content.lock();
        self.write_locked(file, buffer, offset)
    }

    fn append(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> Result<(usize, u64), Errno> {
        let _content = self.content.lock();
        if self.exclusive() {
            let offset = self.size.load(Ordering::Acquire);
            return self.write_locked(file, buffer, offset).map(|done| (done, offset + done as u64));
        }
        let (done, end) = request::append(self.handle(true)?.number(), buffer)?;
        self.wrote(end);
        if file.flags() & O_DSYNC != 0 {
            self.sync_now(true)?;
        }
        Ok((done, end))
    }

    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom) -> Result<u64, Errno> {
        if self.kind == S_IFDIR {
            return crate::fs::directory::seek(current, to);
        }
        let size = if self.exclusive() { self.size.load(Ordering::Acquire) } else { self.fresh_stat()?.size };
        match to {
            SeekFrom::Data(at) | SeekFrom::Hole(at) if at >= 0 && (at as u64) < size => {
                self.settle_mtime()?;
                let flags = if matches!(to, SeekFrom::Data(_)) { 1 } else { 2 };
                let args = [0, at as u64, 0, 0, 0, 0];
                request::plain(Op::Allocate, flags, self.handle(false)?.number(), args).map(|answer| answer.value)
            }
            _ => crate::fs::file::seek_in(size, current, to),
        }
    }

    fn read_directory(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        let inode = self.arc()?;
        crate::fs::directory::fill(&*inode, file, buffer)
    }

    fn pages(&self, file: &OpenFile) -> Result<Arc<dyn Pages>, Errno> {
        if self.kind != S_IFREG {
            return Err(crate::errno::ENODEV);
        }
        if self.settled().is_none() {
            // A mapping's version tells of what was changed before.
            let _ = self.fresh_stat();
        }
        Ok(super::mapping::Mapping::new(self.arc()?, file.location.clone()))
    }

    fn sync(&self, _file: &OpenFile, data_only: bool) -> Result<(), Errno> {
        self.sync_now(data_only)
    }

    fn allocate(&self, _file: &OpenFile, mode: u32, offset: u64, bytes: u64) -> Result<(), Errno> {
        if self.kind != S_IFREG {
            return Err(if self.kind == S_IFDIR { EISDIR } else { crate::errno::ENODEV });
        }
        let _content = self.content.lock();
        request::plain(Op::Allocate, 0, self.handle(true)?.number(), [u64::from(mode), offset, bytes, 0, 0, 0])?;
        self.mark_stale();
        self.contents_changed();
        if mode & (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE) == 0 {
            self.fresh_stat()?;
        }
        Ok(())
    }

    fn copy_to(&self, from: u64, target: &Arc<dyn FileOps>, to: u64, bytes: usize) -> Option<SysResult> {
        let target = target.as_any().downcast_ref::<HostInode>()?;
        if self.kind != S_IFREG || target.kind != S_IFREG {
            return Some(Err(EINVAL));
        }
        Some(self.copy_on_host(from, target, to, bytes))
    }

    fn release(&self, _file: &OpenFile) {
        self.closed();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl HostInode {
    fn copy_on_host(&self, from: u64, target: &HostInode, to: u64, bytes: usize) -> SysResult {
        self.settle_mtime()?;
        let source = self.handle(false)?;
        let _content = target.content.lock();
        let sink = target.handle(true)?;
        let args = [from, u64::from(sink.number()), to, bytes as u64, 0, 0];
        let done = request::plain(Op::Copy, 0, source.number(), args)?.value as usize;
        if done > 0 {
            target.wrote(to + done as u64);
        }
        Ok(done)
    }
}
