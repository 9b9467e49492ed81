//! Two roots. The process's first thread has the container's file system, as any other runtime's container process would show it: tools of
//! the host enter /proc/PID/ns/mnt or look below /proc/PID/root (`podman cp`, `nerdctl cp`, `nsenter -m`). That thread only waits. All
//! others have an empty file system that cannot be written ([`Cell`]), and /proc/self/fd as working directory.
//!
//! A tree below which the container mounts others is served as a copy, mounted nowhere: what is mounted over a directory is not seen below
//! it, as the library OS expects. The rest are served where they are mounted: what the host mounts below a volume later reaches them only
//! there (mount propagation).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{openat2, statx, AtFlags, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree, unmount, FsMountFlags, FsOpenFlags,
    MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::Tree;
use crate::error::{During, HostError, Kind};
use abi::config::MountSpec;

const LOCKED: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// Any directory that every system has: the new root stands there for a moment.
const MOUNT_POINT: &str = "/proc";

/// What all threads but the first are locked into.
#[derive(Debug)]
pub struct Cell {
    root: OwnedFd,
    /// /proc/self/fd.
    descriptors: Option<OwnedFd>,
}

impl Cell {
    pub fn has_proc(&self) -> bool {
        self.descriptors.is_some()
    }

    /// In a mount namespace of our own: exchanges the root for the container's. Of the host's mounts nothing is left but what descriptors
    /// refer to; `trees` may refer to copies from now on.
    pub fn exchange(&self, mounts: &[MountSpec], trees: &mut [Tree]) -> Result<(), HostError> {
        let tree = mounts.first().and_then(|root| trees.iter_mut().find(|tree| tree.handle == root.handle));
        // A plain directory is served, but cannot be the root of a namespace.
        let Some(tree) = tree.filter(|tree| is_mount(&tree.fd)) else { return pivot(&self.root) };
        pivot(&tree.fd)?;
        let root = detach_copy(tree)?;
        let mut stand_ins = Vec::new();
        for mount in mounts.iter().skip(1) {
            let tree = trees.iter_mut().find(|tree| mount.handle != 0 && tree.handle == mount.handle);
            let shown = match tree {
                Some(tree) => show(&root, mount, tree, mounts.iter().any(|other| is_below(&other.destination, &mount.destination))),
                None => stand_in(&root, mount).map(|fd| stand_ins.extend(fd)),
            };
            if let Err(error) = shown {
                // The guest says so if it matters: it mounts the same.
                crate::log::debug(&format!("jail: {} is not shown to the host: {error}", mount.destination));
            }
        }
        for fd in stand_ins {
            super::namespaces::make_read_only(&fd).during(Kind::Jail, "mount_setattr")?;
        }
        Ok(())
    }

    /// Takes CAP_SYS_CHROOT.
    pub fn enter(&self) -> Result<(), HostError> {
        super::namespaces::own_root_and_directory()?;
        rustix::process::fchdir(&self.root).during(Kind::Jail, "fchdir")?;
        rustix::process::chroot(".").during(Kind::Jail, "chroot")?;
        self.descriptors.as_ref().map_or(Ok(()), rustix::process::fchdir).during(Kind::Jail, "cannot enter /proc/self/fd")
    }
}

fn open_directory(at: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
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

/// A directory of the host's proc about the process's network namespace. Seen by its descriptor, it stays that whatever the root becomes.
pub fn open_host(path: &str) -> Option<OwnedFd> {
    open_directory(CWD, path).ok()
}

/// In a mount namespace of our own, which keeps the host's root for now.
pub fn prepare() -> Result<Cell, HostError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).during(Kind::Jail, "cannot make mounts private")?;
    let descriptors = descriptor_directory();
    let root = new_mount("tmpfs", &[("size", "4096"), ("mode", "0555")], LOCKED | MountAttrFlags::MOUNT_ATTR_RDONLY)
        .during(Kind::Jail, "tmpfs")?;
    Ok(Cell { root, descriptors })
}

fn is_mount(tree: &OwnedFd) -> bool {
    statx(tree, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE).is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn pivot(root: &OwnedFd) -> Result<(), HostError> {
    move_mount(root, "", CWD, MOUNT_POINT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).during(Kind::Jail, "cannot mount the root")?;
    rustix::process::fchdir(root).during(Kind::Jail, "fchdir")?;
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
    rustix::process::chdir("/").during(Kind::Jail, "chdir")
}

/// Leaves a mounted tree to the host, and takes a copy of it to serve. Returns the mounted one.
fn detach_copy(tree: &mut Tree) -> Result<OwnedFd, HostError> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    let copy = match open_tree(&tree.fd, "", flags) {
        // One that must not be copied (rootfsPropagation: unbindable).
        Err(Errno::INVAL) => tree.fd.try_clone().during(Kind::Jail, "dup")?,
        other => other.during(Kind::Jail, "open_tree")?,
    };
    Ok(std::mem::replace(&mut tree.fd, copy))
}

fn is_below(destination: &str, other: &str) -> bool {
    destination.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
}

fn show(root: &OwnedFd, mount: &MountSpec, tree: &mut Tree, has_mounts: bool) -> Result<(), HostError> {
    let name = mount.destination.trim_start_matches('/');
    let target = find(root, name).or_else(|error| match error {
        Errno::NOENT => make_mount_point(root, name, mount.is_file).and_then(|()| find(root, name)),
        other => Err(other),
    });
    attach(&tree.fd, &target.during(Kind::Jail, "no mount point")?).during(Kind::Jail, "move_mount")?;
    if has_mounts {
        detach_copy(tree)?;
    }
    Ok(())
}

/// Where the guest has a file system in its own memory, the host finds an empty one. Read-only, once the mount points in it are made:
/// what is copied there is refused rather than lost. None: below another one, which says as much.
fn stand_in(root: &OwnedFd, mount: &MountSpec) -> Result<Option<OwnedFd>, HostError> {
    let target = match find(root, mount.destination.trim_start_matches('/')) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.during(Kind::Jail, "no mount point")?,
    };
    let fd = new_mount("tmpfs", &[("mode", "0755")], LOCKED).during(Kind::Jail, "tmpfs")?;
    attach(&fd, &target).during(Kind::Jail, "move_mount")?;
    Ok(Some(fd))
}

fn attach(tree: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    move_mount(tree, "", target, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

fn find(root: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    openat2(root, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), IN_ROOT)
}

/// The runtime has made those in the bundle's trees; this is for those in a stand-in.
fn make_mount_point(root: &OwnedFd, name: &str, is_file: bool) -> Result<(), Errno> {
    let mut directory = find(root, ".")?;
    let parts: Vec<&str> = name.split('/').collect();
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        let made = if last && is_file {
            rustix::fs::openat(&directory, *part, OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)).map(drop)
        } else {
            rustix::fs::mkdirat(&directory, *part, Mode::from_raw_mode(0o755))
        };
        made.or_else(|error| if error == Errno::EXIST { Ok(()) } else { Err(error) })?;
        if !last {
            directory = find(root, &parts.get(..=index).unwrap_or_default().join("/"))?;
        }
    }
    Ok(())
}

/// A proc of our own that shows this process only; where that may not be mounted (a container that masks parts of proc), the existing one.
fn descriptor_directory() -> Option<OwnedFd> {
    let fresh = new_mount("proc", &[("subset", "pid"), ("hidepid", "invisible")], LOCKED);
    let own = fresh.and_then(|proc| open_directory(proc, "self/fd"));
    own.or_else(|_| open_directory(CWD, "/proc/self/fd")).ok()
}
