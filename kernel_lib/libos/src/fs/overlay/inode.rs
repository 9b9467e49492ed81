//! An object of the overlay: its two sides, and which of them answers.

use super::{origin, Layers};
use crate::errno::{Errno, EIO, ENOENT, EXDEV};
use crate::fs::file::FileOps;
use crate::fs::inode::{Attributes, DirEntry, Inode, InodeState, NewNode, Owner, Rename, Stat, XattrMode};
use crate::fs::tmpfs::TmpInode;
use crate::sync::Mutex;
use abi::request::ATTR_SIZE;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use hal::sync::SpinLock;
use linux_abi::fs::{O_ACCMODE, S_IFDIR, S_IFREG};

/// Set in the numbers of objects that have no lower side.
const OWN_NUMBERS: u64 = 1 << 48;

pub struct OverlayInode {
    pub(super) layers: Arc<Layers>,
    pub(super) me: Weak<OverlayInode>,
    kind: u32,
    /// (device, number) that stat shows, the same before and after the copy.
    key: (u64, u64),
    table_key: (u64, u64),
    /// What lies below: of a directory, the one whose entries show through; of a file, what it is or was copied from.
    pub(super) lower: Option<Arc<dyn Inode>>,
    pub(super) upper: SpinLock<Option<Arc<TmpInode>>>,
    /// Where it is: what has to be copied up before it. None: the root, or a file without a name.
    pub(super) place: SpinLock<Option<(Arc<OverlayInode>, Arc<[u8]>)>>,
    pub(super) copying: Mutex<()>,
    state: InodeState,
}

pub(super) type Place = (Arc<OverlayInode>, Arc<[u8]>);

impl OverlayInode {
    /// The inode for a pair of sides.
    pub(super) fn of(
        layers: &Arc<Layers>,
        lower: Option<Arc<dyn Inode>>,
        upper: Option<Arc<TmpInode>>,
        place: Option<Place>,
    ) -> Result<Arc<Self>, Errno> {
        let from = match (&lower, &upper) {
            (Some(lower), _) => lower.stat()?,
            (None, Some(upper)) => Inode::stat(&**upper)?,
            (None, None) => return Err(EIO),
        };
        let kind = from.mode & linux_abi::fs::S_IFMT;
        // Directories are all on the overlay's device; numbers of the layer's own objects begin where no lower tree's reach.
        let key = match &lower {
            Some(_) if kind == S_IFDIR => (layers.device, from.ino),
            Some(_) => (from.dev, from.ino),
            None => (layers.device, from.ino | OWN_NUMBERS),
        };
        let table_key = (from.dev, from.ino);
        let known = layers.inodes.lock().get(&table_key).and_then(Weak::upgrade);
        if let Some(inode) = known {
            if place.is_some() {
                let old = core::mem::replace(&mut *inode.place.lock(), place);
                drop(old);
            }
            return Ok(inode);
        }
        let inode = Arc::new_cyclic(|me| Self {
            layers: layers.clone(),
            me: me.clone(),
            kind,
            key,
            table_key,
            lower,
            upper: SpinLock::new(upper),
            place: SpinLock::new(place),
            copying: Mutex::new(()),
            state: InodeState::default(),
        });
        layers.inodes.lock().insert(table_key, Arc::downgrade(&inode));
        Ok(inode)
    }

    pub(super) fn arc(&self) -> Result<Arc<Self>, Errno> {
        self.me.upgrade().ok_or(EIO)
    }

    pub(super) fn top(&self) -> Option<Arc<TmpInode>> {
        self.upper.lock().clone()
    }

    /// The side that answers.
    pub(super) fn side(&self) -> Result<Arc<dyn Inode>, Errno> {
        match self.top() {
            Some(upper) => Ok(upper),
            None => self.lower.clone().ok_or(EIO),
        }
    }

    /// The overlay's inode for an upper entry of this directory.
    pub(super) fn wrap_upper(&self, name: &[u8], upper: Arc<TmpInode>) -> Result<Arc<Self>, Errno> {
        Self::of(&self.layers, origin(&upper), Some(upper), Some((self.arc()?, name.into())))
    }

    pub(super) fn wrap_lower(&self, parent: &Arc<Self>, name: &[u8], lower: Arc<dyn Inode>) -> Result<Arc<Self>, Errno> {
        let upper = if lower.kind() == S_IFREG {
            let stat = lower.stat()?;
            self.layers.copied.lock().get(&(stat.dev, stat.ino)).cloned()
        } else {
            None
        };
        Self::of(&self.layers, Some(lower), upper, Some((parent.clone(), name.into())))
    }
}

impl Drop for OverlayInode {
    fn drop(&mut self) {
        {
            let mut inodes = self.layers.inodes.lock();
            if inodes.get(&self.table_key).is_some_and(|known| known.strong_count() == 0) {
                inodes.remove(&self.table_key);
            }
        }
        // A long chain of directories that only their children held must not recurse.
        let mut next = self.place.get_mut().take();
        while let Some((parent, _)) = next.take() {
            if let Some(parent) = Arc::into_inner(parent) {
                next = parent.place.lock().take();
            }
        }
    }
}

pub(super) fn overlay(inode: &Arc<dyn Inode>) -> Result<Arc<OverlayInode>, Errno> {
    inode.as_any().downcast_ref::<OverlayInode>().and_then(|inode| inode.me.upgrade()).ok_or(EXDEV)
}

impl Inode for OverlayInode {
    fn state(&self) -> &InodeState {
        &self.state
    }
    fn kind(&self) -> u32 {
        self.kind
    }
    fn stat(&self) -> Result<Stat, Errno> {
        let mut stat = self.side()?.stat()?;
        (stat.dev, stat.ino) = self.key;
        Ok(stat)
    }
    fn owner(&self) -> Result<Owner, Errno> {
        self.side()?.owner()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        self.find(name).map(|inode| inode as Arc<dyn Inode>)
    }
    fn lookup_path(&self, names: &[&[u8]]) -> (Vec<Arc<dyn Inode>>, Option<Errno>) {
        self.find_path(names)
    }
    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        self.make(name, node, None)
    }
    fn symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        self.make(name, node, Some(target))
    }
    fn link(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<(), Errno> {
        self.add_link(name, &overlay(inode)?)
    }
    fn unlink(&self, name: &[u8], child: &Arc<dyn Inode>) -> Result<(), Errno> {
        self.take_away(name, &overlay(child)?)
    }
    fn rename(&self, rename: &Rename<'_>) -> Result<(), Errno> {
        self.move_entry(rename)
    }
    fn temporary(&self, node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let upper = self.layers.upper.memory_file(node)?;
        upper.set_nameless();
        let inode = Self::of(&self.layers, None, Some(upper), None)?;
        Ok(inode)
    }
    fn list(&self, position: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<(), Errno> {
        for (entry, at) in self.merged()?.iter().zip(0u64..).skip(position as usize) {
            if !emit(&DirEntry { ino: entry.ino, next: at + 1, kind: entry.kind, name: &entry.name }) {
                break;
            }
        }
        Ok(())
    }
    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        self.side()?.read_link()
    }
    fn set_attributes(&self, attributes: &Attributes) -> Result<(), Errno> {
        let most = if attributes.mask & ATTR_SIZE != 0 { attributes.size } else { u64::MAX };
        self.copy_up(most)?.set_attributes(attributes)
    }
    fn open(self: Arc<Self>, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        if self.kind == S_IFDIR {
            return Ok(super::file::directory(self));
        }
        if flags & O_ACCMODE != 0 {
            self.copy_up(u64::MAX)?;
        }
        super::file::regular(self)
    }
    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.side()?.get_xattr(name)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno> {
        self.copy_up(u64::MAX)?.set_xattr(name, value, mode)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        // Nothing to copy up for when there is nothing to remove.
        self.get_xattr(name)?;
        self.copy_up(u64::MAX)?.remove_xattr(name)
    }
    fn list_xattr(&self) -> Result<Vec<u8>, Errno> {
        self.side()?.list_xattr()
    }
}

/// A lower directory's child, or nothing.
pub(super) fn below(lower: Option<&Arc<dyn Inode>>, name: &[u8]) -> Result<Option<Arc<dyn Inode>>, Errno> {
    match lower.map(|lower| lower.lookup(name)) {
        Some(Ok(inode)) => Ok(Some(inode)),
        Some(Err(ENOENT)) | None => Ok(None),
        Some(Err(errno)) => Err(errno),
    }
}
