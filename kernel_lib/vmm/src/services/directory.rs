//! list, make, unlink, rename, link.

use std::os::fd::{AsFd, BorrowedFd};

use abi::request::Stat;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, Uid};

use super::attributes::{is_as_wanted, stat_place};
use super::names::{descriptor_name, openat2_beneath, place_of, Place};
use super::{fault, Answer, Errno, Host, Reply, Request};
use crate::memory::Buffer;
use crate::server::Worker;

const S_IFMT: u32 = 0o170_000;
const MAX_LIST: u64 = 1 << 20;

fn list_from(directory: BorrowedFd<'_>, shared: bool, cookie: u64, to: &Buffer<'_>, worker: &Worker<'_>) -> Answer {
    let list = || {
        rustix::fs::seek(directory, SeekFrom::Start(cookie))?;
        crate::memory_sys::getdents(directory, to).map(Reply::of)
    };
    if shared {
        worker.may_block();
        return list();
    }
    worker.mostly_quick(list)
}

impl Host {
    pub(super) fn list(&self, request: &Request, worker: &Worker<'_>) -> Answer {
        let [cookie, buffer, bytes, path, path_bytes, ..] = request.args;
        let handle = self.handles.get(request.handle)?;
        let bytes = bytes.min(MAX_LIST);
        let to = self.memory.buffer(buffer, bytes).map_err(fault)?;
        let name = self.name(path, path_bytes)?;
        if !name.is_empty() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = openat2_beneath(handle.as_fd(), name.as_c_str().to_bytes(), flags, Mode::empty())?;
            return list_from(directory.as_fd(), handle.shared, cookie, &to, worker);
        }
        let _turn = handle.position.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        list_from(handle.as_fd(), handle.shared, cookie, &to, worker)
    }

    pub(super) fn make(&self, request: &Request) -> Answer {
        let [path, bytes, mode, stat_to, owner, target] = request.args;
        let (mode, device) = (mode as u32, mode >> 32);
        let place = self.place(request.handle, path, bytes)?.named()?;
        let permissions = Mode::from_raw_mode(mode & 0o7777);
        let kind = FileType::from_raw_mode(mode & S_IFMT);
        match kind {
            FileType::Directory => rustix::fs::mkdirat(&place, place.last(), permissions)?,
            FileType::Symlink => {
                let target = self.text(target, u64::from(request.flags()), super::names::MAX_PATH)?;
                rustix::fs::symlinkat(&target, &place, place.last())?;
            }
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::RegularFile => {
                rustix::fs::mknodat(&place, place.last(), kind, permissions, device)?;
            }
            FileType::Unknown => return Err(Errno::INVAL),
        }
        let stat = self.own(&place, kind, permissions, owner).inspect_err(|_| {
            let flags = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            let _ = rustix::fs::unlinkat(&place, place.last(), flags);
        })?;
        if stat_to != 0 {
            self.memory.write(stat_to, &stat).map_err(fault)?;
        }
        Ok(Reply::of(0))
    }

    /// Owner of what was just made, and the set-id and sticky bits that mkdir(2) and chown(2) drop; its attributes then.
    fn own(&self, place: &Place, kind: FileType, mode: Mode, owner: u64) -> Result<Stat, Errno> {
        let made = stat_place(place)?;
        let bits = if kind == FileType::Symlink { 0 } else { mode.as_raw_mode() & 0o7000 };
        if is_as_wanted(&made, owner, bits) {
            return Ok(made);
        }
        let (uid, gid) = (Uid::from_raw(owner as u32), Gid::from_raw((owner >> 32) as u32));
        match rustix::fs::chownat(place, place.last(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::PERM | Errno::INVAL) if !rustix::process::geteuid().is_root() => {}
            other => other?,
        }
        if bits != 0 {
            rustix::fs::chmodat(place, place.last(), mode, AtFlags::empty())?;
        }
        stat_place(place)
    }

    pub(super) fn unlink(&self, request: &Request, _worker: &Worker<'_>) -> Answer {
        let [path, bytes, ..] = request.args;
        let place = self.place(request.handle, path, bytes)?.named()?;
        let flags = match request.flags() {
            0 => AtFlags::empty(),
            1 => AtFlags::REMOVEDIR,
            _ => return Err(Errno::INVAL),
        };
        rustix::fs::unlinkat(&place, place.last(), flags)?;
        Ok(Reply::of(0))
    }

    pub(super) fn rename(&self, request: &Request) -> Answer {
        let [path, bytes, to_path, to_bytes, ..] = request.args;
        let from = self.place(request.handle, path, bytes)?.named()?;
        let to = self.place(request.small(4)?, to_path, to_bytes)?.named()?;
        let flags = RenameFlags::from_bits(u32::from(request.flags())).ok_or(Errno::INVAL)?;
        if flags.is_empty() {
            rustix::fs::renameat(&from, from.last(), &to, to.last())?;
        } else {
            rustix::fs::renameat_with(&from, from.last(), &to, to.last(), flags)?;
        }
        Ok(Reply::of(0))
    }

    pub(super) fn link(&self, request: &Request) -> Answer {
        let [path, bytes, to_path, to_bytes, ..] = request.args;
        let handle = self.handles.get(request.handle)?;
        let from = place_of(handle.clone(), &self.name(path, bytes)?)?;
        let to = self.place(request.small(4)?, to_path, to_bytes)?.named()?;
        if from.is_handle() {
            if !self.has_proc {
                return Err(Errno::OPNOTSUPP);
            }
            let name = descriptor_name(handle.as_fd());
            rustix::fs::linkat(rustix::fs::CWD, name, &to, to.last(), AtFlags::SYMLINK_FOLLOW)?;
        } else {
            rustix::fs::linkat(&from, from.last(), &to, to.last(), AtFlags::empty())?;
        }
        Ok(Reply::of(0))
    }
}
