//! The mount tree: mount(2), umount2(2), chroot(2), pivot_root(2), sync(2).

use super::paths::{lookup, path};
use super::{full, partial, refused, Call, Entry};
use crate::errno::{Errno, EBUSY, EINVAL, ENODEV, ENOENT, ENOTDIR, EPERM};
use crate::fs::inode::is_directory;
use crate::fs::mount::{self, Mount, TREE};
use crate::fs::{kinds, permission, Location};
use crate::SysResult;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_abi::capability::{CAP_SYS_ADMIN, CAP_SYS_CHROOT};
use linux_abi::fs::{
    AT_FDCWD, MNT_DETACH, MNT_EXPIRE, MNT_FORCE, MS_BIND, MS_MOVE, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_PRIVATE,
    MS_RDONLY, MS_REC, MS_RELATIME, MS_REMOUNT, MS_SHARED, MS_SLAVE, MS_STRICTATIME, MS_UNBINDABLE, UMOUNT_NOFOLLOW,
};

pub const CALLS: &[Entry] = &[
    full(155, "pivot_root", pivot_root),
    full(161, "chroot", chroot),
    full(162, "sync", sync),
    partial(165, "mount", mount_call, "tmpfs, proc, sysfs, devpts, mqueue and bind mounts only; propagation is recorded, not acted on"),
    partial(166, "umount2", umount2, "MNT_EXPIRE (EINVAL)"),
    full(306, "syncfs", syncfs),
    refused(167, "swapon", not_permitted, "swap"),
    refused(168, "swapoff", not_permitted, "swap"),
    refused(179, "quotactl", not_permitted, "quotas"),
];

fn not_permitted(_call: &mut Call<'_>) -> SysResult {
    Err(EPERM)
}

fn may_mount(call: &Call<'_>) -> Result<(), Errno> {
    if permission::capable(&call.task.credentials(), CAP_SYS_ADMIN) {
        Ok(())
    } else {
        Err(EPERM)
    }
}

/// mount(2)'s per-mount flags as ours.
fn mount_flags(flags: u64) -> u32 {
    let mut result = 0;
    for (bit, ours) in [
        (MS_RDONLY, mount::READONLY),
        (MS_NOSUID, mount::NOSUID),
        (MS_NODEV, mount::NODEV),
        (MS_NOEXEC, mount::NOEXEC),
        (MS_NOATIME, mount::NOATIME),
        (MS_NODIRATIME, mount::NODIRATIME),
    ] {
        if flags & bit != 0 {
            result |= ours;
        }
    }
    if flags & (MS_NOATIME | MS_STRICTATIME) == 0 || flags & MS_RELATIME != 0 {
        result |= mount::RELATIME;
    }
    result
}

fn text(address: u64) -> Result<String, Errno> {
    if address == 0 {
        return Ok(String::new());
    }
    String::from_utf8(path(address)?).map_err(|_| EINVAL)
}

fn mount_call(call: &mut Call<'_>) -> SysResult {
    const MS_MGC: u64 = 0xc0ed_0000;
    let mut flags = call.args[3];
    if flags & 0xffff_0000 == MS_MGC {
        flags &= 0xffff;
    }
    may_mount(call)?;
    let at = lookup(call, AT_FDCWD, 1, true)?;
    if flags & MS_REMOUNT != 0 {
        return remount(call, &at, flags);
    }
    if flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE) != 0 {
        return set_propagation(&at, flags);
    }
    if flags & MS_BIND != 0 {
        return bind(call, &at, flags);
    }
    if flags & MS_MOVE != 0 {
        return move_mount(call, &at);
    }
    let (source, kind) = (text(call.args[0])?, text(call.args[2])?);
    let options = text(call.args[4])?;
    let mounted = kinds::mount(&kind, &source, &options, mount_flags(flags)).map_err(|errno| {
        if errno == ENODEV && kind.is_empty() {
            EINVAL
        } else {
            errno
        }
    })?;
    attach(&mounted, &at)
}

fn attach(mounted: &Arc<Mount>, at: &Location) -> SysResult {
    if is_directory(&**mounted.root.inode()) != is_directory(&**at.inode()) {
        return Err(ENOTDIR);
    }
    let _tree = TREE.lock();
    if at.dentry.is_dead() {
        return Err(ENOENT);
    }
    mounted.attach(at);
    Ok(0)
}

fn is_mount_root(location: &Location) -> bool {
    Arc::ptr_eq(&location.dentry, &location.mount.root)
}

/// MS_BIND | MS_REMOUNT changes the mount's own flags; without MS_BIND the file system's options would follow, which tmpfs alone has.
fn remount(_call: &Call<'_>, at: &Location, flags: u64) -> SysResult {
    if !is_mount_root(at) {
        return Err(EINVAL);
    }
    at.mount.set_flags(mount_flags(flags));
    Ok(0)
}

fn set_propagation(at: &Location, flags: u64) -> SysResult {
    if !is_mount_root(at) {
        return Err(EINVAL);
    }
    let kind = flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE);
    if kind.count_ones() != 1 {
        return Err(EINVAL);
    }
    let mounts = if flags & MS_REC != 0 { at.mount.tree() } else { alloc::vec![at.mount.clone()] };
    for mount in mounts {
        mount.propagation.store((kind >> 17) as u32, core::sync::atomic::Ordering::Relaxed);
    }
    Ok(0)
}

fn bind(call: &Call<'_>, at: &Location, flags: u64) -> SysResult {
    let source = lookup(call, AT_FDCWD, 0, true)?;
    let copy = if flags & MS_REC != 0 {
        let _tree = TREE.lock();
        source.mount.copy_tree(source.dentry.clone(), &mut Vec::new())
    } else {
        source.mount.bind(source.dentry.clone(), source.mount.flags())
    };
    attach(&copy, at)
}

fn move_mount(call: &Call<'_>, at: &Location) -> SysResult {
    let source = lookup(call, AT_FDCWD, 0, true)?;
    if !is_mount_root(&source) || source.mount.mount_point().is_none() {
        return Err(EINVAL);
    }
    let _tree = TREE.lock();
    let mut above = Some(at.clone());
    while let Some(location) = above {
        if Arc::ptr_eq(&location.mount, &source.mount) {
            return Err(crate::errno::ELOOP);
        }
        above = location.mount.mount_point();
    }
    source.mount.detach();
    source.mount.attach(at);
    Ok(0)
}

fn umount2(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(1);
    if flags & !(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW) != 0 || flags & MNT_EXPIRE != 0 {
        return Err(EINVAL);
    }
    may_mount(call)?;
    let location = lookup(call, AT_FDCWD, 0, flags & UMOUNT_NOFOLLOW == 0)?;
    if !is_mount_root(&location) {
        return Err(EINVAL);
    }
    let Location { mount, dentry } = location;
    drop(dentry);
    let _tree = TREE.lock();
    mount.unmount(flags & MNT_DETACH != 0)?;
    Ok(0)
}

fn chroot(call: &mut Call<'_>) -> SysResult {
    let location = lookup(call, AT_FDCWD, 0, true)?;
    if !is_directory(&**location.inode()) {
        return Err(ENOTDIR);
    }
    let credentials = call.task.credentials();
    permission::check(&credentials, &**location.inode(), permission::EXECUTE)?;
    if !permission::capable(&credentials, CAP_SYS_CHROOT) {
        return Err(EPERM);
    }
    call.task.fs().set_root(location);
    Ok(0)
}

/// The new root becomes the namespace's root mount; the old one moves to `put_old`, which lies below the new.
fn pivot_root(call: &mut Call<'_>) -> SysResult {
    may_mount(call)?;
    let new = lookup(call, AT_FDCWD, 0, true)?;
    let put_old = lookup(call, AT_FDCWD, 1, true)?;
    if !is_directory(&**new.inode()) || !is_directory(&**put_old.inode()) {
        return Err(ENOTDIR);
    }
    let context = call.task.fs();
    let old = context.root();
    if !is_mount_root(&new) || !is_mount_root(&old) {
        return Err(EINVAL);
    }
    if Arc::ptr_eq(&new.mount, &old.mount) || Arc::ptr_eq(&put_old.mount, &old.mount) {
        return Err(EBUSY);
    }
    if put_old.path_from(&new).is_none() {
        return Err(EINVAL);
    }
    let _tree = TREE.lock();
    let above = old.mount.mount_point();
    new.mount.detach();
    old.mount.detach();
    if let Some(above) = above {
        new.mount.attach(&above);
    }
    old.mount.attach(&put_old);
    crate::fs::root_pivoted(call.task, &old, &new);
    Ok(0)
}

fn sync(call: &mut Call<'_>) -> SysResult {
    let root = mount::namespace_root(&call.task.fs().root().mount);
    for mount in root.tree() {
        // sync(2) cannot fail.
        let _ = mount.fs.sync();
    }
    Ok(0)
}

fn syncfs(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    match &file.location {
        Some(location) => location.mount.fs.sync().map(|()| 0),
        None => Ok(0),
    }
}
