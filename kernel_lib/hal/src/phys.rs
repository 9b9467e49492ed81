//! Guest-physical memory through the direct map: virtual = physical + LIBOS_BASE, for RAM and for the DAX window.

use abi::layout::LIBOS_BASE;

/// A pointer to guest-physical `gpa`.
#[inline]
pub fn pointer<T>(gpa: u64) -> *mut T {
    (gpa + LIBOS_BASE) as *mut T
}

/// The guest-physical address of something in the direct map (heap, stacks, image).
#[inline]
pub fn address_of<T: ?Sized>(value: *const T) -> u64 {
    value.cast::<u8>() as u64 - LIBOS_BASE
}

/// The guest-physical address of a slice's bytes: heap memory is physically contiguous, so it can be named in a host request.
#[inline]
pub fn slice_address(bytes: &[u8]) -> u64 {
    address_of(bytes.as_ptr())
}

/// A structure of the boundary at a fixed address.
///
/// # Safety
/// `T` must be what `abi::layout` places at `gpa`, made of atomics or never written after boot.
pub unsafe fn at<T>(gpa: u64) -> &'static T {
    // SAFETY: the caller's promise; the direct map is never unmapped.
    unsafe { &*pointer::<T>(gpa) }
}

/// Copies bytes out of RAM or the DAX window. The caller holds the frame or the window.
pub fn read(gpa: u64, out: &mut [u8]) {
    assert!(gpa + (out.len() as u64) < abi::layout::DAX_WINDOW_END);
    // SAFETY: the direct map covers it; a racing program tears only its own data.
    unsafe { core::ptr::copy_nonoverlapping(pointer::<u8>(gpa), out.as_mut_ptr(), out.len()) }
}

/// Copies bytes into RAM or a writable DAX window. The caller holds the frame or the window.
pub fn write(gpa: u64, data: &[u8]) {
    assert!(gpa + (data.len() as u64) < abi::layout::DAX_WINDOW_END);
    // SAFETY: as in read.
    unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), pointer::<u8>(gpa), data.len()) }
}
