//! Bytes from one descriptor to another, and to the disk: sendfile(2), copy_file_range(2), splice(2), tee(2), vmsplice(2), fsync(2),
//! fallocate(2).

use super::read_write::{read_file, read_file_at, vectors, write_file, write_file_at};
use super::{full, Call, Entry};
use crate::errno::{Errno, EAGAIN, EBADF, EFBIG, EINVAL, EISDIR, EOPNOTSUPP, EPERM, ESPIPE, EXDEV};
use crate::fs::file::{Events, OpenFile};
use crate::fs::notify;
use crate::io::IoBuffer;
use crate::ipc::pipe::{self, PipeEnd};
use crate::process::Task;
use crate::wait::Interruptible;
use crate::SysResult;
use alloc::sync::Arc;
use linux_abi::fs::{
    ANON_INODE_MAGIC, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_UNSHARE_RANGE,
    FALLOC_FL_ZERO_RANGE, O_APPEND, S_IFDIR, S_IFREG,
};

pub const CALLS: &[Entry] = &[
    full(40, "sendfile", sendfile),
    full(74, "fsync", fsync),
    full(75, "fdatasync", fdatasync),
    full(275, "splice", splice),
    full(276, "tee", tee),
    full(277, "sync_file_range", sync_file_range),
    full(278, "vmsplice", vmsplice),
    full(285, "fallocate", fallocate),
    full(326, "copy_file_range", copy_file_range),
];

/// Bytes per step through the library OS.
const STEP: usize = 64 << 10;
const SPLICE_F_NONBLOCK: u32 = 2;
const SPLICE_F_KNOWN: u32 = 15;

/// Where one side of a copy is: at an offset of its own, or at the file's position (or it is a stream).
#[derive(Clone, Copy)]
enum At {
    Offset(u64),
    Position,
}

impl At {
    fn read(self, file: &OpenFile, buffer: &mut IoBuffer<'_>, done: usize) -> SysResult {
        match self {
            Self::Offset(offset) => read_file_at(file, buffer, (offset + done as u64) as i64),
            Self::Position => read_file(file, buffer),
        }
    }
    fn write(self, task: &Arc<Task>, file: &OpenFile, buffer: &mut IoBuffer<'_>, done: usize) -> SysResult {
        match self {
            Self::Offset(offset) => write_file_at(task, file, buffer, (offset + done as u64) as i64),
            Self::Position => write_file(task, file, buffer),
        }
    }
    /// Gives back what was read but could not be written.
    fn unread(self, file: &OpenFile, bytes: usize) {
        if matches!(self, Self::Position) && file.ops.seekable() {
            let mut position = file.position.lock();
            *position = position.saturating_sub(bytes as u64);
        }
    }
}

/// An optional offset argument: read from and stored back to program memory.
fn offset(address: u64, file: &OpenFile) -> Result<At, Errno> {
    if address == 0 {
        return Ok(At::Position);
    }
    if !file.ops.seekable() {
        return Err(ESPIPE);
    }
    let offset: i64 = hal::user::read(address)?;
    u64::try_from(offset).map(At::Offset).map_err(|_| EINVAL)
}

fn store_offset(address: u64, at: At, done: usize) -> Result<(), Errno> {
    match at {
        At::Offset(offset) => hal::user::write(address, &(offset + done as u64)),
        At::Position => Ok(()),
    }
}

/// Not directories, eventfds and their like, whose reads and writes are no streams of bytes.
fn spliceable(file: &OpenFile) -> bool {
    !file.is_directory() && (file.location.is_some() || file.ops.magic() != ANON_INODE_MAGIC)
}

/// Copies through the library OS until `most` bytes are moved, the source ends, or one side would block.
fn pump(task: &Arc<Task>, source: (&OpenFile, At), sink: (&OpenFile, At), most: usize) -> SysResult {
    let mut chunk = alloc::vec![0u8; STEP.min(most)];
    let mut done = 0;
    while done < most {
        let want = (most - done).min(STEP);
        let got = match source.1.read(source.0, &mut IoBuffer::fill(&mut chunk[..want]), done) {
            Ok(0) => break,
            Ok(got) => got,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        };
        let mut written = 0;
        let mut failure = None;
        while written < got {
            match sink.1.write(task, sink.0, &mut IoBuffer::take(&chunk[written..got]), done + written) {
                Ok(0) => break,
                Ok(moved) => written += moved,
                Err(errno) => {
                    failure = Some(errno);
                    break;
                }
            }
        }
        done += written;
        if written < got {
            source.1.unread(source.0, got - written);
            return match failure {
                Some(errno) if done == 0 => Err(errno),
                _ => Ok(done),
            };
        }
        // A stream may have no more now, and who has some does not wait.
        if !source.0.ops.seekable() {
            break;
        }
    }
    Ok(done)
}

fn sendfile(call: &mut Call<'_>) -> SysResult {
    let files = call.task.files();
    let (sink, source) = (files.get(call.int(0))?, files.get(call.int(1))?);
    if !source.readable() || !sink.writable() {
        return Err(EBADF);
    }
    if !spliceable(&source) || !source.ops.seekable() || !spliceable(&sink) || sink.flags() & O_APPEND != 0 {
        return Err(EINVAL);
    }
    let at = offset(call.args[2], &source)?;
    let most = call.size(3).min(crate::io::MAX_TRANSFER);
    let done = pump(call.task, (&source, at), (&sink, At::Position), most)?;
    store_offset(call.args[2], at, done)?;
    Ok(done)
}

fn copy_file_range(call: &mut Call<'_>) -> SysResult {
    if call.args[5] != 0 {
        return Err(EINVAL);
    }
    let files = call.task.files();
    let (source, sink) = (files.get(call.int(0))?, files.get(call.int(2))?);
    if !source.readable() || !sink.writable() || sink.flags() & O_APPEND != 0 {
        return Err(EBADF);
    }
    let (Some(from), Some(to)) = (source.inode(), sink.inode()) else {
        return Err(EINVAL);
    };
    if from.kind() == S_IFDIR || to.kind() == S_IFDIR {
        return Err(EISDIR);
    }
    if from.kind() != S_IFREG || to.kind() != S_IFREG {
        return Err(EINVAL);
    }
    let (at_from, at_to) = (offset(call.args[1], &source)?, offset(call.args[3], &sink)?);
    let start = |at: At, file: &OpenFile| match at {
        At::Offset(offset) => offset,
        At::Position => *file.position.lock(),
    };
    let (start_from, start_to) = (start(at_from, &source), start(at_to, &sink));
    let size = from.stat()?.size;
    let most = (call.size(4).min(crate::io::MAX_TRANSFER) as u64).min(size.saturating_sub(start_from));
    if Arc::ptr_eq(from, to) && start_from < start_to + most && start_to < start_from + most {
        return Err(EINVAL);
    }
    if start_to.checked_add(most).is_none_or(|end| end > i64::MAX as u64) {
        return Err(EFBIG);
    }
    if most == 0 {
        return Ok(0);
    }
    let direct = source.ops.copy_to(start_from, &sink.ops, start_to, most as usize);
    let done = match direct {
        Some(Err(EOPNOTSUPP | EXDEV | EINVAL)) | None => {
            pump(call.task, (&source, At::Offset(start_from)), (&sink, At::Offset(start_to)), most as usize)?
        }
        Some(done) => done?,
    };
    for (address, at, file, start) in [(call.args[1], at_from, &source, start_from), (call.args[3], at_to, &sink, start_to)] {
        store_offset(address, at, done)?;
        if matches!(at, At::Position) {
            *file.position.lock() = start + done as u64;
        }
    }
    if done > 0 {
        notify::modified(&sink);
    }
    Ok(done)
}

/// Waits until a pipe end can move a byte, unless nobody wants to wait.
fn wait_for(file: &OpenFile, events: Events, nonblocking: bool) -> Result<(), Errno> {
    let ready = || file.ops.poll(file).intersects(events | Events::HUP | Events::ERR).then_some(());
    if ready().is_some() {
        return Ok(());
    }
    if nonblocking || file.nonblocking() {
        return Err(EAGAIN);
    }
    match file.ops.poll_queue(file) {
        Some(queue) => queue.wait(Interruptible::Yes, None, ready).map_err(pipe::restart),
        None => Ok(()),
    }
}

fn splice(call: &mut Call<'_>) -> SysResult {
    let (most, flags) = (call.size(4), call.uint(5));
    if flags & !SPLICE_F_KNOWN != 0 {
        return Err(EINVAL);
    }
    let files = call.task.files();
    let (source, sink) = (files.get(call.int(0))?, files.get(call.int(2))?);
    if !source.readable() || !sink.writable() {
        return Err(EBADF);
    }
    let (pipe_in, pipe_out) = (pipe::of(&source), pipe::of(&sink));
    if pipe_in.is_some() && call.args[1] != 0 || pipe_out.is_some() && call.args[3] != 0 {
        return Err(ESPIPE);
    }
    if pipe_in.is_none() && pipe_out.is_none() {
        return Err(EINVAL);
    }
    if !spliceable(&source) || !spliceable(&sink) || sink.flags() & O_APPEND != 0 {
        return Err(EINVAL);
    }
    let (at_in, at_out) = (offset(call.args[1], &source)?, offset(call.args[3], &sink)?);
    if most == 0 {
        return Ok(0);
    }
    let nonblocking = flags & SPLICE_F_NONBLOCK != 0;
    if let (Some(from), Some(to)) = (pipe_in, pipe_out) {
        if Arc::ptr_eq(&from.pipe, &to.pipe) {
            return Err(EINVAL);
        }
        return between_pipes(&source, &sink, most, false, nonblocking);
    }
    let done = if let Some(from) = pipe_in {
        from_pipe(call.task, (&source, from), (&sink, at_out), most, nonblocking)?
    } else {
        wait_for(&sink, Events::OUT, nonblocking)?;
        let most = pipe_out.filter(|to| to.pipe.readers() > 0).map_or(most, |to| most.min(to.pipe.room()));
        pump(call.task, (&source, at_in), (&sink, at_out), most)?
    };
    store_offset(call.args[1], at_in, done)?;
    store_offset(call.args[3], at_out, done)?;
    Ok(done)
}

/// What the sink does not take stays in the pipe.
fn from_pipe(task: &Arc<Task>, source: (&OpenFile, &PipeEnd), sink: (&OpenFile, At), most: usize, nonblocking: bool) -> SysResult {
    let pipe = &source.1.pipe;
    loop {
        wait_for(source.0, Events::IN, nonblocking)?;
        wait_for(sink.0, Events::OUT, nonblocking)?;
        let mut offered = false;
        let done = pipe.hand_over(most, |bytes, done| {
            offered = true;
            sink.1.write(task, sink.0, &mut IoBuffer::take(bytes), done)
        })?;
        if offered || pipe.used() == 0 && pipe.writers() == 0 {
            return Ok(done);
        }
    }
}

fn between_pipes(source: &OpenFile, sink: &OpenFile, most: usize, keep: bool, nonblocking: bool) -> SysResult {
    let (Some(from), Some(to)) = (pipe::of(source), pipe::of(sink)) else {
        return Err(EINVAL);
    };
    loop {
        wait_for(source, Events::IN, nonblocking)?;
        if to.pipe.readers() == 0 {
            crate::ipc::broken_pipe();
            return Err(crate::errno::EPIPE);
        }
        wait_for(sink, Events::OUT, nonblocking)?;
        let moved = from.pipe.transfer(&to.pipe, most, keep);
        if moved > 0 || from.pipe.used() == 0 && from.pipe.writers() == 0 {
            return Ok(moved);
        }
    }
}

fn tee(call: &mut Call<'_>) -> SysResult {
    if call.uint(3) & !SPLICE_F_KNOWN != 0 {
        return Err(EINVAL);
    }
    let files = call.task.files();
    let (source, sink) = (files.get(call.int(0))?, files.get(call.int(1))?);
    if !source.readable() || !sink.writable() {
        return Err(EBADF);
    }
    match (pipe::of(&source), pipe::of(&sink)) {
        (Some(from), Some(to)) if !Arc::ptr_eq(&from.pipe, &to.pipe) => {}
        _ => return Err(EINVAL),
    }
    if call.size(2) == 0 {
        return Ok(0);
    }
    between_pipes(&source, &sink, call.size(2), true, call.uint(3) & SPLICE_F_NONBLOCK != 0)
}

/// Copies: gifted pages are not moved.
fn vmsplice(call: &mut Call<'_>) -> SysResult {
    if call.uint(3) & !SPLICE_F_KNOWN != 0 {
        return Err(EINVAL);
    }
    let file = call.task.files().get(call.int(0))?;
    let end = pipe::of(&file).ok_or(EBADF)?;
    let mut buffer = vectors(call.args[1], call.args[2])?;
    let nonblocking = call.uint(3) & SPLICE_F_NONBLOCK != 0 || file.nonblocking();
    if file.writable() {
        // It waits for some room, and takes what fits then.
        wait_for(&file, Events::OUT, nonblocking)?;
        end.pipe.write(true, false, &mut buffer)
    } else {
        end.pipe.read(nonblocking, &mut buffer)
    }
}

fn sync(call: &Call<'_>, data_only: bool) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    file.ops.sync(&file, data_only).map(|()| 0)
}

fn fsync(call: &mut Call<'_>) -> SysResult {
    sync(call, false)
}

fn fdatasync(call: &mut Call<'_>) -> SysResult {
    sync(call, true)
}

/// More than asked for: the data of the whole file.
fn sync_file_range(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    let (offset, bytes) = (call.args[1] as i64, call.args[2] as i64);
    if call.uint(3) & !7 != 0 || offset < 0 || bytes < 0 || offset.checked_add(bytes).is_none() {
        return Err(EINVAL);
    }
    match file.inode().map(|inode| inode.kind()) {
        Some(S_IFREG) => file.ops.sync(&file, true).map(|()| 0),
        Some(S_IFDIR) => Ok(0),
        _ => Err(ESPIPE),
    }
}

fn fallocate(call: &mut Call<'_>) -> SysResult {
    const KNOWN: u32 = FALLOC_FL_KEEP_SIZE
        | FALLOC_FL_PUNCH_HOLE
        | FALLOC_FL_COLLAPSE_RANGE
        | FALLOC_FL_ZERO_RANGE
        | FALLOC_FL_INSERT_RANGE
        | FALLOC_FL_UNSHARE_RANGE;
    let file = call.task.files().get(call.int(0))?;
    let (mode, offset, bytes) = (call.uint(1), call.args[2] as i64, call.args[3] as i64);
    if offset < 0 || bytes <= 0 {
        return Err(EINVAL);
    }
    if mode & !KNOWN != 0 || mode & FALLOC_FL_PUNCH_HOLE != 0 && mode & FALLOC_FL_KEEP_SIZE == 0 {
        return Err(EOPNOTSUPP);
    }
    if !file.writable() {
        return Err(EBADF);
    }
    if mode & !FALLOC_FL_KEEP_SIZE != 0 && file.flags() & O_APPEND != 0 {
        return Err(EPERM);
    }
    if !file.ops.seekable() {
        return Err(ESPIPE);
    }
    let end = offset.checked_add(bytes).ok_or(EFBIG)?;
    const RLIMIT_FSIZE: usize = 1;
    if mode & FALLOC_FL_KEEP_SIZE == 0 && end as u64 > call.task.limit(RLIMIT_FSIZE) {
        crate::fs::size_exceeded(call.task);
        return Err(EFBIG);
    }
    file.ops.allocate(&file, mode, offset as u64, bytes as u64)?;
    notify::modified(&file);
    Ok(0)
}
