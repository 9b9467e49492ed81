//! The boot page (written by the VMM before the first vCPU runs) and the time page (updated by the VMM while the guest runs).

use core::sync::atomic::{AtomicU32, AtomicU64};

pub const MAGIC: u64 = 0x4c69_7465_426f_7831; // "LiteBox1"
pub const VERSION: u32 = 1;

/// At guest-physical [`crate::layout::BOOT_PAGE`].
#[repr(C)]
pub struct BootPage {
    pub magic: u64,
    pub version: u32,
    /// vCPUs the guest may start (vCPU 0 is running), 1..=64.
    pub vcpus: u32,
    /// End of the RAM present at start, guest-physical.
    pub ram_end: u64,
    /// Most bytes of RAM the guest may ever have (the container's memory limit, rounded up to 2 MiB).
    pub ram_limit: u64,
    /// First free guest-physical byte behind the image, page aligned.
    pub image_end: u64,
    /// The postcard-encoded [`crate::config::ContainerSpec`] at [`crate::layout::BOOT_CONFIG`], in bytes.
    pub config_bytes: u64,
    /// End of the DAX window that is backed by a memory slot at start, guest-physical; 0: no window.
    pub dax_end: u64,
    /// Bytes of an XSAVE area for [`Self::xcr0`], and the feature mask set by the VMM.
    pub xsave_bytes: u32,
    /// 1: an exit costs less than the ring (hardware KVM), so short requests go through [`crate::layout::port::REQUEST`].
    pub exits_are_cheap: u32,
    /// 1: the hypervisor keeps page tables of its own for the guest's (paging-based KVM), so the first touch of a page is dear.
    pub shadow_paging: u32,
    pub pad: u32,
    pub xcr0: u64,
    pub random_seed: [u64; 4],
    /// Set by the guest before [`crate::layout::port::PANIC`].
    pub panic_bytes: u64,
    pub panic_text: [u8; 1024],
    pub cpus: [CpuShared; crate::layout::MAX_VCPUS],
}

#[repr(C)]
pub struct CpuShared {
    /// Guest-physical address whose host file page vanished, plus 1; 0: none. Written by the VMM, cleared by the guest.
    pub bus_error: AtomicU64,
}

/// What CPUID answers on a vCPU, at [`crate::layout::CPU_CPUID`] of its area: the guest need not execute it, which costs an exit. The first
/// entry that fits counts; the array ends with one for leaf [`CPUID_ANY`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidEntry {
    pub leaf: u32,
    /// ECX; [`CPUID_ANY`]: it does not matter.
    pub subleaf: u32,
    /// EAX, EBX, ECX, EDX.
    pub answer: [u32; 4],
}

pub const CPUID_ENTRIES: usize = 4096 / core::mem::size_of::<CpuidEntry>();
/// [`CpuidEntry::leaf`] behind the last, [`CpuidEntry::subleaf`] where any will do.
pub const CPUID_ANY: u32 = u32::MAX;

/// Seconds, and nanoseconds below a second: readers divide nothing.
#[repr(C)]
pub struct Moment {
    pub seconds: AtomicU64,
    pub ns: AtomicU64,
}

/// At guest-physical [`crate::layout::TIME_PAGE`]; a seqlock: odd while the VMM writes.
/// Since `tsc_base` there passed `((tsc - tsc_base) as u128 * mult as u128) >> 32` ns.
#[repr(C)]
pub struct TimePage {
    pub sequence: AtomicU32,
    pub pad: u32,
    pub tsc_base: AtomicU64,
    pub mult: AtomicU64,
    /// CLOCK_MONOTONIC (and BOOTTIME) of the host at `tsc_base`.
    pub monotonic: Moment,
    /// CLOCK_REALTIME at `tsc_base`.
    pub realtime: Moment,
    /// Rate of the local APIC timer's input with divisor 1, per second.
    pub apic_timer_hz: AtomicU64,
    pub tsc_hz: AtomicU64,
}
