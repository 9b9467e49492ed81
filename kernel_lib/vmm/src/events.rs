//! Events to the guest: the producer's side of `abi::event::EventRing`, serialised by one lock.
//!
//! The ring's tail is kept here; the guest's head is only believed as far as it leaves room. Completions always find room with an honest
//! guest, because everything that can wait (readiness, control messages) leaves as many entries free as there are request slots.

use std::sync::atomic::{fence, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use abi::event::{EventKind, EVENT_RING_ENTRIES};
use abi::layout::vector;
use abi::request::SLOTS;

use crate::backends::Machine;
use crate::memory::GuestMemory;

pub struct Events {
    memory: Arc<GuestMemory>,
    machine: Arc<dyn Machine>,
    tail: Mutex<u32>,
    dropped: AtomicU64,
}

/// The ring has no room for events that can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Events {
    pub fn new(memory: Arc<GuestMemory>, machine: Arc<dyn Machine>) -> Self {
        Self { memory, machine, tail: Mutex::new(0), dropped: AtomicU64::new(0) }
    }

    /// Request slot `slot` is done. Dropped (and counted) when the guest does not drain its ring.
    pub fn complete(&self, slot: u32, vcpu: u32) {
        if self.push(EventKind::Completion, slot, 0, vcpu, 0).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An event whose sender can come again later.
    pub fn try_post(&self, kind: EventKind, argument: u32, value: u64, vcpu: u32) -> Result<(), Full> {
        self.push(kind, argument, value, vcpu, SLOTS as u32 + 1)
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn push(&self, kind: EventKind, argument: u32, value: u64, vcpu: u32, spare: u32) -> Result<(), Full> {
        let Ok(ring) = self.memory.event_ring() else {
            return Err(Full);
        };
        {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            let used = tail.wrapping_sub(ring.head.load(Ordering::Acquire));
            if used > EVENT_RING_ENTRIES as u32 - 1 - spare {
                return Err(Full);
            }
            let Some(entry) = ring.entries.get(*tail as usize % EVENT_RING_ENTRIES) else {
                return Err(Full);
            };
            entry.value.store(value, Ordering::Relaxed);
            entry.word.store(kind as u64 | u64::from(argument) << 32, Ordering::Relaxed);
            *tail = tail.wrapping_add(1);
            ring.tail.store(*tail, Ordering::Release);
        }
        // The guest sets `wanted`, then looks at `tail` once more before it sleeps: one of the two sees the other.
        fence(Ordering::SeqCst);
        if ring.wanted.load(Ordering::Relaxed) != 0 {
            self.machine.interrupt(vcpu, vector::EVENT);
        }
        Ok(())
    }
}
