//! The guest's clock: scale and offsets of the time-stamp counter, published in the time page.
//!
//! The guest's counter is the host's. Its nominal rate is off by some parts per million and the host's clock is steered, so the page is
//! written anew every few seconds: time goes on where the guest was told it is, at a rate that meets the host's clock at the next update.

use std::sync::atomic::{fence, Ordering};

use rustix::time::{clock_gettime, ClockId};

use crate::memory::{Fault, GuestMemory};

const NS: i128 = 1_000_000_000;
/// Most that the rate is bent to catch up: 500 parts per million, as adjtime(3) does.
const MAX_SLEW: i128 = 500;

pub use crate::memory_sys::tsc;

#[derive(Clone, Copy, Debug)]
struct Sample {
    tsc: u64,
    monotonic: i128,
    realtime: i128,
}

fn sample() -> Sample {
    let ns = |clock| {
        let time = clock_gettime(clock);
        i128::from(time.tv_sec) * NS + i128::from(time.tv_nsec)
    };
    // Of a few tries, the one that was disturbed least.
    let mut best: Option<(u64, Sample)> = None;
    for _ in 0..4 {
        let before = tsc();
        let monotonic = ns(ClockId::Monotonic);
        let after = tsc();
        let realtime = ns(ClockId::Realtime) - (ns(ClockId::Monotonic) - monotonic);
        let sample = Sample { tsc: before + (after - before) / 2, monotonic, realtime };
        if best.is_none_or(|(width, _)| after - before < width) {
            best = Some((after - before, sample));
        }
    }
    best.map_or(Sample { tsc: 0, monotonic: 0, realtime: 0 }, |(_, sample)| sample)
}

/// What the page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Published {
    tsc: u64,
    mult: u64,
    monotonic: i128,
    realtime: i128,
}

impl Published {
    fn elapsed(&self, tsc: u64) -> i128 {
        (i128::from(tsc.wrapping_sub(self.tsc)) * i128::from(self.mult)) >> 32
    }
}

pub struct Clock {
    published: Published,
    first: Sample,
    tsc_hz: u64,
    apic_timer_hz: u64,
}

impl Clock {
    pub fn start(memory: &GuestMemory, tsc_hz: u64, apic_timer_hz: u64) -> Result<Self, Fault> {
        let first = sample();
        let mult = (NS << 32) / i128::from(tsc_hz.max(1));
        let published = Published { tsc: first.tsc, mult: mult as u64, monotonic: first.monotonic, realtime: first.realtime };
        let clock = Self { published, first, tsc_hz, apic_timer_hz };
        clock.publish(memory)?;
        Ok(clock)
    }

    /// `next`: nanoseconds until the next update.
    pub fn update(&mut self, memory: &GuestMemory, next: u64) -> Result<(), Fault> {
        self.published = adjust(self.published, self.first, sample(), next);
        self.publish(memory)
    }

    fn publish(&self, memory: &GuestMemory) -> Result<(), Fault> {
        let page = memory.time_page()?;
        let sequence = page.sequence.load(Ordering::Relaxed) | 1;
        page.sequence.store(sequence, Ordering::Relaxed);
        fence(Ordering::Release);
        page.tsc_base.store(self.published.tsc, Ordering::Relaxed);
        page.mult.store(self.published.mult, Ordering::Relaxed);
        for (moment, time) in [(&page.monotonic, self.published.monotonic), (&page.realtime, self.published.realtime)] {
            moment.seconds.store((time / NS) as u64, Ordering::Relaxed);
            moment.ns.store((time % NS) as u64, Ordering::Relaxed);
        }
        page.apic_timer_hz.store(self.apic_timer_hz, Ordering::Relaxed);
        page.tsc_hz.store(self.tsc_hz, Ordering::Relaxed);
        page.sequence.store(sequence.wrapping_add(1), Ordering::Release);
        Ok(())
    }
}

/// Continues `old` at `now` without a jump of the monotonic clock (unless it is seconds off: the host slept).
fn adjust(old: Published, first: Sample, now: Sample, next: u64) -> Published {
    let ticks = i128::from(now.tsc.wrapping_sub(first.tsc)).max(1);
    let measured = ((now.monotonic - first.monotonic) << 32) / ticks;
    let told = old.monotonic + old.elapsed(now.tsc);
    let behind = now.monotonic - told;
    if behind > NS {
        return Published { tsc: now.tsc, mult: measured as u64, monotonic: now.monotonic, realtime: now.realtime };
    }
    let slew = (behind * 1_000_000 / i128::from(next.max(1))).clamp(-MAX_SLEW, MAX_SLEW);
    let mult = measured + measured * slew / 1_000_000;
    // Wall-clock time follows with the same small error; a step of it is a step in the guest.
    Published { tsc: now.tsc, mult: mult as u64, monotonic: told, realtime: now.realtime - behind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_never_jumps_and_converges() {
        let first = Sample { tsc: 1000, monotonic: 5 * NS, realtime: 9 * NS };
        // Told 2 GHz; really 2 GHz + 50 ppm.
        let mut page = Published { tsc: 1000, mult: 1 << 31, monotonic: 5 * NS, realtime: 9 * NS };
        for second in 1..20i128 {
            let tsc = 1000 + (second * 2_000_100_000) as u64;
            let now = Sample { tsc, monotonic: 5 * NS + second * NS, realtime: 9 * NS + second * NS };
            let told = page.monotonic + page.elapsed(tsc);
            page = adjust(page, first, now, NS as u64);
            assert_eq!(page.monotonic, told);
            if second > 2 {
                assert!((page.monotonic - now.monotonic).abs() < 2000, "{}", page.monotonic - now.monotonic);
            }
        }
    }
}
