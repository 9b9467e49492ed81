//! Request servers: threads that take slot numbers off the submission ring and serve them.
//!
//! One of them is the *leader*: it takes requests, polls the ring for a short while when it is empty, and then sleeps on the doorbell with
//! `sleepers` raised. The others are parked. A leader that is about to do something slow ([`Worker::may_block`]) passes leadership on,
//! waking a parked thread or asking the main thread for a new one, up to [`MAX_SERVERS`]; short requests are served by the leader itself,
//! so that a busy guest is served by one warm thread.
//!
//! ```text
//!   parked ──promoted──▶ leader: take ─▶ serve ─▶ take …   (ring empty: poll, then doorbell)
//!      ▲                    │ may_block, or a backlog
//!      └──── done ◀─────────┘ serve what was taken, without leadership
//! ```
//!
//! No wake-up is lost: the sleeper raises `sleepers`, then looks at the ring again; the guest publishes the ring's tail, then looks at
//! `sleepers`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{fence, AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use abi::request::{MAX_CHAIN, RING_ENTRIES, SUBMITTED, SUBMITTED_NOTIFY};

use crate::clock::tsc;
use crate::services::{Host, Request};

pub const FIRST_SERVERS: usize = 2;
pub const MAX_SERVERS: usize = 8;
/// How long an empty ring is polled before the leader sleeps: longer when requests come one after the other with the guest's own work
/// between them, since a wake-up costs more than such a pause.
const POLL_MICROSECONDS: u64 = 30;
const LONGEST_POLL_MICROSECONDS: u64 = 200;
/// A turn of the polling loop that takes longer was interrupted: somebody else wants this CPU.
const INTERRUPTED_MICROSECONDS: u64 = 20;
/// A call that took longer waited for a disk, and so may those that come next.
const SLOW_MICROSECONDS: u64 = 1000;
const SLOW_CALLS: i32 = 16;
/// Requests waiting behind the one just taken that are worth a second thread.
const BACKLOG: u32 = 4;

#[derive(Default)]
struct State {
    has_leader: bool,
    parked: usize,
    /// Threads that exist or were asked for.
    total: usize,
    /// A promotion that no parked thread has taken yet.
    promoted: bool,
}

pub struct Servers {
    host: Arc<Host>,
    doorbell: OwnedFd,
    state: Mutex<State>,
    promotion: Condvar,
    grow: Box<dyn Fn() + Send + Sync>,
    /// Ticks of the TSC in a microsecond.
    microsecond: u64,
    /// When the last request was served, and the time between two: a moving average, in ticks.
    last_served: AtomicU64,
    pause: AtomicU64,
    serving: AtomicUsize,
    /// Calls to come that are taken for slow ones.
    expected_slow: AtomicI32,
    stopping: AtomicBool,
    pub served: AtomicU64,
    pub sleeps: AtomicU64,
    /// Leader threads asleep, as last published to the guest.
    asleep: AtomicU32,
}

/// Given to services so that they can say when they may block.
pub struct Worker<'a> {
    servers: Option<&'a Servers>,
    leads: std::cell::Cell<bool>,
}

impl Worker<'_> {
    /// For requests that are served on a vCPU thread or in a test.
    pub fn outside() -> Worker<'static> {
        Worker { servers: None, leads: std::cell::Cell::new(false) }
    }

    /// Before anything that may wait for a disk or a peer: lets another thread serve what comes next.
    pub fn may_block(&self) {
        if let (Some(servers), true) = (self.servers, self.leads.get()) {
            if servers.pass_on() {
                self.leads.set(false);
            }
        }
    }

    /// Around what finds its data in memory nearly always: another thread serves what comes next only when such calls have lately had to wait
    /// for a disk. To pass leadership on costs more than most of them.
    pub fn mostly_quick<T>(&self, call: impl FnOnce() -> T) -> T {
        let Some(servers) = self.servers else { return call() };
        if servers.expected_slow.load(Ordering::Relaxed) > 0 {
            servers.expected_slow.fetch_sub(1, Ordering::Relaxed);
            self.may_block();
        }
        let start = tsc();
        let answer = call();
        if tsc().saturating_sub(start) > SLOW_MICROSECONDS * servers.microsecond {
            servers.expected_slow.store(SLOW_CALLS, Ordering::Relaxed);
        }
        answer
    }
}

impl Servers {
    /// `grow` asks for one more thread to call [`Self::serve`].
    pub fn new(host: Arc<Host>, doorbell: OwnedFd, tsc_hz: u64, grow: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            host,
            doorbell,
            state: Mutex::new(State { total: FIRST_SERVERS, ..State::default() }),
            promotion: Condvar::new(),
            grow,
            microsecond: tsc_hz / 1_000_000,
            last_served: AtomicU64::new(0),
            pause: AtomicU64::new(0),
            serving: AtomicUsize::new(0),
            expected_slow: AtomicI32::new(0),
            stopping: AtomicBool::new(false),
            served: AtomicU64::new(0),
            sleeps: AtomicU64::new(0),
            asleep: AtomicU32::new(0),
        }
    }

    /// The guest rang by an exit.
    pub fn ring(&self) {
        let _ = rustix::io::write(&self.doorbell, &1u64.to_ne_bytes());
    }

    /// What `port::DOORBELL` signals once it is bound.
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    /// The life of a server thread.
    pub fn serve(&self) {
        while !self.stopping.load(Ordering::Relaxed) {
            self.become_leader();
            self.lead();
        }
    }

    /// Requests being served now, or waiting in the ring.
    pub fn busy(&self) -> bool {
        self.serving.load(Ordering::SeqCst) > 0 || self.backlog() > 0
    }

    pub fn threads(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    fn become_leader(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.has_leader {
            state.has_leader = true;
            return;
        }
        state.parked += 1;
        while !state.promoted {
            state = self.promotion.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.promoted = false;
    }

    /// Gives leadership to another thread; false: there is none to be had, the caller goes on leading.
    fn pass_on(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.parked > 0 {
            state.parked -= 1;
            state.promoted = true;
            drop(state);
            self.promotion.notify_one();
            return true;
        }
        if state.total < MAX_SERVERS {
            state.total += 1;
            state.has_leader = false;
            drop(state);
            (self.grow)();
            return true;
        }
        false
    }

    /// The thread that `grow` asked for cannot be had. Those that there are lead again once they are done.
    pub fn did_not_grow(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).total -= 1;
    }

    /// Serves until leadership has been passed on.
    fn lead(&self) {
        loop {
            let Some(number) = self.take() else {
                self.wait_for_work();
                if self.stopping.load(Ordering::Relaxed) {
                    return;
                }
                continue;
            };
            let worker = Worker { servers: Some(self), leads: std::cell::Cell::new(true) };
            if self.backlog() >= BACKLOG {
                worker.may_block();
            }
            self.serve_slot(number, &worker);
            self.serving.fetch_sub(1, Ordering::SeqCst);
            if !worker.leads.get() {
                return;
            }
        }
    }

    fn backlog(&self) -> u32 {
        let Ok(ring) = self.host.memory.submission_ring() else {
            return 0;
        };
        ring.tail.load(Ordering::Acquire).wrapping_sub(ring.head.load(Ordering::Relaxed)).min(RING_ENTRIES as u32)
    }

    /// Takes one slot number; `serving` counts it already.
    fn take(&self) -> Option<u32> {
        let ring = self.host.memory.submission_ring().ok()?;
        loop {
            let head = ring.head.load(Ordering::Relaxed);
            if ring.tail.load(Ordering::Acquire) == head {
                return None;
            }
            let number = ring.entries.get(head as usize % RING_ENTRIES)?.load(Ordering::Relaxed);
            self.serving.fetch_add(1, Ordering::SeqCst);
            if ring.head.compare_exchange(head, head.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(number);
            }
            self.serving.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Serves a slot, and those chained to it, on this thread, whoever asked.
    pub fn serve_slot(&self, number: u32, worker: &Worker<'_>) {
        let mut next = Some(number);
        for _ in 0..MAX_CHAIN {
            let Some(number) = next else { return };
            next = self.serve_one(number, worker);
        }
    }

    /// Serves one slot; the one behind it.
    fn serve_one(&self, number: u32, worker: &Worker<'_>) -> Option<u32> {
        let slot = self.host.memory.slot(number as usize).ok()?;
        if !matches!(slot.state.load(Ordering::Acquire), SUBMITTED | SUBMITTED_NOTIFY) {
            return None;
        }
        let request = Request::copy(slot);
        // Once the answer is there the slot is the guest's.
        let next = slot.next.load(Ordering::Relaxed).checked_sub(1);
        let somebody_sleeps = self.host.serve_into(slot, &request, worker);
        self.served.fetch_add(1, Ordering::Relaxed);
        self.note_pause();
        if somebody_sleeps {
            self.host.events.complete(number, request.vcpu());
        }
        next
    }

    fn note_pause(&self) {
        let now = tsc();
        let longest = 4 * LONGEST_POLL_MICROSECONDS * self.microsecond;
        let pause = now.saturating_sub(self.last_served.swap(now, Ordering::Relaxed)).min(longest);
        let average = self.pause.load(Ordering::Relaxed);
        self.pause.store(average - average / 8 + pause / 8, Ordering::Relaxed);
    }

    /// Twice the usual pause, if requests come quickly enough for that.
    fn poll_ticks(&self) -> u64 {
        let expected = 2 * self.pause.load(Ordering::Relaxed);
        let shortest = POLL_MICROSECONDS * self.microsecond;
        if expected > LONGEST_POLL_MICROSECONDS * self.microsecond {
            shortest
        } else {
            expected.max(shortest)
        }
    }

    fn wait_for_work(&self) {
        let Ok(ring) = self.host.memory.submission_ring() else {
            return;
        };
        let start = tsc();
        let (mut now, end) = (start, start.wrapping_add(self.poll_ticks()));
        while now < end {
            if ring.tail.load(Ordering::Relaxed) != ring.head.load(Ordering::Relaxed) {
                return;
            }
            std::hint::spin_loop();
            let before = std::mem::replace(&mut now, tsc());
            if now.wrapping_sub(before) > INTERRUPTED_MICROSECONDS * self.microsecond {
                break;
            }
        }
        let asleep = self.asleep.fetch_add(1, Ordering::SeqCst) + 1;
        ring.sleepers.store(asleep, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if ring.tail.load(Ordering::SeqCst) == ring.head.load(Ordering::SeqCst) {
            self.sleeps.fetch_add(1, Ordering::Relaxed);
            let mut count = [0; 8];
            let _ = rustix::io::read(&self.doorbell, &mut count);
        }
        let asleep = self.asleep.fetch_sub(1, Ordering::SeqCst) - 1;
        ring.sleepers.store(asleep, Ordering::SeqCst);
    }

    /// Ends the threads' loops (for tests; the process simply exits).
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.ring();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).promoted = true;
        self.promotion.notify_all();
    }
}
