//! Events from the VMM to the guest: one ring, many host producers (serialised in the VMM), drained by the guest.
//!
//! The VMM writes `entries[tail % N]`, then publishes `tail`. If `wanted` is set it then fires the EVENT interrupt at the vCPU
//! named by the event. A full ring means that the guest misbehaves (every event is bounded by something the guest owns: a slot,
//! a handle, a vCPU): the event is dropped and counted.

use core::sync::atomic::{AtomicU32, AtomicU64};

pub const EVENT_RING_ENTRIES: usize = 4096;

/// At guest-physical [`crate::layout::EVENT_RING`].
#[repr(C)]
pub struct EventRing {
    /// Consumed by the guest up to here.
    pub head: AtomicU32,
    pad0: [u32; 15],
    /// Produced by the VMM up to here.
    pub tail: AtomicU32,
    pad1: [u32; 15],
    /// 0: the guest is polling, no interrupt needed.
    pub wanted: AtomicU32,
    pad2: [u32; 15],
    pub entries: [EventEntry; EVENT_RING_ENTRIES],
}

#[repr(C)]
pub struct EventEntry {
    /// Kind in bits 0..8, argument a in bits 32..64.
    pub word: AtomicU64,
    pub value: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// Request slot `a` is done.
    Completion = 1,
    /// Handle `a` became ready: `value` holds EPOLL* bits (edge triggered).
    Ready = 2,
    /// A control message waits: fetch it with [`crate::request::Op::Report`] verb NEXT.
    Control = 3,
    /// Watch `a` (see [`crate::request::Op::Notify`]) has inotify records to read.
    Notify = 4,
}

impl EventKind {
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Completion,
            2 => Self::Ready,
            3 => Self::Control,
            4 => Self::Notify,
            _ => return None,
        })
    }
}
