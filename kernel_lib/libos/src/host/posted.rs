//! Posted requests: those that nobody waits for, because what they answer is known beforehand. They wait here, in order, until a request
//! comes along that somebody does wait for, and are served in front of it: one message for all of them. When none comes they are sent
//! by themselves: when they are many, when a vCPU has nothing to do, or after some milliseconds.
//!
//! Every request is served after all those that were posted before it. So nobody, in here or on the host, can hear from the container
//! without seeing what was posted before. One chain at a time is under way.
//!
//! `QUEUE` is a leaf lock; what is to happen at a request's end runs outside of it.

use super::SPIN_NS;
use crate::errno::Errno;
use crate::sched;
use crate::time::{self, Expire};
use crate::wait::Interruptible;
use abi::request::{Segment, MAX_CHAIN};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use hal::host::{Answer, Request, Ticket};
use hal::sync::SpinLock;

/// Requests, and bytes of their data, that are enough to be sent.
const MANY: usize = 32;
const MANY_BYTES: usize = 64 << 10;
/// Requests that may wait; more are not to be posted ([`has_room`]).
const MOST: usize = 96;
/// How long a request waits at most, ns.
const LONGEST_NS: u64 = 5_000_000;

type Done = Box<dyn FnOnce(Result<Answer, Errno>) + Send>;

/// A request with the memory that it names, and what happens at its end.
pub struct Posted {
    request: Request,
    bytes: Vec<Vec<u8>>,
    /// Of a request that moves bytes: where these are.
    segment: Option<Box<Segment>>,
    done: Option<Done>,
}

impl Posted {
    pub fn new(request: Request) -> Self {
        Self { request, bytes: Vec::new(), segment: None, done: None }
    }

    /// Keeps memory that the request's arguments name.
    pub fn keeping(mut self, bytes: Vec<u8>) -> Self {
        self.bytes.push(bytes);
        self
    }

    /// The bytes that it moves.
    pub fn moving(mut self, bytes: Vec<u8>) -> Self {
        self.segment = Some(Box::new(Segment { gpa: hal::phys::slice_address(&bytes), bytes: bytes.len() as u64 }));
        self.keeping(bytes)
    }

    /// `done` must not sleep.
    pub fn then(mut self, done: impl FnOnce(Result<Answer, Errno>) + Send + 'static) -> Self {
        self.done = Some(Box::new(done));
        self
    }

    fn size(&self) -> usize {
        self.segment.as_ref().map_or(0, |segment| segment.bytes as usize)
    }
}

struct Queue {
    waiting: VecDeque<Posted>,
    /// Of data that waits.
    bytes: usize,
    flying: Vec<(Ticket, Posted)>,
    /// Chains that have been sent.
    sent: u64,
}

impl Queue {
    /// Chains what waits, and `last` behind it; the first one's number, if anything can go. Whether `last` is in the chain: else there are
    /// no slots for all of it.
    fn depart(&mut self, last: Option<&Ticket>) -> (Option<u32>, bool) {
        while self.flying.len() < MAX_CHAIN - 1 {
            let Some(posted) = self.waiting.pop_front() else { break };
            let segments = posted.segment.as_deref().map_or(&[][..], core::slice::from_ref);
            let Some(ticket) = hal::host::prepare_in_front(&posted.request, segments) else {
                self.waiting.push_front(posted);
                break;
            };
            self.bytes -= posted.size();
            self.follow(&ticket);
            self.flying.push((ticket, posted));
        }
        self.sent += 1;
        let first = self.flying.first().map(|(first, _)| first.slot());
        match last {
            Some(last) if self.waiting.is_empty() => {
                self.follow(last);
                (first.or(Some(last.slot())), true)
            }
            _ => (first, false),
        }
    }

    fn follow(&self, next: &Ticket) {
        if let Some((before, _)) = self.flying.last() {
            hal::host::chain(before, next);
        }
    }

    /// Whether what was sent is served. The last one of a chain is the last to be.
    fn has_landed(&self) -> bool {
        self.flying.last().is_none_or(|(last, _)| hal::host::is_done(last))
    }
}

static QUEUE: SpinLock<Queue> = SpinLock::new(Queue { waiting: VecDeque::new(), bytes: 0, flying: Vec::new(), sent: 0 });
/// Requests in it.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static TIMED: AtomicBool = AtomicBool::new(false);

/// Whether another request may be posted; who cannot do without need not ask.
pub fn has_room() -> bool {
    COUNT.load(Ordering::Relaxed) < MOST
}

/// Whether there is any that is not known to be served.
pub fn any() -> bool {
    COUNT.load(Ordering::Acquire) != 0
}

/// Does not sleep.
pub fn post(posted: Posted) {
    let many = {
        let mut queue = QUEUE.lock();
        COUNT.fetch_add(1, Ordering::AcqRel);
        queue.bytes += posted.size();
        queue.waiting.push_back(posted);
        queue.waiting.len() >= MANY || queue.bytes >= MANY_BYTES
    };
    if many {
        send();
    }
    if !TIMED.swap(true, Ordering::AcqRel) {
        let _ = time::arm(hal::time::monotonic() + LONGEST_NS, Arc::new(Departure));
    }
}

/// Sends what waits, unless something is under way. Does not sleep.
pub fn send() {
    if !any() {
        return;
    }
    reap();
    let first = {
        let mut queue = QUEUE.lock();
        if !queue.flying.is_empty() || queue.waiting.is_empty() {
            return;
        }
        queue.depart(None).0
    };
    if let Some(first) = first {
        hal::host::launch(first, hal::cpu::exits_are_cheap());
    }
}

/// Takes the answers that are there. Does not sleep.
pub fn reap() {
    let landed = {
        let mut queue = QUEUE.lock();
        if queue.flying.is_empty() || !queue.has_landed() {
            return;
        }
        core::mem::take(&mut queue.flying)
    };
    COUNT.fetch_sub(landed.len(), Ordering::AcqRel);
    for (ticket, posted) in landed {
        let Ok(answer) = hal::host::poll(ticket) else { continue };
        if let Some(done) = posted.done {
            done(answer);
        }
    }
}

/// Submits a request that is served after everything posted. None: no slot is free. The second: whether others go with it.
pub(super) fn submit(request: &Request, segments: &[Segment], exit: bool) -> Option<(Ticket, bool)> {
    if !any() {
        return hal::host::submit(request, segments, exit).map(|ticket| (ticket, false));
    }
    let ticket = hal::host::prepare(request, segments)?;
    loop {
        reap();
        let departed = {
            let mut queue = QUEUE.lock();
            queue.flying.is_empty().then(|| queue.depart(Some(&ticket)))
        };
        match departed {
            Some((Some(first), complete)) => {
                hal::host::launch(first, exit);
                if complete {
                    return Some((ticket, true));
                }
            }
            Some((None, _)) => super::wait_for_slot(),
            None => {}
        }
        wait_for_landing();
    }
}

/// Waits until everything posted so far is served. May sleep.
pub fn settle() {
    while any() {
        send();
        wait_for_landing();
        reap();
        let stays = {
            let queue = QUEUE.lock();
            queue.flying.is_empty() && !queue.waiting.is_empty()
        };
        if stays {
            super::wait_for_slot();
        }
    }
}

fn wait_for_landing() {
    let sent = QUEUE.lock().sent;
    let landed = || {
        let queue = QUEUE.lock();
        queue.sent != sent || queue.has_landed()
    };
    let limit = hal::time::monotonic() + SPIN_NS;
    while !landed() && hal::time::monotonic() < limit && !sched::others_want_to_run() {
        core::hint::spin_loop();
    }
    if landed() {
        return;
    }
    let completion = {
        let queue = QUEUE.lock();
        let Some((last, _)) = queue.flying.last() else { return };
        hal::host::notify(last);
        super::completion(last)
    };
    let _ = completion.wait(Interruptible::No, None, || landed().then_some(()));
}

/// Sends what has waited long enough.
struct Departure;

impl Expire for Departure {
    fn expired(self: Arc<Self>, now: u64) {
        TIMED.store(false, Ordering::Release);
        send();
        if !QUEUE.lock().waiting.is_empty() && !TIMED.swap(true, Ordering::AcqRel) {
            let _ = time::arm(now + LONGEST_NS, self);
        }
    }
}
