//! Open files of the overlay: whatever side the object is on now does the work, so that a reader sees what a later writer changed.

use super::directory::Entry;
use super::inode::OverlayInode;
use crate::errno::{Errno, EBADF};
use crate::fs::directory::{fill, seek};
use crate::fs::file::{FileOps, OpenFile, SeekFrom};
use crate::fs::inode::{Attributes, DirEntry, Inode, InodeState, Stat};
use crate::io::IoBuffer;
use crate::mm::Pages;
use crate::sync::Mutex;
use crate::SysResult;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use linux_abi::fs::S_IFDIR;

struct Regular {
    inode: Arc<OverlayInode>,
    /// Opened below; None: it was copied up already.
    lower: Option<Arc<dyn FileOps>>,
}

pub fn regular(inode: Arc<OverlayInode>) -> Result<Arc<dyn FileOps>, Errno> {
    let lower = match inode.top() {
        Some(_) => None,
        None => Some(inode.side()?.open(0)?),
    };
    Ok(Arc::new(Regular { inode, lower }))
}

impl Regular {
    fn ops(&self) -> Result<Arc<dyn FileOps>, Errno> {
        match self.inode.top() {
            Some(upper) => Ok(upper),
            None => self.lower.clone().ok_or(EBADF),
        }
    }
}

impl FileOps for Regular {
    fn seekable(&self) -> bool {
        true
    }
    fn read_at(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        self.ops()?.read_at(file, buffer, offset)
    }
    fn write_at(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        self.inode.top().ok_or(EBADF)?.write_at(file, buffer, offset)
    }
    fn append(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> Result<(usize, u64), Errno> {
        self.inode.top().ok_or(EBADF)?.append(file, buffer)
    }
    fn seek(&self, file: &OpenFile, current: u64, to: SeekFrom) -> Result<u64, Errno> {
        self.ops()?.seek(file, current, to)
    }
    fn pages(&self, file: &OpenFile) -> Result<Arc<dyn Pages>, Errno> {
        self.ops()?.pages(file)
    }
    fn sync(&self, _file: &OpenFile, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }
    fn allocate(&self, file: &OpenFile, mode: u32, offset: u64, bytes: u64) -> Result<(), Errno> {
        self.inode.top().ok_or(EBADF)?.allocate(file, mode, offset, bytes)
    }
    fn release(&self, file: &OpenFile) {
        if let Some(lower) = &self.lower {
            lower.release(file);
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An open directory: the names as they were when reading began, so that positions keep their meaning.
struct Directory {
    inode: Arc<OverlayInode>,
    snapshot: Mutex<Option<Arc<Vec<Entry>>>>,
}

pub fn directory(inode: Arc<OverlayInode>) -> Arc<dyn FileOps> {
    Arc::new(Directory { inode, snapshot: Mutex::new(None) })
}

/// A snapshot as something that lists.
struct Listing {
    entries: Arc<Vec<Entry>>,
    state: InodeState,
}

impl Inode for Listing {
    fn state(&self) -> &InodeState {
        &self.state
    }
    fn kind(&self) -> u32 {
        S_IFDIR
    }
    fn stat(&self) -> Result<Stat, Errno> {
        Ok(Stat::default())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
    fn open(self: Arc<Self>, _flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        Err(EBADF)
    }
    fn set_attributes(&self, _attributes: &Attributes) -> Result<(), Errno> {
        Err(EBADF)
    }
    fn list(&self, position: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<(), Errno> {
        for (entry, at) in self.entries.iter().zip(0u64..).skip(usize::try_from(position).unwrap_or(usize::MAX)) {
            if !emit(&DirEntry { ino: entry.ino, next: at + 1, kind: entry.kind, name: &entry.name }) {
                break;
            }
        }
        Ok(())
    }
}

impl FileOps for Directory {
    fn seekable(&self) -> bool {
        true
    }
    fn read_at(&self, _file: &OpenFile, _buffer: &mut IoBuffer<'_>, _offset: u64) -> SysResult {
        Err(crate::errno::EISDIR)
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom) -> Result<u64, Errno> {
        seek(current, to)
    }
    fn read_directory(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        let mut snapshot = self.snapshot.lock();
        if *file.position.lock() == 0 || snapshot.is_none() {
            *snapshot = Some(Arc::new(self.inode.merged()?));
        }
        let entries = snapshot.clone().unwrap_or_default();
        fill(&Listing { entries, state: InodeState::default() }, file, buffer)
    }
    fn sync(&self, _file: &OpenFile, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
