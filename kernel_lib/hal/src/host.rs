//! The guest's end of the request ring. Nothing here sleeps: [`submit`] queues a request, [`poll`] looks for its end, and the library
//! OS decides whether to spin or to sleep until [`next_event`] brings the completion.

use crate::cpu;
use crate::phys;
use crate::sync::SpinLock;
use abi::event::{EventKind, EventRing, EVENT_RING_ENTRIES};
use abi::layout::{port, EVENT_RING, REQUEST_SLOTS, SUBMISSION_RING};
use abi::request::{Op, Segment, Slot, SubmissionRing, DONE, FREE, MAX_CHAIN, RING_ENTRIES, SLOTS, SUBMITTED, SUBMITTED_NOTIFY};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_abi::errno::Errno;

/// A request's fixed part; memory is named by guest-physical address (see [`phys::slice_address`]).
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub op: Op,
    pub flags: u16,
    pub handle: u32,
    pub args: [u64; 6],
}

impl Request {
    pub const fn new(op: Op, handle: u32, args: [u64; 6]) -> Self {
        Self { op, flags: 0, handle, args }
    }
    pub const fn with_flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }
    /// Whether it never waits for a disk or another process for long.
    pub const fn is_short(&self) -> bool {
        !matches!(self.op, Op::Sync | Op::Allocate | Op::Copy | Op::Memory)
    }
}

/// What the VMM answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    pub value: u64,
    pub out: [u64; 5],
}

/// A submitted request. It owns its slot until [`poll`] takes the answer.
#[derive(Debug)]
pub struct Ticket {
    slot: u16,
}

impl Ticket {
    /// The slot's number: what a COMPLETION event names.
    pub fn slot(&self) -> u32 {
        u32::from(self.slot)
    }
}

static FREE_SLOTS: SpinLock<Option<Vec<u16>>> = SpinLock::new(None);
static PRODUCER: SpinLock<()> = SpinLock::new(());
static CONSUMER: SpinLock<()> = SpinLock::new(());

fn slot(number: u16) -> &'static Slot {
    // SAFETY: layout places SLOTS slots there, made of atomics.
    unsafe { phys::at(REQUEST_SLOTS + u64::from(number) * core::mem::size_of::<Slot>() as u64) }
}

fn submission() -> &'static SubmissionRing {
    // SAFETY: layout places the ring there, made of atomics.
    unsafe { phys::at(SUBMISSION_RING) }
}

fn events() -> &'static EventRing {
    // SAFETY: layout places the ring there, made of atomics.
    unsafe { phys::at(EVENT_RING) }
}

/// One of the free slots, which leaves `kept` of them.
fn take_slot(kept: usize) -> Option<u16> {
    let mut free = FREE_SLOTS.lock();
    let free = free.get_or_insert_with(|| (0..SLOTS as u16).rev().collect());
    if free.len() > kept {
        free.pop()
    } else {
        None
    }
}

/// Whether a queued request would have to wake a server.
pub fn servers_sleep() -> bool {
    submission().sleepers.load(Ordering::Relaxed) != 0
}

/// Queues a request, or has it served by an `exit`, for short ones. `segments` must stay alive until the answer is taken. None: every slot
/// is in flight, wait for one.
pub fn submit(request: &Request, segments: &[Segment], exit: bool) -> Option<Ticket> {
    let ticket = prepare(request, segments)?;
    launch(ticket.slot(), exit);
    Some(ticket)
}

/// A request that is to be [`launch`]ed, or served behind another one ([`chain`]). None: as for [`submit`].
pub fn prepare(request: &Request, segments: &[Segment]) -> Option<Ticket> {
    Some(fill(take_slot(MAX_CHAIN)?, request, segments))
}

/// A request that is served in front of others, whose slots those hold already: there is always one for it, and for all of one chain.
pub fn prepare_in_front(request: &Request, segments: &[Segment]) -> Option<Ticket> {
    Some(fill(take_slot(0)?, request, segments))
}

fn fill(number: u16, request: &Request, segments: &[Segment]) -> Ticket {
    let s = slot(number);
    let cpu = cpu::id();
    s.op.store(request.op as u32 | (cpu as u32) << 8 | u32::from(request.flags) << 16, Ordering::Relaxed);
    s.handle.store(request.handle, Ordering::Relaxed);
    s.segment_count.store(segments.len() as u32, Ordering::Relaxed);
    s.segments.store(if segments.is_empty() { 0 } else { phys::address_of(segments.as_ptr()) }, Ordering::Relaxed);
    for (to, from) in s.args.iter().zip(request.args) {
        to.store(from, Ordering::Relaxed);
    }
    s.next.store(0, Ordering::Relaxed);
    s.state.store(SUBMITTED, Ordering::Release);
    cpu::counters().requests[request.op as usize].fetch_add(1, Ordering::Relaxed);
    Ticket { slot: number }
}

/// `second` is served behind `first`; neither has been launched.
pub fn chain(first: &Ticket, second: &Ticket) {
    slot(first.slot).next.store(second.slot() + 1, Ordering::Relaxed);
}

/// Queues a prepared request, by its slot's number, with those that are chained to it, or has them served by an `exit`.
pub fn launch(number: u32, exit: bool) {
    if exit {
        cpu::out32(port::REQUEST, number);
        return;
    }
    let ring = submission();
    let guard = PRODUCER.lock();
    let tail = ring.tail.load(Ordering::Relaxed);
    ring.entries[tail as usize % RING_ENTRIES].store(number, Ordering::Relaxed);
    ring.tail.store(tail.wrapping_add(1), Ordering::SeqCst);
    drop(guard);
    if ring.sleepers.load(Ordering::SeqCst) != 0 {
        cpu::counters().doorbells.fetch_add(1, Ordering::Relaxed);
        cpu::out32(port::DOORBELL, 1);
    }
}

/// The answer, once it is there. Consumes the ticket then: the slot is free again.
pub fn poll(ticket: Ticket) -> Result<Result<Answer, Errno>, Ticket> {
    let s = slot(ticket.slot);
    if s.state.load(Ordering::Acquire) != DONE {
        return Err(ticket);
    }
    let result = s.result.load(Ordering::Relaxed);
    let mut answer = Answer { value: result as u64, out: [0; 5] };
    for (to, from) in answer.out.iter_mut().zip(&s.out) {
        *to = from.load(Ordering::Relaxed);
    }
    s.state.store(FREE, Ordering::Relaxed);
    if let Some(free) = FREE_SLOTS.lock().as_mut() {
        free.push(ticket.slot);
    }
    Ok(if result < 0 { Err(Errno(-result as i32)) } else { Ok(answer) })
}

/// Whether a slot's answer is there.
pub fn is_done(ticket: &Ticket) -> bool {
    slot(ticket.slot).state.load(Ordering::Acquire) == DONE
}

/// Asks for a COMPLETION event because the caller is about to sleep. False: the answer is there already.
pub fn notify(ticket: &Ticket) -> bool {
    slot(ticket.slot).state.compare_exchange(SUBMITTED, SUBMITTED_NOTIFY, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// An event from the VMM.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub kind: EventKind,
    pub argument: u32,
    pub value: u64,
}

/// The next event, if there is one. Any vCPU may call it.
pub fn next_event() -> Option<Event> {
    let ring = events();
    if ring.head.load(Ordering::Relaxed) == ring.tail.load(Ordering::Acquire) {
        return None;
    }
    let guard = CONSUMER.try_lock()?;
    loop {
        let head = ring.head.load(Ordering::Relaxed);
        if head == ring.tail.load(Ordering::Acquire) {
            return None;
        }
        let entry = &ring.entries[head as usize % EVENT_RING_ENTRIES];
        let (word, value) = (entry.word.load(Ordering::Relaxed), entry.value.load(Ordering::Relaxed));
        ring.head.store(head.wrapping_add(1), Ordering::Release);
        if let Some(kind) = EventKind::from_byte(word as u8) {
            drop(guard);
            return Some(Event { kind, argument: (word >> 32) as u32, value });
        }
    }
}

/// Whether events wait.
pub fn has_events() -> bool {
    let ring = events();
    ring.head.load(Ordering::Relaxed) != ring.tail.load(Ordering::SeqCst)
}

/// Ask for (or do without) the EVENT interrupt.
pub fn want_interrupts(on: bool) {
    events().wanted.store(u32::from(on), Ordering::SeqCst);
}
