//! Address spaces: mappings, faults, copies for fork.

use crate::errno::Errno;
use abi::request::Segment;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::frame::Page;
use hal::paging::{Rights, Root};
use hal::upcall::Access;

/// Something whose pages can be mapped: a host file (DAX window pages), a tmpfs file or shared memory (RAM pages).
pub trait Pages: Send + Sync {
    /// The page of page-index `index`, made present; `write`: it will be written through a shared mapping. May sleep.
    /// Err(EFAULT): behind the end (SIGBUS); Err(ENOMEM); Err(EIO).
    fn page(&self, index: u64, write: bool) -> Result<Page, Errno>;
    /// Up to `most` pages from `index` on that can be had without waiting or that are cheap to bring in together (fault-around).
    fn around(&self, index: u64, most: usize) -> Vec<Page>;
    /// Bytes.
    fn size(&self) -> u64;
    /// (device, inode) for /proc/PID/maps.
    fn identity(&self) -> (u64, u64);
    /// Path for /proc/PID/maps.
    fn name(&self) -> String;
    /// A mapping of it came or went: pages of a host file stay in the window while it is mapped.
    fn mapped(&self, _delta: i64) {}
    /// msync(2), and what a shared writable mapping owes its file.
    fn sync(&self, _start: u64, _end: u64) -> Result<(), Errno> {
        Ok(())
    }
}

/// What backs a new mapping.
#[derive(Clone)]
pub enum Source {
    /// Zeros, private.
    Anonymous,
    /// An object from this byte offset (page aligned) on; private (copy on write) or shared. Shared anonymous memory is an object too.
    Object { pages: Arc<dyn Pages>, offset: u64, shared: bool, max_rights: Rights },
}

/// Frames held for a host transfer, with their guest-physical ranges.
pub struct Pinned {
    pub segments: Vec<Segment>,
    pub held: Vec<Page>,
}

/// How a fault ended.
pub enum FaultResult {
    Done,
    /// SIGSEGV, si_code SEGV_MAPERR (1) or SEGV_ACCERR (2).
    Segv(i32),
    /// SIGBUS, si_code BUS_ADRERR.
    Bus,
    OutOfMemory,
}

/// One address space (what CLONE_VM shares). All methods may sleep.
pub struct AddressSpace {
    _private: (),
}

#[allow(unused_variables, clippy::unused_self)]
impl AddressSpace {
    /// The page-table root to load when a task of this space runs.
    pub fn root(&self) -> Arc<Root> {
        unreachable!("replaced by the memory family")
    }
    pub fn fault(&self, access: Access) -> FaultResult {
        FaultResult::Segv(1)
    }
    /// Makes the ranges present (and writable for `write`) and holds their frames for the host: stops early at the first bad page;
    /// EFAULT when there is none at all.
    pub fn pin(&self, ranges: &[(u64, usize)], write: bool) -> Result<Pinned, Errno> {
        Err(crate::errno::EFAULT)
    }
}
