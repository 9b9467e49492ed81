//! POSIX message queues (mq_overview(7)).
//!
//! Lock order: `QUEUES` and a queue's `state` are leaves; wait queues are woken after they are released.

use super::links::{capable, CAP_SYS_RESOURCE};
use super::pipe::restart;
use crate::errno::{Errno, EACCES, EAGAIN, EBADF, EBUSY, EEXIST, EINVAL, EMSGSIZE, ENOENT, ENOSPC, ETIMEDOUT};
use crate::fs::file::{O_ACCMODE, O_RDWR, O_WRONLY};
use crate::fs::{Events, FileOps, OpenFile};
use crate::io::IoBuffer;
use crate::process::Process;
use crate::sched;
use crate::signal;
use crate::wait::{Interruptible, WaitQueue};
use crate::SysResult;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use hal::sync::SpinLock;
use linux_abi::signal::{SigInfo, SI_MESGQ};

/// /proc/sys/fs/mqueue: queues_max, msg_default, msgsize_default, msg_max, msgsize_max, and the superuser's limits.
const MAX_QUEUES: usize = 256;
const DEFAULT_MESSAGES: usize = 10;
const DEFAULT_BYTES: usize = 8192;
const HARD_MESSAGES: usize = 65536;
const HARD_BYTES: usize = 16 << 20;
const MAX_PRIORITY: u32 = 32768;
const NAME_MAX: usize = 255;

/// How mq_notify(3) tells.
#[derive(Clone, Copy)]
pub enum Notice {
    Nothing,
    Signal { number: i32, value: u64 },
}

#[derive(Default)]
struct State {
    /// By falling priority, then by age.
    messages: BTreeMap<core::cmp::Reverse<u32>, VecDeque<Vec<u8>>>,
    count: usize,
    bytes: usize,
    notify: Option<(Weak<Process>, Notice)>,
    /// Receivers that sleep: with one of them a message notifies nobody.
    receivers: usize,
}

pub struct Queue {
    owner: (u32, u32),
    mode: u32,
    max_messages: usize,
    max_bytes: usize,
    state: SpinLock<State>,
    filled: WaitQueue,
    drained: WaitQueue,
}

static QUEUES: SpinLock<BTreeMap<Vec<u8>, Arc<Queue>>> = SpinLock::new(BTreeMap::new());

/// An open message queue descriptor.
pub struct QueueFile {
    queue: Arc<Queue>,
}

fn checked_name(name: &[u8]) -> Result<(), Errno> {
    match name {
        b"" => Err(ENOENT),
        name if name.contains(&b'/') => Err(EACCES),
        name if name.len() > NAME_MAX => Err(crate::errno::ENAMETOOLONG),
        _ => Ok(()),
    }
}

impl Queue {
    fn check(&self, access: u32) -> Result<(), Errno> {
        let task = sched::current();
        let credentials = task.credentials();
        let wanted = match access {
            O_RDWR => 6,
            O_WRONLY => 2,
            _ => 4,
        };
        let class = if credentials.fsuid == self.owner.0 {
            self.mode >> 6
        } else if credentials.in_fs_group(self.owner.1) {
            self.mode >> 3
        } else {
            self.mode
        };
        let override_all = credentials.capable(linux_abi::capability::CAP_DAC_OVERRIDE);
        if wanted & !class != 0 && !override_all {
            Err(EACCES)
        } else {
            Ok(())
        }
    }
}

/// mq_open(3): `attributes`: (messages, bytes of one) of a new queue.
pub fn open(name: &[u8], flags: u32, mode: u32, attributes: Option<(i64, i64)>) -> Result<Arc<OpenFile>, Errno> {
    const O_CREAT: u32 = 0o100;
    const O_EXCL: u32 = 0o200;
    checked_name(name)?;
    let task = sched::current();
    let mut queues = QUEUES.lock();
    let queue = match queues.get(name) {
        Some(_) if flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL => return Err(EEXIST),
        Some(queue) => {
            queue.check(flags & O_ACCMODE)?;
            queue.clone()
        }
        None if flags & O_CREAT == 0 => return Err(ENOENT),
        None => {
            let privileged = capable(CAP_SYS_RESOURCE);
            let (most, size) = if privileged { (HARD_MESSAGES, HARD_BYTES) } else { (DEFAULT_MESSAGES, DEFAULT_BYTES) };
            let (max_messages, max_bytes) = match attributes {
                None => (DEFAULT_MESSAGES, DEFAULT_BYTES),
                Some((messages, bytes)) => {
                    let messages = usize::try_from(messages).ok().filter(|&messages| messages > 0 && messages <= most).ok_or(EINVAL)?;
                    let bytes = usize::try_from(bytes).ok().filter(|&bytes| bytes > 0 && bytes <= size).ok_or(EINVAL)?;
                    (messages, bytes)
                }
            };
            if queues.len() >= MAX_QUEUES && !privileged {
                return Err(ENOSPC);
            }
            let credentials = task.credentials();
            let queue = Arc::new(Queue {
                owner: (credentials.fsuid, credentials.fsgid),
                mode: mode & 0o777 & !task.fs().umask(),
                max_messages,
                max_bytes,
                state: SpinLock::default(),
                filled: WaitQueue::new(),
                drained: WaitQueue::new(),
            });
            queues.insert(name.to_vec(), queue.clone());
            queue
        }
    };
    drop(queues);
    Ok(OpenFile::new(Arc::new(QueueFile { queue }), flags & (O_ACCMODE | linux_abi::fs::O_NONBLOCK)))
}

/// mq_unlink(3): the name goes at once, the queue with its last descriptor.
pub fn unlink(name: &[u8]) -> Result<(), Errno> {
    checked_name(name)?;
    let task = sched::current();
    let mut queues = QUEUES.lock();
    let queue = queues.get(name).ok_or(ENOENT)?;
    // The mount's directory is sticky.
    if task.credentials().fsuid != queue.owner.0 && !task.capable(linux_abi::capability::CAP_FOWNER) {
        return Err(EACCES);
    }
    let gone = queues.remove(name);
    drop(queues);
    drop(gone);
    Ok(())
}

fn of(file: &OpenFile) -> Result<&QueueFile, Errno> {
    file.ops_as().ok_or(EBADF)
}

/// mq_timedsend(3). `deadline`: monotonic ns.
pub fn send(file: &OpenFile, data: Vec<u8>, priority: u32, deadline: Option<u64>) -> SysResult {
    let queue = &of(file)?.queue;
    if !file.writable() {
        return Err(EBADF);
    }
    if priority >= MAX_PRIORITY {
        return Err(EINVAL);
    }
    if data.len() > queue.max_bytes {
        return Err(EMSGSIZE);
    }
    loop {
        let mut state = queue.state.lock();
        if state.count < queue.max_messages {
            let was_empty = state.count == 0;
            state.count += 1;
            state.bytes += data.len();
            state.messages.entry(core::cmp::Reverse(priority)).or_default().push_back(data);
            let notice = if was_empty && state.receivers == 0 { state.notify.take() } else { None };
            drop(state);
            queue.filled.wake_for((Events::IN | Events::RDNORM).0);
            if let Some((process, Notice::Signal { number, value })) = notice {
                if let Some(process) = process.upgrade() {
                    let task = sched::current();
                    let mut info = SigInfo::from_process(number, SI_MESGQ, task.process.pid, task.credentials().uid);
                    (info.fields[2], info.fields[3]) = (value as u32, (value >> 32) as u32);
                    signal::send_to_process(&process, info);
                }
            }
            return Ok(0);
        }
        drop(state);
        if file.nonblocking() {
            return Err(EAGAIN);
        }
        let ready = || (queue.state.lock().count < queue.max_messages).then_some(());
        queue.drained.wait(Interruptible::Yes, deadline, ready).map_err(|error| if error == ETIMEDOUT { error } else { restart(error) })?;
    }
}

/// mq_timedreceive(3): the oldest message of the highest priority. `room`: bytes that the program has for it.
pub fn receive(file: &OpenFile, room: usize, deadline: Option<u64>) -> Result<(Vec<u8>, u32), Errno> {
    let queue = &of(file)?.queue;
    if !file.readable() {
        return Err(EBADF);
    }
    if room < queue.max_bytes {
        return Err(EMSGSIZE);
    }
    loop {
        let mut state = queue.state.lock();
        if let Some(mut first) = state.messages.first_entry() {
            let priority = first.key().0;
            let data = first.get_mut().pop_front().unwrap_or_default();
            if first.get().is_empty() {
                first.remove();
            }
            state.count -= 1;
            state.bytes -= data.len();
            drop(state);
            queue.drained.wake_for((Events::OUT | Events::WRNORM).0);
            queue.filled.wake_for((Events::OUT | Events::WRNORM).0);
            return Ok((data, priority));
        }
        if file.nonblocking() {
            return Err(EAGAIN);
        }
        state.receivers += 1;
        drop(state);
        let ready = || (queue.state.lock().count > 0).then_some(());
        let slept = queue.filled.wait(Interruptible::Yes, deadline, ready);
        queue.state.lock().receivers -= 1;
        slept.map_err(|error| if error == ETIMEDOUT { error } else { restart(error) })?;
    }
}

/// mq_notify(3). None takes the caller's request back.
pub fn notify(file: &OpenFile, notice: Option<Notice>) -> Result<(), Errno> {
    let queue = &of(file)?.queue;
    let process = sched::current().process.clone();
    let mut state = queue.state.lock();
    let owner = state.notify.as_ref().and_then(|(owner, _)| owner.upgrade()).filter(|owner| !owner.is_zombie());
    match notice {
        Some(_) if owner.is_some() => return Err(EBUSY),
        Some(notice) => state.notify = Some((Arc::downgrade(&process), notice)),
        None if owner.is_some_and(|owner| Arc::ptr_eq(&owner, &process)) => state.notify = None,
        None => {}
    }
    Ok(())
}

/// mq_getattr(3): (flags, most messages, most bytes of one, messages now).
pub fn attributes(file: &OpenFile) -> Result<[i64; 4], Errno> {
    let queue = &of(file)?.queue;
    let flags = file.flags() & linux_abi::fs::O_NONBLOCK;
    let count = queue.state.lock().count;
    Ok([i64::from(flags), queue.max_messages as i64, queue.max_bytes as i64, count as i64])
}

impl FileOps for QueueFile {
    /// The queue's state as text, as its file in the mqueue file system shows it.
    fn read(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        let state = self.queue.state.lock();
        let (signo, pid) = match &state.notify {
            Some((owner, Notice::Signal { number, .. })) => (*number, owner.upgrade().map_or(0, |owner| owner.pid)),
            Some((owner, Notice::Nothing)) => (0, owner.upgrade().map_or(0, |owner| owner.pid)),
            None => (0, 0),
        };
        let text = alloc::format!("QSIZE:{:<10} NOTIFY:{:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n", state.bytes, 0);
        drop(state);
        let mut position = file.position.lock();
        let rest = text.as_bytes().get(*position as usize..).unwrap_or_default();
        let done = if rest.is_empty() { 0 } else { buffer.put(rest)? };
        *position += done as u64;
        Ok(done)
    }

    fn poll(&self, _file: &OpenFile) -> Events {
        let count = self.queue.state.lock().count;
        let mut events = Events::default();
        if count > 0 {
            events |= Events::IN | Events::RDNORM;
        }
        if count < self.queue.max_messages {
            events |= Events::OUT | Events::WRNORM;
        }
        events
    }

    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        Some(&self.queue.filled)
    }

    /// mq_close(3) of the last descriptor takes a notification request back.
    fn flush(&self, _file: &OpenFile) {
        let process = sched::try_current().map(|task| task.process.clone());
        let mut state = self.queue.state.lock();
        let owner = state.notify.as_ref().and_then(|(owner, _)| owner.upgrade());
        if let (Some(owner), Some(process)) = (owner, process) {
            if Arc::ptr_eq(&owner, &process) {
                state.notify = None;
            }
        }
    }

    fn describe(&self, _file: &OpenFile) -> String {
        String::from("mqueue:[queue]")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
