//! eventfd(2): a counter that a write adds to and a read takes.

use super::pipe::restart;
use crate::errno::{EAGAIN, EINVAL};
use crate::fs::{Events, FileOps, OpenFile};
use crate::io::IoBuffer;
use crate::wait::{Interruptible, WaitQueue};
use crate::SysResult;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use hal::sync::SpinLock;

const MOST: u64 = u64::MAX - 1;

pub struct EventFd {
    count: SpinLock<u64>,
    semaphore: bool,
    queue: WaitQueue,
}

impl EventFd {
    pub fn new(initial: u64, semaphore: bool) -> Arc<Self> {
        Arc::new(Self { count: SpinLock::new(initial), semaphore, queue: WaitQueue::new() })
    }

    fn take(&self) -> Option<u64> {
        let mut count = self.count.lock();
        let value = if self.semaphore { (*count).min(1) } else { *count };
        *count -= value;
        (value > 0).then_some(value)
    }

    fn add(&self, value: u64) -> Option<()> {
        let mut count = self.count.lock();
        *count = count.checked_add(value).filter(|&sum| sum <= MOST)?;
        Some(())
    }

    /// As a write of `value` from inside the library OS (AIO, KVM-like users); saturates.
    pub fn signal(&self, value: u64) {
        let mut count = self.count.lock();
        *count = count.saturating_add(value).min(MOST);
        drop(count);
        self.queue.wake_for((Events::IN | Events::RDNORM).0);
    }
}

impl FileOps for EventFd {
    fn read(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        if buffer.remaining() < 8 {
            return Err(EINVAL);
        }
        let value = match self.take() {
            Some(value) => value,
            None if file.nonblocking() => return Err(EAGAIN),
            None => self.queue.wait(Interruptible::Yes, None, || self.take()).map_err(restart)?,
        };
        self.queue.wake_for((Events::OUT | Events::WRNORM).0);
        buffer.put(&value.to_ne_bytes())
    }

    fn write(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        let mut bytes = [0; 8];
        if buffer.remaining() < 8 {
            return Err(EINVAL);
        }
        buffer.get(&mut bytes)?;
        let value = u64::from_ne_bytes(bytes);
        if value == u64::MAX {
            return Err(EINVAL);
        }
        match self.add(value) {
            Some(()) => {}
            None if file.nonblocking() => return Err(EAGAIN),
            None => self.queue.wait(Interruptible::Yes, None, || self.add(value)).map_err(restart)?,
        }
        self.queue.wake_for((Events::IN | Events::RDNORM).0);
        Ok(8)
    }

    fn poll(&self, _file: &OpenFile) -> Events {
        let count = *self.count.lock();
        let mut events = Events::default();
        if count > 0 {
            events |= Events::IN | Events::RDNORM;
        }
        if count < MOST {
            events |= Events::OUT | Events::WRNORM;
        }
        events
    }

    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn describe(&self, _file: &OpenFile) -> String {
        String::from("anon_inode:[eventfd]")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
