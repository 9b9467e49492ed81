//! A hostile guest: random slots, rings and shared pages. Every request has an answer, nothing panics, nothing grows without bound.

use abi::event::EVENT_RING_ENTRIES;
use abi::request::{Op, Segment, DONE, SLOTS, SUBMITTED, TABLE};

use super::*;
use crate::server::Servers;

/// xorshift64*: reproducible.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Numbers near what matters: small ones, guest addresses, edges.
    fn interesting(&mut self) -> u64 {
        let raw = self.next();
        match raw % 9 {
            0 => raw >> 8 & 0xf,
            1 => raw >> 8 & 0xffff,
            2 => PATH,
            3 => BUFFER + (raw >> 8 & 0xffff),
            4 => SEGMENTS,
            5 => abi::layout::DAX_WINDOW + (raw >> 8 & 0x3ff) * 4096,
            6 => u64::MAX - (raw >> 8 & 0xf),
            7 => (32 << 20) - (raw >> 8 & 0x1f),
            _ => raw,
        }
    }
}

/// Not what would fill the host's disk or wait for long with random arguments; their arguments have tests of their own.
fn is_tame(op: u32) -> bool {
    !matches!(Op::from_byte(op as u8), Some(Op::Allocate | Op::Copy | Op::Sync | Op::Memory | Op::SetAttributes))
}

fn fill(guest: &Guest, random: &mut Random) {
    let names = ["", "a", "b", "a/b", "d", "d/e", "..", "/", "a//", "l"];
    guest.path(PATH, names[random.next() as usize % names.len()]);
    for index in 0..8 {
        let segment = Segment { gpa: random.interesting(), bytes: random.interesting() };
        guest.host.memory.write(SEGMENTS + index * 16, &segment).unwrap();
    }
}

#[test]
fn random_requests() {
    let guest = Guest::new("random");
    let (read, write) = rustix::pipe::pipe().unwrap();
    guest.stream(1, read);
    guest.stream(2, write);
    for seed in 1..=20u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for _ in 0..2000 {
            fill(&guest, &mut random);
            let op = match random.next() % 20 {
                0 => random.next() as u32,
                _ => {
                    (1 + (random.next() % TABLE.len() as u64) as u32)
                        | ((random.next() as u32 & 7) << 16)
                        | (random.next() as u32 & 0xff) << 8
                }
            };
            if !is_tame(op) {
                continue;
            }
            let handle = match random.next() % 5 {
                0 => TREE,
                1 => random.next() as u32 % 4,
                2 => random.next() as u32,
                _ => crate::plan::PLANNED_HANDLES + random.next() as u32 % 8,
            };
            let mut args = [0; 6];
            args.fill_with(|| random.interesting());
            let request =
                Request { op, handle, segment_count: (random.interesting() as u32).min(2000), segments: random.interesting(), args };
            let _ = guest.serve(request);
            if guest.host.handles.count() > 200 {
                for number in 0..400 {
                    let _ = guest.host.handles.remove(crate::plan::PLANNED_HANDLES + number);
                }
            }
        }
    }
}

#[test]
fn random_rings() {
    let guest = Guest::new("rings");
    let mut random = Random(99);
    let ring = guest.host.memory.submission_ring().unwrap();
    let events = guest.host.memory.event_ring().unwrap();
    let doorbell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let memory = guest.host.memory.clone();
    let servers = Servers::new(guest.host.clone(), doorbell, 1_000_000_000, Box::new(|| ()));
    for number in [0, SLOTS - 1, SLOTS, usize::MAX] {
        servers.serve_slot(number as u32, &Worker::outside());
    }
    for _ in 0..5000 {
        let number = random.next() as usize % SLOTS;
        let slot = memory.slot(number).unwrap();
        slot.op.store(random.next() as u32 & 0xffff_ff00 | 200, Ordering::Relaxed);
        slot.next.store(random.next() as u32 % (SLOTS as u32 + 2), Ordering::Relaxed);
        slot.state.store(random.next() as u32 % 5, Ordering::Relaxed);
        let submitted = slot.state.load(Ordering::Relaxed) == SUBMITTED;
        servers.serve_slot(number as u32, &Worker::outside());
        if submitted {
            assert_eq!((slot.state.load(Ordering::Relaxed), slot.result.load(Ordering::Relaxed)), (DONE, -i64::from(libc::ENOSYS)));
        }
        ring.head.store(random.next() as u32, Ordering::Relaxed);
        ring.tail.store(random.next() as u32, Ordering::Relaxed);
        ring.sleepers.store(random.next() as u32, Ordering::Relaxed);
        events.head.store(random.next() as u32, Ordering::Relaxed);
        events.tail.store(random.next() as u32, Ordering::Relaxed);
        guest.host.events.complete(random.next() as u32, random.next() as u32);
    }
}

#[test]
fn events_that_can_wait_leave_room_for_completions() {
    let guest = Guest::new("room");
    let mut posted = 0;
    while guest.host.events.try_post(abi::event::EventKind::Ready, 1, 1, 0).is_ok() {
        posted += 1;
    }
    assert!(posted + SLOTS < EVENT_RING_ENTRIES);
    for slot in 0..SLOTS as u32 {
        guest.host.events.complete(slot, 0);
    }
    assert_eq!(guest.host.events.dropped(), 0);
}
