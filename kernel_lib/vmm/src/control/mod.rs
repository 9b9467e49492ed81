//! Between the runtime and the library OS (`docs/control-protocol.md`).
//!
//! Messages to the guest wait in a queue until it fetches them (`report` NEXT); what it sends (`report` SEND, on a server thread) changes the
//! container's state and answers the client who waits for it. Clients are read by one thread ([`listen`]); answers are sent from
//! whichever thread has them, without ever blocking.
//!
//! ```text
//!   created ──Started 0──▶ running ──Exited──▶ stopped
//!      └──── Started errno, Exited ──────────────▲
//! ```
//! (`paused` is a property of the vCPU threads, shown in place of created and running.)

mod budget;
mod connection;
mod guest;
pub mod listen;
mod message;
mod requests;
pub mod stats;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use abi::config::ToGuest;
use abi::event::EventKind;
use serde_json::{json, Value};

use crate::events::Events;
use crate::machine::Notice;
use crate::ready::Ready;
use crate::server::Servers;
use crate::services::{Errno, Host};
use crate::vcpu::{Gate, Status as VcpuStatus};
use budget::Budget;
use connection::Connection;

/// Messages that may wait for a guest that does not fetch them.
const MAX_QUEUE: usize = 1024;

/// Who waits for an answer, and under which id.
#[derive(Clone)]
struct Caller {
    connection: Arc<Connection>,
    id: Value,
}

impl Caller {
    fn answer(&self, mut fields: Value) {
        if let Some(map) = fields.as_object_mut() {
            map.insert("id".to_owned(), self.id.clone());
            map.insert("ok".to_owned(), Value::Bool(true));
        }
        self.connection.send(&fields);
    }

    fn refuse(&self, message: &str, errno: i32) {
        self.connection.send(&json!({ "id": self.id, "error": message, "errno": errno }));
    }
}

/// An exec'd process, from its request to its end.
struct Exec {
    token: u32,
    caller: Caller,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Created,
    Starting,
    Running,
    /// PID 1 could not be executed; the VM is ending.
    Failed,
    Stopped {
        status: u32,
    },
}

#[derive(Default)]
struct State {
    queue: VecDeque<Vec<u8>>,
    phase: Phase,
    next_token: u32,
    /// Answers that the guest owes, by token.
    pending: BTreeMap<u32, Caller>,
    starts: Vec<Caller>,
    execs: Vec<Exec>,
    waiters: Vec<Caller>,
    subscribers: Vec<Arc<Connection>>,
    /// The trace was asked for by somebody who reads it, not by the launch plan, which wants it in the log.
    traced_by_client: bool,
    log_budget: Budget,
}

/// What control requests act on beyond the library OS.
pub struct Parts {
    pub host: Weak<Host>,
    pub servers: Weak<Servers>,
    pub gate: Arc<Gate>,
    pub vcpus: Arc<Mutex<Vec<Arc<VcpuStatus>>>>,
}

pub struct Control {
    events: Arc<Events>,
    notices: Sender<Notice>,
    ready: Arc<Ready>,
    state: Mutex<State>,
    parts: OnceLock<Parts>,
}

impl Control {
    pub fn new(events: Arc<Events>, notices: Sender<Notice>, ready: Arc<Ready>) -> Self {
        let state = State { next_token: 1, ..State::default() };
        Self { events, notices, ready, state: Mutex::new(state), parts: OnceLock::new() }
    }

    /// Before the guest runs.
    pub fn attach(&self, parts: Parts) {
        let _ = self.parts.set(parts);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message and tells the guest.
    pub fn send(&self, message: &ToGuest) -> Result<(), Errno> {
        let bytes = postcard::to_allocvec(message).map_err(|_| Errno::NOMEM)?;
        {
            let mut state = self.state();
            if state.queue.len() >= MAX_QUEUE {
                return Err(Errno::AGAIN);
            }
            state.queue.push_back(bytes);
        }
        self.announce();
        Ok(())
    }

    /// A guest whose event ring is full of events that can wait drains it, and then asks for messages or not: its own affair.
    fn announce(&self) {
        let _ = self.events.try_post(EventKind::Control, 0, 0, 0);
    }

    /// The next message, if it fits into `room` bytes.
    pub fn next_for_guest(&self, room: u64) -> Result<Vec<u8>, Errno> {
        let mut state = self.state();
        match state.queue.front() {
            None => Err(Errno::AGAIN),
            Some(message) if message.len() as u64 > room => Err(Errno::MSGSIZE),
            Some(_) => state.queue.pop_front().ok_or(Errno::AGAIN),
        }
    }

    pub fn put_back(&self, message: Vec<u8>) {
        self.state().queue.push_front(message);
    }

    /// Starts PID 1 (of a container that nobody starts by a request).
    pub fn start(&self) {
        self.state().phase = Phase::Starting;
        let _ = self.send(&ToGuest::Start);
    }

    /// PID 1's terminal has another size.
    pub fn resize_main(&self, rows: u16, columns: u16) {
        let _ = self.send(&ToGuest::Resize { token: 0, rows, columns });
    }

    /// The VM ends: everybody who still waits is told, unless the guest has said so itself. `status`: of wait(2).
    pub fn finish(&self, status: u32) {
        let (waiters, subscribers) = {
            let mut state = self.state();
            if let Phase::Stopped { .. } = state.phase {
                return;
            }
            state.phase = Phase::Stopped { status };
            (std::mem::take(&mut state.waiters), std::mem::take(&mut state.subscribers))
        };
        for waiter in waiters {
            waiter.answer(json!({ "status": status }));
        }
        if !subscribers.is_empty() {
            let event = json!({ "event": "exit", "status": status, "stats": self.stats() });
            for subscriber in subscribers {
                subscriber.send(&event);
            }
        }
    }
}
