//! One direction of a connected byte stream between two sockets of the guest: unix stream sockets, and TCP connections whose two ends
//! are both here.
//!
//! Invariants:
//! - `used` mirrors the ring's length: `poll` and sleepers look at it without a lock;
//! - a [`Mark`] covers the bytes of one send that carried descriptors or credentials; marks are in stream order and do not overlap;
//! - `starved` is set by a writer that found too little room; only then the reader wakes the writing side, so that a ping-pong does not
//!   wake a task for nothing.
//!
//! Lock order: `data` (sleeping, held while user memory is copied) > the two wait queues.

use super::message::{Ancillary, Incoming, Wait};
use crate::errno::{Errno, EAGAIN, EPIPE};
use crate::fs::Events;
use crate::io::IoBuffer;
use crate::ipc::ring::Ring;
use crate::sync::Mutex;
use crate::wait::WaitQueue;
use crate::SysResult;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

struct Mark {
    start: u64,
    end: u64,
    ancillary: Ancillary,
}

#[derive(Default)]
struct Data {
    ring: Ring,
    marks: VecDeque<Mark>,
}

pub struct Channel {
    data: Mutex<Data>,
    used: AtomicUsize,
    capacity: AtomicUsize,
    /// The writer sends no more (shutdown, close).
    write_closed: AtomicBool,
    /// The reader takes no more.
    read_closed: AtomicBool,
    starved: AtomicBool,
    /// An errno for the reader, told once (ECONNRESET).
    error: AtomicI32,
    /// There was one.
    was_reset: AtomicBool,
    /// TCP's urgent byte plus one; 0: none.
    urgent: AtomicI32,
    /// The queue of the socket that reads, and of the one that writes.
    reader: Arc<WaitQueue>,
    writer: Arc<WaitQueue>,
}

impl Channel {
    pub fn new(capacity: usize, writer: &Arc<WaitQueue>, reader: &Arc<WaitQueue>) -> Arc<Self> {
        Arc::new(Self {
            data: Mutex::new(Data { ring: Ring::new(capacity), marks: VecDeque::new() }),
            used: AtomicUsize::new(0),
            capacity: AtomicUsize::new(capacity),
            write_closed: AtomicBool::new(false),
            read_closed: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            error: AtomicI32::new(0),
            was_reset: AtomicBool::new(false),
            urgent: AtomicI32::new(0),
            reader: reader.clone(),
            writer: writer.clone(),
        })
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }
    fn room(&self) -> usize {
        self.capacity.load(Ordering::SeqCst).saturating_sub(self.used())
    }
    pub fn is_write_closed(&self) -> bool {
        self.write_closed.load(Ordering::SeqCst)
    }
    pub fn is_read_closed(&self) -> bool {
        self.read_closed.load(Ordering::SeqCst)
    }
    /// Readable without waiting.
    pub fn can_read(&self) -> bool {
        self.used() > 0 || self.is_write_closed() || self.is_read_closed() || self.error.load(Ordering::SeqCst) != 0
    }
    /// What poll(2) calls writable: three quarters are free. A writer that asks and is told no is woken later.
    pub fn can_write(&self) -> bool {
        let fits = || self.used() * 4 <= self.capacity.load(Ordering::SeqCst) || self.is_read_closed() || self.is_write_closed();
        if fits() {
            return true;
        }
        self.starved.store(true, Ordering::SeqCst);
        fits()
    }
    pub fn take_error(&self) -> i32 {
        self.error.swap(0, Ordering::SeqCst)
    }
    pub fn has_error(&self) -> bool {
        self.error.load(Ordering::SeqCst) != 0
    }
    pub fn was_reset(&self) -> bool {
        self.was_reset.load(Ordering::SeqCst)
    }

    pub fn send_urgent(&self, byte: u8) {
        self.urgent.store(i32::from(byte) + 1, Ordering::SeqCst);
        self.reader.wake_for(Events::PRI.0);
    }
    pub fn has_urgent(&self) -> bool {
        self.urgent.load(Ordering::SeqCst) != 0
    }
    /// The urgent byte; `keep`: it stays (MSG_PEEK).
    pub fn take_urgent(&self, keep: bool) -> Option<u8> {
        let value = if keep { self.urgent.load(Ordering::SeqCst) } else { self.urgent.swap(0, Ordering::SeqCst) };
        u8::try_from(value - 1).ok()
    }

    pub fn set_capacity(&self, bytes: usize) {
        let mut data = self.data.lock();
        data.ring.set_capacity(bytes);
        self.capacity.store(bytes, Ordering::SeqCst);
    }

    /// The writing side ends the stream; `error`: what the reader is told once all is read.
    pub fn close_write(&self, error: Option<Errno>) {
        if let Some(error) = error {
            self.error.store(error.0, Ordering::SeqCst);
            self.was_reset.store(true, Ordering::SeqCst);
        }
        self.write_closed.store(true, Ordering::SeqCst);
        self.reader.wake_all();
        self.writer.wake_all();
    }

    /// The reading side takes no more.
    pub fn close_read(&self) {
        self.read_closed.store(true, Ordering::SeqCst);
        self.reader.wake_all();
        self.writer.wake_all();
    }

    /// What is still in flight here is nobody's any more: descriptors in it are closed.
    pub fn clear(&self) {
        let mut data = self.data.lock();
        let length = data.ring.len();
        data.ring.discard(length);
        let marks = core::mem::take(&mut data.marks);
        self.used.store(0, Ordering::SeqCst);
        drop(data);
        drop(marks);
    }

    /// Visits the descriptors in flight (for the search for unreachable sockets).
    pub fn each_file(&self, mut visit: impl FnMut(&Arc<crate::fs::OpenFile>)) {
        for mark in &self.data.lock().marks {
            mark.ancillary.files.iter().for_each(&mut visit);
        }
    }

    fn put(&self, buffer: &mut IoBuffer<'_>, ancillary: &mut Option<Ancillary>) -> Result<usize, Errno> {
        let mut data = self.data.lock();
        let start = data.ring.write_position();
        let moved = data.ring.fill(buffer, usize::MAX)?;
        if moved > 0 {
            if let Some(ancillary) = ancillary {
                let end = start + moved as u64;
                match data.marks.back_mut() {
                    // The same writer goes on: no boundary.
                    Some(last) if last.end == start && ancillary.files.is_empty() && last.ancillary.joins(ancillary) => last.end = end,
                    _ => data.marks.push_back(Mark { start, end, ancillary: ancillary.take_once() }),
                }
            }
        }
        self.used.store(data.ring.len(), Ordering::SeqCst);
        drop(data);
        if moved > 0 {
            self.reader.wake_for((Events::IN | Events::RDNORM).0);
        }
        Ok(moved)
    }

    /// Sends all of the buffer, waiting for room as `wait` allows. EPIPE when the reader is gone; the caller raises SIGPIPE.
    pub fn send(&self, buffer: &mut IoBuffer<'_>, mut ancillary: Option<Ancillary>, wait: &Wait) -> SysResult {
        let start = buffer.done();
        let deadline = wait.deadline();
        while buffer.remaining() > 0 {
            let done = buffer.done() - start;
            if self.is_read_closed() || self.is_write_closed() {
                return if done > 0 { Ok(done) } else { Err(EPIPE) };
            }
            let outcome = if self.room() > 0 { self.put(buffer, &mut ancillary) } else { Ok(0) };
            match outcome {
                Ok(moved) if moved > 0 => continue,
                Err(error) if done == 0 => return Err(error),
                Err(_) => return Ok(done),
                Ok(_) => {}
            }
            let blocked = if wait.nonblocking {
                self.starved.store(true, Ordering::SeqCst);
                if self.room() > 0 {
                    continue;
                }
                EAGAIN
            } else {
                let ready = || {
                    self.starved.store(true, Ordering::SeqCst);
                    (self.can_write() || self.room() > self.capacity.load(Ordering::SeqCst) / 2).then_some(())
                };
                match wait.sleep(&self.writer, deadline, ready) {
                    Ok(()) => continue,
                    Err(error) => error,
                }
            };
            return if done > 0 { Ok(done) } else { Err(blocked) };
        }
        Ok(buffer.done() - start)
    }

    fn take(&self, incoming: &mut Incoming<'_, '_>) -> Result<usize, Errno> {
        let mut data = self.data.lock();
        let Data { ring, marks } = &mut *data;
        let begin = ring.read_position();
        let skip = if incoming.peek() { incoming.peeked } else { 0 };
        let at = begin + skip as u64;
        while !incoming.peek() && marks.front().is_some_and(|mark| mark.end <= at) {
            marks.pop_front();
        }
        // How far one receive may go: up to a change of writer (when credentials are asked for), or to the end of a message with descriptors.
        let mut most = usize::MAX;
        for mark in marks.iter().filter(|mark| mark.end > at) {
            let from = mark.start.saturating_sub(at) as usize;
            if incoming.pass_credentials && incoming.copied() + from > 0 && !incoming.same_writer(&mark.ancillary) {
                most = most.min(from);
                break;
            }
            if !mark.ancillary.files.is_empty() {
                most = most.min((mark.end - at) as usize);
                break;
            }
        }
        let moved = if skip > 0 || incoming.peek() { ring.peek(skip, incoming.buffer, most)? } else { ring.drain(incoming.buffer, most)? };
        let end = at + moved as u64;
        if moved > 0 {
            let peek = incoming.peek();
            for mark in marks.iter_mut().filter(|mark| mark.start < end && mark.end > at) {
                incoming.attach(&mut mark.ancillary, peek);
            }
        }
        if incoming.peek() {
            incoming.peeked += moved;
        }
        self.used.store(ring.len(), Ordering::SeqCst);
        drop(data);
        if moved > 0 && !incoming.peek() && self.starved.load(Ordering::SeqCst) {
            let capacity = self.capacity.load(Ordering::SeqCst);
            if self.used() * 4 <= capacity && self.starved.swap(false, Ordering::SeqCst) {
                self.writer.wake_for((Events::OUT | Events::WRNORM).0);
            }
        }
        Ok(moved)
    }

    /// Receives at least a byte (or all of the buffer with MSG_WAITALL). 0: end of the stream.
    pub fn receive(&self, incoming: &mut Incoming<'_, '_>, wait: &Wait) -> SysResult {
        let start = incoming.buffer.done();
        let deadline = wait.deadline();
        if incoming.buffer.remaining() == 0 {
            return Ok(0);
        }
        loop {
            let done = incoming.buffer.done() - start;
            let here = self.used() > if incoming.peek() { incoming.peeked } else { 0 };
            if here {
                match self.take(incoming) {
                    Ok(_) => {}
                    Err(_) if done > 0 => return Ok(done),
                    Err(error) => return Err(error),
                }
                let complete = incoming.buffer.remaining() == 0 || !incoming.wait_all() || !incoming.files.is_empty();
                let done = incoming.buffer.done() - start;
                if done > 0 && complete {
                    return Ok(done);
                }
                continue;
            }
            if done > 0 && (wait.nonblocking || !incoming.wait_all()) {
                return Ok(done);
            }
            match self.take_error() {
                0 => {}
                _ if done > 0 => return Ok(done),
                error => return Err(Errno(error)),
            }
            if self.is_write_closed() || self.is_read_closed() {
                if self.used() > if incoming.peek() { incoming.peeked } else { 0 } {
                    continue;
                }
                return Ok(done);
            }
            if wait.nonblocking {
                return Err(EAGAIN);
            }
            let seen = if incoming.peek() { incoming.peeked } else { 0 };
            let ready = || (self.used() > seen || self.is_write_closed() || self.is_read_closed() || self.has_error()).then_some(());
            match wait.sleep(&self.reader, deadline, ready) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
        }
    }
}
