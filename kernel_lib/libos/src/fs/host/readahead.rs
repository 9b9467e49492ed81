//! Reading ahead. Who reads a file of an exclusive tree from one end to the other in small pieces (tar, grep, compilers) gets it from a buffer
//! that one request has filled. A window would cost a page fault for every 4 KiB, which only pays when the file is read again.
//!
//! A buffer shows the contents as they were when it was filled: every change that is made here takes it away, and so do the last close and
//! a second.

use super::inode::HostInode;
use crate::io::IoBuffer;
use crate::SysResult;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::sync::SpinLock;

const BYTES: usize = 128 << 10;
/// Reads of less from the start of a file are those of a header.
const SMALLEST_PIECE: usize = 4096;
/// Buffers in use, and those kept for the next file.
const MOST: usize = 32;
const MOST_SPARE: usize = 2;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static SPARE: SpinLock<Vec<Vec<u8>>> = SpinLock::new(Vec::new());

struct Buffer(Vec<u8>);

impl Buffer {
    /// None: there are enough already, or no memory for one more.
    fn take() -> Option<Self> {
        if COUNT.fetch_add(1, Ordering::Relaxed) >= MOST {
            COUNT.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let mut buffer = Self(SPARE.lock().pop().unwrap_or_default());
        buffer.0.try_reserve_exact(BYTES).ok()?;
        buffer.0.resize(BYTES, 0);
        Some(buffer)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
        let mut spare = SPARE.lock();
        if spare.len() < MOST_SPARE && self.0.len() == BYTES {
            spare.push(core::mem::take(&mut self.0));
        }
    }
}

/// Bytes of a file that are likely to be read next.
pub struct Chunk {
    offset: u64,
    bytes: usize,
    buffer: Buffer,
    /// By the TSC.
    until: u64,
}

impl Chunk {
    fn holds(&self, at: u64) -> bool {
        at >= self.offset && at - self.offset < self.bytes as u64 && hal::time::tsc() < self.until
    }

    /// Copies what it has from `at` on; of a chunk that was just found to hold it.
    pub fn copy(&self, buffer: &mut IoBuffer<'_>, at: u64, most: usize) -> SysResult {
        let from = (at - self.offset) as usize;
        buffer.put(&self.buffer.0[from..self.bytes.min(from + most)])
    }
}

/// Where a file is being read.
#[derive(Default)]
pub struct Sequence {
    /// Behind the last read.
    next: u64,
    chunk: Option<Arc<Chunk>>,
}

impl HostInode {
    /// Whether a read may be the first of many: not one of a header. The file is opened by the same request.
    fn begins(&self, at: u64, want: usize) -> bool {
        at == 0 && want >= SMALLEST_PIECE && self.known_handle().is_none()
    }

    /// A buffer with byte `at`, filled if the file is being read from front to back and has more than `want` bytes left.
    pub(super) fn chunk(&self, at: u64, want: usize) -> Option<Arc<Chunk>> {
        if self.writable_windows.load(Ordering::SeqCst) {
            return None;
        }
        let known = self.sequence.lock().chunk.clone();
        if let Some(chunk) = known.filter(|chunk| chunk.holds(at)) {
            return Some(chunk);
        }
        let left = self.size.load(Ordering::Acquire).saturating_sub(at);
        if left <= want as u64 || !self.goes_on(at) && !self.begins(at, want) {
            return None;
        }
        let mut buffer = Buffer::take()?;
        let seen = self.contents.load(Ordering::Acquire);
        let most = left.min(BYTES as u64) as usize;
        let bytes = self.read_from_host(&mut IoBuffer::fill(&mut buffer.0[..most]), at, most).ok().filter(|bytes| *bytes > 0)?;
        let chunk = Arc::new(Chunk { offset: at, bytes, buffer, until: super::inode::trust_from(hal::time::tsc()) });
        let old = {
            let mut sequence = self.sequence.lock();
            let unchanged = self.contents.load(Ordering::Acquire) == seen && !self.writable_windows.load(Ordering::SeqCst);
            unchanged.then(|| sequence.chunk.replace(chunk.clone()))
        };
        drop(old);
        Some(chunk)
    }

    /// Whether a read at `at` begins where the last one ended.
    pub(super) fn goes_on(&self, at: u64) -> bool {
        at > 0 && at == self.sequence.lock().next
    }

    /// A read went as far as `end`.
    pub(super) fn has_read(&self, end: u64) {
        let mut sequence = self.sequence.lock();
        sequence.next = end;
        let used_up = sequence.chunk.take_if(|chunk| !chunk.holds(end));
        drop(sequence);
        drop(used_up);
    }

    pub(super) fn drop_chunk(&self) {
        let chunk = self.sequence.lock().chunk.take();
        drop(chunk);
    }
}
