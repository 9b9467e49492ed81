//! stat, walk, set_attributes, statfs, read_link.

use std::os::fd::{AsFd, BorrowedFd};

use abi::request::*;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps, Uid};

use super::names::{descriptor_name, openat2_beneath, Name, Place};
use super::{fault, Answer, Errno, Host, Reply, Request};

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const UTIME_NOW: i64 = 0x3fff_ffff;
const UTIME_OMIT: i64 = 0x3fff_fffe;

fn time(host: StatxTimestamp) -> Time {
    Time { sec: host.tv_sec, nsec: host.tv_nsec, pad: 0 }
}

fn convert(host: &Statx) -> Stat {
    Stat {
        dev: rustix::fs::makedev(host.stx_dev_major, host.stx_dev_minor),
        ino: host.stx_ino,
        rdev: rustix::fs::makedev(host.stx_rdev_major, host.stx_rdev_minor),
        size: host.stx_size,
        blocks: host.stx_blocks,
        mode: u32::from(host.stx_mode),
        nlink: host.stx_nlink,
        uid: host.stx_uid,
        gid: host.stx_gid,
        blksize: host.stx_blksize,
        attributes: host.stx_attributes.bits() as u32,
        atime: time(host.stx_atime),
        mtime: time(host.stx_mtime),
        ctime: time(host.stx_ctime),
        btime: time(host.stx_btime),
    }
}

/// statx(2) of a name in a directory (never following a link), or of the descriptor itself when the name is empty.
pub fn stat_at(directory: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<Stat, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    let host = rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    Ok(convert(&host))
}

pub fn stat_place(place: &Place) -> Result<Stat, Errno> {
    stat_at(place.as_fd(), place.last())
}

/// Whether a new object has its owner and these bits of the mode already, as it mostly has: a chown costs as much as the creation.
pub fn is_as_wanted(made: &Stat, owner: u64, bits: u32) -> bool {
    u64::from(made.uid) | u64::from(made.gid) << 32 == owner && made.mode & bits == bits
}

impl Host {
    pub(super) fn stat(&self, request: &Request) -> Answer {
        let [path, bytes, to, ..] = request.args;
        let stat = stat_place(&self.place(request.handle, path, bytes)?)?;
        self.memory.write(to, &stat).map_err(fault)?;
        Ok(Reply::of(0))
    }

    /// Stat of each component in turn; see `abi::request::TABLE`.
    pub(super) fn walk(&self, request: &Request) -> Answer {
        let [path, bytes, buffer, room, directory, directory_bytes] = request.args;
        let handle = self.handles.get(request.handle)?;
        let name = self.name(path, bytes)?;
        if request.flags() == WALK_SIBLINGS {
            let directory = self.name(directory, directory_bytes)?;
            if directory.is_empty() {
                return self.siblings(handle.as_fd(), &name, buffer, room);
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = openat2_beneath(handle.as_fd(), directory.as_c_str().to_bytes(), flags, Mode::empty())?;
            return self.siblings(directory.as_fd(), &name, buffer, room);
        }
        let mut directory = None;
        let (mut found, mut failure, mut target_bytes) = (0u64, 0u64, 0u64);
        let size = size_of::<Stat>() as u64;
        let mut components = name.components().peekable();
        while let Some(component) = components.next() {
            let at = directory.as_ref().map_or(handle.as_fd(), AsFd::as_fd);
            let component = std::ffi::CString::new(component).map_err(|_| Errno::INVAL)?;
            let stat = match stat_at(at, &component) {
                Ok(stat) => stat,
                Err(errno) => {
                    failure = errno.raw_os_error() as u64;
                    break;
                }
            };
            if (found + 1) * size > room {
                return Err(Errno::RANGE);
            }
            let end = buffer.checked_add(found * size).ok_or(Errno::FAULT)?;
            self.memory.write(end, &stat).map_err(fault)?;
            found += 1;
            if stat.mode & S_IFMT == S_IFLNK {
                let target = rustix::fs::readlinkat(at, &component, Vec::new())?;
                let target = target.as_bytes();
                if found * size + target.len() as u64 > room {
                    return Err(Errno::RANGE);
                }
                self.memory.write_bytes(end.checked_add(size).ok_or(Errno::FAULT)?, target).map_err(fault)?;
                target_bytes = target.len() as u64;
            }
            if stat.mode & S_IFMT != S_IFDIR {
                break;
            }
            if components.peek().is_some() {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat2_beneath(at, component.as_bytes(), flags, Mode::empty()) {
                    Ok(fd) => directory = Some(fd),
                    Err(errno) => {
                        failure = errno.raw_os_error() as u64;
                        break;
                    }
                }
            }
        }
        Ok(Reply::with(found, &[failure, target_bytes]))
    }

    /// Stat of each of a directory's names.
    fn siblings(&self, directory: BorrowedFd<'_>, names: &Name, buffer: u64, room: u64) -> Answer {
        let mut stats = Vec::new();
        for name in names.components() {
            let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
            stats.push(match stat_at(directory, &name) {
                Err(Errno::NOENT) => Stat::default(),
                other => other?,
            });
        }
        if size_of_val(stats.as_slice()) as u64 > room {
            return Err(Errno::RANGE);
        }
        for (stat, to) in stats.iter().zip((buffer..).step_by(size_of::<Stat>())) {
            self.memory.write(to, stat).map_err(fault)?;
        }
        Ok(Reply::of(stats.len() as u64))
    }

    pub(super) fn set_attributes(&self, request: &Request) -> Answer {
        let [path, bytes, block, to, ..] = request.args;
        let wanted: Attributes = self.memory.read(block).map_err(fault)?;
        let place = self.place(request.handle, path, bytes)?;
        self.apply(&place, &wanted)?;
        if to != 0 {
            self.memory.write(to, &stat_place(&place)?).map_err(fault)?;
        }
        Ok(Reply::of(0))
    }

    /// chmod, chown, truncate, utimes, in this order; but a chown clears set-id bits, so that a mode given with it is set again behind it.
    fn apply(&self, place: &Place, wanted: &Attributes) -> Result<(), Errno> {
        if wanted.mask & ATTR_MODE != 0 {
            self.change_mode(place, wanted.mode)?;
        }
        if wanted.mask & (ATTR_UID | ATTR_GID) != 0 {
            let uid = (wanted.mask & ATTR_UID != 0 && wanted.uid != u32::MAX).then(|| Uid::from_raw(wanted.uid));
            let gid = (wanted.mask & ATTR_GID != 0 && wanted.gid != u32::MAX).then(|| Gid::from_raw(wanted.gid));
            rustix::fs::chownat(place, place.last(), uid, gid, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
            if wanted.mask & ATTR_MODE != 0 && wanted.mode & 0o6000 != 0 {
                self.change_mode(place, wanted.mode)?;
            }
        }
        if wanted.mask & ATTR_SIZE != 0 {
            self.truncate(place, wanted.size)?;
        }
        if wanted.mask & (ATTR_ATIME | ATTR_MTIME | ATTR_ATIME_NOW | ATTR_MTIME_NOW) != 0 {
            let pick = |set, now, time: Time| Timespec {
                tv_sec: if wanted.mask & set != 0 { time.sec } else { 0 },
                tv_nsec: if wanted.mask & now != 0 {
                    UTIME_NOW
                } else if wanted.mask & set != 0 {
                    i64::from(time.nsec.min(999_999_999))
                } else {
                    UTIME_OMIT
                },
            };
            let times = Timestamps {
                last_access: pick(ATTR_ATIME, ATTR_ATIME_NOW, wanted.atime),
                last_modification: pick(ATTR_MTIME, ATTR_MTIME_NOW, wanted.mtime),
            };
            rustix::fs::utimensat(place, place.last(), &times, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
        }
        Ok(())
    }

    /// chmod of a name without following a link, or of an O_PATH handle, goes through the descriptor's name in /proc.
    fn change_mode(&self, place: &Place, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        if place.is_handle() {
            match rustix::fs::fchmod(place, mode) {
                Err(Errno::BADF) => {}
                other => return other,
            }
        }
        let path = self.open_path(place)?;
        if stat_at(path.as_fd(), c"")?.mode & S_IFMT == S_IFLNK {
            return Err(Errno::OPNOTSUPP);
        }
        if !self.has_proc {
            return rustix::fs::chmodat(place, place.last(), mode, AtFlags::empty());
        }
        rustix::fs::chmodat(rustix::fs::CWD, descriptor_name(&path), mode, AtFlags::empty())
    }

    fn truncate(&self, place: &Place, size: u64) -> Result<(), Errno> {
        if place.is_handle() {
            match rustix::fs::ftruncate(place, size) {
                Err(Errno::BADF | Errno::INVAL) => {}
                other => {
                    self.resized(place);
                    return other;
                }
            }
        }
        let fd = self.open_regular(place, OFlags::WRONLY)?;
        rustix::fs::ftruncate(&fd, size)?;
        self.resized(&fd);
        Ok(())
    }

    pub(super) fn statfs(&self, request: &Request) -> Answer {
        let handle = self.handles.get(request.handle)?;
        let host = rustix::fs::fstatfs(&*handle)?;
        let [fsid_low, fsid_high] = crate::memory_sys::fsid(&host);
        let words = [
            host.f_type as u64,
            host.f_bsize as u64,
            host.f_blocks,
            host.f_bfree,
            host.f_bavail,
            host.f_files,
            host.f_ffree,
            u64::from(fsid_low) | u64::from(fsid_high) << 32,
            host.f_namelen as u64,
            host.f_frsize as u64,
            host.f_flags as u64,
            0,
            0,
            0,
            0,
        ];
        for (index, word) in words.iter().enumerate() {
            let at = request.args[0].checked_add(index as u64 * 8).ok_or(Errno::FAULT)?;
            self.memory.write(at, word).map_err(fault)?;
        }
        Ok(Reply::of(0))
    }

    pub(super) fn read_link(&self, request: &Request) -> Answer {
        let [path, bytes, buffer, room, ..] = request.args;
        let place = self.place(request.handle, path, bytes)?;
        let target = rustix::fs::readlinkat(&place, place.last(), Vec::new())?;
        let target = target.as_bytes();
        let length = target.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        self.memory.write_bytes(buffer, target.get(..length).unwrap_or_default()).map_err(fault)?;
        Ok(Reply::of(length as u64))
    }
}
