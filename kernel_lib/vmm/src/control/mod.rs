//! Between the runtime and the library OS: messages to the guest wait in a queue until it fetches them; what it sends changes the
//! container's state and answers whoever waits for it.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use abi::config::{FromGuest, ToGuest};
use abi::event::EventKind;

use crate::events::Events;
use crate::machine::Notice;
use crate::services::Errno;

#[derive(Default)]
struct State {
    queue: VecDeque<Vec<u8>>,
}

pub struct Control {
    events: Arc<Events>,
    state: Mutex<State>,
}

impl Control {
    pub fn new(events: Arc<Events>) -> Self {
        Self { events, state: Mutex::default() }
    }

    /// Queues a message and tells the guest.
    pub fn send(&self, message: &ToGuest) {
        let Ok(bytes) = postcard::to_allocvec(message) else {
            return;
        };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).queue.push_back(bytes);
        let _ = self.events.try_post(EventKind::Control, 0, 0, 0);
    }

    /// The next message, if it fits into `room` bytes.
    pub fn next_for_guest(&self, room: u64) -> Result<Vec<u8>, Errno> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.queue.front() {
            None => Err(Errno::AGAIN),
            Some(message) if message.len() as u64 > room => Err(Errno::MSGSIZE),
            Some(_) => state.queue.pop_front().ok_or(Errno::AGAIN),
        }
    }

    pub fn put_back(&self, message: Vec<u8>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).queue.push_front(message);
    }

    pub fn from_guest(&self, message: FromGuest, _notices: &Sender<Notice>) {
        match message {
            FromGuest::Log { line } => crate::log::info(&line),
            FromGuest::Trace { line } => crate::log::info(&line),
            FromGuest::Started { errno, message } if errno != 0 => crate::log::error(&message),
            _ => {}
        }
    }
}
