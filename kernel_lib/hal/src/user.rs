//! User memory: the only way the library OS touches a program's bytes. Every access is checked against the program's half and runs
//! with a fault fix-up: a page fault is offered to the library OS (which may sleep to bring the page in); if it declines, the access
//! fails with EFAULT.

use abi::layout::LIBOS_BASE;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_abi::errno::{Errno, EFAULT, ENAMETOOLONG, ENOMEM};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

extern "C" {
    /// `entry.s`: copies `n` bytes; returns how many were NOT copied.
    fn hal_user_copy(to: *mut u8, from: *const u8, n: usize) -> usize;
    fn hal_user_zero(to: *mut u8, n: usize) -> usize;
    /// Bytes before the first NUL, at most `n`; -1 on a fault.
    fn hal_user_strlen(at: *const u8, n: usize) -> isize;
    /// Compare-and-swap; 0: done or failed with *old updated; 1: fault.
    fn hal_user_cas32(at: *mut u32, old: *mut u32, new: u32) -> usize;
    fn hal_user_load32(at: *const u32, out: *mut u32) -> usize;
}

/// First address that is not the program's.
pub const LIMIT: u64 = LIBOS_BASE;

fn check(address: u64, bytes: usize) -> Result<(), Errno> {
    match address.checked_add(bytes as u64) {
        Some(end) if end <= LIBOS_BASE => Ok(()),
        _ => Err(EFAULT),
    }
}

/// Copies from the program; on a fault part of `out` may be written.
pub fn read_bytes(address: u64, out: &mut [u8]) -> Result<(), Errno> {
    match read_partial(address, out) {
        n if n == out.len() => Ok(()),
        _ => Err(EFAULT),
    }
}

/// Copies to the program; on a fault part may be written.
pub fn write_bytes(address: u64, data: &[u8]) -> Result<(), Errno> {
    match write_partial(address, data) {
        n if n == data.len() => Ok(()),
        _ => Err(EFAULT),
    }
}

/// Copies from the program as far as possible: bytes copied.
pub fn read_partial(address: u64, out: &mut [u8]) -> usize {
    if check(address, out.len()).is_err() {
        return 0;
    }
    // SAFETY: source is checked to be user memory and faults are fixed up; target is a live slice.
    out.len() - unsafe { hal_user_copy(out.as_mut_ptr(), address as *const u8, out.len()) }
}

/// Copies to the program as far as possible: bytes copied.
pub fn write_partial(address: u64, data: &[u8]) -> usize {
    if check(address, data.len()).is_err() {
        return 0;
    }
    // SAFETY: target is checked to be user memory and faults are fixed up.
    data.len() - unsafe { hal_user_copy(address as *mut u8, data.as_ptr(), data.len()) }
}

pub fn zero(address: u64, bytes: usize) -> Result<(), Errno> {
    check(address, bytes)?;
    // SAFETY: as in write_partial.
    match unsafe { hal_user_zero(address as *mut u8, bytes) } {
        0 => Ok(()),
        _ => Err(EFAULT),
    }
}

/// Copies straight from a DAX window or RAM page of the direct map to the program (no bounce): bytes copied.
pub fn write_from_physical(address: u64, gpa: u64, bytes: usize) -> usize {
    if check(address, bytes).is_err() {
        return 0;
    }
    // SAFETY: source lies in the direct map (a page the caller owns or a window it was given), target as in write_partial.
    bytes - unsafe { hal_user_copy(address as *mut u8, crate::phys::pointer(gpa), bytes) }
}

/// Copies from the program straight into a page of the direct map: bytes copied.
pub fn read_to_physical(address: u64, gpa: u64, bytes: usize) -> usize {
    if check(address, bytes).is_err() {
        return 0;
    }
    // SAFETY: as in write_from_physical, the other way round.
    bytes - unsafe { hal_user_copy(crate::phys::pointer(gpa), address as *const u8, bytes) }
}

/// Reads a plain structure.
pub fn read<T: FromBytes + IntoBytes>(address: u64) -> Result<T, Errno> {
    let mut value = T::new_zeroed();
    read_bytes(address, value.as_mut_bytes())?;
    Ok(value)
}

/// Writes a plain structure.
pub fn write<T: IntoBytes + zerocopy::Immutable>(address: u64, value: &T) -> Result<(), Errno> {
    write_bytes(address, value.as_bytes())
}

/// Reads `count` plain structures.
pub fn read_array<T: FromBytes + IntoBytes + FromZeros + Clone>(address: u64, count: usize) -> Result<Vec<T>, Errno> {
    let bytes = count.checked_mul(core::mem::size_of::<T>()).ok_or(EFAULT)?;
    check(address, bytes)?;
    let mut items = Vec::new();
    items.try_reserve_exact(count).map_err(|_| ENOMEM)?;
    items.resize(count, T::new_zeroed());
    for (index, item) in items.iter_mut().enumerate() {
        read_bytes(address + (index * core::mem::size_of::<T>()) as u64, item.as_mut_bytes())?;
    }
    Ok(items)
}

/// Reads a NUL-terminated string of at most `most` bytes without its NUL. ENAMETOOLONG when there is no NUL among them.
pub fn read_string(address: u64, most: usize) -> Result<Vec<u8>, Errno> {
    if address >= LIBOS_BASE {
        return Err(EFAULT);
    }
    let room = most.min((LIBOS_BASE - address) as usize);
    // SAFETY: user memory with fault fix-up.
    let length = unsafe { hal_user_strlen(address as *const u8, room) };
    if length < 0 {
        return Err(EFAULT);
    }
    let length = length as usize;
    if length >= most {
        return Err(ENAMETOOLONG);
    }
    if length >= room {
        return Err(EFAULT);
    }
    let mut text = alloc::vec![0; length];
    read_bytes(address, &mut text)?;
    Ok(text)
}

/// Atomic compare-and-swap of an aligned user word (futexes, robust lists): the value found before.
pub fn compare_exchange_u32(address: u64, old: u32, new: u32) -> Result<u32, Errno> {
    check(address, 4)?;
    let mut found = old;
    // SAFETY: user memory with fault fix-up.
    match unsafe { hal_user_cas32(address as *mut u32, &mut found, new) } {
        0 => Ok(found),
        _ => Err(EFAULT),
    }
}

/// Atomic load of an aligned user word.
pub fn load_u32(address: u64) -> Result<u32, Errno> {
    check(address, 4)?;
    let mut found = 0;
    // SAFETY: as above.
    match unsafe { hal_user_load32(address as *const u32, &mut found) } {
        0 => Ok(found),
        _ => Err(EFAULT),
    }
}

/// An atomic word in any page of the direct map: for futexes of sleeping owners and counters in shared pages.
pub fn physical_u32(gpa: u64) -> u32 {
    // SAFETY: RAM or window page in the direct map, aligned by the caller's page arithmetic.
    unsafe { (*crate::phys::pointer::<AtomicU32>(gpa & !3)).load(Ordering::SeqCst) }
}
