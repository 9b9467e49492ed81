//! A host tree as a file system, and the table of its inodes: one inode for one host file, however many names lead to it.

use super::inode::HostInode;
use super::request;
use crate::errno::Errno;
use crate::fs::inode::{Caching, FileSystem, Inode};
use abi::request::{Op, Stat};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hal::sync::SpinLock;
use linux_abi::fs::StatFs;
use zerocopy::FromBytes;

pub struct HostTree {
    pub(super) handle: u32,
    /// Others hardly ever write the tree, and the guest may be late to see it (`docker cp`).
    pub(super) exclusive: bool,
    /// Of its root.
    pub(super) device: u64,
    pub(super) inodes: SpinLock<BTreeMap<(u64, u64), Weak<HostInode>>>,
}

/// A host tree, mounted.
pub struct HostFs {
    tree: Arc<HostTree>,
    root: Arc<HostInode>,
    origin: Vec<u8>,
}

impl HostTree {
    /// The tree behind a handle that the VMM was given; `origin` see [`FileSystem::origin`].
    pub fn mount(handle: u32, exclusive: bool, origin: &str) -> Result<Arc<HostFs>, Errno> {
        let stat = request::stat_handle(handle)?;
        let tree = Arc::new(Self { handle, exclusive, device: stat.dev, inodes: SpinLock::new(BTreeMap::new()) });
        let root = HostInode::new(&tree, None, &stat, None);
        tree.inodes.lock().insert((stat.dev, stat.ino), Arc::downgrade(&root));
        Ok(Arc::new(HostFs { tree, root, origin: origin.into() }))
    }

    /// The inode for what the host showed under a name.
    pub(super) fn inode(self: &Arc<Self>, parent: &Arc<HostInode>, name: &[u8], stat: &Stat, target: Option<Vec<u8>>) -> Arc<HostInode> {
        let key = (stat.dev, stat.ino);
        let known = self.inodes.lock().get(&key).and_then(Weak::upgrade);
        if let Some(inode) = known.filter(|inode| inode.is_still(stat)) {
            inode.found_at(parent, name, stat);
            return inode;
        }
        let inode = HostInode::new(self, Some((parent.clone(), name.into())), stat, target);
        self.inodes.lock().insert(key, Arc::downgrade(&inode));
        inode
    }

    /// The host may give this number to another file from now on.
    pub(super) fn forget(&self, key: (u64, u64), inode: &HostInode) {
        let mut inodes = self.inodes.lock();
        if inodes.get(&key).is_some_and(|known| core::ptr::eq(known.as_ptr(), inode)) {
            inodes.remove(&key);
        }
    }
}

impl FileSystem for HostFs {
    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn origin(&self) -> &[u8] {
        &self.origin
    }

    fn caching(&self) -> Caching {
        if self.tree.exclusive {
            Caching::Confirm
        } else {
            Caching::Ask
        }
    }

    fn statfs(&self) -> Result<StatFs, Errno> {
        let bytes = alloc::vec![0u8; core::mem::size_of::<StatFs>()];
        request::plain(Op::StatFs, 0, self.tree.handle, [request::gpa(&bytes), 0, 0, 0, 0, 0])?;
        StatFs::read_from_bytes(&bytes).map_err(|_| crate::errno::EIO)
    }

    fn sync(&self) -> Result<(), Errno> {
        // The tree's own handle names it only (O_PATH).
        request::plain(Op::Sync, 2, self.root.handle(false)?.number(), [0; 6]).map(|_| ())
    }
}
