//! Pipes (pipe(7)): a ring of bytes with a reading and a writing side, shared by anonymous pipes and FIFOs.
//!
//! Invariants:
//! - `used` mirrors the ring's length and is what `poll` and sleepers look at without a lock;
//! - a write of at most PIPE_BUF bytes happens at once or not at all; longer ones may interleave;
//! - a side counts its open file descriptions; when the writers are gone readers see the end of the file, when the readers are gone
//!   writers get EPIPE and SIGPIPE.
//!
//! Lock order: `state` (sleeping mutex, held while user memory is copied) > the wait queues' spin locks.

use super::ring::Ring;
use crate::errno::{Errno, EAGAIN, EBADF, EBUSY, EINTR, EINVAL, ENOTTY, EPERM, EPIPE, ERESTARTSYS};
use crate::fs::{Events, FileOps, OpenFile, Stat};
use crate::io::IoBuffer;
use crate::process::Task;
use crate::sync::Mutex;
use crate::wait::{Interruptible, WaitQueue};
use crate::SysResult;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use linux_abi::fs::S_IFIFO;

/// Writes of at most this many bytes are atomic.
pub const PIPE_BUF: usize = 4096;
pub const DEFAULT_CAPACITY: usize = 65536;
/// /proc/sys/fs/pipe-max-size.
pub const MAX_CAPACITY: usize = 1 << 20;
const O_DIRECT: u32 = 0o40000;
const FIONREAD: u32 = 0x541b;
const PIPEFS_MAGIC: u64 = 0x5049_5045;

#[derive(Default)]
struct State {
    ring: Ring,
    /// The packets at the front (O_DIRECT writers), as the stream position behind each.
    packets: VecDeque<u64>,
}

impl State {
    /// Bytes leave at the front: packets that are gone whole are forgotten, of one that is cut the rest stays one.
    fn discard(&mut self, bytes: usize) {
        self.ring.discard(bytes);
        while self.packets.front().is_some_and(|&end| end <= self.ring.read_position()) {
            self.packets.pop_front();
        }
    }

    /// `moved` bytes came. Once there is a packet, whatever is written later is one too: boundaries stay where they are.
    fn added(&mut self, moved: usize, packet: bool) {
        if moved == 0 || !packet && self.packets.is_empty() {
            return;
        }
        let end = self.ring.write_position();
        let before = end - moved as u64;
        if self.packets.is_empty() && before > self.ring.read_position() {
            self.packets.push_back(before);
        }
        self.packets.push_back(end);
    }
}

/// What both ends share.
pub struct Pipe {
    number: u64,
    state: Mutex<State>,
    used: AtomicUsize,
    capacity: AtomicUsize,
    readers: AtomicU32,
    writers: AtomicU32,
    /// Ends that do both (FIFOs opened O_RDWR): they poll on `readable` for everything.
    duplex: AtomicU32,
    /// How often a side was opened ever: what open(2) of a FIFO waits for.
    pub(super) reader_opens: AtomicU32,
    pub(super) writer_opens: AtomicU32,
    /// Readers, and those that poll for input.
    pub(super) readable: WaitQueue,
    /// Writers, and those that poll for room.
    pub(super) writable: WaitQueue,
}

impl Pipe {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            number: super::links::next_number(),
            state: Mutex::new(State { ring: Ring::new(DEFAULT_CAPACITY), packets: VecDeque::new() }),
            used: AtomicUsize::new(0),
            capacity: AtomicUsize::new(DEFAULT_CAPACITY),
            readers: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            duplex: AtomicU32::new(0),
            reader_opens: AtomicU32::new(0),
            writer_opens: AtomicU32::new(0),
            readable: WaitQueue::new(),
            writable: WaitQueue::new(),
        })
    }

    /// An end: counted until it is dropped.
    pub fn end(self: &Arc<Self>, reads: bool, writes: bool) -> Arc<PipeEnd> {
        if reads {
            self.readers.fetch_add(1, Ordering::SeqCst);
            self.reader_opens.fetch_add(1, Ordering::SeqCst);
            self.writable.wake_all();
        }
        if writes {
            self.writers.fetch_add(1, Ordering::SeqCst);
            self.writer_opens.fetch_add(1, Ordering::SeqCst);
            self.readable.wake_all();
        }
        if reads && writes {
            self.duplex.fetch_add(1, Ordering::SeqCst);
        }
        Arc::new(PipeEnd { pipe: self.clone(), reads, writes })
    }

    pub fn readers(&self) -> u32 {
        self.readers.load(Ordering::SeqCst)
    }
    pub fn writers(&self) -> u32 {
        self.writers.load(Ordering::SeqCst)
    }
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }
    pub fn capacity(&self) -> usize {
        self.capacity.load(Ordering::SeqCst)
    }
    pub fn room(&self) -> usize {
        self.capacity().saturating_sub(self.used())
    }

    /// After the ring changed, with its lock released: publishes the length and wakes whom it concerns.
    fn wrote(&self) {
        self.readable.wake_for((Events::IN | Events::RDNORM).0);
    }
    fn drained(&self) {
        let events = (Events::OUT | Events::WRNORM).0;
        self.writable.wake_for(events);
        if self.duplex.load(Ordering::Relaxed) > 0 {
            self.readable.wake_for(events);
        }
    }

    fn read_once(&self, buffer: &mut IoBuffer<'_>) -> Result<usize, Errno> {
        let mut state = self.state.lock();
        // Nobody waits for room while there is enough of it, and an edge-triggered watch must not hear of more.
        let was_full = state.ring.free() < PIPE_BUF;
        let moved = match state.packets.front().copied() {
            None => state.ring.drain(buffer, usize::MAX)?,
            Some(end) => {
                // A packet is read whole; what does not fit is lost (pipe(2), O_DIRECT).
                let packet = (end - state.ring.read_position()) as usize;
                let moved = state.ring.peek(0, buffer, packet)?;
                state.discard(packet);
                moved
            }
        };
        self.used.store(state.ring.len(), Ordering::SeqCst);
        drop(state);
        if was_full {
            self.drained();
        }
        Ok(moved)
    }

    fn write_once(&self, buffer: &mut IoBuffer<'_>, packet: bool) -> Result<usize, Errno> {
        let mut state = self.state.lock();
        let want = if packet { buffer.remaining().min(PIPE_BUF) } else { buffer.remaining() };
        let free = state.ring.free();
        if free < want.min(PIPE_BUF) && (want <= PIPE_BUF || free == 0) {
            return Ok(0);
        }
        let moved = state.ring.fill(buffer, want)?;
        state.added(moved, packet);
        self.used.store(state.ring.len(), Ordering::SeqCst);
        drop(state);
        self.wrote();
        Ok(moved)
    }

    pub fn read(&self, nonblocking: bool, buffer: &mut IoBuffer<'_>) -> SysResult {
        if buffer.remaining() == 0 {
            return Ok(0);
        }
        loop {
            if self.used() > 0 {
                let moved = self.read_once(buffer)?;
                if moved > 0 {
                    return Ok(moved);
                }
                continue;
            }
            // Looked at before the length again: a writer that wrote and left is not missed.
            if self.writers() == 0 {
                if self.used() == 0 {
                    return Ok(0);
                }
                continue;
            }
            if nonblocking {
                return Err(EAGAIN);
            }
            self.wait_readable()?;
        }
    }

    fn wait_readable(&self) -> Result<(), Errno> {
        let ready = || (self.used() > 0 || self.writers() == 0).then_some(());
        self.readable.wait(Interruptible::Yes, None, ready).map_err(restart)
    }

    fn wait_writable(&self, room: usize) -> Result<(), Errno> {
        let ready = || (self.room() >= room || self.readers() == 0).then_some(());
        self.writable.wait(Interruptible::Yes, None, ready).map_err(restart)
    }

    pub fn write(&self, nonblocking: bool, packet: bool, buffer: &mut IoBuffer<'_>) -> SysResult {
        let start = buffer.done();
        if buffer.remaining() == 0 {
            return Ok(0);
        }
        while buffer.remaining() > 0 {
            let done = buffer.done() - start;
            if self.readers() == 0 {
                super::broken_pipe();
                return if done > 0 { Ok(done) } else { Err(EPIPE) };
            }
            match self.write_once(buffer, packet) {
                Ok(moved) if moved > 0 => continue,
                Ok(_) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
            if nonblocking {
                return if done > 0 { Ok(done) } else { Err(EAGAIN) };
            }
            // Short writes wait for room for all of them, long ones for any room at all.
            let need = if buffer.remaining() <= PIPE_BUF { buffer.remaining() } else { 1 };
            match self.wait_writable(need) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
        }
        Ok(buffer.done() - start)
    }

    /// F_SETPIPE_SZ: the new capacity, a power of two of pages. EBUSY when more is in it, EPERM above the limit.
    pub fn set_capacity(&self, bytes: usize, privileged: bool) -> SysResult {
        let capacity = bytes.max(PIPE_BUF).checked_next_power_of_two().filter(|&size| size <= 1 << 31).ok_or(EINVAL)?;
        if capacity > MAX_CAPACITY && capacity > self.capacity() && !privileged {
            return Err(EPERM);
        }
        let mut state = self.state.lock();
        if state.ring.len() > capacity {
            return Err(EBUSY);
        }
        state.ring.set_capacity(capacity);
        self.capacity.store(capacity, Ordering::SeqCst);
        drop(state);
        self.drained();
        Ok(capacity)
    }

    /// Hands up to `most` bytes of what is here to `take`, which says how many of them it took (splice(2)): the others stay. As on Linux,
    /// the pipe's other users wait meanwhile.
    pub fn hand_over(&self, most: usize, mut take: impl FnMut(&[u8], usize) -> SysResult) -> SysResult {
        let mut state = self.state.lock();
        let was_full = state.ring.free() < PIPE_BUF;
        let most = most.min(state.ring.len());
        let mut chunk = alloc::vec![0; most.min(DEFAULT_CAPACITY)];
        let mut done = 0;
        while done < most {
            let got = state.ring.peek(0, &mut IoBuffer::fill(&mut chunk), most - done)?;
            let taken = match take(&chunk[..got], done) {
                Ok(taken) => taken,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            state.discard(taken);
            self.used.store(state.ring.len(), Ordering::SeqCst);
            done += taken;
            if taken < got {
                break;
            }
        }
        drop(state);
        if was_full && done > 0 {
            self.drained();
        }
        Ok(done)
    }

    /// splice(2) and tee(2) between two pipes: bytes moved now (0: nothing there, or no room).
    pub fn transfer(&self, target: &Self, most: usize, keep: bool) -> usize {
        if core::ptr::eq(self, target) {
            return 0;
        }
        // Two mutexes of one rank: taken in the order of their addresses.
        let (mut from, mut to);
        if core::ptr::from_ref(self) < core::ptr::from_ref(target) {
            from = self.state.lock();
            to = target.state.lock();
        } else {
            to = target.state.lock();
            from = self.state.lock();
        }
        let moved = from.ring.peek_into(&mut to.ring, most);
        to.added(moved, false);
        if !keep {
            from.discard(moved);
        }
        self.used.store(from.ring.len(), Ordering::SeqCst);
        target.used.store(to.ring.len(), Ordering::SeqCst);
        drop((from, to));
        if moved > 0 {
            target.wrote();
            if !keep {
                self.drained();
            }
        }
        moved
    }
}

/// An interrupted wait without a time limit starts over when the handler says SA_RESTART (signal(7)).
pub fn restart(error: Errno) -> Errno {
    if error == EINTR {
        ERESTARTSYS
    } else {
        error
    }
}

/// One open end (both for a FIFO opened O_RDWR).
pub struct PipeEnd {
    pub pipe: Arc<Pipe>,
    pub reads: bool,
    pub writes: bool,
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let pipe = &self.pipe;
        if self.reads && self.writes {
            pipe.duplex.fetch_sub(1, Ordering::SeqCst);
        }
        if self.reads && pipe.readers.fetch_sub(1, Ordering::SeqCst) == 1 {
            pipe.writable.wake_for((Events::OUT | Events::WRNORM | Events::ERR | Events::HUP).0);
        }
        if self.writes && pipe.writers.fetch_sub(1, Ordering::SeqCst) == 1 {
            pipe.readable.wake_for((Events::IN | Events::RDNORM | Events::ERR | Events::HUP).0);
        }
    }
}

impl FileOps for PipeEnd {
    fn read(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        if !self.reads {
            return Err(EBADF);
        }
        self.pipe.read(file.nonblocking(), buffer)
    }

    fn write(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        if !self.writes {
            return Err(EBADF);
        }
        self.pipe.write(file.nonblocking(), file.flags() & O_DIRECT != 0, buffer)
    }

    fn poll(&self, _file: &OpenFile) -> Events {
        let pipe = &self.pipe;
        let mut events = Events::default();
        if self.reads {
            if pipe.used() > 0 {
                events |= Events::IN | Events::RDNORM;
            }
            if pipe.writers() == 0 && pipe.writer_opens.load(Ordering::SeqCst) > 0 {
                events |= Events::HUP;
            }
        }
        if self.writes {
            if pipe.room() >= PIPE_BUF {
                events |= Events::OUT | Events::WRNORM;
            }
            if pipe.readers() == 0 {
                events |= Events::ERR;
            }
        }
        events
    }

    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        Some(if self.reads { &self.pipe.readable } else { &self.pipe.writable })
    }

    fn default_owner(&self) -> Option<i32> {
        Some(0)
    }

    fn ioctl(&self, _file: &OpenFile, _task: &Arc<Task>, request: u32, argument: u64) -> SysResult {
        match request {
            FIONREAD => hal::user::write(argument, &(self.pipe.used() as i32)).map(|()| 0),
            _ => Err(ENOTTY),
        }
    }

    fn stat(&self, _file: &OpenFile) -> Result<Stat, Errno> {
        Ok(super::links::anonymous_stat(S_IFIFO | 0o600, self.pipe.number))
    }
    fn describe(&self, _file: &OpenFile) -> String {
        alloc::format!("pipe:[{}]", self.pipe.number)
    }
    fn magic(&self) -> u64 {
        PIPEFS_MAGIC
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The pipe behind an open file (fcntl F_SETPIPE_SZ, splice).
pub fn of(file: &OpenFile) -> Option<&PipeEnd> {
    file.ops_as::<PipeEnd>()
}
