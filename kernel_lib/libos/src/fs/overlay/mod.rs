//! An overlay: a writable layer in guest memory above a read-only host tree (`litebox do`, read-only root file systems that programs want
//! to write to).
//!
//! - An object is shown from the lower tree until it is changed; then it is copied up, with the directories on the way to it.
//! - What was copied up remembers what it came from ([`Origin`] on the upper inode): a directory goes on showing the lower one's entries
//!   under it, wherever it is moved; a file keeps its inode number. A directory without an origin hides nothing and shows only itself.
//! - A name of the lower directory that is gone or moved is covered by a whiteout, as overlayfs has them: a character device 0:0.
//! - A lower file with several names is copied up once: `copied` finds the copy from the other names.
//!
//! The lower tree is taken to be nobody else's while the overlay is there, as Linux demands it of lower layers.
//!
//! Lock order: a child's `copying` > its parent's `copying` > spin locks.

mod copy_up;
mod directory;
mod file;
mod inode;

use super::host::HostTree;
use super::inode::{FileSystem, Inode};
use super::tmpfs::{Options, TmpFs, TmpInode};
use crate::errno::Errno;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use hal::sync::SpinLock;
use inode::OverlayInode;
use linux_abi::fs::{StatFs, OVERLAYFS_SUPER_MAGIC, S_IFDIR};

/// What both halves know of the whole.
pub(super) struct Layers {
    device: u64,
    upper: Arc<TmpFs>,
    /// By what `stat` shows of them: one inode for one object.
    inodes: SpinLock<BTreeMap<(u64, u64), Weak<OverlayInode>>>,
    /// Copies of lower files that have several names.
    copied: SpinLock<BTreeMap<(u64, u64), Arc<TmpInode>>>,
}

/// Hangs on an upper inode that was copied up: the lower one.
struct Origin(Arc<dyn Inode>);

pub struct OverlayFs {
    layers: Arc<Layers>,
    root: Arc<OverlayInode>,
}

impl OverlayFs {
    /// An empty layer over the host tree behind a handle. `options`: size and number of inodes of the layer.
    pub fn mount(handle: u32, options: &Options) -> Result<Arc<Self>, Errno> {
        let lower = HostTree::mount(handle, true, "")?.root();
        let stat = lower.stat()?;
        let upper = TmpFs::new(&Options { mode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid, ..options.clone() });
        let top = upper.root_inode().clone();
        let is_directory = stat.mode & S_IFDIR != 0;
        let layers = Arc::new(Layers { device: top.shared().device, upper, inodes: SpinLock::default(), copied: SpinLock::default() });
        let root = if is_directory {
            remember(&top, &lower);
            OverlayInode::of(&layers, Some(lower), Some(top), None)
        } else {
            OverlayInode::of(&layers, Some(lower), None, None)
        }?;
        Ok(Arc::new(Self { layers, root }))
    }
}

/// Notes where an upper inode came from.
fn remember(upper: &TmpInode, lower: &Arc<dyn Inode>) {
    *upper.state().attachment.lock() = Some(Arc::new(Origin(lower.clone())));
}

/// Where an upper inode came from.
fn origin(upper: &TmpInode) -> Option<Arc<dyn Inode>> {
    let attachment = upper.state().attachment.lock().clone()?;
    attachment.downcast::<Origin>().ok().map(|origin| origin.0.clone())
}

impl FileSystem for OverlayFs {
    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs { kind: OVERLAYFS_SUPER_MAGIC, ..self.layers.upper.statfs()? })
    }
}
