//! Extended register state (x87, SSE, AVX, AVX-512), in XSAVE's standard format.

use crate::sync::Once;
use alloc::vec::Vec;
use core::arch::asm;

static FEATURES: Once<(u64, usize)> = Once::new();
static INITIAL: Once<XState> = Once::new();

/// Feature mask (XCR0) and bytes of an area.
pub fn features() -> (u64, usize) {
    *FEATURES.get_or_init(|| {
        // SAFETY: the boot page is written before the guest runs.
        let boot = unsafe { crate::phys::at::<abi::boot::BootPage>(abi::layout::BOOT_PAGE) };
        (boot.xcr0, boot.xsave_bytes as usize)
    })
}

/// The running program's MXCSR: the library OS computes nothing in floating point and leaves it alone.
pub fn mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: STMXCSR stores the register.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack)) };
    value
}

/// An XSAVE area, 64-byte aligned.
pub struct XState {
    words: Vec<[u64; 8]>,
    skip: usize,
}

impl XState {
    /// The state that a fresh program starts with.
    pub fn initial() -> Self {
        let bytes = features().1.max(576);
        let words = alloc::vec![[0u64; 8]; bytes.div_ceil(64) + 1];
        let skip = words.as_ptr().cast::<u8>().align_offset(64);
        let mut state = Self { words, skip };
        let area = state.bytes_mut();
        area[0..2].copy_from_slice(&0x037fu16.to_le_bytes());
        area[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        // XSTATE_BV: x87 and SSE come from the area.
        area[512..520].copy_from_slice(&3u64.to_le_bytes());
        state
    }

    /// The same, only to be loaded.
    pub fn shared_initial() -> &'static Self {
        INITIAL.get_or_init(Self::initial)
    }

    fn pointer(&self) -> *const u8 {
        self.words.as_ptr().cast::<u8>().wrapping_add(self.skip)
    }

    /// The area: legacy region (512), header (64), extended components.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `initial` reserved a spare 64 bytes for the alignment.
        unsafe { core::slice::from_raw_parts(self.pointer(), features().1.max(576)) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in bytes.
        unsafe { core::slice::from_raw_parts_mut(self.pointer().cast_mut(), features().1.max(576)) }
    }

    /// Saves the live registers. XMM registers may hold the library OS's values: the program's are in its UserContext.
    pub fn save(&mut self) {
        let mask = features().0;
        // SAFETY: the area is aligned and large enough for the mask.
        unsafe { asm!("xsave64 [{}]", in(reg) self.pointer(), in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack)) };
    }

    /// Loads the registers. A hostile or damaged area must be [`Self::sanitize`]d first.
    pub fn restore(&self) {
        let mask = features().0;
        // SAFETY: the area is aligned; its header was written by XSAVE or sanitized. SSE registers are dead across this call for
        // the library OS: declared as clobbers.
        unsafe {
            asm!("xrstor64 [{}]", in(reg) self.pointer(), in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack, readonly),
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _)
        };
    }

    /// Makes an area that a program wrote (sigreturn) safe to restore: reserved bits cleared.
    pub fn sanitize(&mut self) {
        let mask = features().0;
        let area = self.bytes_mut();
        let mut bv = u64::from_le_bytes(area[512..520].try_into().unwrap_or([0; 8]));
        bv &= mask;
        area[512..520].copy_from_slice(&bv.to_le_bytes());
        area[520..576].fill(0);
        let mxcsr = u32::from_le_bytes(area[24..28].try_into().unwrap_or([0; 4])) & 0xffff;
        area[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    }
}

impl Clone for XState {
    fn clone(&self) -> Self {
        let mut copy = Self::initial();
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }
}
