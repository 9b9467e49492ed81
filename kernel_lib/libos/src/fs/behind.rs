//! Output that is written behind the program's back. A request to the host costs an exit, or two wake-ups: a program that writes one piece
//! after the other would spend its time on them. So what follows upon other output at once goes into a buffer, and a thread writes it while
//! the program goes on. Output that comes alone is written before write(2) is over.
//!
//! Only for pipes that nobody else writes to, since others' output would come in between. The end of the container, and of a process that
//! was started from outside, waits for what is left ([`drain`]). That the reader has gone is told to the next write.

use super::stream::StreamFile;
use crate::background;
use crate::errno::{Errno, EIO, ENOMEM};
use crate::io::IoBuffer;
use crate::sync::Mutex;
use crate::wait::{Interruptible, WaitQueue};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use hal::sync::SpinLock;

/// Bytes that a program may be ahead of the host.
const ROOM: usize = 256 << 10;
/// Bytes of a request: fewer than may hold up the VMM's other requests.
const PIECE: usize = 128 << 10;
/// Output that comes so soon after the last is one of many, ns.
const SOON: u64 = 100_000;
/// How long the thread waits for more, ns.
const IDLE: u64 = 10_000_000;
/// How long an end waits for a reader that takes nothing, ns.
pub const DRAIN_PATIENCE: u64 = 2_000_000_000;

#[derive(Default)]
struct Buffer {
    /// As long as it has been: only the first `used` count.
    bytes: Vec<u8>,
    used: usize,
    /// There is a thread, which takes them.
    has_writer: bool,
    failed: Option<Errno>,
}

#[derive(Default)]
pub struct Behind {
    buffer: Mutex<Buffer>,
    /// Bytes that the host does not have yet.
    unwritten: AtomicUsize,
    /// When the last write was over.
    last: AtomicU64,
    closed: AtomicBool,
    /// For the thread.
    more: WaitQueue,
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
        if !buffer.has_writer {
            let soon = hal::time::monotonic() <= self.last.load(Ordering::Relaxed).saturating_add(SOON);
            if !soon || buffer.bytes.try_reserve_exact(ROOM).is_err() || start(stream).is_err() {
                return Ok(None);
            }
            buffer.has_writer = true;
        }
        let start = buffer.used;
        let end = start + from.remaining().min(self.room());
        if buffer.bytes.len() < end {
            buffer.bytes.resize(end, 0);
        }
        let moved = from.get(&mut buffer.bytes[start..end]);
        buffer.used += moved.unwrap_or(0);
        let before = self.unwritten.fetch_add(moved.unwrap_or(0), Ordering::SeqCst);
        drop(buffer);
        if before == 0 {
            self.more.wake_all();
        }
        moved.map(Some)
    }

    pub fn written_now(&self) {
        self.last.store(hal::time::monotonic(), Ordering::Relaxed);
    }

    pub fn room(&self) -> usize {
        ROOM - self.unwritten.load(Ordering::SeqCst).min(ROOM)
    }

    /// Whether a program that waits for room should go on: as soon as there is some, the two would take turns.
    pub fn has_much_room(&self) -> bool {
        self.room() >= ROOM / 2
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.more.wake_all();
    }
}

fn start(stream: &Arc<StreamFile>) -> Result<(), Errno> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(ROOM).map_err(|_| ENOMEM)?;
    let own = stream.clone();
    background::spawn("output", Box::new(move || write_out(&own, bytes)))?;
    let mut writers = WRITERS.lock();
    writers.retain(|other| other.strong_count() > 0 && !core::ptr::eq(other.as_ptr(), Arc::as_ptr(stream)));
    writers.push(Arc::downgrade(stream));
    Ok(())
}

/// The thread's life: until nothing has come for a while.
fn write_out(stream: &StreamFile, mut bytes: Vec<u8>) {
    let Some(behind) = &stream.behind else { return };
    loop {
        let deadline = hal::time::monotonic() + IDLE;
        let more = || (behind.unwritten.load(Ordering::SeqCst) > 0 || behind.closed.load(Ordering::SeqCst)).then_some(());
        let _ = behind.more.wait(Interruptible::No, Some(deadline), more);
        let used = {
            let mut buffer = behind.buffer.lock();
            if buffer.used == 0 {
                *buffer = Buffer { failed: buffer.failed, ..Buffer::default() };
                return;
            }
            core::mem::swap(&mut bytes, &mut buffer.bytes);
            core::mem::take(&mut buffer.used)
        };
        let mut rest = &bytes[..used];
        while !rest.is_empty() {
            let count = match stream.write_some(&mut IoBuffer::take(&rest[..rest.len().min(PIECE)])) {
                Ok(count) if count > 0 => count,
                failed => {
                    behind.buffer.lock().failed = Some(failed.err().unwrap_or(EIO));
                    rest.len()
                }
            };
            rest = &rest[count..];
            behind.unwritten.fetch_sub(count, Ordering::SeqCst);
            behind.written_now();
            stream.wake_writers();
        }
    }
}

/// Waits until what was written to such streams is at the host: to all, or to those that a process was started with.
pub fn drain(owner: Option<u32>) {
    let writers: Vec<Arc<StreamFile>> = WRITERS.lock().iter().filter_map(Weak::upgrade).collect();
    for stream in writers.iter().filter(|stream| owner.is_none() || stream.owner == owner) {
        if let Some(behind) = &stream.behind {
            stream.changed.drain(DRAIN_PATIENCE, || behind.unwritten.load(Ordering::SeqCst));
        }
    }
}
