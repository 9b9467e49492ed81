//! read, write, sync, allocate, copy, random.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use abi::request::STREAM;
use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::OFlags;

use super::attributes::stat_at;
use super::{fault, Answer, Errno, Host, Reply, Request};
use crate::handles::{Handle, Kind};
use crate::memory::{IoVectors, Reach};
use crate::memory_sys;
use crate::server::Worker;

const RWF_NOWAIT: i32 = 8;
const RWF_APPEND: i32 = 16;
/// Reads up to here are tried from the page cache alone first.
const TRIED_FROM_CACHE: u64 = 1 << 20;
/// Writes from here on may have to wait for the disk.
const LARGE_WRITE: u64 = 256 << 10;
/// Bytes that a terminal or a FIFO takes without blocking once poll(2) says that it is writable.
const SURE_CHUNK: u64 = 1024;

impl Host {
    pub(super) fn read(&self, request: &Request, worker: &Worker<'_>) -> Answer {
        let handle = self.handles.get(request.handle)?;
        let vectors = self.memory.vectors(request.segments, request.segment_count, Reach::Ram).map_err(fault)?;
        let offset = request.args[0];
        if offset == STREAM {
            return read_stream(&handle, &vectors, worker).map(Reply::of);
        }
        read_file(handle.as_fd(), handle.shared, &vectors, offset, worker).map(Reply::of)
    }

    pub(super) fn write(&self, request: &Request, worker: &Worker<'_>) -> Answer {
        let handle = self.handles.get(request.handle)?;
        if handle.kind == Kind::Netlink {
            return Err(Errno::OPNOTSUPP); // `send` looks at what is said
        }
        let vectors = self.memory.vectors(request.segments, request.segment_count, Reach::RamOrWindow).map_err(fault)?;
        let [offset, append, stat_to, ..] = request.args;
        if vectors.bytes() >= LARGE_WRITE {
            worker.may_block();
        }
        if append == 1 {
            return append_to(&handle, &vectors);
        }
        if offset == STREAM {
            return write_stream(&handle, vectors, worker).map(Reply::of);
        }
        let offset = i64::try_from(offset).map_err(|_| Errno::INVAL)?;
        let written = memory_sys::write(handle.as_fd(), &vectors, offset, 0)?;
        if stat_to != 0 {
            self.memory.write(stat_to, &stat_at(handle.as_fd(), c"")?).map_err(fault)?;
        }
        Ok(Reply::of(written))
    }

    pub(super) fn sync(&self, request: &Request, worker: &Worker<'_>) -> Answer {
        let handle = self.handles.get(request.handle)?;
        worker.may_block();
        match request.flags() {
            0 => rustix::fs::fsync(&*handle)?,
            1 => rustix::fs::fdatasync(&*handle)?,
            2 => rustix::fs::syncfs(&*handle)?,
            3 => memory_sys::sync_file_range(handle.as_fd(), request.args[0], request.args[1], request.small(2)?)?,
            _ => return Err(Errno::INVAL),
        }
        Ok(Reply::of(0))
    }

    pub(super) fn allocate(&self, request: &Request, worker: &Worker<'_>) -> Answer {
        let handle = self.handles.get(request.handle)?;
        if request.flags() != 0 {
            return next_data_or_hole(&handle, request);
        }
        let mode = rustix::fs::FallocateFlags::from_bits_retain(request.small(0)?);
        worker.may_block();
        rustix::fs::fallocate(&*handle, mode, request.args[1], request.args[2])?;
        self.resized(&*handle);
        Ok(Reply::of(0))
    }

    /// copy_file_range(2), or a copy through a buffer between file systems that cannot.
    pub(super) fn copy(&self, request: &Request, worker: &Worker<'_>) -> Answer {
        let [mut from, _, mut to, bytes, ..] = request.args;
        let source = self.handles.get(request.handle)?;
        let target = self.handles.get(request.small(1)?)?;
        // At most a GiB at a time, as the kernel does: the caller comes again.
        let bytes = usize::try_from(bytes).map_err(|_| Errno::INVAL)?.min(1 << 30);
        worker.may_block();
        match rustix::fs::copy_file_range(&*source, Some(&mut from), &*target, Some(&mut to), bytes) {
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            other => return other.map(|count| Reply::of(count as u64)),
        }
        let mut buffer = vec![0; bytes.min(1 << 20)];
        let count = rustix::io::pread(&*source, &mut buffer, from)?;
        let count = rustix::io::pwrite(&*target, buffer.get(..count).unwrap_or_default(), to)?;
        Ok(Reply::of(count as u64))
    }

    pub(super) fn random(&self, request: &Request) -> Answer {
        let mut bytes = [0u8; 256];
        let length = usize::try_from(request.args[1]).unwrap_or(usize::MAX).min(bytes.len());
        let part = bytes.get_mut(..length).unwrap_or_default();
        rustix::rand::getrandom(&mut *part, rustix::rand::GetRandomFlags::empty())?;
        self.memory.write_bytes(request.args[0], part).map_err(fault)?;
        Ok(Reply::of(length as u64))
    }
}

/// preadv(2): what the page cache has at once, else by waiting for the disk. Overlays do not tell what is in the page cache; a `shared`
/// volume may be served by somebody who never answers.
pub(super) fn read_file(fd: BorrowedFd<'_>, shared: bool, vectors: &IoVectors<'_>, offset: u64, worker: &Worker<'_>) -> Result<u64, Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno::INVAL)?;
    if vectors.bytes() <= TRIED_FROM_CACHE {
        match memory_sys::read(fd, vectors, offset, RWF_NOWAIT) {
            Ok(bytes) if bytes == vectors.bytes() || ends_by(fd, offset as u64 + bytes) => return Ok(bytes),
            Err(Errno::OPNOTSUPP) if !shared => return worker.mostly_quick(|| memory_sys::read(fd, vectors, offset, 0)),
            Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    worker.may_block();
    memory_sys::read(fd, vectors, offset, 0)
}

fn ends_by(fd: BorrowedFd<'_>, offset: u64) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_size as u64 <= offset)
}

/// Where the next data (flags 1) or hole (2) from an offset on begins.
fn next_data_or_hole(handle: &Handle, request: &Request) -> Answer {
    let offset = request.args[1];
    let to = match request.flags() {
        1 => rustix::fs::SeekFrom::Data(offset),
        2 => rustix::fs::SeekFrom::Hole(offset),
        _ => return Err(Errno::INVAL),
    };
    let _turn = handle.position.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    rustix::fs::seek(handle, to).map(Reply::of)
}

/// O_APPEND: the kernel moves the file's own position, which nothing else uses, behind what it wrote.
fn append_to(handle: &Handle, vectors: &IoVectors<'_>) -> Answer {
    let _turn = handle.position.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bytes = memory_sys::write(handle.as_fd(), vectors, -1, RWF_APPEND)?;
    let end = rustix::fs::seek(handle, rustix::fs::SeekFrom::Current(0)).unwrap_or(0);
    Ok(Reply::with(bytes, &[end]))
}

/// Present poll(2) events, the same bits as epoll's.
pub(super) fn readiness(handle: &Handle) -> Result<u64, Errno> {
    let mut list = [PollFd::new(handle, PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP | PollFlags::PRI)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut list, Some(&now))?;
    Ok(list.iter().map(|entry| u64::from(entry.revents().bits())).sum())
}

fn ready(handle: &Handle, events: PollFlags) -> Result<bool, Errno> {
    let mut list = [PollFd::new(handle, events)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut list, Some(&now))? > 0)
}

/// Never blocks, and never sets O_NONBLOCK: the open file description belongs to others as well.
fn read_stream(handle: &Arc<Handle>, vectors: &IoVectors<'_>, worker: &Worker<'_>) -> Result<u64, Errno> {
    match memory_sys::read(handle.as_fd(), vectors, -1, RWF_NOWAIT) {
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::SPIPE) => {}
        // A regular file's pages that are not in memory: worth waiting for.
        Err(Errno::AGAIN) if handle.kind != Kind::Socket && is_regular(handle) => {}
        other => return other,
    }
    if !ready(handle, PollFlags::IN)? {
        return Err(Errno::AGAIN);
    }
    // Another reader of the same terminal may be quicker; then this thread waits, and others serve the guest.
    worker.may_block();
    memory_sys::read(handle.as_fd(), vectors, -1, 0)
}

/// Whether writes of the guest are the only ones to this pipe. Who hands in such a FIFO says so by O_NONBLOCK, which it gains much by: Linux
/// knows RWF_NOWAIT for pipes only.
pub(super) fn is_private_pipe(handle: &Handle) -> bool {
    handle.kind == Kind::Stream && is_nonblocking(handle) && is_of_type(handle, rustix::fs::FileType::Fifo)
}

fn write_stream(handle: &Arc<Handle>, mut vectors: IoVectors<'_>, worker: &Worker<'_>) -> Result<u64, Errno> {
    match memory_sys::write(handle.as_fd(), &vectors, -1, RWF_NOWAIT) {
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::SPIPE) => {}
        Err(Errno::AGAIN) if handle.kind != Kind::Socket && is_regular(handle) => {}
        other => return other,
    }
    let regular = is_regular(handle);
    if !regular {
        if is_nonblocking(handle) {
            return memory_sys::write(handle.as_fd(), &vectors, -1, 0);
        }
        if !ready(handle, PollFlags::OUT)? {
            return Err(Errno::AGAIN);
        }
        vectors.truncate(SURE_CHUNK);
    }
    worker.may_block();
    memory_sys::write(handle.as_fd(), &vectors, -1, 0)
}

fn is_nonblocking(handle: &Handle) -> bool {
    rustix::fs::fcntl_getfl(handle).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}

fn is_regular(handle: &Handle) -> bool {
    is_of_type(handle, rustix::fs::FileType::RegularFile)
}

fn is_of_type(handle: &Handle, kind: rustix::fs::FileType) -> bool {
    rustix::fs::fstat(handle).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == kind)
}
