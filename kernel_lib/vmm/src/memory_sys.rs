//! System calls that take guest memory, or structures that no safe wrapper has, as raw pointers. Each function makes one call with
//! arguments that were checked where they came from ([`crate::memory`]); the kernel itself answers EFAULT for memory that vanished.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::memory::{Buffer, IoVectors};

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

// System calls that the C library would do more for than call them (other calls for some flags, another try after some errors) are made
// directly: the jail's lists name what is called, and the guest is to get Linux's answer.

/// preadv2(2); `offset` -1: the file's own position.
pub fn read(fd: BorrowedFd<'_>, vectors: &IoVectors<'_>, offset: i64, flags: i32) -> Answer<u64> {
    // SAFETY: the vectors name mapped guest memory, in which any bytes may change at any time.
    check(unsafe { libc::syscall(libc::SYS_preadv2, fd.as_raw_fd(), vectors.as_ptr(), vectors.len(), offset, 0, flags) } as isize)
}

/// pwritev2(2).
pub fn write(fd: BorrowedFd<'_>, vectors: &IoVectors<'_>, offset: i64, flags: i32) -> Answer<u64> {
    // SAFETY: as in `read`; the kernel only reads.
    check(unsafe { libc::syscall(libc::SYS_pwritev2, fd.as_raw_fd(), vectors.as_ptr(), vectors.len(), offset, 0, flags) } as isize)
}

/// getdents64(2) into guest memory.
pub fn getdents(fd: BorrowedFd<'_>, buffer: &Buffer<'_>) -> Answer<u64> {
    // SAFETY: the buffer is checked guest memory.
    check(unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_ptr(), buffer.bytes()) } as isize)
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

/// A socket address or control buffer of ours: what the guest gave was copied here, so that it cannot change under the kernel.
pub struct Bytes<const N: usize> {
    storage: Aligned<N>,
    length: usize,
}

/// Control messages are read as structures.
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

impl<const N: usize> Bytes<N> {
    pub fn empty() -> Self {
        Self { storage: Aligned([0; N]), length: 0 }
    }

    /// Room for `length` bytes (at most N).
    pub fn sized(length: u64) -> Answer<Self> {
        if length > N as u64 {
            return Err(Errno::INVAL);
        }
        Ok(Self { storage: Aligned([0; N]), length: length as usize })
    }

    pub fn as_slice(&self) -> &[u8] {
        self.storage.0.get(..self.length).unwrap_or_default()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.storage.0.get_mut(..self.length).unwrap_or_default()
    }

    fn pointer(&mut self) -> *mut libc::c_void {
        if self.length == 0 {
            std::ptr::null_mut()
        } else {
            self.storage.0.as_mut_ptr().cast()
        }
    }
}

/// Longest address: sockaddr_storage.
pub type Address = Bytes<128>;
/// Control data of one message.
pub type ControlData = Bytes<4096>;

pub fn bind(fd: BorrowedFd<'_>, address: &mut Address) -> Answer<()> {
    // SAFETY: `address` is `length` bytes.
    check(unsafe { libc::bind(fd.as_raw_fd(), address.pointer().cast(), address.length as u32) } as isize).map(drop)
}

pub fn connect(fd: BorrowedFd<'_>, address: &mut Address) -> Answer<()> {
    // SAFETY: `address` is `length` bytes.
    check(unsafe { libc::connect(fd.as_raw_fd(), address.pointer().cast(), address.length as u32) } as isize).map(drop)
}

/// accept4(2), nonblocking; the peer's address is left in `address`.
pub fn accept(fd: BorrowedFd<'_>, address: &mut Address) -> Answer<OwnedFd> {
    let mut length = address.length as u32;
    // SAFETY: `address` is `length` bytes; the result is a new descriptor.
    let accepted = unsafe {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let number = libc::syscall(libc::SYS_accept4, fd.as_raw_fd(), address.pointer(), &raw mut length, flags);
        OwnedFd::from_raw_fd(check(number as isize)? as i32)
    };
    address.length = address.length.min(length as usize);
    Ok(accepted)
}

/// getsockname(2) or getpeername(2).
pub fn name(fd: BorrowedFd<'_>, peer: bool, address: &mut Address) -> Answer<()> {
    let mut length = address.length as u32;
    let call = if peer { libc::getpeername } else { libc::getsockname };
    // SAFETY: `address` is `length` bytes.
    check(unsafe { call(fd.as_raw_fd(), address.pointer().cast(), &raw mut length) } as isize)?;
    address.length = address.length.min(length as usize);
    Ok(())
}

pub fn set_option(fd: BorrowedFd<'_>, level: i32, option: i32, value: &mut ControlData) -> Answer<()> {
    // SAFETY: `value` is `length` bytes; the options let through hold no pointers.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value.pointer(), value.length as u32) } as isize).map(drop)
}

pub fn get_option(fd: BorrowedFd<'_>, level: i32, option: i32, value: &mut ControlData) -> Answer<()> {
    let mut length = value.length as u32;
    // SAFETY: `value` is `length` bytes; the options let through hold no pointers.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, value.pointer(), &raw mut length) } as isize)?;
    value.length = value.length.min(length as usize);
    Ok(())
}

fn header(vectors: &IoVectors<'_>, address: &mut Address, control: &mut ControlData) -> libc::msghdr {
    // SAFETY: a zeroed msghdr is a valid one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = address.pointer();
    message.msg_namelen = address.length as u32;
    message.msg_iov = vectors.as_ptr().cast_mut();
    message.msg_iovlen = vectors.len() as _;
    message.msg_control = control.pointer();
    message.msg_controllen = control.length as _;
    message
}

pub fn send(fd: BorrowedFd<'_>, vectors: &IoVectors<'_>, address: &mut Address, control: &mut ControlData, flags: i32) -> Answer<u64> {
    let message = header(vectors, address, control);
    // SAFETY: the header names guest memory (checked) and buffers of ours.
    check(unsafe { libc::syscall(libc::SYS_sendmsg, fd.as_raw_fd(), &raw const message, flags) } as isize)
}

/// recvmsg(2): bytes and msg_flags; `address` and `control` hold what arrived.
pub fn receive(
    fd: BorrowedFd<'_>,
    vectors: &IoVectors<'_>,
    address: &mut Address,
    control: &mut ControlData,
    flags: i32,
) -> Answer<(u64, i32)> {
    let mut message = header(vectors, address, control);
    // SAFETY: as in `send`; what arrives is any bytes.
    let bytes = check(unsafe { libc::syscall(libc::SYS_recvmsg, fd.as_raw_fd(), &raw mut message, flags) } as isize)?;
    address.length = address.length.min(message.msg_namelen as usize);
    #[allow(clippy::unnecessary_cast)] // musl's has 32 bits
    let length = message.msg_controllen as usize;
    control.length = control.length.min(length);
    Ok((bytes, message.msg_flags))
}

/// ioctl(2) whose argument is a structure without pointers (or a number).
pub fn ioctl<const N: usize>(fd: BorrowedFd<'_>, request: u64, buffer: &mut Bytes<N>) -> Answer<u64> {
    // SAFETY: the requests let through read and write at most N bytes (termios, winsize, ifreq, int), which `buffer` always has.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, buffer.storage.0.as_mut_ptr()) } as isize)
}

/// sizeof(struct rtentry), and where its pointer to the device's name is. A struct in6_rtmsg ends before that.
const ROUTE: usize = 120;
const ROUTE_DEVICE: usize = 88;
/// A struct rtentry or in6_rtmsg, and behind the former the device's name (empty: none).
pub type Route = Bytes<{ ROUTE + 16 }>;

/// SIOCADDRT or SIOCDELRT. Whatever pointer the guest left in it is replaced.
pub fn change_route(fd: BorrowedFd<'_>, request: u64, route: &mut Route) -> Answer<()> {
    let (entry, device) = route.storage.0.split_at_mut(ROUTE);
    if let Some(end) = device.last_mut() {
        *end = 0;
    }
    let named = device.first().is_some_and(|byte| *byte != 0);
    let address = if named { device.as_ptr() as u64 } else { 0 };
    if let Some(pointer) = entry.get_mut(ROUTE_DEVICE..ROUTE_DEVICE + 8) {
        pointer.copy_from_slice(&address.to_ne_bytes());
    }
    // SAFETY: the structure lies in `route`, and its only pointer leads to a string there.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, route.storage.0.as_mut_ptr()) } as isize).map(drop)
}

/// SIOCGIFCONF into `list`.
pub fn interface_addresses<const N: usize>(fd: BorrowedFd<'_>, list: &mut Bytes<N>) -> Answer<()> {
    #[repr(C)]
    struct Configuration {
        bytes: i32,
        list: *mut u8,
    }
    let mut argument = Configuration { bytes: list.length as i32, list: list.storage.0.as_mut_ptr() };
    // SAFETY: struct ifconf, whose list has that many bytes.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFCONF as libc::Ioctl, &raw mut argument) } as isize)?;
    list.length = list.length.min(argument.bytes.max(0) as usize);
    Ok(())
}

/// FICLONE: `target` becomes a copy of `source` that shares its blocks.
pub fn clone_file(target: BorrowedFd<'_>, source: BorrowedFd<'_>) -> Answer<()> {
    // SAFETY: the argument is a descriptor.
    check(unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) } as isize).map(drop)
}

/// An open-file-description lock: F_OFD_GETLK or F_OFD_SETLK.
pub fn ofd_lock(fd: BorrowedFd<'_>, command: i32, kind: i16, start: i64, bytes: i64) -> Answer<(i16, i64, i64)> {
    // SAFETY: a zeroed flock is a valid one (and l_pid has to be 0 for these commands).
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = bytes;
    // SAFETY: `lock` lives during the call.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut lock) } as isize)?;
    Ok((lock.l_type, lock.l_start, lock.l_len))
}
