//! Changes of the name space: create, link, unlink, rename, with every check of the man pages. The callers have resolved the directories.
//!
//! Lock order: [`RENAME`] > directories' `change` (parent before child, else by address).

use super::dentry::Dentry;
use super::inode::{is_directory, Attributes, Inode, NewNode, Owner, Rename};
use super::path::{child_locked, Last, Walk};
use super::permission::{self, EXECUTE, WRITE};
use super::{notify, Location};
use crate::errno::{Errno, EACCES, EBUSY, EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EROFS, EXDEV};
use crate::process::{Credentials, Task};
use crate::sync::{Mutex, MutexGuard};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_abi::capability::{CAP_FOWNER, CAP_MKNOD};
use linux_abi::fs::{
    RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, S_IFBLK, S_IFCHR, S_IFDIR, S_IFMT, S_IFREG, S_IFSOCK, S_ISGID, S_ISUID, S_IXGRP,
};

/// Renames of directories are one at a time, so that "is it below" stays true meanwhile.
static RENAME: Mutex<()> = Mutex::new(());

/// EROFS on a read-only mount.
pub fn writable_mount(location: &Location) -> Result<(), Errno> {
    if location.readonly() {
        Err(EROFS)
    } else {
        Ok(())
    }
}

/// A new object's attributes: umask, owner, inheritance from a set-group-ID directory.
pub fn new_node(task: &Task, credentials: &Credentials, directory: &Owner, mode: u32, rdev: u64) -> NewNode {
    let masked = (mode & S_IFMT) | (mode & 0o7777 & !task.fs().umask());
    let (mode, gid) = permission::inherit(credentials, directory, masked);
    NewNode { mode, uid: credentials.fsuid, gid, rdev }
}

/// The directory and the name that a creating call works on. EEXIST for ".", ".." and "/".
fn creation_name(last: Last) -> Result<(Vec<u8>, bool), Errno> {
    match last {
        Last::Name { name, slash } => Ok((name, slash)),
        Last::Dot | Last::DotDot | Last::Root => Err(EEXIST),
    }
}

/// Enters what a file system has just made; the directory's `change` is held.
pub fn enter(directory: &Location, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
    notify::created(&directory.dentry, name, &*inode);
    directory.dentry.attach(name, inode)
}

/// The checks that come before every creation, in Linux's order: exists, dead, read-only, permission.
fn may_create(credentials: &Credentials, directory: &Location, name: &[u8]) -> Result<Owner, Errno> {
    if child_locked(directory, name)?.is_some() {
        return Err(EEXIST);
    }
    if directory.dentry.is_dead() {
        return Err(ENOENT);
    }
    writable_mount(directory)?;
    let owner = directory.inode().owner()?;
    if permission::granted(credentials, &owner, WRITE | EXECUTE) {
        Ok(owner)
    } else {
        Err(EACCES)
    }
}

/// mkdir(2), mknod(2): `mode` has the file type.
pub fn make(task: &Arc<Task>, start: Location, path: &[u8], mode: u32, rdev: u64) -> Result<Location, Errno> {
    let mut walk = Walk::new(task);
    let (directory, last) = walk.parent(start, path)?;
    let (name, slash) = creation_name(last)?;
    let credentials = walk.credentials();
    let _change = directory.dentry.change.lock();
    let parent = may_create(credentials, &directory, &name)?;
    if slash && mode & S_IFMT != S_IFDIR {
        return Err(ENOENT);
    }
    let is_device = matches!(mode & S_IFMT, S_IFCHR | S_IFBLK);
    // A character device 0:0 is a whiteout, which everybody may make.
    if is_device && !(mode & S_IFMT == S_IFCHR && rdev == 0) && !permission::capable(credentials, CAP_MKNOD) {
        return Err(EPERM);
    }
    let mode = if mode & S_IFMT == S_IFDIR { mode & (S_IFDIR | 0o1777) } else { mode };
    let node = new_node(task, credentials, &parent, mode, if is_device { rdev } else { 0 });
    let inode = directory.inode().create(&name, &node)?;
    let dentry = enter(&directory, &name, inode);
    if mode & S_IFMT == S_IFDIR && directory.mount.caching().remembers() {
        dentry.is_new();
    }
    Ok(Location { mount: directory.mount.clone(), dentry })
}

/// A socket's name (bind(2)): EADDRINUSE is the caller's translation of EEXIST.
pub fn make_socket(task: &Arc<Task>, path: &[u8]) -> Result<Location, Errno> {
    make(task, task.fs().cwd(), path, S_IFSOCK | 0o777, 0)
}

/// symlink(2).
pub fn symlink(task: &Arc<Task>, start: Location, path: &[u8], target: &[u8]) -> Result<(), Errno> {
    if target.is_empty() {
        return Err(ENOENT);
    }
    let mut walk = Walk::new(task);
    let (directory, last) = walk.parent(start, path)?;
    let (name, slash) = creation_name(last)?;
    let _change = directory.dentry.change.lock();
    let parent = may_create(walk.credentials(), &directory, &name)?;
    if slash {
        return Err(ENOENT);
    }
    let mut node = new_node(task, walk.credentials(), &parent, linux_abi::fs::S_IFLNK, 0);
    node.mode |= 0o777;
    let inode = directory.inode().symlink(&name, target, &node)?;
    enter(&directory, &name, inode);
    Ok(())
}

/// link(2), once `source` is resolved.
pub fn link(task: &Arc<Task>, source: &Location, start: Location, path: &[u8]) -> Result<(), Errno> {
    let mut walk = Walk::new(task);
    let (directory, last) = walk.parent(start, path)?;
    let (name, slash) = creation_name(last)?;
    let _change = directory.dentry.change.lock();
    may_create(walk.credentials(), &directory, &name)?;
    if slash {
        return Err(ENOENT);
    }
    if !Arc::ptr_eq(&source.mount, &directory.mount) {
        return Err(EXDEV);
    }
    let inode = source.inode();
    if is_directory(&**inode) {
        return Err(EPERM);
    }
    may_link(walk.credentials(), &inode.owner()?)?;
    directory.inode().link(&name, inode)?;
    enter(&directory, &name, inode.clone());
    notify::link_count_changed(&**inode);
    Ok(())
}

/// fs.protected_hardlinks (proc(5)): the owner's, or a regular file that is safe and accessible.
fn may_link(credentials: &Credentials, owner: &Owner) -> Result<(), Errno> {
    let unsafe_bits = owner.mode & S_ISUID != 0 || owner.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP;
    let safe = owner.mode & S_IFMT == S_IFREG && !unsafe_bits && permission::granted(credentials, owner, permission::READ | WRITE);
    if safe || credentials.fsuid == owner.uid || permission::capable(credentials, CAP_FOWNER) {
        Ok(())
    } else {
        Err(EPERM)
    }
}

/// unlink(2) and, with `directory`, rmdir(2).
pub fn remove(task: &Arc<Task>, start: Location, path: &[u8], want_directory: bool) -> Result<(), Errno> {
    let mut walk = Walk::new(task);
    let (directory, last) = walk.parent(start, path)?;
    let (name, slash) = match last {
        Last::Name { name, slash } => (name, slash),
        _ if !want_directory => return Err(EISDIR),
        Last::Dot => return Err(EINVAL),
        Last::DotDot => return Err(ENOTEMPTY),
        Last::Root => return Err(EBUSY),
    };
    let _change = directory.dentry.change.lock();
    let child = child_locked(&directory, &name)?.ok_or(ENOENT)?;
    writable_mount(&directory)?;
    permission::may_delete(walk.credentials(), &**directory.inode(), child.inode())?;
    let is_dir = is_directory(&**child.inode());
    if want_directory && !is_dir {
        return Err(ENOTDIR);
    }
    if !want_directory && slash {
        return Err(if is_dir { EISDIR } else { ENOTDIR });
    }
    if !want_directory && is_dir {
        return Err(EISDIR);
    }
    if child.mounts.load(core::sync::atomic::Ordering::Acquire) > 0 {
        return Err(EBUSY);
    }
    let _child_change = is_dir.then(|| child.change.lock());
    directory.inode().unlink(&name, child.inode())?;
    forget_removed(&directory, &name, &child);
    let last = is_dir || child.inode().is_gone();
    notify::deleted(&directory.dentry, &name, &**child.inode(), last);
    Ok(())
}

/// The cache after a name went away.
fn forget_removed(directory: &Location, name: &[u8], child: &Arc<Dentry>) {
    if directory.mount.caching().remembers() {
        directory.dentry.attach_absent(name);
    } else {
        directory.dentry.forget(name);
    }
    child.mark_dead();
}

/// Locks one directory, or two in an order that everybody keeps.
fn lock_both<'d>(a: &'d Arc<Dentry>, b: &'d Arc<Dentry>) -> (MutexGuard<'d, ()>, Option<MutexGuard<'d, ()>>) {
    if Arc::ptr_eq(a, b) {
        return (a.change.lock(), None);
    }
    let b_first = if a.is_below(b) {
        true
    } else if b.is_below(a) {
        false
    } else {
        Arc::as_ptr(b) < Arc::as_ptr(a)
    };
    let (first, second) = if b_first { (b, a) } else { (a, b) };
    let first = first.change.lock();
    (first, Some(second.change.lock()))
}

/// renameat2(2).
pub fn rename(task: &Arc<Task>, from: (Location, &[u8]), to: (Location, &[u8]), flags: u32) -> Result<(), Errno> {
    if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) != 0
        || flags & RENAME_EXCHANGE != 0 && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) != 0
    {
        return Err(EINVAL);
    }
    let mut walk = Walk::new(task);
    let (directory, last) = walk.parent(from.0, from.1)?;
    let (new_directory, new_last) = walk.parent(to.0, to.1)?;
    if !Arc::ptr_eq(&directory.mount, &new_directory.mount) {
        return Err(EXDEV);
    }
    let Last::Name { name, slash } = last else { return Err(EBUSY) };
    let Last::Name { name: new_name, slash: new_slash } = new_last else {
        return Err(if flags & RENAME_NOREPLACE != 0 { EEXIST } else { EBUSY });
    };
    let credentials = walk.credentials();
    let _rename = RENAME.lock();
    let _locks = lock_both(&directory.dentry, &new_directory.dentry);
    let child = child_locked(&directory, &name)?.ok_or(ENOENT)?;
    let target = child_locked(&new_directory, &new_name)?;
    if target.is_some() && flags & RENAME_NOREPLACE != 0 {
        return Err(EEXIST);
    }
    if target.is_none() && flags & RENAME_EXCHANGE != 0 {
        return Err(ENOENT);
    }
    let is_dir = is_directory(&**child.inode());
    let target_is_dir = target.as_ref().is_some_and(|target| is_directory(&**target.inode()));
    if !is_dir && (slash || new_slash && flags & RENAME_EXCHANGE == 0) {
        return Err(ENOTDIR);
    }
    // A directory does not move into itself, and nothing replaces a directory above it.
    if new_directory.dentry.is_below(&child) {
        return Err(EINVAL);
    }
    if target.as_ref().is_some_and(|target| directory.dentry.is_below(target)) {
        return Err(if flags & RENAME_EXCHANGE != 0 { EINVAL } else { ENOTEMPTY });
    }
    writable_mount(&directory)?;
    if new_directory.dentry.is_dead() {
        return Err(ENOENT);
    }
    if target.as_ref().is_some_and(|target| Arc::ptr_eq(target.inode(), child.inode())) {
        return Ok(());
    }
    permission::may_delete(credentials, &**directory.inode(), child.inode())?;
    match &target {
        Some(target) => permission::may_delete(credentials, &**new_directory.inode(), target.inode())?,
        None => permission::check(credentials, &**new_directory.inode(), WRITE | EXECUTE)?,
    }
    let changes_parent = !Arc::ptr_eq(&directory.dentry, &new_directory.dentry);
    if is_dir && changes_parent {
        // The moved directory's ".." is written.
        permission::check(credentials, &**child.inode(), WRITE)?;
    }
    if flags & RENAME_EXCHANGE == 0 {
        match &target {
            Some(_) if is_dir && !target_is_dir => return Err(ENOTDIR),
            Some(_) if !is_dir && target_is_dir => return Err(EISDIR),
            _ => {}
        }
    }
    let mounted = |dentry: &Arc<Dentry>| dentry.mounts.load(core::sync::atomic::Ordering::Acquire) > 0;
    if mounted(&child) || target.as_ref().is_some_and(mounted) {
        return Err(EBUSY);
    }
    directory.inode().rename(&Rename {
        child: child.inode(),
        name: &name,
        new_directory: new_directory.inode(),
        new_name: &new_name,
        replaced: target.as_ref().map(|target| target.inode()),
        flags: flags & !RENAME_NOREPLACE,
    })?;
    move_dentries(&directory, &name, &new_directory, &new_name, &child, target.as_ref(), flags);
    Ok(())
}

fn move_dentries(
    directory: &Location,
    name: &[u8],
    new_directory: &Location,
    new_name: &[u8],
    child: &Arc<Dentry>,
    target: Option<&Arc<Dentry>>,
    flags: u32,
) {
    notify::moved(&directory.dentry, name, &new_directory.dentry, new_name, &**child.inode());
    match target {
        Some(target) if flags & RENAME_EXCHANGE != 0 => {
            notify::moved(&new_directory.dentry, new_name, &directory.dentry, name, &**target.inode());
            child.exchange(target);
            return;
        }
        Some(target) => {
            target.mark_dead();
            let last = is_directory(&**target.inode()) || target.inode().is_gone();
            notify::replaced(&**target.inode(), last);
        }
        None => {}
    }
    child.moved(name, &new_directory.dentry, new_name);
    if !directory.mount.caching().remembers() || flags & RENAME_WHITEOUT != 0 {
        directory.dentry.forget(name);
    }
}

/// Attributes by a location: read-only mounts refuse, watchers hear of it.
pub fn set_attributes(location: &Location, attributes: &Attributes) -> Result<(), Errno> {
    writable_mount(location)?;
    location.inode().set_attributes(attributes)?;
    notify::attributes_changed(&location.dentry);
    Ok(())
}
