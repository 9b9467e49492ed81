//! epoll(7). Each watched file has an [`Item`] registered in the file's wait queue; a wake-up puts the item on the instance's ready list, and
//! `epoll_wait` looks only at that list.
//!
//! Invariants:
//! - an item is on `ready` at most once (`queued`); `queued` is cleared before the item is polled, so that a wake-up in between queues it again;
//! - level-triggered items that were ready go back to the end of the list and are looked at again by the next wait;
//! - an item holds its file weakly: closing the last descriptor ends the watch (epoll(7), question 6); the weak reference keeps the
//!   address from being reused, so (descriptor, address) names an item for as long as it exists;
//! - instances never form a cycle and nest at most [`MAX_NESTS`] deep.
//!
//! Lock order: `scan` (sleeping; the outer instance's before the inner's) > `items` (sleeping) > wait queue of a file > `ready` >
//! `queue` of the instance. A wake-up runs under the file's wait-queue lock, so `Item` never touches that queue when dropped.

use crate::errno::{Errno, EBADF, EEXIST, EINVAL, ELOOP, ENOENT, EPERM, ETIMEDOUT};
use crate::fs::{Events, FileOps, OpenFile};
use crate::sync::Mutex;
use crate::wait::{Interruptible, WaitQueue, Waiter};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use hal::sync::SpinLock;

pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
pub const EPOLLWAKEUP: u32 = 1 << 29;
pub const EPOLLONESHOT: u32 = 1 << 30;
pub const EPOLLET: u32 = 1 << 31;
const ALWAYS: u32 = Events::ERR.0 | Events::HUP.0;
const PRIVATE: u32 = EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET;
/// With EPOLLEXCLUSIVE only these may be asked for (epoll_ctl(2)).
const EXCLUSIVE_OK: u32 = Events::IN.0 | Events::OUT.0 | ALWAYS | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;
const MAX_NESTS: usize = 4;

type Key = (i32, usize);

/// One watched file.
struct Item {
    epoll: Weak<Epoll>,
    myself: Weak<Item>,
    key: Key,
    file: Weak<OpenFile>,
    /// What is asked for, flags included; no event bit left: EPOLLONESHOT has fired.
    mask: AtomicU32,
    data: AtomicU64,
    queued: AtomicBool,
}

impl Item {
    /// What of the mask is true now. None: the file is closed.
    fn poll(&self) -> Option<u32> {
        let file = self.file.upgrade()?;
        Some(file.ops.poll(&file).0 & self.wanted())
    }

    /// The event bits asked for; nothing while a oneshot item is disabled.
    fn wanted(&self) -> u32 {
        match self.mask.load(Ordering::Acquire) {
            mask if mask & !PRIVATE == 0 => 0,
            mask => mask & !PRIVATE,
        }
    }

    /// Puts the item on the ready list; whether it was not there.
    fn enqueue(&self, epoll: &Epoll) -> bool {
        if self.queued.swap(true, Ordering::AcqRel) {
            return false;
        }
        if let Some(item) = self.myself.upgrade() {
            epoll.ready.lock().push_back(item);
        }
        true
    }
}

impl Waiter for Item {
    fn wake(&self) {
        self.wake_for(0);
    }

    fn wake_for(&self, events: u32) -> bool {
        let wanted = self.wanted();
        if wanted == 0 || (events != 0 && events & wanted == 0) {
            return false;
        }
        let Some(epoll) = self.epoll.upgrade() else { return false };
        let waiting = epoll.queue.has_waiters();
        let queued = self.enqueue(&epoll);
        if queued {
            epoll.queue.wake_for(Events::IN.0 | Events::RDNORM.0);
        }
        queued && waiting
    }

    fn is_exclusive(&self) -> bool {
        self.mask.load(Ordering::Acquire) & EPOLLEXCLUSIVE != 0
    }
}

pub struct Epoll {
    items: Mutex<BTreeMap<Key, Arc<Item>>>,
    ready: SpinLock<VecDeque<Arc<Item>>>,
    /// One look at the ready list at a time.
    scan: Mutex<()>,
    queue: WaitQueue,
}

/// As the program's `struct epoll_event` (packed on x86-64).
#[derive(Clone, Copy)]
pub struct Event {
    pub events: u32,
    pub data: u64,
}

impl Epoll {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            items: Mutex::new(BTreeMap::new()),
            ready: SpinLock::new(VecDeque::new()),
            scan: Mutex::new(()),
            queue: WaitQueue::new(),
        })
    }

    /// EPOLL_CTL_ADD.
    pub fn add(self: &Arc<Self>, fd: i32, file: &Arc<OpenFile>, event: Event) -> Result<(), Errno> {
        if event.events & EPOLLEXCLUSIVE != 0 && (event.events & !EXCLUSIVE_OK != 0 || file.ops_as::<Self>().is_some()) {
            return Err(EINVAL);
        }
        let Some(queue) = file.ops.poll_queue(file) else { return Err(EPERM) };
        if let Some(inner) = file.ops_as::<Self>() {
            if inner.reaches(self, MAX_NESTS)? {
                return Err(ELOOP);
            }
        }
        let key = (fd, Arc::as_ptr(file) as usize);
        let mut items = self.items.lock();
        if items.contains_key(&key) {
            return Err(EEXIST);
        }
        let item = Arc::new_cyclic(|myself: &Weak<Item>| Item {
            epoll: Arc::downgrade(self),
            myself: myself.clone(),
            key,
            file: Arc::downgrade(file),
            mask: AtomicU32::new(event.events | ALWAYS),
            data: AtomicU64::new(event.data),
            queued: AtomicBool::new(false),
        });
        items.insert(key, item.clone());
        drop(items);
        let waiter: Arc<dyn Waiter> = item.clone();
        queue.register(&waiter);
        self.look(&item);
        Ok(())
    }

    /// EPOLL_CTL_MOD.
    pub fn modify(&self, fd: i32, file: &Arc<OpenFile>, event: Event) -> Result<(), Errno> {
        let item = self.item(fd, file)?;
        let old = item.mask.load(Ordering::Acquire);
        if (old | event.events) & EPOLLEXCLUSIVE != 0 {
            return Err(EINVAL);
        }
        item.data.store(event.data, Ordering::Release);
        item.mask.store(event.events | ALWAYS, Ordering::Release);
        self.look(&item);
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    pub fn delete(&self, fd: i32, file: &Arc<OpenFile>) -> Result<(), Errno> {
        let item = self.items.lock().remove(&(fd, Arc::as_ptr(file) as usize)).ok_or(ENOENT)?;
        self.forget(&item);
        Ok(())
    }

    fn item(&self, fd: i32, file: &Arc<OpenFile>) -> Result<Arc<Item>, Errno> {
        self.items.lock().get(&(fd, Arc::as_ptr(file) as usize)).cloned().ok_or(ENOENT)
    }

    /// Ready at once? (A new or changed watch.)
    fn look(&self, item: &Item) {
        if item.poll().is_some_and(|events| events != 0) && item.enqueue(self) {
            self.queue.wake_for(Events::IN.0 | Events::RDNORM.0);
        }
    }

    /// Ends a watch that is out of `items` already.
    fn forget(&self, item: &Arc<Item>) {
        item.mask.store(0, Ordering::Release);
        if let Some(file) = item.file.upgrade() {
            if let Some(queue) = file.ops.poll_queue(&file) {
                let waiter: Arc<dyn Waiter> = item.clone();
                queue.unregister(&waiter);
            }
        }
        if item.queued.load(Ordering::Acquire) {
            self.ready.lock().retain(|other| !Arc::ptr_eq(other, item));
        }
    }

    /// Whether `target` is this instance or watched by it, directly or through others.
    fn reaches(&self, target: &Self, depth: usize) -> Result<bool, Errno> {
        if core::ptr::eq(self, target) {
            return Ok(true);
        }
        if depth == 0 {
            return Err(ELOOP);
        }
        let watched: Vec<_> = self.items.lock().values().filter_map(|item| item.file.upgrade()).collect();
        for file in watched {
            if let Some(inner) = file.ops_as::<Self>() {
                if inner.reaches(target, depth - 1)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Reports what is ready, at most `most` events. `report` may fail (the program's buffer): the item stays ready then.
    fn collect(&self, most: usize, report: &mut impl FnMut(Event) -> Result<(), Errno>) -> Result<usize, Errno> {
        if self.ready.lock().is_empty() {
            return Ok(0);
        }
        let guard = self.scan.lock();
        // Items that go back to the list are not looked at twice.
        let mut left = self.ready.lock().len();
        let mut count = 0;
        let mut level = false;
        let mut failure = None;
        while count < most && left > 0 {
            left -= 1;
            let Some(item) = self.ready.lock().pop_front() else { break };
            item.queued.store(false, Ordering::Release);
            let events = match item.poll() {
                None => {
                    self.items.lock().remove(&item.key);
                    continue;
                }
                Some(0) => continue,
                Some(events) => events,
            };
            if let Err(error) = report(Event { events, data: item.data.load(Ordering::Acquire) }) {
                item.enqueue(self);
                failure = Some(error);
                break;
            }
            count += 1;
            let mask = item.mask.load(Ordering::Acquire);
            if mask & EPOLLONESHOT != 0 {
                item.mask.store(mask & PRIVATE, Ordering::Release);
            } else if mask & EPOLLET == 0 {
                item.enqueue(self);
                level = true;
            }
        }
        drop(guard);
        if level || failure.is_some() {
            // Another thread that waits takes what is still ready.
            self.queue.wake_one();
        }
        match failure {
            Some(error) if count == 0 => Err(error),
            _ => Ok(count),
        }
    }

    /// epoll_wait(2): events reported; 0 past the deadline.
    pub fn wait(&self, most: usize, deadline: Option<u64>, mut report: impl FnMut(Event) -> Result<(), Errno>) -> Result<usize, Errno> {
        loop {
            let count = self.collect(most, &mut report)?;
            if count > 0 || deadline == Some(0) {
                return Ok(count);
            }
            let ready = || (!self.ready.lock().is_empty()).then_some(());
            match self.queue.wait(Interruptible::Yes, deadline, ready) {
                Ok(()) => {}
                Err(ETIMEDOUT) => return self.collect(most, &mut report),
                Err(error) => return Err(error),
            }
        }
    }
}

impl FileOps for Epoll {
    /// Readable when a watched file is ready; items that are not ready any more leave the list.
    fn poll(&self, _file: &OpenFile) -> Events {
        let _guard = self.scan.lock();
        let mut left = self.ready.lock().len();
        while left > 0 {
            left -= 1;
            let Some(item) = self.ready.lock().pop_front() else { break };
            item.queued.store(false, Ordering::Release);
            if item.poll().is_some_and(|events| events != 0) {
                if !item.queued.swap(true, Ordering::AcqRel) {
                    self.ready.lock().push_front(item);
                }
                return Events::IN | Events::RDNORM;
            }
        }
        Events::default()
    }

    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn release(&self, _file: &OpenFile) {
        let items = core::mem::take(&mut *self.items.lock());
        for item in items.values() {
            self.forget(item);
        }
    }

    fn describe(&self, _file: &OpenFile) -> String {
        String::from("anon_inode:[eventpoll]")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The instance behind a descriptor. `Arc` because items refer back to it.
pub fn of(file: &Arc<OpenFile>) -> Result<Arc<Epoll>, Errno> {
    if file.ops_as::<Epoll>().is_none() {
        return Err(EINVAL);
    }
    let ops: Arc<dyn Any + Send + Sync> = file.ops.clone();
    ops.downcast::<Epoll>().map_err(|_| EBADF)
}
