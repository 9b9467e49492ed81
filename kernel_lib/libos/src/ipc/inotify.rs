//! inotify(7): what happened to watched files and directories, as records to read. The events come from [`crate::fs::notify`].
//!
//! Lock order: `state` (spin) is a leaf; inodes that are watched no more go to `garbage` and are dropped where sleeping is allowed.

use super::pipe::restart;
use crate::errno::{Errno, EAGAIN, EEXIST, EINVAL, ENOSPC, ENOTTY};
use crate::fs::dentry::Dentry;
use crate::fs::notify::Watcher;
use crate::fs::{Events, FileOps, OpenFile};
use crate::io::IoBuffer;
use crate::process::Task;
use crate::wait::{Interruptible, WaitQueue};
use crate::SysResult;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use hal::sync::SpinLock;
use linux_abi::fs::{IN_EXCL_UNLINK, IN_IGNORED, IN_Q_OVERFLOW};

pub const IN_ONESHOT: u32 = 0x8000_0000;
pub const IN_MASK_CREATE: u32 = 0x1000_0000;
pub const IN_MASK_ADD: u32 = 0x2000_0000;
pub const IN_ALL_EVENTS: u32 = 0xfff;
/// fs.inotify.max_queued_events and max_user_watches.
const MAX_QUEUED: usize = 16384;
const MAX_WATCHES: usize = 65536;
const HEADER: usize = 16;
const FIONREAD: u32 = 0x541b;

struct Watched {
    dentry: Arc<Dentry>,
    mask: u32,
}

#[derive(PartialEq, Eq)]
struct Record {
    watch: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Record {
    /// Bytes of the name's field: NUL-terminated and padded so that the next record is aligned.
    fn name_bytes(&self) -> usize {
        if self.name.is_empty() {
            0
        } else {
            (self.name.len() + 1).next_multiple_of(HEADER)
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.name_bytes());
        bytes.extend_from_slice(&self.watch.to_ne_bytes());
        for word in [self.mask, self.cookie, self.name_bytes() as u32] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(&self.name);
        bytes.resize(HEADER + self.name_bytes(), 0);
        bytes
    }
}

#[derive(Default)]
struct State {
    records: VecDeque<Record>,
    watches: BTreeMap<i32, Watched>,
    last_number: i32,
    garbage: Vec<Watched>,
}

pub struct Inotify {
    myself: Weak<Inotify>,
    state: SpinLock<State>,
    queue: WaitQueue,
}

impl Inotify {
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|myself| Self { myself: myself.clone(), state: SpinLock::default(), queue: WaitQueue::new() })
    }

    fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        self.myself.upgrade().map(|watcher| watcher as Arc<dyn Watcher>)
    }

    fn sweep(&self) {
        let garbage = core::mem::take(&mut self.state.lock().garbage);
        drop(garbage);
    }

    /// inotify_add_watch(2): the watch's number; a file that is watched already keeps its own.
    pub fn add(&self, dentry: &Arc<Dentry>, mask: u32) -> Result<i32, Errno> {
        self.sweep();
        let watcher = self.watcher().ok_or(EINVAL)?;
        let mut state = self.state.lock();
        let known = state.watches.iter_mut().find(|(_, watched)| Arc::ptr_eq(watched.dentry.inode(), dentry.inode()));
        let (number, mask) = match known {
            Some(_) if mask & IN_MASK_CREATE != 0 => return Err(EEXIST),
            Some((&number, watched)) => {
                watched.mask = if mask & IN_MASK_ADD != 0 { watched.mask | mask } else { mask };
                (number, watched.mask)
            }
            None => {
                if state.watches.len() >= MAX_WATCHES {
                    return Err(ENOSPC);
                }
                state.last_number = state.last_number.checked_add(1).ok_or(ENOSPC)?;
                let number = state.last_number;
                state.watches.insert(number, Watched { dentry: dentry.clone(), mask });
                (number, mask)
            }
        };
        drop(state);
        dentry.inode().state().watches.set(&watcher, number, mask & (IN_ALL_EVENTS | IN_EXCL_UNLINK));
        Ok(number)
    }

    /// inotify_rm_watch(2).
    pub fn remove(&self, number: i32) -> Result<(), Errno> {
        let watched = self.state.lock().watches.remove(&number).ok_or(EINVAL)?;
        if let Some(watcher) = self.watcher() {
            watched.dentry.inode().state().watches.remove(&watcher, number);
        }
        self.push(Record { watch: number, mask: IN_IGNORED, cookie: 0, name: Vec::new() });
        self.sweep();
        Ok(())
    }

    fn push(&self, record: Record) {
        let mut state = self.state.lock();
        if state.records.back() == Some(&record) {
            return;
        }
        match state.records.len() {
            count if count < MAX_QUEUED => state.records.push_back(record),
            MAX_QUEUED => state.records.push_back(Record { watch: -1, mask: IN_Q_OVERFLOW, cookie: 0, name: Vec::new() }),
            _ => return,
        }
        drop(state);
        self.queue.wake_for((Events::IN | Events::RDNORM).0);
    }

    fn unread(&self) -> usize {
        self.state.lock().records.iter().map(|record| HEADER + record.name_bytes()).sum()
    }
}

impl Watcher for Inotify {
    fn event(&self, watch: i32, mask: u32, cookie: u32, name: &[u8]) {
        let mut state = self.state.lock();
        let Some(watched) = state.watches.get(&watch) else { return };
        let once = watched.mask & IN_ONESHOT != 0 && mask & IN_IGNORED == 0;
        if mask & IN_IGNORED != 0 || once {
            if let Some(watched) = state.watches.remove(&watch) {
                state.garbage.push(watched);
            }
        }
        drop(state);
        self.push(Record { watch, mask, cookie, name: Vec::from(name) });
        if once {
            self.push(Record { watch, mask: IN_IGNORED, cookie: 0, name: Vec::new() });
        }
    }
}

impl FileOps for Inotify {
    fn read(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        self.sweep();
        let start = buffer.done();
        loop {
            let room = buffer.remaining();
            let mut state = self.state.lock();
            let fits = state.records.front().map(|record| HEADER + record.name_bytes() <= room);
            let record = if fits == Some(true) { state.records.pop_front() } else { None };
            drop(state);
            match (record, fits) {
                (Some(record), _) => {
                    buffer.put(&record.encode())?;
                }
                _ if buffer.done() > start => return Ok(buffer.done() - start),
                (None, Some(_)) => return Err(EINVAL),
                (None, None) if file.nonblocking() => return Err(EAGAIN),
                (None, None) => {
                    let ready = || (!self.state.lock().records.is_empty()).then_some(());
                    self.queue.wait(Interruptible::Yes, None, ready).map_err(restart)?;
                }
            }
        }
    }

    fn poll(&self, _file: &OpenFile) -> Events {
        if self.state.lock().records.is_empty() {
            Events::default()
        } else {
            Events::IN | Events::RDNORM
        }
    }

    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn default_owner(&self) -> Option<i32> {
        Some(0)
    }

    fn ioctl(&self, _file: &OpenFile, _task: &Arc<Task>, request: u32, argument: u64) -> SysResult {
        match request {
            FIONREAD => hal::user::write(argument, &(self.unread() as i32)).map(|()| 0),
            _ => Err(ENOTTY),
        }
    }

    fn release(&self, _file: &OpenFile) {
        let watches = core::mem::take(&mut self.state.lock().watches);
        if let Some(watcher) = self.watcher() {
            for (number, watched) in &watches {
                watched.dentry.inode().state().watches.remove(&watcher, *number);
            }
        }
        self.sweep();
    }

    fn details(&self, _file: &OpenFile) -> String {
        let watches: Vec<_> =
            self.state.lock().watches.iter().map(|(&number, watched)| (number, watched.dentry.clone(), watched.mask)).collect();
        let line = |(number, dentry, mask): &(i32, Arc<Dentry>, u32)| {
            let stat = dentry.inode().stat().unwrap_or_default();
            alloc::format!("inotify wd:{number:x} ino:{:x} sdev:{:x} mask:{mask:x} ignored_mask:0\n", stat.ino, stat.dev)
        };
        watches.iter().map(line).collect()
    }

    fn describe(&self, _file: &OpenFile) -> String {
        String::from("anon_inode:inotify")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The instance behind an open file. EINVAL: it is none.
pub fn of(file: &OpenFile) -> Result<&Inotify, Errno> {
    file.ops_as().ok_or(EINVAL)
}
