//! The vDSO's bytes: an ELF shared object of one read-only, executable segment, to be mapped anywhere in a program and named in AT_SYSINFO_EHDR.

/// The image; less than a page.
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vdso.so"));

/// Where in it the way back from a signal handler is: its entry point in the sense of ELF (e_entry).
pub fn sigreturn_offset() -> u64 {
    IMAGE[24..32].try_into().map_or(0, u64::from_le_bytes)
}

const _: () = assert!(IMAGE.len() <= crate::frame::PAGE);
// `vdso.rs` spells out addresses and offsets.
const _: () = assert!(abi::layout::LIBOS_BASE + abi::layout::CPU_AREAS == 0x7f80_0040_0000);
const _: () = assert!(abi::layout::MAX_VCPUS as u64 * abi::layout::CPU_AREA_SIZE == 0x40_0000);
const _: () = assert!(core::mem::offset_of!(crate::cpu::PerCpu, id) == 60);
const _: () = assert!(core::mem::offset_of!(crate::cpu::PerCpu, fast_entry) == 328);
const _: () = assert!(abi::layout::LIBOS_BASE + abi::layout::TIME_PAGE == 0x7f80_0000_8000);
const _: () = assert!(core::mem::offset_of!(abi::boot::TimePage, realtime) == 40 && core::mem::offset_of!(abi::boot::TimePage, mult) == 16);
