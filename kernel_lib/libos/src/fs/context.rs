//! Where names are resolved from.

use super::dentry::Dentry;
use super::inode::Inode;
use super::mount::Mount;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use hal::sync::SpinLock;
use linux_abi::fs::S_IFDIR;

/// A place in the mount tree: (mount, directory entry). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Location {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
}

impl Location {
    #[inline]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode()
    }

    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }

    /// Whether the mount forbids changes here. What the host has mounted below a volume is another file system with flags of its own, which
    /// the host enforces. Directories tell which one it is: an overlay's files have the devices of its layers.
    pub fn readonly(&self) -> bool {
        if !self.mount.readonly() {
            return false;
        }
        let directory = if self.inode().kind() == S_IFDIR { Some(self.dentry.clone()) } else { self.dentry.parent() };
        let device = |dentry: &Dentry| dentry.inode().stat().ok().map(|stat| stat.dev);
        let is_root = Arc::ptr_eq(&self.dentry, &self.mount.root);
        is_root || directory.is_none_or(|directory| device(&directory) == device(&self.mount.root))
    }

    /// The top of the mounts stacked on this place.
    pub fn cross_down(&mut self) {
        while let Some(mount) = self.mount.covering(&self.dentry) {
            self.dentry = mount.root.clone();
            self.mount = mount;
        }
    }

    /// The path as seen from `root`. None: it is not below `root` (or its mount was taken away).
    pub fn path_from(&self, root: &Location) -> Option<Vec<u8>> {
        let mut parts: Vec<Arc<[u8]>> = Vec::new();
        let mut at = self.clone();
        while !at.same(root) {
            if Arc::ptr_eq(&at.dentry, &at.mount.root) {
                at = at.mount.mount_point()?;
                continue;
            }
            let (parent, name) = at.dentry.position();
            parts.push(name);
            at.dentry = parent?;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }

    /// As d_path of Linux: " (deleted)" behind names that are gone, "(unreachable)" before what lies outside of `root`.
    pub fn display_path(&self, root: &Location) -> Vec<u8> {
        let mut path = self.path_from(root).unwrap_or_else(|| {
            let mut path = Vec::from(if self.dentry.parent().is_none() && self.dentry.is_dead() { &b""[..] } else { b"(unreachable)" });
            path.extend_from_slice(&self.path_in_mount());
            path
        });
        if self.dentry.is_dead() {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }

    /// The path from the root of the file system itself.
    pub fn path_in_file_system(&self) -> Vec<u8> {
        let path = self.path_in_mount();
        if path.is_empty() {
            b"/".to_vec()
        } else {
            path
        }
    }

    fn path_in_mount(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut at = Some(self.dentry.clone());
        while let Some(dentry) = at {
            let (parent, name) = dentry.position();
            if parent.is_some() || dentry.is_dead() {
                parts.push(name);
            }
            at = parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        path
    }
}

/// Root directory, current directory and umask of a task (CLONE_FS). Owned by the file-system family.
pub struct FsContext {
    places: SpinLock<(Location, Location)>,
    umask: AtomicU32,
}

impl FsContext {
    /// Root and current directory at `root`.
    pub fn new(root: Location) -> Arc<Self> {
        Arc::new(Self { places: SpinLock::new((root.clone(), root)), umask: AtomicU32::new(0o022) })
    }

    /// A copy for fork(2).
    pub fn duplicate(&self) -> Arc<Self> {
        let places = self.places.lock().clone();
        Arc::new(Self { places: SpinLock::new(places), umask: AtomicU32::new(self.umask()) })
    }

    pub fn root(&self) -> Location {
        self.places.lock().0.clone()
    }

    pub fn cwd(&self) -> Location {
        self.places.lock().1.clone()
    }

    pub fn set_root(&self, root: Location) {
        let old = core::mem::replace(&mut self.places.lock().0, root);
        drop(old);
    }

    pub fn set_cwd(&self, cwd: Location) {
        let old = core::mem::replace(&mut self.places.lock().1, cwd);
        drop(old);
    }

    /// pivot_root(2): what was at the old root is at the new one.
    pub fn pivot(&self, old: &Location, new: &Location) {
        if self.root().same(old) {
            self.set_root(new.clone());
        }
        if self.cwd().same(old) {
            self.set_cwd(new.clone());
        }
    }

    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// The mask before.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}
