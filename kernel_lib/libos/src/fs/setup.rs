//! The container's mount tree at boot, from its configuration; and its standard streams.

use super::dentry::Dentry;
use super::host::HostTree;
use super::inode::{is_directory, FileSystem, Inode, NewNode};
use super::mount::{Mount, NewMount, NOATIME, NODEV, NOEXEC, NOSUID, READONLY, RELATIME, TREE};
use super::overlay::OverlayFs;
use super::path::{child_locked, look_ahead};
use super::tmpfs::{Options, TmpFs};
use super::{FsContext, Location, OpenFile};
use crate::errno::{Errno, EEXIST, EINVAL, ELOOP, ENODEV, ENOENT, ENOTDIR};
use crate::process::search_path;
use abi::config::{ContainerSpec, DeviceSpec, MountSpec};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_abi::fs::{makedev, NAME_MAX, O_RDWR, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG};

/// What could not be set up, for the container's log.
#[derive(Debug)]
pub struct Failure {
    pub what: String,
    pub errno: Errno,
}

fn failed<T>(result: Result<T, Errno>, what: impl FnOnce() -> String) -> Result<T, Failure> {
    result.map_err(|errno| Failure { what: what(), errno })
}

/// The mount tree of the container; root and current directory are its "/".
pub fn init(spec: &ContainerSpec) -> Result<Arc<FsContext>, Failure> {
    super::cgroup::configure(spec);
    super::host::init_windows(hal::cpu::dax_end());
    super::dentry::set_key(crate::process::random::word());
    super::dentry::set_limit((hal::cpu::memory_limits().0 >> 16).clamp(2048, 65536) as usize);
    let first = spec.mounts.first().filter(|mount| mount.destination == "/");
    let root_spec = first.ok_or(Failure { what: String::from("the first mount is not /"), errno: EINVAL })?;
    let root = failed(make(root_spec, spec), || String::from("mount /"))?;
    let context = FsContext::new(Location { dentry: root.root.clone(), mount: root });
    expect_names(&context.root(), spec);
    for mount in &spec.mounts[1..] {
        failed(add(&context, mount, spec), || format!("mount {}", mount.destination))?;
    }
    for device in &spec.devices {
        failed(add_device(&context, device), || format!("device {}", device.path))?;
    }
    for path in &spec.readonly_paths {
        if let Ok(location) = resolve(&context, path.as_bytes()) {
            cover(&location, location.mount.bind(location.dentry.clone(), location.mount.flags() | READONLY));
        }
    }
    for path in &spec.masked_paths {
        failed(mask(&context, path), || format!("mask {path}"))?;
    }
    context.set_umask(spec.process.umask.unwrap_or(0o022));
    Ok(context)
}

/// What lies in "/" and is looked up by every start: mount points, and where the program may be.
fn expect_names(root: &Location, spec: &ContainerSpec) {
    let mounts = spec.mounts.iter().map(|mount| mount.destination.as_str());
    let mut names: Vec<Vec<u8>> = Vec::new();
    for path in mounts.chain([spec.process.cwd.as_str()]).chain(search_path(&spec.process).split(':')) {
        let name = path.strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or_default();
        if !matches!(name, "" | "." | "..") && name.len() <= NAME_MAX && names.iter().all(|known| known != name.as_bytes()) {
            names.push(name.as_bytes().to_vec());
        }
    }
    look_ahead(root, names);
}

/// An open file over one of the VMM's streams for a process that is started with it; `u32::MAX`: /dev/null.
pub fn stdio(handle: u32, process: u32) -> Result<Arc<OpenFile>, Errno> {
    if handle == u32::MAX {
        return Ok(OpenFile::new(super::device::null(), O_RDWR));
    }
    super::stream::open(handle, Some(process))
}

/// A new mount of what the configuration says, attached nowhere.
fn make(spec: &MountSpec, container: &ContainerSpec) -> Result<Arc<Mount>, Errno> {
    let fs: Arc<dyn FileSystem> = match spec.kind.as_str() {
        "host" => HostTree::mount(spec.handle, spec.exclusive, &spec.origin)?,
        "overlay" => OverlayFs::mount(spec.handle, &Options::parse(spec.options.iter().map(String::as_str), false)?)?,
        kind => super::kinds::make(kind, spec, container, false)?,
    };
    let bit = |on: bool, bit: u32| if on { bit } else { 0 };
    let flags = bit(spec.readonly, READONLY)
        | bit(spec.nosuid, NOSUID)
        | bit(spec.nodev, NODEV)
        | bit(spec.noexec, NOEXEC)
        | if spec.noatime { NOATIME } else { RELATIME };
    let root = Dentry::root(fs.root());
    Ok(Mount::new(NewMount { fs, root, flags, source: spec.source.clone(), fstype: spec.fstype.clone() }))
}

fn add(context: &FsContext, spec: &MountSpec, container: &ContainerSpec) -> Result<(), Errno> {
    let mount = make(spec, container)?;
    let wants_directory = is_directory(&**mount.root.inode());
    let at = mount_point(context, spec.destination.as_bytes(), wants_directory)?;
    cover(&at, mount);
    Ok(())
}

fn cover(at: &Location, mount: Arc<Mount>) {
    let _tree = TREE.lock();
    mount.attach(at);
}

/// Resolves as root from the container's "/", before there is any task. Symbolic links are followed.
pub fn resolve(context: &FsContext, path: &[u8]) -> Result<Location, Errno> {
    walk(context, path, |_, _| Err(ENOENT))
}

/// Where a mount goes; what is missing on the way is made.
fn mount_point(context: &FsContext, path: &[u8], directory: bool) -> Result<Location, Errno> {
    walk(context, path, |parent, last| {
        let kind = if last && !directory { S_IFREG | 0o644 } else { S_IFDIR | 0o755 };
        let node = NewNode { mode: kind, uid: 0, gid: 0, rdev: 0 };
        Ok(node).map(|node| (node, parent.mount.readonly()))
    })
}

/// The walk of both: `missing` says what to make of a name that is not there, and whether only the cache may know of it.
fn walk(context: &FsContext, path: &[u8], missing: impl Fn(&Location, bool) -> Result<(NewNode, bool), Errno>) -> Result<Location, Errno> {
    let root = context.root();
    let mut at = root.clone();
    let mut rest: Vec<Vec<u8>> = split(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == b".." {
            at = step_up(&at, &root);
            continue;
        }
        if !is_directory(&**at.inode()) {
            return Err(ENOTDIR);
        }
        let child = {
            let _change = at.dentry.change.lock();
            match child_locked(&at, &name)? {
                Some(child) => child,
                None => {
                    let (node, only_cached) = missing(&at, rest.is_empty())?;
                    create(&at, &name, &node, only_cached)?
                }
            }
        };
        if child.inode().kind() == S_IFLNK {
            links += 1;
            if links > linux_abi::fs::MAX_SYMLINKS {
                return Err(ELOOP);
            }
            let target = child.inode().read_link()?;
            if target.first() == Some(&b'/') {
                at = root.clone();
            }
            rest.extend(split(&target));
            continue;
        }
        at.dentry = child;
        at.cross_down();
    }
    Ok(at)
}

/// The path's names, the first last.
fn split(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|&b| b == b'/').filter(|name| !name.is_empty() && *name != b".");
    let mut names: Vec<_> = names.map(<[u8]>::to_vec).collect();
    names.reverse();
    names
}

fn step_up(at: &Location, root: &Location) -> Location {
    let mut at = at.clone();
    while !at.same(root) && Arc::ptr_eq(&at.dentry, &at.mount.root) {
        match at.mount.mount_point() {
            Some(point) => at = point,
            None => return at,
        }
    }
    if !at.same(root) {
        if let Some(parent) = at.dentry.parent() {
            at.dentry = parent;
        }
    }
    at
}

/// Makes a mount point. On a file system that cannot be written it exists in the cache alone.
fn create(at: &Location, name: &[u8], node: &NewNode, only_cached: bool) -> Result<Arc<Dentry>, Errno> {
    if !only_cached {
        if let Ok(inode) = at.inode().create(name, node) {
            return Ok(at.dentry.attach(name, inode));
        }
    }
    let dentry = at.dentry.attach(name, super::tmpfs::TmpFs::stand_in(node)?);
    dentry.stand_in();
    Ok(dentry)
}

/// runc's masks: nothing to read in a file, an empty read-only directory.
fn mask(context: &FsContext, path: &str) -> Result<(), Errno> {
    let location = match resolve(context, path.as_bytes()) {
        Ok(location) => location,
        Err(ENOENT | ENOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let options = Options { size: 0, mode: 0o755, ..Options::default() };
    let fs = TmpFs::new(&options);
    let is_dir = is_directory(&**location.inode());
    let root: Arc<dyn Inode> = if is_dir {
        fs.root()
    } else {
        let node = NewNode { mode: S_IFCHR | 0o666, uid: 0, gid: 0, rdev: makedev(1, 3) };
        fs.root().create(b"null", &node)?
    };
    let flags = if is_dir { READONLY | RELATIME } else { RELATIME };
    let new = NewMount { fs, root: Dentry::root(root), flags, source: "tmpfs".into(), fstype: "tmpfs".into() };
    cover(&location, Mount::new(new));
    Ok(())
}

fn add_device(context: &FsContext, device: &DeviceSpec) -> Result<(), Errno> {
    let kind = match device.kind.as_str() {
        "c" | "u" => S_IFCHR,
        "b" => S_IFBLK,
        "p" => S_IFIFO,
        _ => return Err(ENODEV),
    };
    let node = NewNode { mode: kind | device.mode & 0o7777, uid: device.uid, gid: device.gid, rdev: makedev(device.major, device.minor) };
    let found = walk(context, device.path.as_bytes(), |parent, last| {
        let directory = NewNode { mode: S_IFDIR | 0o755, uid: 0, gid: 0, rdev: 0 };
        Ok((if last { node } else { directory }, parent.mount.readonly()))
    })?;
    // runtime-spec: "If a file already exists at path that does not match the requested device, the runtime MUST generate an error."
    let stat = found.inode().stat()?;
    if stat.mode & S_IFMT != kind || kind != S_IFIFO && stat.rdev != node.rdev {
        return Err(EEXIST);
    }
    Ok(())
}
