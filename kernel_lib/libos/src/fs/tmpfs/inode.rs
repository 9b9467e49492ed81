//! An object of tmpfs: attributes under one spin lock, contents by kind.

use super::directory::Names;
use super::Super;
use crate::errno::{Errno, EFBIG, EINVAL, ENOENT, ENOTDIR, EXDEV};
use crate::fs::file::FileOps;
use crate::fs::inode::{now, Attributes, DirEntry, Inode, InodeState, NewNode, Owner, Rename, Stat, XattrMode};
use crate::mm::shmem::SharedMemory;
use abi::request::{ATTR_ATIME, ATTR_ATIME_NOW, ATTR_GID, ATTR_MODE, ATTR_MTIME, ATTR_MTIME_NOW, ATTR_SIZE, ATTR_UID};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use hal::sync::SpinLock;
use linux_abi::fs::{RENAME_EXCHANGE, RENAME_WHITEOUT, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};

pub(super) enum Content {
    Regular(Arc<SharedMemory>),
    Directory(SpinLock<Names>),
    Link(Arc<[u8]>),
    Node,
}

pub struct TmpInode {
    pub(super) shared: Arc<Super>,
    pub(super) me: Weak<TmpInode>,
    kind: u32,
    pub(super) attributes: SpinLock<Stat>,
    pub(super) content: Content,
    pub(super) state: InodeState,
    pub(super) xattrs: SpinLock<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Serialises appending writes and truncation.
    pub(super) appending: crate::sync::Mutex<()>,
}

impl TmpInode {
    pub(super) fn make_root(shared: &Arc<Super>, node: &NewNode) -> Arc<Self> {
        let number = shared.take_inode().unwrap_or(1);
        Self::build(shared, number, node, Content::Directory(SpinLock::default()), 2)
    }

    fn build(shared: &Arc<Super>, number: u64, node: &NewNode, content: Content, nlink: u32) -> Arc<Self> {
        let time = now();
        let stat = Stat {
            dev: shared.device,
            ino: number,
            rdev: node.rdev,
            mode: node.mode,
            nlink,
            uid: node.uid,
            gid: node.gid,
            blksize: 4096,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            ..Stat::default()
        };
        Arc::new_cyclic(|me| Self {
            shared: shared.clone(),
            me: me.clone(),
            kind: node.mode & S_IFMT,
            attributes: SpinLock::new(stat),
            content,
            state: InodeState::default(),
            xattrs: SpinLock::default(),
            appending: crate::sync::Mutex::new(()),
        })
    }

    /// A new object without a name.
    pub fn make(shared: &Arc<Super>, node: &NewNode, target: Option<&[u8]>) -> Result<Arc<Self>, Errno> {
        let number = shared.take_inode()?;
        let (content, nlink) = match node.mode & S_IFMT {
            S_IFDIR => (Content::Directory(SpinLock::default()), 2),
            S_IFLNK => (Content::Link(target.unwrap_or_default().into()), 1),
            S_IFREG => {
                let name = alloc::format!("/tmpfs/{number} (deleted)");
                (Content::Regular(SharedMemory::new(name, (shared.device, number), Some(shared.quota.clone()))), 1)
            }
            _ => (Content::Node, 1),
        };
        Ok(Self::build(shared, number, node, content, nlink))
    }

    pub fn shared(&self) -> &Arc<Super> {
        &self.shared
    }

    pub(super) fn names(&self) -> Result<&SpinLock<Names>, Errno> {
        match &self.content {
            Content::Directory(names) => Ok(names),
            _ => Err(ENOTDIR),
        }
    }

    /// The pages of a regular file.
    pub fn memory(&self) -> Option<&Arc<SharedMemory>> {
        match &self.content {
            Content::Regular(memory) => Some(memory),
            _ => None,
        }
    }

    /// Contents or names changed.
    pub(super) fn touch(&self) {
        let time = now();
        let mut stat = self.attributes.lock();
        stat.mtime = time;
        stat.ctime = time;
    }

    fn touch_ctime(&self, links: i32) {
        let mut stat = self.attributes.lock();
        stat.ctime = now();
        stat.nlink = stat.nlink.saturating_add_signed(links);
    }

    fn insert(&self, name: &[u8], inode: Arc<TmpInode>) -> Result<(), Errno> {
        let is_dir = inode.kind == S_IFDIR;
        self.names()?.lock().insert(name, inode);
        if is_dir {
            self.attributes.lock().nlink += 1;
        }
        self.touch();
        Ok(())
    }

    fn take(&self, name: &[u8]) -> Result<Arc<TmpInode>, Errno> {
        let child = self.names()?.lock().remove(name).ok_or(ENOENT)?;
        if child.kind == S_IFDIR {
            self.attributes.lock().nlink -= 1;
        }
        self.touch();
        Ok(child)
    }

    fn check_empty(&self) -> Result<(), Errno> {
        match &self.content {
            Content::Directory(names) if !names.lock().is_empty() => Err(crate::errno::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    /// Gives an inode that was made apart a name here (an overlay's copy).
    pub fn adopt(&self, name: &[u8], inode: Arc<TmpInode>) -> Result<(), Errno> {
        let mtime = self.attributes.lock().mtime;
        self.insert(name, inode)?;
        // Nothing of what the directory shows has changed.
        self.attributes.lock().mtime = mtime;
        Ok(())
    }

    /// Takes a name away whatever it stands for (an overlay's whiteout).
    pub fn drop_entry(&self, name: &[u8]) -> Result<(), Errno> {
        self.take(name).map(|_| ())
    }

    /// O_TMPFILE.
    pub fn set_nameless(&self) {
        self.attributes.lock().nlink = 0;
    }

    /// A child of the concrete type.
    pub fn child(&self, name: &[u8]) -> Result<Arc<TmpInode>, Errno> {
        self.names()?.lock().get(name).ok_or(ENOENT)
    }

    /// Every name and what it stands for.
    pub fn entries(&self) -> Vec<(Arc<[u8]>, Arc<TmpInode>)> {
        match &self.content {
            Content::Directory(names) => names.lock().all(),
            _ => Vec::new(),
        }
    }
}

fn tmp(inode: &Arc<dyn Inode>) -> Result<Arc<TmpInode>, Errno> {
    inode.as_any().downcast_ref::<TmpInode>().and_then(|inode| inode.me.upgrade()).ok_or(EXDEV)
}

impl Inode for TmpInode {
    fn state(&self) -> &InodeState {
        &self.state
    }
    fn kind(&self) -> u32 {
        self.kind
    }
    fn stat(&self) -> Result<Stat, Errno> {
        let mut copy = *self.attributes.lock();
        match &self.content {
            Content::Regular(memory) => {
                copy.size = memory.size();
                copy.blocks = memory.present() * 8;
            }
            Content::Directory(names) => copy.size = (names.lock().len() as u64 + 2) * 20,
            Content::Link(target) => copy.size = target.len() as u64,
            Content::Node => {}
        }
        Ok(copy)
    }
    fn owner(&self) -> Result<Owner, Errno> {
        let stat = self.attributes.lock();
        Ok(Owner { mode: stat.mode, uid: stat.uid, gid: stat.gid })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        self.child(name).map(|child| child as Arc<dyn Inode>)
    }

    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let inode = Self::make(&self.shared, node, None)?;
        self.insert(name, inode.clone())?;
        Ok(inode)
    }

    fn symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let inode = Self::make(&self.shared, node, Some(target))?;
        self.insert(name, inode.clone())?;
        Ok(inode)
    }

    fn link(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<(), Errno> {
        let inode = tmp(inode)?;
        if !Arc::ptr_eq(&inode.shared, &self.shared) {
            return Err(EXDEV);
        }
        inode.touch_ctime(1);
        self.insert(name, inode)
    }

    fn unlink(&self, name: &[u8], child: &Arc<dyn Inode>) -> Result<(), Errno> {
        tmp(child)?.check_empty()?;
        let child = self.take(name)?;
        child.touch_ctime(if child.kind == S_IFDIR { -2 } else { -1 });
        Ok(())
    }

    fn rename(&self, rename: &Rename<'_>) -> Result<(), Errno> {
        let directory = tmp(rename.new_directory)?;
        if !Arc::ptr_eq(&directory.shared, &self.shared) {
            return Err(EXDEV);
        }
        if rename.flags & RENAME_EXCHANGE != 0 {
            let (child, other) = (self.take(rename.name)?, directory.take(rename.new_name)?);
            child.touch_ctime(0);
            other.touch_ctime(0);
            directory.insert(rename.new_name, child)?;
            return self.insert(rename.name, other);
        }
        if let Some(replaced) = rename.replaced {
            let replaced = tmp(replaced)?;
            replaced.check_empty()?;
            directory.take(rename.new_name)?;
            replaced.touch_ctime(if replaced.kind == S_IFDIR { -2 } else { -1 });
        }
        let child = self.take(rename.name)?;
        child.touch_ctime(0);
        directory.insert(rename.new_name, child)?;
        if rename.flags & RENAME_WHITEOUT != 0 {
            let node = NewNode { mode: S_IFCHR, uid: 0, gid: 0, rdev: 0 };
            self.insert(rename.name, Self::make(&self.shared, &node, None)?)?;
        }
        Ok(())
    }

    fn temporary(&self, node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let inode = Self::make(&self.shared, node, None)?;
        inode.attributes.lock().nlink = 0;
        Ok(inode)
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<(), Errno> {
        let own = self.attributes.lock().ino;
        super::directory::list(self.names()?, own, position, emit)
    }

    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        match &self.content {
            Content::Link(target) => Ok(target.to_vec()),
            _ => Err(EINVAL),
        }
    }

    fn set_attributes(&self, attributes: &Attributes) -> Result<(), Errno> {
        let has = |bit| attributes.mask & bit != 0;
        if has(ATTR_SIZE) {
            let memory = self.memory().ok_or(EINVAL)?;
            if attributes.size > i64::MAX as u64 {
                return Err(EFBIG);
            }
            let _appending = self.appending.lock();
            memory.truncate(attributes.size)?;
        }
        let time = now();
        let mut stat = self.attributes.lock();
        stat.ctime = time;
        if has(ATTR_SIZE) {
            stat.mtime = time;
        }
        if has(ATTR_MODE) {
            stat.mode = stat.mode & S_IFMT | attributes.mode & 0o7777;
        }
        if has(ATTR_UID) {
            stat.uid = attributes.uid;
        }
        if has(ATTR_GID) {
            stat.gid = attributes.gid;
        }
        if has(ATTR_ATIME) {
            stat.atime = attributes.atime;
        }
        if has(ATTR_MTIME) {
            stat.mtime = attributes.mtime;
        }
        if has(ATTR_ATIME_NOW) {
            stat.atime = time;
        }
        if has(ATTR_MTIME_NOW) {
            stat.mtime = time;
        }
        Ok(())
    }

    fn open(self: Arc<Self>, _flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(self)
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.xattr_get(name)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno> {
        self.xattr_set(name, value, mode)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        self.xattr_remove(name)
    }
    fn list_xattr(&self) -> Result<Vec<u8>, Errno> {
        Ok(self.xattr_list())
    }
}

impl Drop for TmpInode {
    fn drop(&mut self) {
        self.shared.give_inode();
        // A deep tree must not recurse: directories are emptied before they are dropped.
        let Content::Directory(names) = &mut self.content else { return };
        let mut pending: Vec<Arc<TmpInode>> = names.get_mut().drain();
        while let Some(child) = pending.pop() {
            if let Some(mut child) = Arc::into_inner(child) {
                if let Content::Directory(names) = &mut child.content {
                    pending.append(&mut names.get_mut().drain());
                }
            }
        }
    }
}
