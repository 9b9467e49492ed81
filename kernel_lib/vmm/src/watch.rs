//! Readiness: one thread waits with epoll (edge triggered) for all watched handles and posts READY events.
//!
//! When the event ring is full the thread waits: edges stay in the epoll instance meanwhile, so that none is lost and a guest that does
//! not drain its ring holds up nobody but itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use abi::event::EventKind;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::error::{During, HostError, Kind};
use crate::events::Events;
use crate::handles::{Handle, Kind as HandleKind};
use crate::services::Errno;

/// Set in an event's data for an inotify handle.
const NOTIFY: u64 = 1 << 63;
/// The data of the window's own inotify instance.
const WINDOW: u64 = u64::MAX;
const BACK_OFF: Duration = Duration::from_millis(1);

pub struct Watcher {
    epoll: OwnedFd,
    events: Arc<Events>,
}

impl Watcher {
    pub fn new(events: Arc<Events>) -> Result<Self, HostError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).during(Kind::Host, "epoll_create1")?;
        Ok(Self { epoll, events })
    }

    pub fn watch(&self, number: u32, handle: &Handle, vcpu: u32) -> Result<(), Errno> {
        let kind = if handle.kind == HandleKind::Inotify { NOTIFY } else { 0 };
        let data = EventData::new_u64(u64::from(number) | u64::from(vcpu & 0xff) << 32 | kind);
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET;
        match epoll::add(&self.epoll, handle, data, interest) {
            // Watched already: a modification reports the present readiness again.
            Err(Errno::EXIST) => epoll::modify(&self.epoll, handle, data, interest),
            // A regular file is always ready.
            Err(Errno::PERM) => {
                let value = u64::from((EventFlags::IN | EventFlags::OUT).bits());
                self.events.try_post(EventKind::Ready, number, value, vcpu).map_err(|_| Errno::AGAIN)
            }
            other => other,
        }
    }

    /// The inotify instance of the DAX window: its events go to the VMM itself.
    pub fn watch_window(&self, handle: &Handle) -> Result<(), Errno> {
        epoll::add(&self.epoll, handle, EventData::new_u64(WINDOW), EventFlags::IN | EventFlags::ET)
    }

    /// No more events for a handle. (One that was about to be posted may still come.)
    pub fn forget(&self, _number: u32, handle: &Handle) {
        if matches!(handle.kind, HandleKind::Stream | HandleKind::Socket | HandleKind::Inotify) {
            let _ = epoll::delete(&self.epoll, handle);
        }
    }

    /// The life of the readiness thread. `window_changed`: mapped files may have another size.
    pub fn serve(&self, window_changed: impl Fn()) {
        while self.serve_some(256, &window_changed) {}
    }

    /// Waits for at most `count` handles to become ready and posts their events; false: the host refused.
    pub fn serve_some(&self, count: usize, window_changed: &impl Fn()) -> bool {
        let mut list = Vec::with_capacity(count);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut list), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                crate::log::error(&format!("epoll_wait: {error}"));
                return false;
            }
        }
        for event in &list {
            let data = event.data.u64();
            if data == WINDOW {
                window_changed();
                continue;
            }
            let (number, vcpu) = (data as u32, (data >> 32 & 0xff) as u32);
            let kind = if data & NOTIFY == 0 { EventKind::Ready } else { EventKind::Notify };
            let value = u64::from({ event.flags }.bits());
            while self.events.try_post(kind, number, value, vcpu).is_err() {
                std::thread::sleep(BACK_OFF);
            }
        }
        true
    }
}
