//! Output that is written behind the program's back. A request to the host costs an exit, or two wake-ups: a program that writes one piece
//! after the other would spend its time on them. So what follows upon other output at once is collected, and goes to the host in one piece:
//! by the program itself when there is no more room, by a thread when it pauses. Output that comes alone is written before write(2) is over.
//!
//! The program does it, and not a thread beside it, because the reader needs a CPU too: who waits for another vCPU keeps one busy.
//!
//! Only for pipes that nobody else writes to, since others' output would come in between: whatever is written to such a pipe, collected or
//! not, goes through its one [`Behind`], under its lock. The end of the container, and of a process that was started from outside, waits for
//! what is left ([`drain`]) as the program would have waited in write(2). That the reader has gone is told to the next write.

use super::stream::StreamFile;
use crate::background;
use crate::errno::{Errno, EAGAIN, EIO};
use crate::fs::host::request;
use crate::io::IoBuffer;
use crate::ipc::pipe::PIPE_BUF;
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
/// How long an end that was asked for waits for a reader that takes nothing, ns.
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

impl Buffer {
    /// Takes what there is room for. As in a pipe, a write of at most PIPE_BUF is taken as a whole or not at all.
    fn collect(&mut self, from: &mut IoBuffer<'_>) -> SysResult {
        let fits = |end: usize| from.remaining() <= ROOM - end;
        if !fits(self.end) && self.end - self.start <= ROOM / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if !fits(self.end) && from.remaining() <= PIPE_BUF {
            return Ok(0);
        }
        let end = self.end + from.remaining().min(ROOM - self.end);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let moved = from.get(&mut self.bytes[self.end..end])?;
        self.end += moved;
        Ok(moved)
    }
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
    /// Its process is to end even if the reader takes nothing.
    abandoned: AtomicBool,
}

/// Pipes that nobody else writes to.
static PRIVATE: SpinLock<Vec<Weak<StreamFile>>> = SpinLock::new(Vec::new());

impl Behind {
    /// Takes what there is room for, 0: nothing. What comes alone, or is as large as all the room, the host takes.
    pub fn take(&self, stream: &Arc<StreamFile>, handle: u32, from: &mut IoBuffer<'_>) -> SysResult {
        let mut buffer = self.buffer.lock();
        if let Some(errno) = buffer.failed.take() {
            return Err(errno);
        }
        if buffer.end == 0 && (from.remaining() >= ROOM || !self.may_collect(&mut buffer, stream)) {
            return write(handle, from);
        }
        let moved = buffer.collect(from)?;
        self.unwritten.fetch_add(moved, Ordering::SeqCst);
        Ok(moved)
    }

    fn may_collect(&self, buffer: &mut Buffer, stream: &Arc<StreamFile>) -> bool {
        let is_soon = || hal::time::monotonic() <= self.last.load(Ordering::Relaxed).saturating_add(SOON);
        buffer.has_thread = buffer.has_thread || is_soon() && buffer.bytes.try_reserve_exact(ROOM).is_ok() && start(stream).is_ok();
        buffer.has_thread
    }

    /// Writes what is here, as far as the host takes it now; 0: there is nothing. What the host refuses is lost.
    pub fn push(&self, handle: u32) -> SysResult {
        let mut buffer = self.buffer.lock();
        if buffer.start == buffer.end {
            return Ok(0);
        }
        let written = write(handle, &mut IoBuffer::take(&buffer.bytes[buffer.start..buffer.end]));
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
            self.call_thread();
        }
    }

    /// Nobody has it open any more: the thread, which does, lets go of it as soon as all is written, and the reader sees the end.
    pub fn finish(&self) {
        self.last.store(0, Ordering::Relaxed);
        self.call_thread();
    }

    fn call_thread(&self) {
        self.hurried.store(true, Ordering::SeqCst);
        self.hurry.wake_all();
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

fn write(handle: u32, from: &mut IoBuffer<'_>) -> SysResult {
    match request::write_stream(handle, from) {
        Ok(0) => Err(EIO),
        written => written,
    }
}

fn start(stream: &Arc<StreamFile>) -> Result<(), Errno> {
    let own = stream.clone();
    background::spawn("output", Box::new(move || see_to(&own)))
}

/// The stream over the pipe that `made` is over: two of one pipe, standard output and error, would mix up their order.
pub fn only(made: Arc<StreamFile>) -> Arc<StreamFile> {
    let known = private().into_iter().find(|known| known.is_over_the_pipe_of(&made));
    known.unwrap_or_else(|| {
        let mut streams = PRIVATE.lock();
        streams.retain(|other| other.strong_count() > 0);
        streams.push(Arc::downgrade(&made));
        made
    })
}

fn private() -> Vec<Arc<StreamFile>> {
    PRIVATE.lock().iter().filter_map(Weak::upgrade).collect()
}

/// The thread's life: until nothing has come for a while.
fn see_to(stream: &StreamFile) {
    let Some(behind) = &stream.behind else { return };
    let is_over = |since: &AtomicU64, ns| hal::time::monotonic() >= since.load(Ordering::Relaxed).saturating_add(ns);
    loop {
        // What is here came after the host got something last.
        let since = if behind.is_empty() { hal::time::monotonic() } else { behind.pushed.load(Ordering::Relaxed) };
        let hurried = || behind.hurried.swap(false, Ordering::SeqCst).then_some(());
        let hurried = behind.hurry.wait(Interruptible::No, Some(since + LATEST), hurried).is_ok();
        if !behind.is_empty() && (hurried || is_over(&behind.pushed, LATEST)) {
            if let Err(errno) = stream.push_all(behind) {
                behind.buffer.lock().failed = Some(errno);
            }
        }
        if behind.is_empty() && is_over(&behind.last, IDLE) && behind.end() {
            return;
        }
    }
}

/// A vCPU has nothing to do: what programs have written should not wait for more. Does not sleep.
pub fn hurry() {
    for stream in private() {
        if let Some(behind) = &stream.behind {
            behind.hurry();
        }
    }
}

/// Waits until what was written to such streams is at the host: to all, or to those that a process was started with.
pub fn drain(owner: Option<u32>) {
    for stream in private().iter().filter(|stream| owner.is_none() || stream.owner == owner) {
        if let Some(behind) = &stream.behind {
            behind.hurry();
            let over = || (behind.is_empty() || behind.abandoned.load(Ordering::SeqCst)).then_some(());
            let _ = stream.changed.wait(Interruptible::No, None, over);
            stream.changed.drain(DRAIN_PATIENCE, || behind.unwritten.load(Ordering::SeqCst));
        }
    }
}

/// Somebody wants a process to be over whose end may be waiting for its reader.
pub fn abandon(owner: u32) {
    for stream in private().iter().filter(|stream| stream.owner == Some(owner)) {
        if let Some(behind) = &stream.behind {
            behind.abandoned.store(true, Ordering::SeqCst);
            stream.changed.wake_all();
        }
    }
}
