//! Host requests for the rest of the library OS: submit, wait without holding up the vCPU, answer.

pub mod posted;

use crate::errno::Errno;
use crate::sched;
use crate::wait::{Interruptible, WaitQueue};
use abi::request::{Op, Segment, STREAM};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hal::host::{Answer, Request, Ticket};
use hal::sync::SpinLock;

/// How long a vCPU polls for an answer before the task sleeps, ns. A polling server answers a short request within this.
const SPIN_NS: u64 = 60_000;

/// Every so many requests that could go either way, one goes the way that seems the longer one: the host may be busy or idle by now.
const TRIAL: u32 = 16;
/// A request that took longer was held up by something else on the host.
const LONGEST_NS: u64 = 250_000;
const MUCH_OUTPUT: u64 = 64 << 10;

/// What requests take that servers serve, and those that the vCPU's own thread serves in an exit: moving averages, ns. On an idle host a
/// server that polls answers at once; on a busy one it has to be woken and scheduled each time, and the vCPU after it.
struct Pace {
    server: AtomicU64,
    exit: AtomicU64,
    turns: AtomicU32,
}

static PACE: Pace = Pace { server: AtomicU64::new(0), exit: AtomicU64::new(0), turns: AtomicU32::new(0) };

impl Pace {
    fn prefers_exit(&self) -> bool {
        let shorter = self.exit.load(Ordering::Relaxed) < self.server.load(Ordering::Relaxed);
        let trial = self.turns.fetch_add(1, Ordering::Relaxed) % TRIAL == TRIAL - 1;
        shorter != trial
    }

    fn took(&self, exit: bool, ns: u64) {
        let average = if exit { &self.exit } else { &self.server };
        let ns = ns.min(LONGEST_NS);
        let old = average.load(Ordering::Relaxed);
        average.store(if old == 0 { ns } else { old - old / 32 + ns / 32 }, Ordering::Relaxed);
    }
}

/// Output that takes the host longer than an exit takes. To poll for the answer would keep a CPU busy that its reader may need.
fn is_much_output(request: &Request, segments: &[Segment]) -> bool {
    let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    request.op == Op::Write && request.args[0] == STREAM && bytes >= MUCH_OUTPUT
}

/// Where exits are dear: not while a server is awake, or while others have something to run on this vCPU.
fn prefers_exit() -> bool {
    hal::host::servers_sleep() && !sched::others_want_to_run() && PACE.prefers_exit()
}

static COMPLETION: [WaitQueue; 64] = [const { WaitQueue::new() }; 64];
static EXHAUSTED: WaitQueue = WaitQueue::new();
static READY: SpinLock<Vec<Option<alloc::sync::Weak<dyn ReadyListener>>>> = SpinLock::new(Vec::new());

/// An object behind a host handle that wants to know when the handle becomes ready.
pub trait ReadyListener: Send + Sync {
    /// EPOLL* bits that became true. Called outside of any lock; must not sleep.
    fn ready(&self, events: u32);
}

/// Calls the host and waits for the answer. Not interruptible: every request is bounded by the host.
pub fn call(request: &Request, segments: &[Segment]) -> Result<Answer, Errno> {
    let (mut start, mut exit);
    let (mut ticket, chained) = loop {
        start = hal::time::monotonic();
        exit = request.is_short() && (hal::cpu::exits_are_cheap() || is_much_output(request, segments) || prefers_exit());
        if let Some(submitted) = posted::submit(request, segments, exit) {
            break submitted;
        }
        wait_for_slot();
    };
    let limit = hal::time::monotonic() + SPIN_NS;
    while !hal::host::is_done(&ticket) && hal::time::monotonic() < limit && !sched::others_want_to_run() {
        core::hint::spin_loop();
    }
    loop {
        match hal::host::poll(ticket) {
            Ok(answer) => {
                if chained {
                    posted::reap();
                } else {
                    PACE.took(exit, hal::time::monotonic() - start);
                }
                EXHAUSTED.wake_one();
                return answer;
            }
            Err(pending) => {
                ticket = pending;
                wait_for(&ticket);
            }
        }
    }
}

/// Every slot is in flight.
fn wait_for_slot() {
    let deadline = hal::time::monotonic() + 1_000_000;
    let _ = EXHAUSTED.wait(Interruptible::No, Some(deadline), || None::<()>);
}

/// Who waits for a request that is to tell of its end.
fn completion(ticket: &Ticket) -> &'static WaitQueue {
    &COMPLETION[ticket.slot() as usize % COMPLETION.len()]
}

fn wait_for(ticket: &Ticket) {
    if hal::host::notify(ticket) {
        let _ = completion(ticket).wait(Interruptible::No, None, || hal::host::is_done(ticket).then_some(()));
    }
}

/// From now on `listener` hears of the handle's readiness (it still has to ask the VMM to watch it).
pub fn listen(handle: u32, listener: &alloc::sync::Arc<dyn ReadyListener>) {
    let mut ready = READY.lock();
    let index = handle as usize;
    if ready.len() <= index {
        ready.resize(index + 1, None);
    }
    ready[index] = Some(alloc::sync::Arc::downgrade(listener));
}

pub fn unlisten(handle: u32) {
    if let Some(entry) = READY.lock().get_mut(handle as usize) {
        *entry = None;
    }
}

/// Takes every waiting event from the VMM. Called by the scheduler on the way out and in the idle loop; does not sleep.
pub fn drain_events() {
    use abi::event::EventKind;
    while let Some(event) = hal::host::next_event() {
        match event.kind {
            EventKind::Completion => COMPLETION[event.argument as usize % COMPLETION.len()].wake_all(),
            EventKind::Ready => {
                let listener = READY.lock().get(event.argument as usize).cloned().flatten();
                if let Some(listener) = listener.and_then(|weak| weak.upgrade()) {
                    listener.ready(event.value as u32);
                }
            }
            EventKind::Control => crate::boot::control_waits(),
            EventKind::Notify => crate::fs::host_notify(event.argument),
        }
    }
}
