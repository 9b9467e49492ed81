//! open and close.
//!
//! Only regular files and directories are opened for data. What a name stands for is found out with an O_PATH descriptor first, which
//! has no side effects on a device or a FIFO, and that same object is then opened by its name in /proc: no race with a rename between
//! the two can make the VMM open a device.

use std::os::fd::{AsFd, OwnedFd};

use abi::request::{Stat, AND_DIRECTORY};
use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::attributes::{is_as_wanted, stat_at};
use super::data::read_file;
use super::names::{descriptor_name, place_of, Place};
use super::{fault, Answer, Errno, Host, Reply, Request};
use crate::handles::{Handle, Kind};
use crate::memory::Reach;
use crate::server::Worker;

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;

/// Flags that a guest may pass on to open(2); the others are the library OS's business (O_APPEND, O_NONBLOCK ...) or ours.
const PASSED: OFlags = OFlags::WRONLY
    .union(OFlags::RDWR)
    .union(OFlags::TRUNC)
    .union(OFlags::DIRECTORY)
    .union(OFlags::DIRECT)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC)
    .union(OFlags::NOATIME);
const ALWAYS: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const TRIES: usize = 8;

struct Opened {
    fd: OwnedFd,
    kind: Kind,
    created: bool,
}

impl Host {
    pub(super) fn open(&self, request: &Request, worker: &Worker<'_>) -> Answer {
        let [path, bytes, _, mode_or_offset, owner, stat_to] = request.args;
        let flags = OFlags::from_bits_retain(request.small(2)?);
        let creates = flags.intersects(OFlags::CREATE | OFlags::TMPFILE);
        let mode = Mode::from_raw_mode(if creates { request.small(3)? & 0o7777 } else { 0 });
        let vectors = self.memory.vectors(request.segments, request.segment_count, Reach::Ram).map_err(fault)?;
        let parent = self.handles.get(request.handle)?;
        let place = place_of(parent.clone(), &self.name(path, bytes)?)?;
        let opened = if flags.contains(OFlags::PATH) {
            Opened { fd: self.open_path(&place)?, kind: Kind::Path, created: false }
        } else if flags.contains(OFlags::TMPFILE) {
            self.open_unnamed(&place, flags, mode)?
        } else if flags.contains(OFlags::CREATE) {
            self.open_or_create(&place, flags, mode)?
        } else {
            let (fd, kind) = self.open_existing(&place, flags & PASSED)?;
            Opened { fd, kind, created: false }
        };
        let mut stat = None;
        if opened.created {
            stat = Some(set_owner(&opened.fd, owner, mode)?);
        }
        if stat_to != 0 {
            let stat = stat.map_or_else(|| stat_at(opened.fd.as_fd(), c""), Ok)?;
            self.memory.write(stat_to, &stat).map_err(fault)?;
            if opened.created && request.flags() == AND_DIRECTORY {
                let behind = stat_to.checked_add(size_of::<Stat>() as u64).ok_or(Errno::FAULT)?;
                self.memory.write(behind, &stat_at(place.as_fd(), c"")?).map_err(fault)?;
            }
        }
        let reads = vectors.bytes() > 0 && opened.kind == Kind::File && !creates;
        // What cannot be read now (a file that is only written, a bad offset) is for a request of its own to tell.
        let read = if reads { read_file(opened.fd.as_fd(), parent.shared, &vectors, mode_or_offset, worker).unwrap_or(0) } else { 0 };
        let mut handle = Handle::new(opened.fd, opened.kind);
        if flags.contains(OFlags::TRUNC) && handle.kind == Kind::File {
            self.resized(&handle);
        }
        handle.shared = parent.shared;
        handle.writable = flags.intersects(OFlags::WRONLY | OFlags::RDWR) && opened.kind == Kind::File;
        Ok(Reply::with(u64::from(self.handles.open(handle)?), &[u64::from(opened.created), read]))
    }

    fn open_unnamed(&self, place: &Place, flags: OFlags, mode: Mode) -> Result<Opened, Errno> {
        // Within an existing directory that the place names; the directory is opened as such first.
        let directory = self.open_existing(place, OFlags::DIRECTORY)?.0;
        let fd = rustix::fs::openat(directory, c".", (flags & PASSED) | OFlags::TMPFILE | ALWAYS | (flags & OFlags::EXCL), mode)?;
        Ok(Opened { fd, kind: Kind::File, created: true })
    }

    fn open_or_create(&self, place: &Place, flags: OFlags, mode: Mode) -> Result<Opened, Errno> {
        let passed = flags & PASSED;
        if place.is_handle() || passed.contains(OFlags::DIRECTORY) {
            return Err(Errno::INVAL);
        }
        for _ in 0..TRIES {
            match rustix::fs::openat(place, place.last(), passed | OFlags::CREATE | OFlags::EXCL | ALWAYS, mode) {
                Ok(fd) => return Ok(Opened { fd, kind: Kind::File, created: true }),
                Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {}
                Err(errno) => return Err(errno),
            }
            match self.open_existing(place, passed) {
                // Removed meanwhile: create it after all.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
                Ok((_, Kind::Directory)) => return Err(Errno::ISDIR),
                Ok((fd, kind)) => return Ok(Opened { fd, kind, created: false }),
            }
        }
        Err(Errno::AGAIN)
    }

    fn open_existing(&self, place: &Place, flags: OFlags) -> Result<(OwnedFd, Kind), Errno> {
        let path = self.open_path(place)?;
        let kind = match stat_at(path.as_fd(), c"")?.mode & S_IFMT {
            S_IFREG => Kind::File,
            S_IFDIR => Kind::Directory,
            S_IFLNK => return Err(Errno::LOOP),
            _ => return Err(Errno::PERM),
        };
        if kind == Kind::File && flags.contains(OFlags::DIRECTORY) {
            return Err(Errno::NOTDIR);
        }
        let fd = if kind == Kind::Directory {
            rustix::fs::openat(&path, c".", flags | ALWAYS, Mode::empty())?
        } else if self.has_proc {
            rustix::fs::openat(rustix::fs::CWD, descriptor_name(&path), (flags | ALWAYS) - OFlags::NOFOLLOW, Mode::empty())?
        } else if place.is_handle() {
            return Err(Errno::OPNOTSUPP);
        } else {
            rustix::fs::openat(place, place.last(), flags | ALWAYS, Mode::empty())?
        };
        Ok((fd, kind))
    }

    /// For a service that needs a regular file's data by name.
    pub(super) fn open_regular(&self, place: &Place, flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.open_existing(place, flags)? {
            (fd, Kind::File) => Ok(fd),
            _ => Err(Errno::ISDIR),
        }
    }

    /// All of them, even when one is unknown.
    pub(super) fn close(&self, request: &Request) -> Answer {
        let mut answer = Ok(Reply::of(0));
        let more = request.args.iter().filter(|number| **number != 0).map(|number| u32::try_from(*number).unwrap_or(u32::MAX));
        for number in std::iter::once(request.handle).chain(more) {
            match self.handles.remove(number) {
                Ok(handle) => self.watcher.forget(number, &handle),
                Err(errno) => answer = Err(errno),
            }
        }
        answer
    }
}

/// Gives a new file its owner; its attributes then. Without the privilege everything belongs to the user who runs the VMM, which a rootless container's
/// user namespace shows as its root.
fn set_owner(fd: impl AsFd, owner: u64, mode: Mode) -> Result<Stat, Errno> {
    let made = stat_at(fd.as_fd(), c"")?;
    if is_as_wanted(&made, owner, mode.as_raw_mode() & 0o6000) {
        return Ok(made);
    }
    match rustix::fs::fchown(fd.as_fd(), Some(Uid::from_raw(owner as u32)), Some(Gid::from_raw((owner >> 32) as u32))) {
        // chown(2) clears the set-id bits that open(2) has just set.
        Ok(()) if mode.as_raw_mode() & 0o6000 != 0 => rustix::fs::fchmod(fd.as_fd(), mode)?,
        Err(Errno::PERM | Errno::INVAL) if !rustix::process::geteuid().is_root() => {}
        other => other?,
    }
    stat_at(fd.as_fd(), c"")
}
