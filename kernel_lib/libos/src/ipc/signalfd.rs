//! signalfd(2): signals as something to read. What waits is the reading process's, whoever made the descriptor.
//!
//! Each process that polls the descriptor has a [`Relay`] in its arrival queue, which wakes the descriptor's own queue.

use super::pipe::restart;
use crate::errno::{Errno, EAGAIN, EINVAL};
use crate::fs::{Events, FileOps, OpenFile};
use crate::io::IoBuffer;
use crate::process::Process;
use crate::sched;
use crate::signal::{self, SigSet};
use crate::wait::{Interruptible, WaitQueue, Waiter};
use crate::SysResult;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::sync::SpinLock;
use linux_abi::signal::{SigInfo, SIGCHLD, SI_KERNEL, SI_QUEUE, SI_TIMER, SI_TKILL, SI_USER};

const RECORD: usize = 128;

struct Relay {
    file: Weak<SignalFd>,
}

impl Waiter for Relay {
    fn wake(&self) {
        if let Some(file) = self.file.upgrade() {
            file.queue.wake_for((Events::IN | Events::RDNORM).0);
        }
    }
}

type Joined = (Weak<Process>, Arc<dyn Waiter>);

pub struct SignalFd {
    mask: AtomicU64,
    myself: Weak<SignalFd>,
    relays: SpinLock<Vec<Joined>>,
    queue: WaitQueue,
}

impl SignalFd {
    pub fn new(mask: SigSet) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            mask: AtomicU64::new(mask.without(SigSet::UNBLOCKABLE).0),
            myself: myself.clone(),
            relays: SpinLock::default(),
            queue: WaitQueue::new(),
        })
    }

    pub fn set_mask(&self, mask: SigSet) {
        self.mask.store(mask.without(SigSet::UNBLOCKABLE).0, Ordering::SeqCst);
        self.queue.wake_all();
    }

    fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::SeqCst))
    }

    /// Makes the current process's signals wake this descriptor's queue.
    fn join(&self) {
        let process = sched::current().process.clone();
        let mut relays = self.relays.lock();
        if relays.iter().any(|(known, _)| core::ptr::eq(known.as_ptr(), Arc::as_ptr(&process))) {
            return;
        }
        relays.retain(|(known, _)| known.strong_count() > 0);
        let relay: Arc<dyn Waiter> = Arc::new(Relay { file: self.myself.clone() });
        relays.push((Arc::downgrade(&process), relay.clone()));
        drop(relays);
        process.signals.arrival.register(&relay);
    }
}

/// struct signalfd_siginfo.
fn record(info: &SigInfo) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    put(0, info.signo as u32);
    put(4, info.errno as u32);
    put(8, info.code as u32);
    let field = |index: usize| info.fields[index];
    match info.code {
        SI_TIMER => {
            put(24, field(0));
            put(32, field(1));
            put(44, field(2));
            put(48, field(2));
            put(52, field(3));
        }
        SI_USER | SI_TKILL | SI_KERNEL => {
            put(12, field(0));
            put(16, field(1));
        }
        code if code <= SI_QUEUE => {
            put(12, field(0));
            put(16, field(1));
            put(44, field(2));
            put(48, field(2));
            put(52, field(3));
        }
        _ if info.signo == SIGCHLD => {
            put(12, field(0));
            put(16, field(1));
            put(40, field(2));
            put(56, field(4));
            put(60, field(5));
            put(64, field(6));
            put(68, field(7));
        }
        _ => {
            put(72, field(0));
            put(76, field(1));
        }
    }
    bytes
}

impl FileOps for SignalFd {
    fn read(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        if buffer.remaining() < RECORD {
            return Err(EINVAL);
        }
        let task = sched::current();
        let start = buffer.done();
        while buffer.remaining() >= RECORD {
            let first = buffer.done() == start;
            let info = match signal::take(&task, self.mask()) {
                Some(info) => info,
                None if !first => break,
                None if file.nonblocking() => return Err(EAGAIN),
                None => {
                    let arrival = &task.process.signals.arrival;
                    arrival.wait(Interruptible::Yes, None, || signal::take(&task, self.mask())).map_err(restart)?
                }
            };
            buffer.put(&record(&info))?;
        }
        Ok(buffer.done() - start)
    }

    fn poll(&self, _file: &OpenFile) -> Events {
        // Looked at from an expiry or another process's wake-up there is no telling whose signals count.
        let Some(task) = sched::try_current() else { return Events::default() };
        let pending = task.signals.pending().union(task.process.signals.pending());
        if pending.and(self.mask()).is_empty() {
            Events::default()
        } else {
            Events::IN | Events::RDNORM
        }
    }

    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        self.join();
        Some(&self.queue)
    }

    fn describe(&self, _file: &OpenFile) -> String {
        String::from("anon_inode:[signalfd]")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The descriptor's signals. EINVAL: it is no signalfd.
pub fn of(file: &OpenFile) -> Result<&SignalFd, Errno> {
    file.ops_as().ok_or(EINVAL)
}
