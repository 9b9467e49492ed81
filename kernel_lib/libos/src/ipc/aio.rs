//! Contexts of asynchronous I/O (io_submit(2)): how many requests may be outstanding, and the events of those that are done. A request is
//! done when it is submitted, so an event waits from then on.

use crate::errno::{Errno, EAGAIN, EINTR, EINVAL, ETIMEDOUT};
use crate::wait::{Interruptible, WaitQueue};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::sync::SpinLock;
use zerocopy::{Immutable, IntoBytes};

/// struct io_event.
#[repr(C)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
pub struct Event {
    pub data: u64,
    /// Address of the request.
    pub request: u64,
    pub result: i64,
    pub result2: i64,
}

pub struct Context {
    most: usize,
    events: SpinLock<VecDeque<Event>>,
    destroyed: AtomicBool,
    changed: WaitQueue,
}

impl Context {
    /// EAGAIN: no further request fits.
    pub fn check_room(&self) -> Result<(), Errno> {
        if self.events.lock().len() < self.most {
            Ok(())
        } else {
            Err(EAGAIN)
        }
    }

    pub fn complete(&self, event: Event) {
        self.events.lock().push_back(event);
        self.changed.wake_all();
    }

    /// Hands at most `most` events to `report`, waiting for at least `least`: how many.
    pub fn collect(
        &self,
        least: usize,
        most: usize,
        deadline: Option<u64>,
        mut report: impl FnMut(usize, &Event) -> Result<(), Errno>,
    ) -> Result<usize, Errno> {
        let mut done = 0;
        loop {
            while done < most {
                let Some(event) = self.events.lock().pop_front() else { break };
                report(done, &event)?;
                done += 1;
            }
            if done >= least || done == most {
                return Ok(done);
            }
            if self.destroyed.load(Ordering::Acquire) {
                return Err(EINVAL);
            }
            let ready = || (!self.events.lock().is_empty() || self.destroyed.load(Ordering::Acquire)).then_some(());
            match self.changed.wait(Interruptible::Yes, deadline, ready) {
                Ok(()) => {}
                Err(ETIMEDOUT) => return Ok(done),
                Err(EINTR) if done > 0 => return Ok(done),
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// A process's contexts, by the address that each is known by.
#[derive(Default)]
pub struct Contexts(SpinLock<BTreeMap<u64, Arc<Context>>>);

impl Contexts {
    pub fn add(&self, address: u64, most: usize) {
        let context = Context { most, events: SpinLock::default(), destroyed: AtomicBool::new(false), changed: WaitQueue::new() };
        self.0.lock().insert(address, Arc::new(context));
    }

    pub fn find(&self, address: u64) -> Result<Arc<Context>, Errno> {
        self.0.lock().get(&address).cloned().ok_or(EINVAL)
    }

    pub fn remove(&self, address: u64) -> Result<(), Errno> {
        let context = self.0.lock().remove(&address).ok_or(EINVAL)?;
        context.destroyed.store(true, Ordering::Release);
        context.changed.wake_all();
        Ok(())
    }

    /// execve(2).
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}
