//! Reading directories (getdents64(2)): records in the program's buffer from what an inode lists. The open file's position is the
//! file system's own cookie.

use super::file::{seek_in, OpenFile, SeekFrom};
use super::inode::{DirEntry, Inode};
use crate::errno::{Errno, EINVAL, ENOENT};
use crate::io::IoBuffer;
use crate::SysResult;
use alloc::vec::Vec;
use linux_abi::fs::DIRENT64_HEADER;

/// Most bytes gathered before they are copied to the program.
const MOST: usize = 64 << 10;

fn record_bytes(name: &[u8]) -> usize {
    (DIRENT64_HEADER + name.len() + 1).next_multiple_of(8)
}

/// struct linux_dirent64.
fn push_record(out: &mut Vec<u8>, entry: &DirEntry<'_>) {
    let bytes = record_bytes(entry.name);
    let start = out.len();
    out.extend_from_slice(&entry.ino.to_le_bytes());
    out.extend_from_slice(&entry.next.to_le_bytes());
    out.extend_from_slice(&(bytes as u16).to_le_bytes());
    out.push(entry.kind);
    out.extend_from_slice(entry.name);
    out.resize(start + bytes, 0);
}

/// Fills the buffer with whole records from the file's position on and moves the position. EINVAL: not even one fits.
pub fn fill(inode: &dyn Inode, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
    let room = buffer.remaining().min(MOST);
    let mut position = file.position.lock();
    if file.location.as_ref().is_some_and(|location| location.dentry.is_dead()) {
        return Err(ENOENT);
    }
    let mut out = Vec::with_capacity(room.min(4096));
    let mut next = *position;
    let mut full = false;
    inode.list(*position, &mut |entry| {
        if out.len() + record_bytes(entry.name) > room {
            full = true;
            return false;
        }
        push_record(&mut out, entry);
        next = entry.next;
        true
    })?;
    if out.is_empty() {
        return if full { Err(EINVAL) } else { Ok(0) };
    }
    let moved = buffer.put(&out)?;
    *position = next;
    Ok(moved)
}

/// The end-of-list position of in-memory directories.
pub const END: u64 = i64::MAX as u64;

/// lseek(2) of a directory: back to the start, or to a position that getdents64 gave.
pub fn seek(current: u64, to: SeekFrom) -> Result<u64, Errno> {
    match to {
        SeekFrom::Start(_) | SeekFrom::Current(_) => seek_in(END, current, to),
        _ => Err(EINVAL),
    }
}
