//! Guest memory: one reservation of address space as large as the guest-physical space, RAM and the DAX window mapped into it.
//!
//! Invariants:
//! - host address = `base` + guest-physical address, for as long as a [`GuestMemory`] lives;
//! - everything below `ram_end` (but for the hole under 4 GiB) is mapped readable and writable and stays so: RAM only grows. What the
//!   guest gives back reads as zeros again;
//! - everything from DAX_WINDOW to `dax_end` is mapped somehow, perhaps inaccessible, perhaps to a file that somebody truncates: the VMM
//!   never touches it itself, it only passes its address to system calls, which answer EFAULT;
//! - the guest may change any byte at any time, so no Rust reference to plain data in guest memory ever exists: copies and atomics only.
//!
//! RAM is private anonymous memory, not a memfd: a first touch costs less, and MADV_DONTNEED gives pages back. From the library OS's image
//! on the host may back it by huge pages (docs/decisions/0013): what lies below is small, sparse, and holds page tables.

mod dax;
mod segments;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::layout::{DAX_WINDOW, DAX_WINDOW_END, HIGH_RAM, IMAGE, LOW_RAM_END, PAGE_SIZE, RAM_END_MAX};

use crate::error::{During, HostError, Kind};

pub use dax::Protection;
pub use segments::{Buffer, IoVectors, Reach};

/// A guest-physical range that is not (all) memory: EFAULT to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// Plain data without padding: any bytes are a value, and every byte of a value is initialised.
///
/// # Safety
/// The implementer vouches for exactly that.
pub unsafe trait Plain: Copy + Default {}

macro_rules! plain {
    ($($type:ty)*) => { $(
        // SAFETY: integers, or `repr(C)` structures of integers whose padding is spelled out as fields.
        unsafe impl Plain for $type {}
    )* };
}
plain!(u8 u16 u32 u64 i32 i64 abi::request::Segment abi::request::Stat abi::request::Time);
// SAFETY: `repr(C)`; four u32, then u64 and two `Time`, all naturally aligned: no padding.
unsafe impl Plain for abi::request::Attributes {}

pub struct GuestMemory {
    base: NonNull<u8>,
    ram_end: AtomicU64,
    dax_end: AtomicU64,
}

// SAFETY: the pointer is to a mapping that lives as long as the value and is only used for copies, atomics and system calls.
unsafe impl Send for GuestMemory {}
// SAFETY: as above; concurrent access to guest memory is what it is for (see the module's invariants).
unsafe impl Sync for GuestMemory {}

const ALIGNMENT: usize = 2 << 20;

impl GuestMemory {
    /// Reserves the address space; nothing is memory yet.
    pub fn reserve() -> Result<Self, HostError> {
        use rustix::mm::{mmap_anonymous, MapFlags, ProtFlags};
        let bytes = DAX_WINDOW_END as usize + ALIGNMENT;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE) }
            .during(Kind::Memory, "cannot reserve address space for the guest (RLIMIT_AS?)")?;
        let aligned = start.wrapping_byte_add(start.align_offset(ALIGNMENT)).cast::<u8>();
        let base = NonNull::new(aligned).ok_or_else(|| HostError::new(Kind::Memory, "guest memory at address 0"))?;
        Ok(Self { base, ram_end: AtomicU64::new(0), dax_end: AtomicU64::new(DAX_WINDOW) })
    }

    pub fn ram_end(&self) -> u64 {
        self.ram_end.load(Ordering::Acquire)
    }

    pub fn dax_end(&self) -> u64 {
        self.dax_end.load(Ordering::Acquire)
    }

    /// Bytes of RAM present.
    pub fn ram_bytes(&self) -> u64 {
        ram_bytes_below(self.ram_end())
    }

    /// Host address of a guest-physical one, for the hypervisor's memory slots.
    pub fn host_address(&self, gpa: u64) -> u64 {
        self.base.as_ptr() as u64 + gpa
    }

    /// Makes `start..end` memory that may be accessed by the guest once [`Self::publish_ram`] is called.
    pub fn back_ram(&self, start: u64, end: u64) -> Result<(), HostError> {
        use rustix::mm::{mmap_anonymous, MapFlags, ProtFlags};
        let in_one_part = end <= LOW_RAM_END || start >= HIGH_RAM;
        if start < self.ram_end()
            || end <= start
            || end > RAM_END_MAX
            || !in_one_part
            || !start.is_multiple_of(PAGE_SIZE)
            || !end.is_multiple_of(PAGE_SIZE)
        {
            return Err(HostError::new(Kind::Memory, format!("bad RAM range {start:#x}..{end:#x}")));
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the range lies inside the reservation (checked above) and behind `ram_end`: nobody uses it yet.
        unsafe { mmap_anonymous(self.pointer(start).cast(), (end - start) as usize, ProtFlags::READ | ProtFlags::WRITE, flags) }
            .during(Kind::Memory, "cannot map guest RAM")?;
        let dense = start.max(IMAGE);
        if dense < end {
            // SAFETY: advice on the mapping just made. A host without huge pages refuses it, and does without.
            unsafe { libc::madvise(self.pointer(dense).cast(), (end - dense) as usize, libc::MADV_HUGEPAGE) };
        }
        Ok(())
    }

    /// Has the host back RAM that will surely be used, while there is time.
    pub fn populate(&self, gpa: u64, bytes: u64) {
        if let Ok(start) = self.ram(gpa, bytes) {
            // SAFETY: RAM of the guest, whose contents do not change. A failure (Linux before 5.14) leaves it to the first touch.
            unsafe { libc::madvise(start.cast(), bytes as usize, libc::MADV_POPULATE_WRITE) };
        }
    }

    /// RAM now ends at `end`, which lies in a backed range.
    pub fn publish_ram(&self, end: u64) {
        self.ram_end.fetch_max(end, Ordering::AcqRel);
    }

    fn pointer(&self, gpa: u64) -> *mut u8 {
        self.base.as_ptr().wrapping_add(gpa as usize)
    }

    /// The address of `bytes` bytes of present RAM.
    fn ram(&self, gpa: u64, bytes: u64) -> Result<*mut u8, Fault> {
        let end = gpa.checked_add(bytes).ok_or(Fault)?;
        if end <= self.ram_end() && (end <= LOW_RAM_END || gpa >= HIGH_RAM) {
            Ok(self.pointer(gpa))
        } else {
            Err(Fault)
        }
    }

    fn window(&self, gpa: u64, bytes: u64) -> Result<*mut u8, Fault> {
        let end = gpa.checked_add(bytes).ok_or(Fault)?;
        if gpa >= DAX_WINDOW && end <= self.dax_end() {
            Ok(self.pointer(gpa))
        } else {
            Err(Fault)
        }
    }

    pub fn read<T: Plain>(&self, gpa: u64) -> Result<T, Fault> {
        let mut value = T::default();
        let from = self.ram(gpa, size_of::<T>() as u64)?;
        // SAFETY: `from` is that many bytes of mapped RAM; `value` is ours and plain data. The guest may race: any mix of bytes is a value.
        unsafe { std::ptr::copy_nonoverlapping(from, (&raw mut value).cast::<u8>(), size_of::<T>()) };
        Ok(value)
    }

    pub fn write<T: Plain>(&self, gpa: u64, value: &T) -> Result<(), Fault> {
        let to = self.ram(gpa, size_of::<T>() as u64)?;
        // SAFETY: `to` is that many bytes of mapped RAM; plain data has no uninitialised bytes to leak.
        unsafe { std::ptr::copy_nonoverlapping((&raw const *value).cast::<u8>(), to, size_of::<T>()) };
        Ok(())
    }

    /// Copies `buffer.len()` bytes out of the guest.
    pub fn read_into(&self, gpa: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        let from = self.ram(gpa, buffer.len() as u64)?;
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), buffer.len()) };
        Ok(())
    }

    pub fn write_bytes(&self, gpa: u64, bytes: &[u8]) -> Result<(), Fault> {
        let to = self.ram(gpa, bytes.len() as u64)?;
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    pub fn atomic_u64(&self, gpa: u64) -> Result<&AtomicU64, Fault> {
        self.shared::<AtomicU64>(gpa)
    }

    pub fn atomic_u32(&self, gpa: u64) -> Result<&AtomicU32, Fault> {
        self.shared::<AtomicU32>(gpa)
    }

    pub fn slot(&self, number: usize) -> Result<&abi::request::Slot, Fault> {
        if number >= abi::request::SLOTS {
            return Err(Fault);
        }
        self.shared(abi::layout::REQUEST_SLOTS + (number * size_of::<abi::request::Slot>()) as u64)
    }

    pub fn submission_ring(&self) -> Result<&abi::request::SubmissionRing, Fault> {
        self.shared(abi::layout::SUBMISSION_RING)
    }

    pub fn event_ring(&self) -> Result<&abi::event::EventRing, Fault> {
        self.shared(abi::layout::EVENT_RING)
    }

    pub fn time_page(&self) -> Result<&abi::boot::TimePage, Fault> {
        self.shared(abi::layout::TIME_PAGE)
    }

    pub fn counters(&self) -> Result<&abi::counters::Counters, Fault> {
        self.shared(abi::layout::COUNTERS)
    }

    /// A structure made of atomics (`T: SharedLayout`).
    fn shared<T: SharedLayout>(&self, gpa: u64) -> Result<&T, Fault> {
        let pointer = self.ram(gpa, size_of::<T>() as u64)?;
        if !gpa.is_multiple_of(align_of::<T>() as u64) {
            return Err(Fault);
        }
        // SAFETY: mapped RAM for the life of `self`, aligned (`base` is 2 MiB aligned), and T consists of atomics only: any bytes are a
        // value, and the guest's concurrent writes are atomic accesses of the same memory.
        Ok(unsafe { &*pointer.cast::<T>() })
    }

    /// Gives pages back to the host: they read as zeros from now on. Page-aligned RAM only.
    pub fn release(&self, gpa: u64, bytes: u64) -> Result<(), Fault> {
        if !gpa.is_multiple_of(PAGE_SIZE) || !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(Fault);
        }
        let start = self.ram(gpa, bytes)?.cast::<c_void>();
        // SAFETY: RAM of the guest; no Rust object lives there (shared structures are atomics, for which zeros are values).
        unsafe { libc::madvise(start, bytes as usize, libc::MADV_DONTNEED) };
        Ok(())
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: the reservation, which nothing can refer to any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), DAX_WINDOW_END as usize) };
    }
}

/// Structures of atomics that guest and VMM share.
///
/// # Safety
/// `repr(C)`, only atomics (and padding that nobody reads).
unsafe trait SharedLayout {}
// SAFETY: an atomic.
unsafe impl SharedLayout for AtomicU64 {}
// SAFETY: an atomic.
unsafe impl SharedLayout for AtomicU32 {}
// SAFETY: `abi` structures of atomics; padding fields are private there and never read.
unsafe impl SharedLayout for abi::request::Slot {}
// SAFETY: as above.
unsafe impl SharedLayout for abi::request::SubmissionRing {}
// SAFETY: as above.
unsafe impl SharedLayout for abi::event::EventRing {}
// SAFETY: as above.
unsafe impl SharedLayout for abi::boot::TimePage {}
// SAFETY: as above.
unsafe impl SharedLayout for abi::counters::Counters {}

/// RAM bytes in a guest whose RAM ends at `end`.
pub const fn ram_bytes_below(end: u64) -> u64 {
    if end > HIGH_RAM {
        end - (HIGH_RAM - LOW_RAM_END)
    } else if end > LOW_RAM_END {
        LOW_RAM_END
    } else {
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn small() -> GuestMemory {
        let memory = GuestMemory::reserve().unwrap();
        memory.back_ram(0, 16 << 20).unwrap();
        memory.publish_ram(16 << 20);
        memory
    }

    #[test]
    fn copies_stay_inside_ram() {
        let memory = small();
        memory.write(0x1000, &7u64).unwrap();
        assert_eq!(memory.read::<u64>(0x1000), Ok(7));
        assert_eq!(memory.read::<u64>((16 << 20) - 7), Err(Fault));
        assert_eq!(memory.read::<u64>(u64::MAX), Err(Fault));
        assert_eq!(memory.write_bytes(u64::MAX - 1, &[0; 4]), Err(Fault));
        assert_eq!(memory.read::<u8>(LOW_RAM_END), Err(Fault));
        assert!(memory.atomic_u64(0x1004).is_err(), "not aligned");
        assert!(memory.slot(usize::MAX).is_err());
    }

    #[test]
    fn released_pages_read_as_zeros() {
        let memory = small();
        memory.write(0x2000, &7u64).unwrap();
        memory.release(0x2000, 0x1000).unwrap();
        assert_eq!(memory.read::<u64>(0x2000), Ok(0));
        assert_eq!(memory.release(0x2001, 0x1000), Err(Fault));
        assert_eq!(memory.release(0x2000, !0xfff), Err(Fault));
    }

    #[test]
    fn the_hole_is_no_memory() {
        let memory = GuestMemory::reserve().unwrap();
        memory.back_ram(0, LOW_RAM_END).unwrap();
        memory.back_ram(HIGH_RAM, HIGH_RAM + (2 << 20)).unwrap();
        memory.publish_ram(HIGH_RAM + (2 << 20));
        assert_eq!(memory.read::<u64>(LOW_RAM_END - 8), Ok(0));
        assert_eq!(memory.read::<u64>(LOW_RAM_END - 4), Err(Fault));
        assert_eq!(memory.read::<u64>(HIGH_RAM), Ok(0));
        assert_eq!(memory.ram_bytes(), LOW_RAM_END + (2 << 20));
        assert!(memory.back_ram(LOW_RAM_END - 4096, HIGH_RAM).is_err());
    }
}
