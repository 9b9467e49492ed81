//! Host requests nobody waits for: closing handles, giving windows back. Reaped when the next one is made. Handles are closed several at
//! a time, at the latest when a vCPU has nothing to do: each request may have to wake a server.

use super::window;
use crate::wait::{Interruptible, WaitQueue};
use abi::request::Op;
use alloc::vec::Vec;
use hal::host::{Request, Ticket};
use hal::sync::SpinLock;

/// What happens once the answer is there.
#[derive(Clone, Copy)]
enum Then {
    Nothing,
    /// The window address range is free for another mapping.
    FreeWindow {
        gpa: u64,
        order: usize,
    },
}

struct Pending {
    tickets: Vec<(Ticket, Then)>,
    /// No slot was free: to be submitted later.
    waiting: Vec<(Request, Then)>,
}

impl Pending {
    /// Whether it is time to look for answers.
    fn post(&mut self, request: Request, then: Then) -> bool {
        match hal::host::submit(&request, &[], hal::cpu::exits_are_cheap()) {
            Some(ticket) => self.tickets.push((ticket, then)),
            None => self.waiting.push((request, then)),
        }
        self.tickets.len() >= 8
    }

    fn is_empty(&self) -> bool {
        self.tickets.is_empty() && self.waiting.is_empty()
    }
}

/// How long [`settle`] waits at most, ms.
const SETTLING_MS: u32 = 1000;
/// Nobody wakes it: answers to these requests come without an event.
static SETTLED: WaitQueue = WaitQueue::new();

/// Handles that one CLOSE takes.
const CLOSED_AT_ONCE: usize = 7;

/// Taken before `CLOSING`.
static PENDING: SpinLock<Pending> = SpinLock::new(Pending { tickets: Vec::new(), waiting: Vec::new() });
/// Handles to be closed.
static CLOSING: SpinLock<Vec<u32>> = SpinLock::new(Vec::new());

fn post(request: Request, then: Then) {
    let many = PENDING.lock().post(request, then);
    if many {
        reap();
    }
}

/// Takes the answers that are there.
pub fn reap() {
    let mut freed = Vec::new();
    let mut pending = PENDING.lock();
    let mut left = Vec::new();
    for (ticket, then) in core::mem::take(&mut pending.tickets) {
        match hal::host::poll(ticket) {
            Ok(_) => freed.push(then),
            Err(ticket) => left.push((ticket, then)),
        }
    }
    while let Some((request, then)) = pending.waiting.pop() {
        match hal::host::submit(&request, &[], hal::cpu::exits_are_cheap()) {
            Some(ticket) => left.push((ticket, then)),
            None => {
                pending.waiting.push((request, then));
                break;
            }
        }
    }
    pending.tickets.append(&mut left);
    drop(pending);
    for then in freed {
        if let Then::FreeWindow { gpa, order } = then {
            window::free(gpa, order);
        }
    }
}

pub fn close(handle: u32) {
    let full = {
        let mut closing = CLOSING.lock();
        closing.push(handle);
        closing.len() >= CLOSED_AT_ONCE
    };
    if full {
        flush();
    }
}

/// Closes what waits to be closed.
pub fn flush() {
    // Nothing is in neither place meanwhile, for [`settle`].
    let mut pending = PENDING.lock();
    let closing = core::mem::take(&mut *CLOSING.lock());
    let mut many = false;
    for handles in closing.chunks(CLOSED_AT_ONCE) {
        let mut more = [0; 6];
        for (to, from) in more.iter_mut().zip(&handles[1..]) {
            *to = u64::from(*from);
        }
        many = pending.post(Request::new(Op::Close, handles[0], more), Then::Nothing);
    }
    drop(pending);
    if many {
        reap();
    }
}

/// Waits until everything is closed and given back; false: there was nothing.
pub fn settle() -> bool {
    let any = {
        let pending = PENDING.lock();
        !pending.is_empty() || !CLOSING.lock().is_empty()
    };
    flush();
    for _ in 0..SETTLING_MS {
        reap();
        if PENDING.lock().is_empty() {
            break;
        }
        let deadline = hal::time::monotonic() + 1_000_000;
        let _ = SETTLED.wait(Interruptible::No, Some(deadline), || None::<()>);
    }
    any
}

pub fn unmap(gpa: u64, bytes: u64, order: usize) {
    post(Request::new(Op::Unmap, 0, [gpa, bytes, 0, 0, 0, 0]), Then::FreeWindow { gpa, order });
}
