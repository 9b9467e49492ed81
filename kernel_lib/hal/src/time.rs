//! Time from the TSC and the VMM's time page; no exits.

use crate::phys;
use abi::boot::{Moment, TimePage};
use core::sync::atomic::{fence, Ordering};

pub fn tsc() -> u64 {
    // SAFETY: RDTSC is native in ring 3.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn page() -> &'static TimePage {
    // SAFETY: layout places it there, made of atomics.
    unsafe { phys::at(abi::layout::TIME_PAGE) }
}

fn read(base: impl Fn(&TimePage) -> &Moment) -> u64 {
    let page = page();
    loop {
        let before = page.sequence.load(Ordering::Acquire);
        let (tsc_base, mult) = (page.tsc_base.load(Ordering::Relaxed), page.mult.load(Ordering::Relaxed));
        let base = base(page);
        let base = base.seconds.load(Ordering::Relaxed) * 1_000_000_000 + base.ns.load(Ordering::Relaxed);
        let now = tsc();
        fence(Ordering::Acquire);
        if before & 1 == 0 && before == page.sequence.load(Ordering::Relaxed) {
            return base + ((u128::from(now.saturating_sub(tsc_base)) * u128::from(mult)) >> 32) as u64;
        }
        core::hint::spin_loop();
    }
}

/// CLOCK_MONOTONIC in ns.
pub fn monotonic() -> u64 {
    read(|page| &page.monotonic)
}

/// CLOCK_REALTIME in ns since 1970.
pub fn realtime() -> u64 {
    read(|page| &page.realtime)
}

/// Ticks of the TSC a second.
pub fn tsc_hz() -> u64 {
    page().tsc_hz.load(Ordering::Relaxed)
}

/// The page's guest-physical address, for mapping it into programs (vDSO data).
pub fn page_address() -> u64 {
    abi::layout::TIME_PAGE
}

/// Local APIC timer ticks in `ns`.
pub(crate) fn apic_ticks(ns: u64) -> u32 {
    let hz = page().apic_timer_hz.load(Ordering::Relaxed).max(1);
    ((u128::from(ns) * u128::from(hz) / 1_000_000_000) as u64).clamp(1, u64::from(u32::MAX)) as u32
}
