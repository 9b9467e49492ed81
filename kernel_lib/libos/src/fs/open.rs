//! open(2) in all its forms, and opening a program for execve(2).

use super::device;
use super::file::{FileOps, OpenFile};
use super::inode::{is_directory, is_symlink, now, Attributes, Inode};
use super::mount::{NODEV, NOEXEC};
use super::namei::{enter, new_node, writable_mount};
use super::path::{child_locked, Last, Walk};
use super::permission::{self, READ, WRITE};
use super::{lease, notify, Location};
use crate::errno::{Errno, EACCES, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM};
use crate::io::IoBuffer;
use crate::process::{Credentials, Task};
use abi::request::{ATTR_MODE, ATTR_MTIME, ATTR_SIZE};
use alloc::sync::Arc;
use core::any::Any;
use linux_abi::fs::{
    O_ACCMODE, O_CREAT, O_DIRECTORY, O_EXCL, O_NOATIME, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY, S_IFBLK,
    S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, S_ISGID, S_ISUID, S_IXGRP,
};

/// Flags that stay with the open file (fcntl(2), F_GETFL); the others act at open.
const KEPT: u32 = !(O_CREAT | O_EXCL | linux_abi::fs::O_NOCTTY | O_TRUNC | linux_abi::fs::O_CLOEXEC);

/// An O_PATH descriptor: names a place, does nothing else.
struct PathOnly;

impl FileOps for PathOnly {
    fn read(&self, _file: &OpenFile, _buffer: &mut IoBuffer<'_>) -> crate::SysResult {
        Err(crate::errno::EBADF)
    }
    fn write(&self, _file: &OpenFile, _buffer: &mut IoBuffer<'_>) -> crate::SysResult {
        Err(crate::errno::EBADF)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What permission an access mode needs.
const fn wanted(flags: u32) -> u32 {
    match flags & O_ACCMODE {
        O_WRONLY => WRITE,
        O_RDWR => READ | WRITE,
        3 => READ | WRITE,
        _ => READ,
    }
}

/// open(2), openat(2), openat2(2): `start` is the directory of relative paths; `walk` has the RESOLVE_* flags.
pub fn open(walk: &mut Walk<'_>, task: &Arc<Task>, start: Location, path: &[u8], flags: u32, mode: u32) -> Result<Arc<OpenFile>, Errno> {
    if flags & O_TMPFILE == O_TMPFILE {
        let directory = walk.lookup(start, path, true)?;
        return open_temporary(walk, task, directory, flags, mode);
    }
    if flags & O_CREAT != 0 {
        return open_or_create(walk, task, start, path, flags, mode);
    }
    let location = walk.lookup(start, path, flags & O_NOFOLLOW == 0)?;
    open_location(task, walk.credentials(), location, flags)
}

fn open_or_create(
    walk: &mut Walk<'_>,
    task: &Arc<Task>,
    start: Location,
    path: &[u8],
    flags: u32,
    mode: u32,
) -> Result<Arc<OpenFile>, Errno> {
    let (directory, last) = walk.parent(start.clone(), path)?;
    let Last::Name { name, slash } = last else { return Err(EISDIR) };
    if slash {
        return Err(EISDIR);
    }
    let change = directory.dentry.change.lock();
    if let Some(child) = child_locked(&directory, &name)? {
        drop(change);
        if flags & O_EXCL != 0 {
            return Err(EEXIST);
        }
        let mut location = Location { mount: directory.mount.clone(), dentry: child };
        if is_symlink(&**location.inode()) {
            if flags & O_NOFOLLOW != 0 {
                return Err(ELOOP);
            }
            return create_through_link(walk, task, directory, &location, &name, flags, mode);
        }
        location.cross_down();
        if is_directory(&**location.inode()) {
            return Err(EISDIR);
        }
        return open_location(task, walk.credentials(), location, flags);
    }
    if directory.dentry.is_dead() {
        return Err(ENOENT);
    }
    writable_mount(&directory)?;
    let parent = directory.inode().owner()?;
    if !permission::granted(walk.credentials(), &parent, WRITE | permission::EXECUTE) {
        return Err(EACCES);
    }
    let node = new_node(task, walk.credentials(), &parent, S_IFREG | mode & 0o7777, 0);
    let inode = match directory.inode().create(&name, &node) {
        // On a shared volume somebody else may have been faster.
        Err(EEXIST) if flags & O_EXCL == 0 => {
            drop(change);
            directory.dentry.forget(&name);
            let location = walk.lookup(start, path, true)?;
            return open_location(task, walk.credentials(), location, flags);
        }
        other => other?,
    };
    let dentry = enter(&directory, &name, inode);
    drop(change);
    // Access follows from the creation, whatever the mode says.
    finish(task, Location { mount: directory.mount, dentry }, flags & !O_TRUNC)
}

/// O_CREAT on a symbolic link: the file it points to, made if it is not there.
fn create_through_link(
    walk: &mut Walk<'_>,
    task: &Arc<Task>,
    directory: Location,
    link: &Location,
    name: &[u8],
    flags: u32,
    mode: u32,
) -> Result<Arc<OpenFile>, Errno> {
    match walk.lookup(directory.clone(), name, true) {
        Ok(location) if is_directory(&**location.inode()) => Err(EISDIR),
        Ok(location) => open_location(task, walk.credentials(), location, flags),
        Err(ENOENT) => {
            walk.count_link()?;
            let target = link.inode().read_link()?;
            open_or_create(walk, task, directory, &target, flags, mode)
        }
        Err(errno) => Err(errno),
    }
}

fn open_temporary(walk: &Walk<'_>, task: &Arc<Task>, directory: Location, flags: u32, mode: u32) -> Result<Arc<OpenFile>, Errno> {
    if flags & O_ACCMODE == 0 {
        return Err(EINVAL);
    }
    if !is_directory(&**directory.inode()) {
        return Err(ENOTDIR);
    }
    writable_mount(&directory)?;
    let parent = directory.inode().owner()?;
    if !permission::granted(walk.credentials(), &parent, WRITE | permission::EXECUTE) {
        return Err(EACCES);
    }
    let node = new_node(task, walk.credentials(), &parent, S_IFREG | mode & 0o7777, 0);
    let inode = directory.inode().temporary(&node)?;
    let name = alloc::format!("#{}", inode.stat()?.ino);
    let dentry = super::dentry::Dentry::nameless(name.as_bytes(), inode);
    finish(task, Location { mount: directory.mount, dentry }, flags & !(O_TMPFILE & !O_DIRECTORY) & !O_DIRECTORY)
}

/// Opens what a path led to: type, permission and mount checks, then the inode's or the device's own open.
pub fn open_location(task: &Arc<Task>, credentials: &Credentials, location: Location, flags: u32) -> Result<Arc<OpenFile>, Errno> {
    let inode = location.inode();
    let kind = inode.kind();
    if flags & O_DIRECTORY != 0 && kind != S_IFDIR {
        return Err(ENOTDIR);
    }
    if flags & O_PATH != 0 {
        let flags = flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW);
        return Ok(OpenFile::at(Arc::new(PathOnly), flags, Some(location)));
    }
    let mask = wanted(flags);
    match kind {
        S_IFLNK => return Err(ELOOP),
        S_IFDIR if mask & WRITE != 0 || flags & O_TRUNC != 0 => return Err(EISDIR),
        S_IFSOCK => return Err(ENXIO),
        S_IFCHR | S_IFBLK if location.mount.flags() & NODEV != 0 => return Err(EACCES),
        _ => {}
    }
    if (mask & WRITE != 0 || flags & O_TRUNC != 0) && matches!(kind, S_IFREG | S_IFDIR) {
        writable_mount(&location)?;
    }
    let owner = inode.owner()?;
    if !permission::granted(credentials, &owner, mask) {
        return Err(EACCES);
    }
    if flags & O_NOATIME != 0 && !permission::is_owner(credentials, &owner) {
        return Err(EPERM);
    }
    finish(task, location, flags)
}

/// The open itself, everything checked.
fn finish(task: &Arc<Task>, location: Location, flags: u32) -> Result<Arc<OpenFile>, Errno> {
    let inode = location.inode().clone();
    if let Some(existing) = inode.reopen(task, flags) {
        return existing;
    }
    let kept = flags & KEPT;
    let file = match inode.kind() {
        S_IFIFO => {
            let stat = inode.stat()?;
            let end = crate::ipc::fifo::open((stat.dev, stat.ino), flags)?;
            OpenFile::at(end, kept, Some(location))
        }
        S_IFCHR | S_IFBLK => {
            let stat = inode.stat()?;
            match device::open(task, stat.mode, stat.rdev, flags, &location)? {
                device::Opened::Ops(ops) => OpenFile::at(ops, kept, Some(location)),
                device::Opened::File(file) => return Ok(file),
            }
        }
        S_IFREG if wanted(flags) & WRITE != 0 => {
            inode.state().add_writer()?;
            let opened = prepare(&inode, flags);
            if opened.is_err() {
                inode.state().remove_writer();
            }
            OpenFile::writer_at(opened?, kept, location)
        }
        S_IFREG => OpenFile::at(prepare(&inode, flags)?, kept, Some(location)),
        _ => OpenFile::at(inode.open(flags)?, kept, Some(location)),
    };
    notify::opened(&file);
    Ok(file)
}

/// Opens a regular file.
fn prepare(inode: &Arc<dyn Inode>, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
    lease::break_for(&**inode, wanted(flags) & WRITE != 0 || flags & O_TRUNC != 0, flags & O_NONBLOCK == 0)?;
    if flags & O_TRUNC != 0 {
        truncate(inode, 0)?;
    }
    inode.clone().open(flags)
}

/// truncate(2), ftruncate(2), O_TRUNC: the size, the times, and no set-id bits afterwards.
pub fn truncate(inode: &Arc<dyn Inode>, size: u64) -> Result<(), Errno> {
    let mut attributes = Attributes { mask: ATTR_SIZE | ATTR_MTIME, size, mtime: now(), ..Attributes::default() };
    if let Some(mode) = without_privileges(&**inode)? {
        attributes.mask |= ATTR_MODE;
        attributes.mode = mode;
    }
    inode.set_attributes(&attributes)
}

/// The mode without what a write takes away (set-user-ID; set-group-ID of an executable). None: nothing to take away.
pub fn without_privileges(inode: &dyn Inode) -> Result<Option<u32>, Errno> {
    let mode = inode.owner()?.mode;
    if mode & (S_ISUID | S_ISGID) == 0 || mode & S_IFMT != S_IFREG {
        return Ok(None);
    }
    let mut kept = mode & !S_ISUID;
    if mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP {
        kept &= !S_ISGID;
    }
    Ok((kept != mode).then_some(kept & 0o7777))
}

/// Opens a program for execve(2): a regular file that the task may execute, on a mount that allows it. `start`: directory of a relative path.
/// Follows a symbolic link at the end if `follow`.
pub fn open_executable(task: &Arc<Task>, start: Location, path: &[u8], follow: bool) -> Result<Arc<OpenFile>, Errno> {
    let mut walk = Walk::new(task);
    let location = walk.lookup(start, path, follow)?;
    open_executable_at(walk.credentials(), location)
}

/// As [`open_executable`] for a place that is known already (execveat with AT_EMPTY_PATH).
pub fn open_executable_at(credentials: &Credentials, location: Location) -> Result<Arc<OpenFile>, Errno> {
    let inode = location.inode();
    if is_symlink(&**inode) {
        return Err(ELOOP);
    }
    if inode.kind() != S_IFREG || location.mount.flags() & NOEXEC != 0 {
        return Err(EACCES);
    }
    permission::check(credentials, &**inode, permission::EXECUTE)?;
    let ops = inode.clone().open(0)?;
    Ok(OpenFile::at(ops, 0, Some(location)))
}
