//! The file requests as functions. Buffers are heap memory, which is physically contiguous, or pinned program memory.

use super::deferred;
use super::inode::HostInode;
use crate::errno::{Errno, EDQUOT, EFAULT, EIO, ENOSPC};
use crate::fs::inode::NewNode;
use crate::host::posted::{self, Posted};
use crate::io::IoBuffer;
use crate::sched;
use abi::request::{Attributes, Op, Segment, Stat, AND_DIRECTORY, STREAM, WALK_SIBLINGS};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::host::{Answer, Request};
use hal::phys;
use linux_abi::fs::{O_CREAT, O_EXCL, O_RDONLY, O_RDWR};

/// Most bytes of one read or write request.
const MOST: usize = 1 << 20;
/// Transfers up to this are bounced through the heap: cheaper than pinning.
const BOUNCE: usize = 2048;

/// Calls the host. A file without a name takes room until its handle is closed, which may still have to be done.
fn call(request: &Request, segments: &[Segment]) -> Result<Answer, Errno> {
    match crate::host::call(request, segments) {
        Err(ENOSPC | EDQUOT) if deferred::settle() => crate::host::call(request, segments),
        other => other,
    }
}

pub fn gpa(bytes: &[u8]) -> u64 {
    if bytes.is_empty() {
        0
    } else {
        phys::slice_address(bytes)
    }
}

fn path_args(path: &[u8]) -> (u64, u64) {
    (gpa(path), path.len() as u64)
}

pub fn stat_handle(handle: u32) -> Result<Stat, Errno> {
    stat(handle, b"")
}

pub fn stat(handle: u32, path: &[u8]) -> Result<Stat, Errno> {
    let stat = Box::new(Stat::default());
    let (at, bytes) = path_args(path);
    call(&Request::new(Op::Stat, handle, [at, bytes, phys::address_of(&*stat), 0, 0, 0]), &[])?;
    Ok(*stat)
}

/// What WALK found: attributes of each component, the target when the last one is a symbolic link, and why it stopped.
pub struct Walked {
    pub stats: Vec<Stat>,
    pub target: Option<Vec<u8>>,
    pub errno: Option<Errno>,
}

pub fn walk(handle: u32, path: &[u8], components: usize) -> Result<Walked, Errno> {
    let room = components * core::mem::size_of::<Stat>() + linux_abi::fs::PATH_MAX;
    let mut buffer: Vec<Stat> = alloc::vec![Stat::default(); room.div_ceil(core::mem::size_of::<Stat>())];
    let at = phys::address_of(buffer.as_ptr());
    let (path_at, bytes) = path_args(path);
    let answer = call(&Request::new(Op::Walk, handle, [path_at, bytes, at, room as u64, 0, 0]), &[])?;
    let found = (answer.value as usize).min(components);
    let target = (answer.out[1] != 0).then(|| {
        let mut text = alloc::vec![0; (answer.out[1] as usize).min(linux_abi::fs::PATH_MAX)];
        phys::read(at + (found * core::mem::size_of::<Stat>()) as u64, &mut text);
        text
    });
    buffer.truncate(found);
    let errno = (answer.out[0] != 0).then_some(Errno(answer.out[0] as i32));
    Ok(Walked { stats: buffer, target, errno })
}

/// Attributes of several names of a directory; None: there is nothing under it.
pub fn siblings(handle: u32, directory: &[u8], names: &[&[u8]]) -> Result<Vec<Option<Stat>>, Errno> {
    let path = names.join(&b'/');
    let mut stats: Vec<Stat> = alloc::vec![Stat::default(); names.len()];
    let (to, room) = (phys::address_of(stats.as_mut_ptr()), core::mem::size_of_val(&*stats) as u64);
    let (directory_at, directory_bytes) = path_args(directory);
    with_path(Op::Walk, WALK_SIBLINGS, handle, &path, [to, room, directory_at, directory_bytes])?;
    Ok(stats.into_iter().map(|stat| (stat.mode != 0).then_some(stat)).collect())
}

/// Makes a regular file: its handle, its attributes and those of its directory.
pub fn create(handle: u32, path: &[u8], node: &NewNode) -> Result<(u32, Stat, Stat), Errno> {
    let stats = Box::new([Stat::default(); 2]);
    let flags = u64::from(O_RDWR | O_CREAT | O_EXCL);
    let args = [flags, u64::from(node.mode & 0o7777), owner(node), phys::address_of(&*stats)];
    let answer = with_path(Op::Open, AND_DIRECTORY, handle, path, args)?;
    Ok((answer.value as u32, stats[0], stats[1]))
}

fn owner(node: &NewNode) -> u64 {
    u64::from(node.uid) | u64::from(node.gid) << 32
}

/// The new handle and, when asked for, its attributes.
pub fn open(handle: u32, path: &[u8], flags: u32, mode: u32, owner: (u32, u32)) -> Result<(u32, Stat), Errno> {
    let stat = Box::new(Stat::default());
    let (at, bytes) = path_args(path);
    let owner = u64::from(owner.0) | u64::from(owner.1) << 32;
    let args = [at, bytes, u64::from(flags), u64::from(mode), owner, phys::address_of(&*stat)];
    let answer = call(&Request::new(Op::Open, handle, args), &[])?;
    Ok((answer.value as u32, *stat))
}

/// What the file's attributes are afterwards.
pub fn set_attributes(handle: u32, path: &[u8], attributes: &Attributes) -> Result<Stat, Errno> {
    let block = Box::new((*attributes, Stat::default()));
    let (at, bytes) = path_args(path);
    let (wanted, after) = (phys::address_of(&block.0), phys::address_of(&block.1));
    call(&Request::new(Op::SetAttributes, handle, [at, bytes, wanted, after, 0, 0]), &[])?;
    Ok(block.1)
}

/// Makes a directory, node or symbolic link to `target`: its attributes.
pub fn make(handle: u32, path: &[u8], node: &NewNode, target: &[u8]) -> Result<Stat, Errno> {
    let stat = Box::new(Stat::default());
    let (kind, owner) = (u64::from(node.mode) | node.rdev << 32, owner(node));
    with_path(Op::Make, target.len() as u16, handle, path, [kind, phys::address_of(&*stat), owner, gpa(target)])?;
    Ok(*stat)
}

/// A call with one path and up to four more arguments.
pub fn with_path(op: Op, flags: u16, handle: u32, path: &[u8], more: [u64; 4]) -> Result<Answer, Errno> {
    let (at, bytes) = path_args(path);
    call(&Request::new(op, handle, [at, bytes, more[0], more[1], more[2], more[3]]).with_flags(flags), &[])
}

/// A call with two names, the second below a second handle.
pub fn with_two(op: Op, flags: u16, handle: u32, path: &[u8], second: u32, second_path: &[u8]) -> Result<(), Errno> {
    let (at, bytes) = path_args(path);
    let (second_at, second_bytes) = path_args(second_path);
    let args = [at, bytes, second_at, second_bytes, u64::from(second), 0];
    call(&Request::new(op, handle, args).with_flags(flags), &[]).map(|_| ())
}

/// Takes a name away, without waiting.
pub fn post_unlink(directory: Arc<HostInode>, handle: u32, path: Vec<u8>) {
    let (at, bytes) = path_args(&path);
    let unlink = Posted::new(Request::new(Op::Unlink, handle, [at, bytes, 0, 0, 0, 0]));
    posted::post(unlink.keeping(path).then(move |answer| directory.names_changed(answer.is_ok())));
}

/// Asks for a file's attributes, without waiting: sooner or later somebody will want to know them. `seen` as for [`post_write`].
pub fn post_stat(inode: Arc<HostInode>, handle: u32, seen: u64) {
    let stat = Box::new(Stat::default());
    let request = Request::new(Op::Stat, handle, [0, 0, phys::address_of(&*stat), 0, 0, 0]);
    posted::post(Posted::new(request).then(move |answer| {
        if answer.is_ok() {
            inode.learn_since(Some(seen), &stat);
        }
    }));
}

/// Gives a file another name, below a directory's handle, without waiting.
pub fn post_link(directory: Arc<HostInode>, handle: u32, path: Vec<u8>, new_handle: u32, new_path: Vec<u8>) {
    let ((at, bytes), (new_at, new_bytes)) = (path_args(&path), path_args(&new_path));
    let link = Posted::new(Request::new(Op::Link, handle, [at, bytes, new_at, new_bytes, u64::from(new_handle), 0]));
    posted::post(link.keeping(path).keeping(new_path).then(move |answer| directory.names_changed(answer.is_ok())));
}

/// pwrite(2), without waiting; `seen`: the state of what is known of the file ([`HostInode::changes`]).
pub fn post_write(inode: Arc<HostInode>, handle: u32, data: Vec<u8>, offset: u64, seen: u64) {
    let want = data.len() as u64;
    let stat = Box::new(Stat::default());
    let args = [offset, 0, phys::address_of(&*stat), 0, 0, 0];
    let write = Posted::new(Request::new(Op::Write, handle, args)).moving(data);
    posted::post(write.then(move |answer| {
        let outcome = answer.and_then(|answer| if answer.value == want { Ok(&*stat) } else { Err(ENOSPC) });
        inode.has_written(seen, outcome);
    }));
}

/// Records of the directory of that name, or of the open one.
pub fn list(handle: u32, path: &[u8], cookie: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let (path_at, bytes) = path_args(path);
    let answer = call(&Request::new(Op::List, handle, [cookie, gpa(buffer), buffer.len() as u64, path_at, bytes, 0]), &[])?;
    Ok((answer.value as usize).min(buffer.len()))
}

pub fn plain(op: Op, flags: u16, handle: u32, args: [u64; 6]) -> Result<Answer, Errno> {
    call(&Request::new(op, handle, args).with_flags(flags), &[])
}

/// One READ, WRITE or reading OPEN of `most` bytes between the buffer and the host: bytes moved (0: end of file), of which `moved` tells by the
/// answer, and the answer's out[0].
fn transfer(request: &Request, buffer: &mut IoBuffer<'_>, most: usize, moved: impl FnOnce(&Answer) -> u64) -> Result<(usize, u64), Errno> {
    let op = request.op;
    let want = buffer.remaining().min(most).min(MOST);
    if let Some(at) = buffer.kernel_address() {
        let segment = [Segment { gpa: at, bytes: want as u64 }];
        let answer = call(request, &segment)?;
        let moved = (moved(&answer) as usize).min(want);
        buffer.advance(moved);
        return Ok((moved, answer.out[0]));
    }
    if want <= BOUNCE {
        let mut bounce = alloc::vec![0u8; want];
        if op == Op::Write {
            let got = buffer.get(&mut bounce)?;
            bounce.truncate(got);
        }
        let segment = [Segment { gpa: gpa(&bounce), bytes: bounce.len() as u64 }];
        let answer = match call(request, &segment) {
            Ok(answer) => answer,
            Err(errno) => {
                if op == Op::Write {
                    buffer.rewind(bounce.len());
                }
                return Err(errno);
            }
        };
        let moved = (moved(&answer) as usize).min(bounce.len());
        if op == Op::Write {
            buffer.rewind(bounce.len() - moved);
            return Ok((moved, answer.out[0]));
        }
        return buffer.put(&bounce[..moved]).map(|moved| (moved, answer.out[0]));
    }
    let memory = sched::current().memory().ok_or(EFAULT)?;
    let ranges = limit(buffer.user_remaining(), want);
    let pinned = memory.pin(&ranges, op != Op::Write)?;
    let count = pinned.segments.len().min(abi::request::MAX_SEGMENTS);
    let answer = call(request, &pinned.segments[..count])?;
    drop(pinned);
    let moved = (moved(&answer) as usize).min(want);
    buffer.advance(moved);
    Ok((moved, answer.out[0]))
}

/// What READ and WRITE moved.
fn value(answer: &Answer) -> u64 {
    answer.value
}

/// The first `most` bytes of the ranges.
fn limit(mut ranges: Vec<(u64, usize)>, most: usize) -> Vec<(u64, usize)> {
    let mut left = most;
    for range in &mut ranges {
        range.1 = range.1.min(left);
        left -= range.1;
    }
    ranges.retain(|range| range.1 > 0);
    ranges
}

/// pread(2): until the buffer is full or the file ends.
pub fn read_at(handle: u32, buffer: &mut IoBuffer<'_>, offset: u64, most: usize) -> Result<usize, Errno> {
    let mut done = 0;
    while done < most && buffer.remaining() > 0 {
        let request = Request::new(Op::Read, handle, [offset + done as u64, 0, 0, 0, 0, 0]);
        match transfer(&request, buffer, most - done, value) {
            Ok((0, _)) => break,
            Ok((moved, _)) => done += moved,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Opens the regular file of that name (handle, path) and reads up to `most` bytes, once; `own` gets the handle. Bytes may be less than there are.
pub fn open_and_read(
    (handle, path): (u32, &[u8]),
    buffer: &mut IoBuffer<'_>,
    offset: u64,
    most: usize,
    own: impl FnOnce(u32),
) -> Result<usize, Errno> {
    let (at, bytes) = path_args(path);
    let request = Request::new(Op::Open, handle, [at, bytes, u64::from(O_RDONLY), offset, 0, 0]);
    let moved = |answer: &Answer| {
        own(answer.value as u32);
        answer.out[1]
    };
    transfer(&request, buffer, most, moved).map(|(moved, _)| moved)
}

/// pwrite(2), all of the buffer if the host takes it, and the file's attributes afterwards.
pub fn write_at(handle: u32, buffer: &mut IoBuffer<'_>, offset: u64) -> Result<(usize, Stat), Errno> {
    let stat = Box::new(Stat::default());
    let mut done = 0;
    while buffer.remaining() > 0 {
        let request = Request::new(Op::Write, handle, [offset + done as u64, 0, phys::address_of(&*stat), 0, 0, 0]);
        match transfer(&request, buffer, MOST, value) {
            Ok((0, _)) if done == 0 => return Err(EIO),
            Ok((0, _)) => break,
            Ok((moved, _)) => done += moved,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok((done, *stat))
}

/// An appending write: bytes, and the offset behind them.
pub fn append(handle: u32, buffer: &mut IoBuffer<'_>) -> Result<(usize, u64), Errno> {
    transfer(&Request::new(Op::Write, handle, [0, 1, 0, 0, 0, 0]), buffer, MOST, value)
}

/// readv(2) of a stream, once.
pub fn read_stream(handle: u32, buffer: &mut IoBuffer<'_>) -> Result<usize, Errno> {
    transfer(&Request::new(Op::Read, handle, [STREAM, 0, 0, 0, 0, 0]), buffer, MOST, value).map(|(moved, _)| moved)
}

/// writev(2) of a stream, once.
pub fn write_stream(handle: u32, buffer: &mut IoBuffer<'_>) -> Result<usize, Errno> {
    transfer(&Request::new(Op::Write, handle, [STREAM, 0, 0, 0, 0, 0]), buffer, MOST, value).map(|(moved, _)| moved)
}
