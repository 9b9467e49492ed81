//! Memory: address spaces, mappings, faults, copies for fork, program images, shared memory.
//!
//! ```text
//! vma     what is mapped where: a pure interval map            space   AddressSpace: the map, the page table, the accounts
//! map     mmap, munmap, mprotect    heap    brk    remap   mremap    advise  madvise, mincore, msync, mlock
//! fault   page faults, mapping ahead         fork    copies    pin     frames for the host, memory of other processes
//! shmem   pages of tmpfs, memfd, shared anonymous memory       sysv    shmget family
//! exec    a program's image: elf (headers), stack (argv, envp, auxv), vdso    patch   system calls as calls
//! reclaim growing, giving back, out of memory                              report  what /proc shows
//! ```
//!
//! Invariants:
//! - The lock of an address space is the last sleeping lock anybody takes: under it no user memory is touched, no host request is
//!   made and of [`Pages`] only the methods that do not sleep are called (`mapped`, `identity`, `version`). So user memory may be copied under any other sleeping lock,
//!   provided that no [`Pages`] method wants that lock: they take spin locks, or sleeping locks that nobody holds while he copies.
//! - What a page-table entry allows never exceeds its VMA's rights. A private RAM page is writable only while nobody shares its frame.
//! - Additions are never flushed. Removals rest in a [`hal::paging::Flush`] until it is done; VMAs that were taken out are dropped
//!   after the flush and outside of the lock (dropping the last user of a file may call the host).

pub mod advise;
pub mod copies;
pub mod elf;
pub mod exec;
mod fault;
mod fork;
pub mod heap;
pub mod map;
mod patch;
mod pin;
pub mod reclaim;
pub mod remap;
pub mod report;
pub mod shmem;
mod space;
mod stack;
pub mod sysv;
mod vdso;
pub mod vma;

pub use fault::{forget_copies, invalidate};
pub use map::Limits;
pub use space::{AddressSpace, Layout};

use crate::errno::Errno;
use abi::request::Segment;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::frame::Page;
use hal::paging::Rights;

pub const PAGE_SIZE: u64 = 4096;
/// What one entry of a page directory maps.
const HUGE_PAGE: u64 = 512 * PAGE_SIZE;

/// Something whose pages can be mapped: a host file (DAX window pages), a tmpfs file or shared memory (RAM pages).
#[allow(unused_variables)]
pub trait Pages: Send + Sync {
    /// The page of page-index `index`, made present; `write`: it will be written through a shared mapping. May sleep.
    /// Err(EFAULT): behind the end (SIGBUS); Err(ENOMEM); Err(EIO).
    fn page(&self, index: u64, write: bool) -> Result<Page, Errno>;
    /// Up to `most` pages from `index` on that can be had without waiting or that are cheap to bring in together (fault-around).
    /// `write`: as in [`Self::page`]. Never goes behind the end.
    fn around(&self, index: u64, most: usize, write: bool) -> Vec<Page> {
        Vec::new()
    }
    /// Bytes.
    fn size(&self) -> u64;
    /// (device, inode): what is the same object, for /proc/PID/maps, futexes, the cache of patched code. Must not sleep.
    fn identity(&self) -> (u64, u64);
    /// Changes whenever the contents may have changed (a host file's mtime, say): what was derived from the pages is void then.
    /// None: contents change at any time. Must not sleep.
    fn version(&self) -> Option<u64> {
        None
    }
    /// As [`Self::version`], where private mappings are better served with copies in RAM, which [`Self::read`] fills.
    fn copied_version(&self) -> Option<u64> {
        None
    }
    /// Whether only the container changes it.
    fn is_exclusive(&self) -> bool {
        false
    }
    /// Reads bytes from `offset` on into RAM; how many. May sleep.
    fn read(&self, offset: u64, to: &[Segment]) -> Result<u64, Errno> {
        Err(crate::errno::EOPNOTSUPP)
    }
    /// Path for /proc/PID/maps.
    fn name(&self) -> String;
    /// A mapping of it came or went (`writable`: shared, and it is or may become writable): pages of a host file stay in the window
    /// while it is mapped. Called under locks: must not sleep.
    fn mapped(&self, delta: i64, writable: bool) {}
    /// Whether new shared mappings may be writable. Err(EPERM): sealed (fcntl(2), F_SEAL_WRITE).
    fn may_write_shared(&self) -> Result<(), Errno> {
        Ok(())
    }
    /// msync(2), and what a shared writable mapping owes its file: bytes `[start, end)`.
    fn sync(&self, start: u64, end: u64) -> Result<(), Errno> {
        Ok(())
    }
    /// madvise(MADV_REMOVE) on a shared mapping: bytes `[start, end)` become a hole. EOPNOTSUPP: cannot.
    fn punch_hole(&self, start: u64, end: u64) -> Result<(), Errno> {
        Err(crate::errno::EOPNOTSUPP)
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultResult {
    Done,
    /// SIGSEGV, si_code SEGV_MAPERR (1) or SEGV_ACCERR (2).
    Segv(i32),
    /// SIGBUS, si_code BUS_ADRERR.
    Bus,
    OutOfMemory,
}
