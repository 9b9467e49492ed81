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
use linux_abi::fs::{StatFs, TMPFS_MAGIC};
use zerocopy::FromBytes;

pub struct HostTree {
    pub(super) handle: u32,
    /// Others hardly ever write the tree, and the guest may be late to see it (`docker cp`).
    pub(super) exclusive: bool,
    /// Of its root.
    pub(super) device: u64,
    pub(super) inodes: SpinLock<BTreeMap<(u64, u64), Weak<HostInode>>>,
    room: SpinLock<Room>,
}

/// How much room the file system had when it was last asked.
#[derive(Default)]
struct Room {
    /// Until when this counts, by the TSC.
    until: u64,
    nearly_full: bool,
    /// It needs room for what is read, too.
    in_memory: bool,
}

const NEARLY_FULL: u64 = 1 << 30;

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
        let tree =
            Arc::new(Self { handle, exclusive, device: stat.dev, inodes: SpinLock::new(BTreeMap::new()), room: SpinLock::default() });
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

    /// Whether a page that is written (or touched at all, if the file system keeps its files in memory) may not find room.
    pub(super) fn is_nearly_full(&self, write: bool) -> bool {
        let now = hal::time::tsc();
        let answer = |room: &Room| room.nearly_full && (write || room.in_memory);
        {
            let room = self.room.lock();
            if now < room.until {
                return answer(&room);
            }
        }
        let Ok(statfs) = self.statfs() else { return true };
        let room = Room {
            until: now + hal::time::tsc_hz() / 10,
            nearly_full: statfs.bavail.saturating_mul(statfs.bsize) < NEARLY_FULL,
            in_memory: statfs.kind == TMPFS_MAGIC,
        };
        let full = answer(&room);
        *self.room.lock() = room;
        full
    }

    fn statfs(&self) -> Result<StatFs, Errno> {
        let bytes = alloc::vec![0u8; core::mem::size_of::<StatFs>()];
        request::plain(Op::StatFs, 0, self.handle, [request::gpa(&bytes), 0, 0, 0, 0, 0])?;
        StatFs::read_from_bytes(&bytes).map_err(|_| crate::errno::EIO)
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
        self.tree.statfs()
    }

    fn sync(&self) -> Result<(), Errno> {
        // The tree's own handle names it only (O_PATH).
        request::plain(Op::Sync, 2, self.root.handle(false)?.number(), [0; 6]).map(|_| ())
    }
}
