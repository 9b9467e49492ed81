//! Open files of tmpfs.

use super::TmpInode;
use crate::errno::{Errno, EINVAL, EISDIR, ENODEV, EOPNOTSUPP};
use crate::fs::directory;
use crate::fs::file::{seek_in, FileOps, OpenFile, SeekFrom};
use crate::fs::inode::Inode;
use crate::fs::Location;
use crate::io::IoBuffer;
use crate::mm::shmem::SharedMemory;
use crate::mm::Pages;
use crate::SysResult;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use hal::frame::Page;
use linux_abi::fs::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, F_ADD_SEALS, F_GET_SEALS, S_IFDIR};

impl TmpInode {
    fn contents(&self) -> Result<&Arc<SharedMemory>, Errno> {
        self.memory().ok_or(if self.kind() == S_IFDIR { EISDIR } else { EINVAL })
    }
}

/// A file's memory, mapped through a descriptor: known by the path it was opened at.
struct Mapping {
    memory: Arc<SharedMemory>,
    location: Option<Location>,
}

impl Pages for Mapping {
    fn page(&self, index: u64, write: bool) -> Result<Page, Errno> {
        self.memory.page(index, write)
    }
    fn around(&self, index: u64, most: usize, write: bool) -> Vec<Page> {
        self.memory.around(index, most, write)
    }
    fn size(&self) -> u64 {
        Pages::size(&*self.memory)
    }
    fn identity(&self) -> (u64, u64) {
        self.memory.identity()
    }
    fn version(&self) -> Option<u64> {
        self.memory.version()
    }
    fn name(&self) -> String {
        match &self.location {
            Some(location) => String::from_utf8_lossy(&location.display_path(&crate::sched::current().fs().root())).into_owned(),
            None => self.memory.name(),
        }
    }
    fn mapped(&self, delta: i64, writable: bool) {
        self.memory.mapped(delta, writable);
    }
    fn may_write_shared(&self) -> Result<(), Errno> {
        self.memory.may_write_shared()
    }
    fn sync(&self, start: u64, end: u64) -> Result<(), Errno> {
        self.memory.sync(start, end)
    }
    fn punch_hole(&self, start: u64, end: u64) -> Result<(), Errno> {
        self.memory.punch_hole(start, end)
    }
}

impl FileOps for TmpInode {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, _file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        self.contents()?.read(buffer, offset)
    }

    fn write_at(&self, _file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        let done = self.contents()?.write(buffer, offset)?;
        self.touch();
        Ok(done)
    }

    fn append(&self, _file: &OpenFile, buffer: &mut IoBuffer<'_>) -> Result<(usize, u64), Errno> {
        let memory = self.contents()?;
        let _appending = self.appending.lock();
        let offset = memory.size();
        let done = memory.write(buffer, offset)?;
        self.touch();
        Ok((done, offset + done as u64))
    }

    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom) -> Result<u64, Errno> {
        match (self.memory(), to) {
            (Some(memory), SeekFrom::Data(at)) => memory.seek(u64::try_from(at).map_err(|_| crate::errno::ENXIO)?, true),
            (Some(memory), SeekFrom::Hole(at)) => memory.seek(u64::try_from(at).map_err(|_| crate::errno::ENXIO)?, false),
            (Some(memory), to) => seek_in(memory.size(), current, to),
            (None, to) => directory::seek(current, to),
        }
    }

    fn read_directory(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        directory::fill(self, file, buffer)
    }

    fn pages(&self, file: &OpenFile) -> Result<Arc<dyn Pages>, Errno> {
        let memory = self.memory().ok_or(ENODEV)?.clone();
        Ok(Arc::new(Mapping { memory, location: file.location.clone() }))
    }

    fn sync(&self, _file: &OpenFile, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }

    fn allocate(&self, _file: &OpenFile, mode: u32, offset: u64, bytes: u64) -> Result<(), Errno> {
        let memory = self.contents()?;
        let end = offset.checked_add(bytes).filter(|&end| end <= i64::MAX as u64).ok_or(crate::errno::EFBIG)?;
        let keep = mode & FALLOC_FL_KEEP_SIZE != 0;
        match mode & !FALLOC_FL_KEEP_SIZE {
            FALLOC_FL_PUNCH_HOLE if keep => memory.punch_hole(offset, end)?,
            FALLOC_FL_ZERO_RANGE => {
                let inside = end.min(memory.size());
                if offset < inside {
                    memory.punch_hole(offset, inside)?;
                }
                memory.allocate(offset, end, keep)?;
            }
            0 => memory.allocate(offset, end, keep)?,
            _ => return Err(EOPNOTSUPP),
        }
        self.touch();
        Ok(())
    }

    fn fcntl(&self, file: &OpenFile, command: u32, argument: u64) -> Option<SysResult> {
        let memory = self.memory()?;
        match command {
            F_GET_SEALS => Some(Ok(memory.seals() as usize)),
            F_ADD_SEALS if !file.writable() => Some(Err(crate::errno::EPERM)),
            F_ADD_SEALS => Some(memory.add_seals(argument as u32).map(|()| 0)),
            _ => None,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
