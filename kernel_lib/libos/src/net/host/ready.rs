//! What is known of a host handle's readiness. The VMM reports edges; between them the library OS keeps book itself.
//!
//! Invariants:
//! - a bit that is not set is not true on the host either, or an event that says so is on its way;
//! - a bit that is set was true once; `trust` says whether it must be asked for again before a program may rely on it;
//! - an event that comes while a request is under way is never lost: [`Readiness::begin`] is called before it,
//!   and what the request found out counts only as far as no event came since.

use crate::errno::Errno;
use crate::fs::Events;
use crate::host::ReadyListener;
use crate::wait::WaitQueue;
use alloc::sync::Arc;
use hal::sync::SpinLock;

const READ: u32 = Events::IN.0 | Events::RDNORM.0;
const WRITE: u32 = Events::OUT.0 | Events::WRNORM.0;
/// A receive shortly before an event: the event may tell of bytes that it took already.
const SUSPICIOUS_NS: u64 = 5_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Trust {
    #[default]
    Sure,
    /// An event came, but close behind a receive.
    Likely,
    /// A receive may have taken all there was.
    Doubtful,
}

#[derive(Default)]
struct State {
    bits: u32,
    /// How many events came for reading and for writing.
    read_edges: u64,
    write_edges: u64,
    trust: Trust,
    watched: bool,
    last_receive: u64,
}

/// How many events had come when a request began.
#[derive(Clone, Copy)]
pub struct Mark {
    read: u64,
    write: u64,
}

#[derive(Default)]
pub struct Readiness {
    state: SpinLock<State>,
    /// Shared with the channels of a connection inside the guest.
    pub queue: Arc<WaitQueue>,
}

impl ReadyListener for Readiness {
    fn ready(&self, events: u32) {
        let events = with_normal(events);
        let mut state = self.state.lock();
        state.bits |= events;
        if events & !READ != 0 {
            state.write_edges += 1;
        }
        if events & !WRITE != 0 {
            state.read_edges += 1;
            let recent = state.last_receive != 0 && hal::time::monotonic().saturating_sub(state.last_receive) < SUSPICIOUS_NS;
            state.trust = if recent { Trust::Likely } else { Trust::Sure };
        }
        drop(state);
        self.queue.wake_for(events);
    }
}

/// Epoll's RDNORM and WRNORM go with IN and OUT.
const fn with_normal(events: u32) -> u32 {
    let mut all = events;
    if events & Events::IN.0 != 0 {
        all |= Events::RDNORM.0;
    }
    if events & Events::OUT.0 != 0 {
        all |= Events::WRNORM.0;
    }
    all
}

impl Readiness {
    /// The cached bits, when a program may rely on them; None: ask the host.
    pub fn known(&self, nonblocking: bool) -> Option<u32> {
        let state = self.state.lock();
        let doubtful = match state.trust {
            Trust::Sure => false,
            // A program that never blocks only loses a call by a readiness that is not there.
            Trust::Likely => !nonblocking,
            Trust::Doubtful => true,
        };
        if !state.watched || (doubtful && state.bits & READ != 0) {
            None
        } else {
            Some(state.bits)
        }
    }

    pub fn bits(&self) -> u32 {
        self.state.lock().bits
    }

    pub fn is_watched(&self) -> bool {
        self.state.lock().watched
    }

    /// A request that changes or tells the readiness is about to be made.
    pub fn begin(&self) -> Mark {
        let state = self.state.lock();
        Mark { read: state.read_edges, write: state.write_edges }
    }

    /// The host told the present readiness.
    pub fn settle(&self, mark: Mark, told: u32, watched: bool) {
        let mut state = self.state.lock();
        let news = mark.read != state.read_edges || mark.write != state.write_edges;
        state.bits = with_normal(told) | if news { state.bits } else { 0 };
        state.trust = Trust::Sure;
        state.watched |= watched;
    }

    /// A receive (or accept) ended. `drained`: it came back with less than asked for, or with EAGAIN.
    pub fn received(&self, mark: Mark, drained: bool) {
        let mut state = self.state.lock();
        if !state.watched {
            return;
        }
        state.last_receive = hal::time::monotonic();
        let ended = (Events::RDHUP | Events::HUP | Events::ERR).0;
        if state.bits & ended != 0 {
            return;
        }
        if drained && state.read_edges == mark.read {
            state.bits &= !READ;
        } else {
            state.trust = Trust::Doubtful;
        }
    }

    /// A send took less than offered, or none.
    pub fn filled(&self, mark: Mark) {
        let mut state = self.state.lock();
        if state.write_edges == mark.write {
            state.bits &= !WRITE;
        }
    }

    /// Makes sure that events come, and gives the present bits.
    pub fn watch(&self, ask: impl FnOnce() -> Result<u32, Errno>) -> u32 {
        let mark = self.begin();
        if let Ok(told) = ask() {
            self.settle(mark, told, true);
        }
        self.bits()
    }
}
