//! An empty root, and /proc/self/fd as working directory.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount, FsMountFlags, FsOpenFlags, MountAttrFlags,
    MountPropagationFlags, MoveMountFlags, UnmountFlags,
};

use crate::error::{During, HostError, Kind};

const LOCKED: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
/// Any directory that every system has: the new root stands there for a moment.
const MOUNT_POINT: &str = "/proc";

fn open_directory(at: impl std::os::fd::AsFd, path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(at, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn new_mount(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Without a new root: the host's proc, if there is one.
pub fn enter_descriptor_directory() -> bool {
    open_directory(CWD, "/proc/self/fd").is_ok_and(|fd| rustix::process::fchdir(fd).is_ok())
}

/// In a mount namespace of our own: exchanges the root for an empty file system that cannot be written. Everything that was mounted is gone
/// but for what descriptors refer to. True: the working directory is /proc/self/fd.
pub fn leave() -> Result<bool, HostError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).during(Kind::Jail, "cannot make mounts private")?;
    let descriptors = descriptor_directory();
    let root = new_mount("tmpfs", &[("size", "4096"), ("mode", "0555")], LOCKED | MountAttrFlags::MOUNT_ATTR_RDONLY)
        .during(Kind::Jail, "tmpfs")?;
    move_mount(&root, "", CWD, MOUNT_POINT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).during(Kind::Jail, "cannot mount an empty root")?;
    rustix::process::fchdir(&root).during(Kind::Jail, "fchdir")?;
    // The old root is stacked on the new one, and taken off.
    match rustix::process::pivot_root(".", ".") {
        Ok(()) => unmount(".", UnmountFlags::DETACH).during(Kind::Jail, "cannot unmount the old root")?,
        // The initial RAM file system cannot be exchanged: the new root covers it.
        Err(Errno::INVAL) => {
            rustix::mount::mount_move(".", "/").during(Kind::Jail, "cannot cover the root")?;
            rustix::process::chroot(".").during(Kind::Jail, "chroot")?;
        }
        Err(error) => return Err(error).during(Kind::Jail, "pivot_root"),
    }
    rustix::process::chdir("/").during(Kind::Jail, "chdir")?;
    Ok(descriptors.is_some_and(|fd| rustix::process::fchdir(fd).is_ok()))
}

/// A proc of our own that shows this process only; where that may not be mounted (a container that masks parts of proc), the existing one.
fn descriptor_directory() -> Option<OwnedFd> {
    let fresh = new_mount("proc", &[("subset", "pid"), ("hidepid", "invisible")], LOCKED);
    let own = fresh.and_then(|proc| open_directory(proc, "self/fd"));
    own.or_else(|_| open_directory(CWD, "/proc/self/fd")).ok()
}
