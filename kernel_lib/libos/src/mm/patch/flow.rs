//! Where a page's code leads to (Intel SDM volume 2). Pure.

use super::code::{decode, CPUID, JMP_NEAR, JMP_SHORT};
use crate::mm::PAGE_SIZE;
use alloc::vec::Vec;
use core::ops::Range;

const BYTES: i64 = PAGE_SIZE as i64;

/// The places that jumps of a page may lead to, in the page before it, in itself and in the page behind it. Every byte is taken for an
/// opcode: one place too many is found rather than missed.
#[derive(Clone)]
pub struct Jumps([u64; 3 * PAGE_SIZE as usize / 64]);

impl Jumps {
    /// `behind`: what follows the page, if it is known; a jump that is cut off there may lead anywhere within its reach.
    pub fn of(page: &[u8], behind: &[u8]) -> Self {
        let mut jumps = Self([0; 3 * PAGE_SIZE as usize / 64]);
        let byte = |at: usize| page.get(at).or_else(|| behind.get(at - page.len())).copied();
        let near = |at: usize| Some(i64::from(i32::from_le_bytes([byte(at)?, byte(at + 1)?, byte(at + 2)?, byte(at + 3)?])));
        for (at, &opcode) in page.iter().enumerate() {
            let (end, distance, reach) = match (opcode, byte(at + 1)) {
                (0x70..=0x7f | 0xe0..=0xe3 | JMP_SHORT, distance) => (at + 2, distance.map(|distance| i64::from(distance as i8)), 128),
                (JMP_NEAR, _) => (at + 5, near(at + 1), i64::from(i32::MAX)),
                (0x0f, Some(0x80..=0x8f) | None) => (at + 6, near(at + 2), i64::from(i32::MAX)),
                _ => continue,
            };
            let targets = match distance.map(|distance| end as i64 + distance) {
                Some(target) => target..target + 1,
                None => (end as i64 - reach).max(-BYTES)..(end as i64 + reach).min(2 * BYTES),
            };
            targets.for_each(|target| jumps.add(target));
        }
        jumps
    }

    fn add(&mut self, target: i64) {
        if let Some(word) = usize::try_from(target + BYTES).ok().and_then(|bit| self.0.get_mut(bit / 64)) {
            *word |= 1 << ((target + BYTES) % 64);
        }
    }

    /// Whether one may lead into these offsets of the page `ahead` pages further on (-1, 0 or 1).
    pub fn lead_into(&self, ahead: i64, offsets: &Range<usize>) -> bool {
        offsets.clone().any(|offset| {
            let bit = (ahead + 1) * BYTES + offset as i64;
            self.0[bit as usize / 64] >> (bit % 64) & 1 != 0
        })
    }
}

/// The CPUIDs of a page that may be run once the one at `from` is, that one first: found by following the code, as far as it is understood.
pub fn cpuids(page: &[u8], from: usize) -> Vec<usize> {
    let mut found = Vec::new();
    let mut seen = alloc::vec![false; page.len()];
    let mut starts = alloc::vec![from];
    while let Some(start) = starts.pop() {
        let mut at = start;
        while at < page.len() && !core::mem::replace(&mut seen[at], true) {
            let code = &page[at..];
            let Some(instruction) = decode(code) else { break };
            if code.starts_with(&CPUID) {
                found.push(at);
            }
            at += instruction.length;
            let branch = || instruction.branch(code).map(|(_, distance)| distance);
            let distance = instruction.jump(code).or_else(branch).or_else(|| instruction.call(code));
            starts.extend(distance.and_then(|distance| usize::try_from(at as i64 + i64::from(distance)).ok()));
            if instruction.jump(code).is_some() || instruction.ends_flow(code) {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::code::tests::page;
    use super::*;

    #[test]
    fn jumps_reach_the_neighbours() {
        // jne -2 (to itself); jmp to 16 bytes before the page; je to 32 bytes behind it
        let code = page(&[0x75, 0xfe, 0xe9, 0xe9, 0xff, 0xff, 0xff, 0x0f, 0x84, 0x13, 0x10, 0, 0]);
        let jumps = Jumps::of(&code, &[]);
        assert!(jumps.lead_into(0, &(0..1)) && jumps.lead_into(-1, &(4080..4081)) && jumps.lead_into(1, &(32..33)));
        assert!(!jumps.lead_into(0, &(1..2)) && !jumps.lead_into(-1, &(4081..4085)) && !jumps.lead_into(1, &(33..40)));
    }

    #[test]
    fn a_jump_over_the_end_counts() {
        let mut code = page(&[]);
        (code[4094], code[4095]) = (JMP_NEAR, 0x10);
        let known = Jumps::of(&code, &[0, 0, 0]);
        assert!(known.lead_into(1, &(0x13..0x14)) && !known.lead_into(1, &(0x14..0x20)));
        let unknown = Jumps::of(&code, &[]);
        assert!(unknown.lead_into(1, &(0x14..0x15)) && unknown.lead_into(0, &(7..8)) && unknown.lead_into(-1, &(7..8)));
        code[4094] = 0x90;
        code[4095] = JMP_SHORT;
        let short = Jumps::of(&code, &[]);
        assert!(short.lead_into(1, &(0x70..0x71)) && short.lead_into(0, &(4000..4001)) && !short.lead_into(0, &(7..8)));
    }

    #[test]
    fn code_is_followed() {
        // 0: cpuid; je 8; 4: cpuid; ret; 7: junk; 8: cpuid; call 17; jmp 4; 17: cpuid
        let code =
            page(&[0x0f, 0xa2, 0x74, 4, 0x0f, 0xa2, 0xc3, 6, 0x0f, 0xa2, 0xe8, 2, 0, 0, 0, 0xeb, 0xf3, 0x0f, 0xa2, 0xc3, 0x0f, 0xa2]);
        let mut found = cpuids(&code, 0);
        assert_eq!(found[0], 0);
        found.sort_unstable();
        assert_eq!(found, [0, 4, 8, 17]);
    }
}
