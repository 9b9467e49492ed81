//! Copying an object to the upper layer before it is changed.

use super::inode::OverlayInode;
use super::remember;
use crate::errno::{Errno, EIO, ENOENT};
use crate::fs::file::OpenFile;
use crate::fs::inode::{Attributes, Inode, NewNode, Stat, XattrMode};
use crate::fs::tmpfs::TmpInode;
use crate::io::IoBuffer;
use crate::mm::shmem::SharedMemory;
use abi::request::{ATTR_ATIME, ATTR_MTIME};
use alloc::sync::Arc;
use linux_abi::fs::{S_IFDIR, S_IFLNK, S_IFREG};

/// Bytes copied at a time; chunks of zeros stay holes.
const STEP: usize = 64 << 10;

impl OverlayInode {
    /// The upper side, made when there is none. `most`: how many bytes of a file's contents are wanted (it is about to be cut).
    pub(super) fn copy_up(&self, most: u64) -> Result<Arc<TmpInode>, Errno> {
        if let Some(upper) = self.top() {
            return Ok(upper);
        }
        let _copying = self.copying.lock();
        if let Some(upper) = self.top() {
            return Ok(upper);
        }
        let lower = self.lower.as_ref().ok_or(EIO)?;
        let (parent, name) = self.place.lock().clone().ok_or(ENOENT)?;
        let directory = parent.copy_up(u64::MAX)?;
        let stat = lower.stat()?;
        let upper = self.duplicate(lower, &stat, most)?;
        remember(&upper, lower);
        directory.adopt(&name, upper.clone())?;
        if stat.nlink > 1 && self.kind() != S_IFDIR {
            self.layers.copied.lock().insert((stat.dev, stat.ino), upper.clone());
        }
        *self.upper.lock() = Some(upper.clone());
        Ok(upper)
    }

    fn duplicate(&self, lower: &Arc<dyn Inode>, stat: &Stat, most: u64) -> Result<Arc<TmpInode>, Errno> {
        let node = NewNode { mode: stat.mode, uid: stat.uid, gid: stat.gid, rdev: stat.rdev };
        let target = if self.kind() == S_IFLNK { Some(lower.read_link()?) } else { None };
        let upper = TmpInode::make(self.layers.upper.root_inode().shared(), &node, target.as_deref())?;
        if self.kind() == S_IFREG {
            let memory = upper.memory().ok_or(EIO)?;
            copy_contents(lower, memory, stat.size.min(most))?;
        }
        copy_xattrs(lower, &upper);
        let times = Attributes { mask: ATTR_ATIME | ATTR_MTIME, atime: stat.atime, mtime: stat.mtime, ..Attributes::default() };
        upper.set_attributes(&times)?;
        Ok(upper)
    }
}

fn copy_contents(lower: &Arc<dyn Inode>, memory: &SharedMemory, size: u64) -> Result<(), Errno> {
    memory.truncate(size)?;
    let ops = lower.clone().open(0)?;
    let file = OpenFile::new(ops.clone(), 0);
    let mut chunk = alloc::vec![0u8; STEP.min(size as usize)];
    let mut at = 0;
    while at < size {
        let want = (size - at).min(STEP as u64) as usize;
        let got = ops.read_at(&file, &mut IoBuffer::fill(&mut chunk[..want]), at)?;
        if got == 0 {
            break;
        }
        if chunk[..got].iter().any(|&byte| byte != 0) {
            memory.write(&mut IoBuffer::take(&chunk[..got]), at)?;
        }
        at += got as u64;
    }
    Ok(())
}

/// Attributes that cannot be copied are left behind, as overlayfs leaves those that the upper file system does not have.
fn copy_xattrs(lower: &Arc<dyn Inode>, upper: &TmpInode) {
    let Ok(names) = lower.list_xattr() else { return };
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if let Ok(value) = lower.get_xattr(name) {
            let _ = upper.set_xattr(name, &value, XattrMode::Either);
        }
    }
}
