//! System calls that take guest memory, or structures that no safe wrapper has, as raw pointers. Each function makes one call with
//! arguments that were checked where they came from ([`crate::memory`]); the kernel itself answers EFAULT for memory that vanished.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::memory::IoVectors;

type Answer<T> = Result<T, Errno>;

/// The time-stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: RDTSC is not privileged (CR4.TSD is clear on Linux) and exists on every x86-64.
    unsafe { std::arch::x86_64::_rdtsc() }
}

fn check(result: isize) -> Answer<u64> {
    if result < 0 {
        Err(last_error())
    } else {
        Ok(result as u64)
    }
}

fn last_error() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// preadv2(2); `offset` -1: the file's own position.
pub fn read(fd: BorrowedFd<'_>, vectors: &IoVectors<'_>, offset: i64, flags: i32) -> Answer<u64> {
    // SAFETY: the vectors name mapped guest memory, in which any bytes may change at any time.
    check(unsafe { libc::preadv2(fd.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32, offset, flags) })
}

/// pwritev2(2).
pub fn write(fd: BorrowedFd<'_>, vectors: &IoVectors<'_>, offset: i64, flags: i32) -> Answer<u64> {
    // SAFETY: as in `read`; the kernel only reads.
    check(unsafe { libc::pwritev2(fd.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32, offset, flags) })
}

/// getdents64(2) into checked guest memory.
pub fn getdents(fd: BorrowedFd<'_>, buffer: *mut u8, bytes: u64) -> Answer<u64> {
    // SAFETY: the caller got `buffer` from `GuestMemory::buffer` for `bytes` bytes.
    check(unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer, bytes) } as isize)
}

/// The two words of a file system's identity, which libc keeps private.
pub fn fsid(statfs: &rustix::fs::StatFs) -> [u32; 2] {
    // SAFETY: `f_fsid` is two 32-bit integers.
    unsafe { std::mem::transmute_copy(&statfs.f_fsid) }
}

pub fn sync_file_range(fd: BorrowedFd<'_>, offset: u64, bytes: u64, flags: u32) -> Answer<()> {
    // SAFETY: no memory involved.
    check(unsafe { libc::sync_file_range(fd.as_raw_fd(), offset as i64, bytes as i64, flags) } as isize).map(drop)
}
