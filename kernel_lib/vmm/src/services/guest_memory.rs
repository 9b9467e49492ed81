//! memory: more RAM, RAM given back, more DAX window.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use abi::layout::{DAX_WINDOW_END, HIGH_RAM, LOW_RAM_END, RAM_END_MAX};
use abi::request::{memory, Segment, MAX_SEGMENTS};

use super::{fault, Answer, Errno, Host, Reply, Request};
use crate::boot::tables::map_direct;
use crate::error::HostError;
use crate::memory::ram_bytes_below;

const HUGE: u64 = 2 << 20;
/// Slots grow with the guest (an eighth of what it has), so that their number stays small. What is in a slot is not yet the guest's.
const SMALLEST_SLOT: u64 = 64 << 20;
const LARGEST_SLOT: u64 = 4 << 30;

/// How far memory slots reach; never less than what the guest was given.
pub struct Ram {
    limit: AtomicU64,
    state: Mutex<Slots>,
}

struct Slots {
    ram_end: u64,
    dax_end: u64,
}

impl Ram {
    /// `limit`: bytes of RAM the guest may have.
    pub fn new(limit: u64, ram_end: u64, dax_end: u64) -> Self {
        Self { limit: AtomicU64::new(limit), state: Mutex::new(Slots { ram_end, dax_end }) }
    }

    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// What the guest has already stays.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }
}

/// Where RAM that now ends at `end` goes on, and where a new part of at most `bytes` there ends.
fn next_part(end: u64, bytes: u64) -> (u64, u64) {
    if end < LOW_RAM_END {
        (end, end.saturating_add(bytes).min(LOW_RAM_END))
    } else {
        let start = end.max(HIGH_RAM);
        (start, start.saturating_add(bytes).min(RAM_END_MAX))
    }
}

fn log(error: &HostError) -> Errno {
    crate::log::error(&format!("guest memory: {error}"));
    Errno::NOMEM
}

impl Host {
    pub(super) fn change_memory(&self, request: &Request) -> Answer {
        match request.flags() {
            memory::GROW => self.grow_ram(request.args[0]),
            memory::RELEASE => self.release(request),
            memory::GROW_DAX => self.grow_window(request.args[0]),
            _ => Err(Errno::INVAL),
        }
    }

    fn grow_ram(&self, bytes: u64) -> Answer {
        if bytes == 0 || !bytes.is_multiple_of(HUGE) {
            return Err(Errno::INVAL);
        }
        let mut slots = self.ram.state.lock().unwrap_or_else(PoisonError::into_inner);
        let old_end = self.memory.ram_end();
        let present = ram_bytes_below(old_end);
        let limit = self.ram.limit();
        if bytes > limit.saturating_sub(present) {
            return Err(Errno::NOMEM);
        }
        let (start, end) = next_part(old_end, bytes);
        if start >= end {
            return Err(Errno::NOMEM);
        }
        while slots.ram_end < end {
            let wanted = (end - slots.ram_end.max(start)).max((present / 8).clamp(SMALLEST_SLOT, LARGEST_SLOT)) & !(HUGE - 1);
            let room = limit.saturating_sub(ram_bytes_below(slots.ram_end));
            let (slot_start, slot_end) = next_part(slots.ram_end, wanted.min(room));
            if slot_start >= slot_end {
                return Err(Errno::NOMEM);
            }
            self.memory.back_ram(slot_start, slot_end).map_err(|error| log(&error))?;
            self.machine.add_memory(slot_start, slot_end - slot_start).map_err(|error| log(&error))?;
            slots.ram_end = slot_end;
        }
        // Published first: the entries lie in RAM that is present already, and copies may reach the new part as soon as the guest can.
        self.memory.publish_ram(end);
        map_direct(&self.memory, start, end).map_err(fault)?;
        Ok(Reply::with(0, &[end, start]))
    }

    fn release(&self, request: &Request) -> Answer {
        let count = request.segment_count as usize;
        if count > MAX_SEGMENTS {
            return Err(Errno::INVAL);
        }
        let mut total = 0u64;
        for index in 0..count {
            let at = request.segments.checked_add((index * size_of::<Segment>()) as u64).ok_or(Errno::FAULT)?;
            let segment: Segment = self.memory.read(at).map_err(fault)?;
            self.memory.release(segment.gpa, segment.bytes).map_err(fault)?;
            total = total.saturating_add(segment.bytes);
        }
        Ok(Reply::of(total & i64::MAX as u64))
    }

    fn grow_window(&self, bytes: u64) -> Answer {
        if bytes == 0 || !bytes.is_multiple_of(HUGE) {
            return Err(Errno::INVAL);
        }
        let mut slots = self.ram.state.lock().unwrap_or_else(PoisonError::into_inner);
        let start = slots.dax_end;
        let end = start.checked_add(bytes).filter(|end| *end <= DAX_WINDOW_END).ok_or(Errno::NOMEM)?;
        self.machine.add_memory(start, bytes).map_err(|error| log(&error))?;
        slots.dax_end = end;
        self.memory.publish_window(end).map_err(|error| log(&error))?;
        map_direct(&self.memory, start, end).map_err(fault)?;
        Ok(Reply::with(0, &[end, start]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_steps_over_the_hole() {
        assert_eq!(next_part(64 << 20, HUGE), (64 << 20, 66 << 20));
        assert_eq!(next_part(LOW_RAM_END - HUGE, 4 * HUGE), (LOW_RAM_END - HUGE, LOW_RAM_END));
        assert_eq!(next_part(LOW_RAM_END, HUGE), (HIGH_RAM, HIGH_RAM + HUGE));
        assert_eq!(next_part(RAM_END_MAX, HUGE), (RAM_END_MAX, RAM_END_MAX));
    }
}
