//! The mount tree: file systems (or parts of one) put over directories, each mount with flags of its own.
//!
//! A mount namespace is the tree below one root mount. `parent` and `children` change under the global `TREE` lock only.

use super::dentry::Dentry;
use super::inode::{Caching, FileSystem};
use super::Location;
use crate::errno::{Errno, EBUSY, EINVAL};
use crate::sync::Mutex;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use hal::sync::SpinLock;

pub const READONLY: u32 = 1;
pub const NOSUID: u32 = 2;
pub const NODEV: u32 = 4;
pub const NOEXEC: u32 = 8;
pub const NOATIME: u32 = 16;
pub const RELATIME: u32 = 32;
pub const NODIRATIME: u32 = 64;

pub struct Mount {
    pub id: u32,
    pub fs: Arc<dyn FileSystem>,
    pub root: Arc<Dentry>,
    flags: AtomicU32,
    /// Two columns of /proc/mounts.
    pub source: String,
    pub fstype: String,
    parent: SpinLock<Option<(Arc<Mount>, Arc<Dentry>)>>,
    children: SpinLock<Vec<(Arc<Dentry>, Arc<Mount>)>>,
    /// Propagation type as mount(2) sets it: shown, but there is only one peer in each group.
    pub propagation: AtomicU32,
    caching: Caching,
}

impl core::fmt::Debug for Mount {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Mount({})", self.id)
    }
}

static NEXT_ID: AtomicU32 = AtomicU32::new(21);
/// Serialises mount, umount, move and pivot_root.
pub static TREE: Mutex<()> = Mutex::new(());

/// What a new mount is made of.
pub struct NewMount {
    pub fs: Arc<dyn FileSystem>,
    pub root: Arc<Dentry>,
    pub flags: u32,
    pub source: String,
    pub fstype: String,
}

impl Mount {
    /// A mount that is attached nowhere yet.
    pub fn new(new: NewMount) -> Arc<Self> {
        let caching = new.fs.caching();
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            fs: new.fs,
            root: new.root,
            flags: AtomicU32::new(new.flags),
            source: new.source,
            fstype: new.fstype,
            parent: SpinLock::new(None),
            children: SpinLock::new(Vec::new()),
            propagation: AtomicU32::new(0),
            caching,
        })
    }

    /// Another mount of the same file system, showing what lies below `root` (bind mount).
    pub fn bind(&self, root: Arc<Dentry>, flags: u32) -> Arc<Self> {
        Self::new(NewMount { fs: self.fs.clone(), root, flags, source: self.source.clone(), fstype: self.fstype.clone() })
    }

    #[inline]
    pub fn caching(&self) -> Caching {
        self.caching
    }

    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    pub fn set_flags(&self, flags: u32) {
        self.flags.store(flags, Ordering::Relaxed);
    }

    pub fn readonly(&self) -> bool {
        self.flags() & READONLY != 0
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> Option<Location> {
        self.parent.lock().as_ref().map(|(mount, dentry)| Location { mount: mount.clone(), dentry: dentry.clone() })
    }

    /// The mount that covers a directory of this one.
    pub fn covering(&self, dentry: &Arc<Dentry>) -> Option<Arc<Mount>> {
        if dentry.mounts.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let children = self.children.lock();
        children.iter().rev().find(|(point, _)| Arc::ptr_eq(point, dentry)).map(|(_, mount)| mount.clone())
    }

    pub fn child_mounts(&self) -> Vec<Arc<Mount>> {
        self.children.lock().iter().map(|(_, mount)| mount.clone()).collect()
    }

    /// Puts this mount over `at`. The caller holds [`TREE`].
    pub fn attach(self: &Arc<Self>, at: &Location) {
        at.dentry.mounts.fetch_add(1, Ordering::AcqRel);
        let old = self.parent.lock().replace((at.mount.clone(), at.dentry.clone()));
        drop(old);
        at.mount.children.lock().push((at.dentry.clone(), self.clone()));
    }

    /// Takes this mount from where it is. The caller holds [`TREE`].
    pub fn detach(self: &Arc<Self>) {
        let Some((parent, dentry)) = self.parent.lock().take() else { return };
        let mut children = parent.children.lock();
        let index = children.iter().position(|(_, mount)| Arc::ptr_eq(mount, self));
        let removed = index.map(|index| children.remove(index));
        drop(children);
        if removed.is_some() {
            dentry.mounts.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// umount2(2): EBUSY while others are mounted on it or files of it are in use, unless `lazy`. The caller holds [`TREE`].
    pub fn unmount(self: &Arc<Self>, lazy: bool) -> Result<(), Errno> {
        if self.parent.lock().is_none() {
            return Err(EINVAL);
        }
        if lazy {
            for child in self.child_mounts() {
                child.unmount(true)?;
            }
        } else if !self.children.lock().is_empty() || Arc::strong_count(self) > 3 {
            // The parent's list, the caller's location, and the caller's own reference: more is a user.
            return Err(EBUSY);
        }
        self.detach();
        Ok(())
    }

    /// A copy of the tree below this mount (unshare(CLONE_NEWNS), recursive bind). `pairs` gets (old, new) of each.
    pub fn copy_tree(self: &Arc<Self>, root: Arc<Dentry>, pairs: &mut Vec<(Arc<Mount>, Arc<Mount>)>) -> Arc<Mount> {
        let copy = self.bind(root.clone(), self.flags());
        pairs.push((self.clone(), copy.clone()));
        let children: Vec<_> = self.children.lock().clone();
        for (point, child) in children {
            if point.is_below(&root) {
                let child = child.copy_tree(child.root.clone(), pairs);
                child.attach(&Location { mount: copy.clone(), dentry: point });
            }
        }
        copy
    }

    /// Every mount of the tree, parents first, in mount order.
    pub fn tree(self: &Arc<Self>) -> Vec<Arc<Mount>> {
        let mut all = alloc::vec![self.clone()];
        let mut next = 0;
        while next < all.len() {
            let children = all[next].child_mounts();
            all.extend(children);
            next += 1;
        }
        all.sort_by_key(|mount| mount.id);
        all
    }

    /// The flags as /proc/mounts shows them.
    pub fn option_text(&self) -> String {
        let flags = self.flags();
        let mut text = String::from(if flags & READONLY != 0 { "ro" } else { "rw" });
        for (bit, name) in [
            (NOSUID, "nosuid"),
            (NODEV, "nodev"),
            (NOEXEC, "noexec"),
            (NOATIME, "noatime"),
            (NODIRATIME, "nodiratime"),
            (RELATIME, "relatime"),
        ] {
            if flags & bit != 0 {
                text.push(',');
                text.push_str(name);
            }
        }
        text
    }
}

/// The root of the mount tree that a location belongs to.
pub fn namespace_root(mount: &Arc<Mount>) -> Arc<Mount> {
    let mut at = mount.clone();
    while let Some(point) = at.mount_point() {
        at = point.mount;
    }
    at
}
