//! read(2), write(2) and their kin, lseek(2), and the calls that say how a file will be used.

use super::{full, Call, Entry};
use crate::errno::{Errno, EBADF, EFAULT, EFBIG, EINVAL, EOPNOTSUPP, ESPIPE};
use crate::fs::file::OpenFile;
use crate::fs::{notify, open, SeekFrom};
use crate::io::IoBuffer;
use crate::process::Task;
use crate::SysResult;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_abi::fs::{IoVec, IOV_MAX, O_APPEND, SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_HOLE, SEEK_SET, S_IFREG};

pub const CALLS: &[Entry] = &[
    full(0, "read", read),
    full(1, "write", write),
    full(8, "lseek", lseek),
    full(17, "pread64", pread64),
    full(18, "pwrite64", pwrite64),
    full(19, "readv", readv),
    full(20, "writev", writev),
    full(187, "readahead", readahead),
    full(221, "fadvise64", fadvise64),
    full(295, "preadv", preadv),
    full(296, "pwritev", pwritev),
    full(327, "preadv2", preadv2),
    full(328, "pwritev2", pwritev2),
];

const RLIMIT_FSIZE: usize = 1;

/// Reads at the file's position, or as a stream.
pub fn read_file(file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
    if !file.readable() {
        return Err(EBADF);
    }
    let done = if file.ops.seekable() {
        let mut position = file.position.lock();
        let done = file.ops.read_at(file, buffer, *position)?;
        *position += done as u64;
        done
    } else {
        file.ops.read(file, buffer)?
    };
    if done > 0 {
        notify::accessed(file);
    }
    Ok(done)
}

/// Writes at the file's position, at its end (O_APPEND), or as a stream.
pub fn write_file(task: &Arc<Task>, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
    if !file.writable() {
        return Err(EBADF);
    }
    if buffer.remaining() == 0 && file.ops.seekable() {
        return Ok(0);
    }
    let done = if !file.ops.seekable() {
        file.ops.write(file, buffer)?
    } else if file.flags() & O_APPEND != 0 {
        let mut position = file.position.lock();
        before_write(task, file, buffer, None)?;
        let (done, end) = file.ops.append(file, buffer)?;
        *position = end;
        done
    } else {
        let mut position = file.position.lock();
        before_write(task, file, buffer, Some(*position))?;
        let done = file.ops.write_at(file, buffer, *position)?;
        *position += done as u64;
        done
    };
    if done > 0 {
        notify::modified(file);
    }
    Ok(done)
}

pub fn read_file_at(file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: i64) -> SysResult {
    let offset = u64::try_from(offset).map_err(|_| EINVAL)?;
    if !file.readable() {
        return Err(if file.ops.seekable() || file.location.is_some() { EBADF } else { ESPIPE });
    }
    if !file.ops.seekable() {
        return Err(ESPIPE);
    }
    let done = file.ops.read_at(file, buffer, offset)?;
    if done > 0 {
        notify::accessed(file);
    }
    Ok(done)
}

pub fn write_file_at(task: &Arc<Task>, file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: i64) -> SysResult {
    let offset = u64::try_from(offset).map_err(|_| EINVAL)?;
    if !file.writable() {
        return Err(if file.ops.seekable() || file.location.is_some() { EBADF } else { ESPIPE });
    }
    if !file.ops.seekable() {
        return Err(ESPIPE);
    }
    if buffer.remaining() == 0 {
        return Ok(0);
    }
    before_write(task, file, buffer, Some(offset))?;
    // pwrite(2), BUGS: with O_APPEND Linux appends, whatever the offset says.
    let done = if file.flags() & O_APPEND != 0 { file.ops.append(file, buffer)?.0 } else { file.ops.write_at(file, buffer, offset)? };
    if done > 0 {
        notify::modified(file);
    }
    Ok(done)
}

/// What a write owes a regular file first: the size limit (setrlimit(2), RLIMIT_FSIZE), and the set-id bits go.
/// `offset` None: at the end.
fn before_write(task: &Arc<Task>, file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: Option<u64>) -> Result<(), Errno> {
    let Some(inode) = file.inode().filter(|inode| inode.kind() == S_IFREG) else {
        return Ok(());
    };
    let limit = task.limit(RLIMIT_FSIZE);
    if limit != u64::MAX {
        let offset = match offset {
            Some(offset) => offset,
            None => inode.stat()?.size,
        };
        if offset >= limit {
            crate::fs::size_exceeded(task);
            return Err(EFBIG);
        }
        buffer.limit((limit - offset) as usize);
    }
    let credentials = task.credentials();
    if crate::fs::permission::capable(&credentials, linux_abi::capability::CAP_FSETID) {
        return Ok(());
    }
    if let Some(mode) = open::without_privileges(&**inode)? {
        let attributes = crate::fs::inode::Attributes { mask: abi::request::ATTR_MODE, mode, ..Default::default() };
        inode.set_attributes(&attributes)?;
    }
    Ok(())
}

/// An iovec array (readv(2)): EINVAL when it is too long or its sum overflows.
pub fn vectors(address: u64, count: u64) -> Result<IoBuffer<'static>, Errno> {
    if count > IOV_MAX as u64 {
        return Err(EINVAL);
    }
    let vectors: Vec<IoVec> = hal::user::read_array(address, count as usize)?;
    if vectors.iter().any(|vector| vector.bytes > isize::MAX as u64) {
        return Err(EINVAL);
    }
    IoBuffer::user_ranges(vectors.iter().map(|vector| (vector.base, vector.bytes as usize)).collect())
}

/// The range (address, bytes) of arguments 1 and 2. EFAULT: part of it is no program memory whatever is mapped.
fn user(call: &Call<'_>) -> Result<IoBuffer<'static>, Errno> {
    match call.args[1].checked_add(call.args[2]) {
        Some(end) if end <= hal::user::LIMIT => Ok(IoBuffer::user(call.args[1], call.size(2))),
        _ => Err(EFAULT),
    }
}

fn read(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    read_file(&file, &mut user(call)?)
}

fn write(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    write_file(call.task, &file, &mut user(call)?)
}

fn pread64(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    read_file_at(&file, &mut user(call)?, call.args[3] as i64)
}

fn pwrite64(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    write_file_at(call.task, &file, &mut user(call)?, call.args[3] as i64)
}

fn readv(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    read_file(&file, &mut vectors(call.args[1], call.args[2])?)
}

fn writev(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    write_file(call.task, &file, &mut vectors(call.args[1], call.args[2])?)
}

fn preadv(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    read_file_at(&file, &mut vectors(call.args[1], call.args[2])?, call.args[3] as i64)
}

fn pwritev(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    write_file_at(call.task, &file, &mut vectors(call.args[1], call.args[2])?, call.args[3] as i64)
}

const RWF_HIPRI: u32 = 1;
const RWF_DSYNC: u32 = 2;
const RWF_SYNC: u32 = 4;
const RWF_NOWAIT: u32 = 8;
const RWF_APPEND: u32 = 16;

/// Offset -1: the file's position. RWF_NOWAIT reads may wait for the host all the same when a page is not in its cache.
fn preadv2(call: &mut Call<'_>) -> SysResult {
    if call.uint(5) & !(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT) != 0 {
        return Err(EOPNOTSUPP);
    }
    if call.args[3] == u64::MAX {
        readv(call)
    } else {
        preadv(call)
    }
}

fn pwritev2(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(5);
    if flags & !(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND) != 0 {
        return Err(EOPNOTSUPP);
    }
    let file = call.task.files().get(call.int(0))?;
    let mut buffer = vectors(call.args[1], call.args[2])?;
    let done = if flags & RWF_APPEND != 0 {
        if !file.writable() {
            return Err(EBADF);
        }
        file.ops.append(&file, &mut buffer)?.0
    } else if call.args[3] == u64::MAX {
        write_file(call.task, &file, &mut buffer)?
    } else {
        write_file_at(call.task, &file, &mut buffer, call.args[3] as i64)?
    };
    if flags & (RWF_DSYNC | RWF_SYNC) != 0 {
        file.ops.sync(&file, flags & RWF_SYNC == 0)?;
    }
    Ok(done)
}

fn lseek(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    let offset = call.args[1] as i64;
    let to = match call.uint(2) {
        SEEK_SET => SeekFrom::Start(offset),
        SEEK_CUR => SeekFrom::Current(offset),
        SEEK_END => SeekFrom::End(offset),
        SEEK_DATA => SeekFrom::Data(offset),
        SEEK_HOLE => SeekFrom::Hole(offset),
        _ => return Err(EINVAL),
    };
    let mut position = file.position.lock();
    *position = file.ops.seek(&file, *position, to)?;
    Ok(*position as usize)
}

/// The host reads ahead by itself.
fn readahead(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    if !file.readable() {
        return Err(EBADF);
    }
    match file.inode() {
        Some(inode) if inode.kind() == S_IFREG => Ok(0),
        _ => Err(EINVAL),
    }
}

/// posix_fadvise(2): advice, and the host knows better.
fn fadvise64(call: &mut Call<'_>) -> SysResult {
    const POSIX_FADV_NOREUSE: u32 = 5;
    let file = call.task.files().get(call.int(0))?;
    if !file.ops.seekable() {
        return Err(ESPIPE);
    }
    if call.uint(3) > POSIX_FADV_NOREUSE || (call.args[2] as i64) < 0 {
        return Err(EINVAL);
    }
    Ok(0)
}
