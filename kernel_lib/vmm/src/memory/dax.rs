//! The DAX window: host files mapped over guest-physical addresses. Page-aligned ranges inside the backed part only.
//!
//! What is not mapped is inaccessible (not anonymous memory: a guest must not get memory beyond its limit here).

use std::os::fd::BorrowedFd;

use abi::layout::{DAX_WINDOW, DAX_WINDOW_END, PAGE_SIZE};
use rustix::io::Errno;
use rustix::mm::{mmap, mmap_anonymous, MapFlags, ProtFlags};

use super::{Fault, GuestMemory};
use crate::error::HostError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    Read,
    ReadWrite,
}

impl GuestMemory {
    fn window_range(&self, gpa: u64, bytes: u64) -> Result<*mut u8, Errno> {
        if !gpa.is_multiple_of(PAGE_SIZE) || !bytes.is_multiple_of(PAGE_SIZE) || bytes == 0 {
            return Err(Errno::INVAL);
        }
        self.window(gpa, bytes).map_err(|Fault| Errno::FAULT)
    }

    /// The window now ends at `end` (it is reserved address space already: only the hypervisor's slot has to be added).
    pub fn publish_window(&self, end: u64) -> Result<(), HostError> {
        if !(DAX_WINDOW..=DAX_WINDOW_END).contains(&end) {
            return Err(HostError::new(crate::error::Kind::Memory, format!("bad DAX window end {end:#x}")));
        }
        self.dax_end.fetch_max(end, std::sync::atomic::Ordering::AcqRel);
        Ok(())
    }

    /// Maps file pages at a window address, in place of what was there.
    pub fn map_file(&self, gpa: u64, bytes: u64, file: BorrowedFd<'_>, offset: u64, protection: Protection) -> Result<(), Errno> {
        let start = self.window_range(gpa, bytes)?;
        let access = match protection {
            Protection::Read => ProtFlags::READ,
            Protection::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: the range lies in the window, where no Rust object lives and the VMM itself touches nothing.
        unsafe { mmap(start.cast(), bytes as usize, access, MapFlags::SHARED | MapFlags::FIXED, file, offset) }?;
        Ok(())
    }

    /// Takes window pages back.
    pub fn unmap_file(&self, gpa: u64, bytes: u64) -> Result<(), Errno> {
        let start = self.window_range(gpa, bytes)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: as in `map_file`.
        unsafe { mmap_anonymous(start.cast(), bytes as usize, ProtFlags::empty(), flags) }?;
        Ok(())
    }

    /// Puts zeros where a file's pages vanished.
    pub fn patch_window(&self, gpa: u64, bytes: u64) -> Result<(), Errno> {
        let start = self.window_range(gpa, bytes)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: as in `map_file`.
        unsafe { mmap_anonymous(start.cast(), bytes as usize, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
        Ok(())
    }
}
