//! /proc/PID: maps, smaps, statm (the memory family writes them) and mem.

use super::process::Target;
use crate::errno::{Errno, EIO};
use crate::fs::file::{FileOps, OpenFile, SeekFrom};
use crate::io::IoBuffer;
use crate::mm::AddressSpace;
use crate::process::Task;
use crate::SysResult;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

fn text(target: &Target, show: impl FnOnce(&Arc<AddressSpace>) -> String) -> Result<Vec<u8>, Errno> {
    let memory = target.task().ok().and_then(|task| task.memory());
    Ok(memory.map_or_else(Vec::new, |memory| show(&memory).into_bytes()))
}

pub fn maps(target: &Target, _reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    text(target, |memory| memory.maps())
}

pub fn smaps(target: &Target, _reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    text(target, |memory| memory.smaps(false))
}

pub fn smaps_rollup(target: &Target, _reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    text(target, |memory| memory.smaps(true))
}

pub fn statm(target: &Target, _reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
    let memory = target.task().ok().and_then(|task| task.memory());
    Ok(memory.map_or_else(|| b"0 0 0 0 0 0 0\n".to_vec(), |memory| memory.usage().statm().into_bytes()))
}

/// /proc/PID/mem: the position is the address.
struct MemoryFile(Arc<AddressSpace>);

pub fn open(target: &Target) -> Result<Arc<dyn FileOps>, Errno> {
    let memory = target.task()?.memory().ok_or(crate::errno::ESRCH)?;
    Ok(Arc::new(MemoryFile(memory)))
}

impl FileOps for MemoryFile {
    fn seekable(&self) -> bool {
        true
    }
    fn read_at(&self, _file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        let mut part = alloc::vec![0; buffer.remaining().min(1 << 16)];
        match self.0.read(offset, &mut part, true) {
            0 if !part.is_empty() => Err(EIO),
            got => buffer.put(&part[..got]),
        }
    }
    fn write_at(&self, _file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        let mut part = alloc::vec![0; buffer.remaining().min(1 << 16)];
        let got = buffer.get(&mut part)?;
        match self.0.write(offset, &part[..got], true) {
            0 if got > 0 => Err(EIO),
            done => Ok(done),
        }
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom) -> Result<u64, Errno> {
        match to {
            SeekFrom::Start(at) => Ok(at as u64),
            SeekFrom::Current(delta) => Ok(current.wrapping_add_signed(delta)),
            _ => Err(crate::errno::EINVAL),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
