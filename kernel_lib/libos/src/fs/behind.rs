//! Output that is written behind the program's back. A request to the host costs an exit, or two wake-ups: a program that writes one piece
//! after the other would spend its time on them. So what follows upon other output at once is collected, and goes to the host in one piece:
//! by the program itself when there is no more room, by a thread when it pauses. Output that comes alone is written before write(2) is over.
//!
//! The program does it, and not a thread beside it, because the reader needs a CPU too: who waits for another vCPU keeps one busy.
//!
//! Only for pipes that nobody else writes to, since others' output would come in between. The end of the container, and of a process that
//! was started from outside, waits for what is left ([`drain`]). That the reader has gone is told to the next write.

use super::stream::StreamFile;
use crate::background;
use crate::errno::{Errno, EAGAIN, EIO};
use crate::fs::host::request;
use crate::io::IoBuffer;
use crate::sync::Mutex;
use crate::wait::{Interruptible, WaitQueue};
use crate::SysResult;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use hal::sync::SpinLock;

/// Bytes that a program may be ahead of the host.
const ROOM: usize = 512 << 10;
/// Output that comes so soon after the last is one of many, ns.
const SOON: u64 = 100_000;
/// How long output stays here at most while the program goes on, ns.
const LATEST: u64 = 5_000_000;
/// How long the thread waits for more, ns.
const IDLE: u64 = 10_000_000;
/// How long an end waits for a reader that takes nothing, ns.
pub const DRAIN_PATIENCE: u64 = 2_000_000_000;

#[derive(Default)]
struct Buffer {
    /// As long as it has been: those from `start` to `end` count.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// There is a thread, which sees to them in time.
    has_thread: bool,
    failed: Option<Errno>,
}

#[derive(Default)]
pub struct Behind {
    buffer: Mutex<Buffer>,
    /// Bytes that the host does not have yet.
    unwritten: AtomicUsize,
    /// When the last write was over, and when the host got something last.
    last: AtomicU64,
    pushed: AtomicU64,
    /// The thread is to write at once.
    hurried: AtomicBool,
    hurry: WaitQueue,
}

/// Streams that have, or had, a thread.
static WRITERS: SpinLock<Vec<Weak<StreamFile>>> = SpinLock::new(Vec::new());

impl Behind {
    /// Takes what there is room for. None: to be written now, by the caller.
    pub fn take(&self, stream: &Arc<StreamFile>, from: &mut IoBuffer<'_>) -> Result<Option<usize>, Errno> {
        let mut buffer = self.buffer.lock();
        if let Some(errno) = buffer.failed.take() {
            return Err(errno);
        }
        if buffer.end == 0 && from.remaining() >= ROOM {
            return Ok(None);
        }
        if !buffer.has_thread {
            let soon = hal::time::monotonic() <= self.last.load(Ordering::Relaxed).saturating_add(SOON);
            if !soon || buffer.bytes.try_reserve_exact(ROOM).is_err() || start(stream).is_err() {
                return Ok(None);
            }
            buffer.has_thread = true;
        }
        let start = buffer.end;
        let end = start + from.remaining().min(ROOM - start);
        if buffer.bytes.len() < end {
            buffer.bytes.resize(end, 0);
        }
        let moved = from.get(&mut buffer.bytes[start..end])?;
        buffer.end += moved;
        self.unwritten.fetch_add(moved, Ordering::SeqCst);
        Ok(Some(moved))
    }

    /// Writes what is here, as far as the host takes it now; 0: there is nothing. What the host refuses is lost.
    pub fn push(&self, handle: u32) -> SysResult {
        let mut buffer = self.buffer.lock();
        if buffer.start == buffer.end {
            return Ok(0);
        }
        let written = match request::write_stream(handle, &mut IoBuffer::take(&buffer.bytes[buffer.start..buffer.end])) {
            Ok(0) => Err(EIO),
            written => written,
        };
        buffer.start = match written {
            Ok(count) => buffer.start + count,
            Err(EAGAIN) => return Err(EAGAIN),
            Err(_) => buffer.end,
        };
        if buffer.start == buffer.end {
            (buffer.start, buffer.end) = (0, 0);
        }
        self.unwritten.store(buffer.end - buffer.start, Ordering::SeqCst);
        self.pushed.store(hal::time::monotonic(), Ordering::Relaxed);
        written
    }

    pub fn written_now(&self) {
        self.last.store(hal::time::monotonic(), Ordering::Relaxed);
    }

    /// Whether a program that waits for room should go on.
    pub fn has_much_room(&self) -> bool {
        self.unwritten.load(Ordering::SeqCst) <= ROOM / 2
    }

    pub fn is_empty(&self) -> bool {
        self.unwritten.load(Ordering::SeqCst) == 0
    }

    /// Has what is here written at once.
    pub fn hurry(&self) {
        if !self.is_empty() {
            self.hurried.store(true, Ordering::SeqCst);
            self.hurry.wake_all();
        }
    }

    /// Frees the buffer and says that there is no thread any more; false: something has come.
    fn end(&self) -> bool {
        let mut buffer = self.buffer.lock();
        let is_empty = buffer.end == 0;
        if is_empty {
            *buffer = Buffer { failed: buffer.failed, ..Buffer::default() };
        }
        is_empty
    }
}

fn start(stream: &Arc<StreamFile>) -> Result<(), Errno> {
    let own = stream.clone();
    background::spawn("output", Box::new(move || see_to(&own)))?;
    let mut writers = WRITERS.lock();
    writers.retain(|other| other.strong_count() > 0 && !core::ptr::eq(other.as_ptr(), Arc::as_ptr(stream)));
    writers.push(Arc::downgrade(stream));
    Ok(())
}

fn writers() -> Vec<Arc<StreamFile>> {
    WRITERS.lock().iter().filter_map(Weak::upgrade).collect()
}

/// The thread's life: until nothing has come for a while.
fn see_to(stream: &StreamFile) {
    let Some(behind) = &stream.behind else { return };
    let is_over = |since: &AtomicU64, ns| hal::time::monotonic() >= since.load(Ordering::Relaxed).saturating_add(ns);
    loop {
        let hurried = || behind.hurried.swap(false, Ordering::SeqCst).then_some(());
        let hurried = behind.hurry.wait(Interruptible::No, Some(hal::time::monotonic() + LATEST), hurried).is_ok();
        if behind.is_empty() {
            if is_over(&behind.last, IDLE) && behind.end() {
                return;
            }
        } else if hurried || is_over(&behind.pushed, LATEST) {
            if let Err(errno) = stream.push_all(behind) {
                behind.buffer.lock().failed = Some(errno);
            }
        }
    }
}

/// A vCPU has nothing to do: what programs have written should not wait for more. Does not sleep.
pub fn hurry() {
    for stream in writers() {
        if let Some(behind) = &stream.behind {
            behind.hurry();
        }
    }
}

/// Waits until what was written to such streams is at the host: to all, or to those that a process was started with.
pub fn drain(owner: Option<u32>) {
    for stream in writers().iter().filter(|stream| owner.is_none() || stream.owner == owner) {
        if let Some(behind) = &stream.behind {
            behind.hurry();
            stream.changed.drain(DRAIN_PATIENCE, || behind.unwritten.load(Ordering::SeqCst));
        }
    }
}
