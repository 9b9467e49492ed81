//! File systems by the name that a mount gives them.

use super::dentry::Dentry;
use super::inode::{FileSystem, NewNode};
use super::mount::{Mount, NewMount};
use super::tmpfs::{Options, TmpFs};
use crate::errno::{Errno, ENODEV};
use abi::config::{ContainerSpec, MountSpec};
use alloc::string::String;
use alloc::sync::Arc;
use linux_abi::fs::{makedev, S_IFCHR, S_IFDIR};

/// A file system of this kind for the container. ENODEV: no such kind. `strict`: unknown options are an error.
pub fn make(kind: &str, spec: &MountSpec, container: &ContainerSpec, strict: bool) -> Result<Arc<dyn FileSystem>, Errno> {
    let options = || spec.options.iter().map(String::as_str);
    match kind {
        "tmpfs" | "ramfs" => Ok(TmpFs::new(&Options::parse(options(), strict)?)),
        "mqueue" => Ok(TmpFs::new(&Options::mqueue())),
        "devtmpfs" => devices(spec),
        "proc" => Ok(super::proc::mount(container)),
        "sysfs" => Ok(super::sysfs::mount()),
        "cgroup" => Ok(super::cgroup::mount(container)),
        "devpts" => Ok(super::devpts::mount(options())),
        _ => Err(ENODEV),
    }
}

/// mount(2): a new mount of a file system that lives in the guest. ENODEV: of no such kind.
pub fn mount(kind: &str, source: &str, options: &str, flags: u32) -> Result<Arc<Mount>, Errno> {
    // cgroup needs the container's configuration.
    if kind == "cgroup" {
        return Err(ENODEV);
    }
    let spec = MountSpec { options: options.split(',').map(String::from).collect(), ..MountSpec::default() };
    let fs = make(kind, &spec, &ContainerSpec::default(), true)?;
    let root = Dentry::root(fs.root());
    let new = NewMount { fs, root, flags, source: source.into(), fstype: kind.into() };
    Ok(Mount::new(new))
}

/// /dev: the nodes every container has (OCI runtime-spec, config-linux, "Default Devices").
fn devices(spec: &MountSpec) -> Result<Arc<dyn FileSystem>, Errno> {
    let mut options = Options::parse(spec.options.iter().map(alloc::string::String::as_str), false)?;
    if !spec.options.iter().any(|option| option.starts_with("mode=")) {
        options.mode = 0o755;
    }
    let fs = TmpFs::new(&options);
    let root = fs.root();
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        root.create(name.as_bytes(), &NewNode { mode: S_IFCHR | 0o666, uid: 0, gid: 0, rdev: makedev(1, minor) })?;
    }
    root.create(b"tty", &NewNode { mode: S_IFCHR | 0o666, uid: 0, gid: 5, rdev: makedev(5, 0) })?;
    let link = NewNode { mode: linux_abi::fs::S_IFLNK | 0o777, uid: 0, gid: 0, rdev: 0 };
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("core", "/proc/kcore"),
        ("ptmx", "pts/ptmx"),
    ] {
        root.symlink(name.as_bytes(), target.as_bytes(), &link)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        root.create(name.as_bytes(), &NewNode { mode: S_IFDIR | 0o755, uid: 0, gid: 0, rdev: 0 })?;
    }
    Ok(fs)
}
