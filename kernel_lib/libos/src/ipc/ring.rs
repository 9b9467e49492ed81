//! A queue of bytes in page frames: what pipes, stream sockets and loopback connections carry their data in. A byte is copied once when it
//! is written and once when it is read, straight between the program's memory and the frames.
//!
//! Invariants: `head <= tail <= head + capacity`; the byte at stream position p lies in page `p / PAGE`; `pages[0]` holds the page of
//! `head`, and every page that holds data is there. An empty ring starts over at the beginning of its page, so that short messages
//! keep touching the same (warm) frame, and a few emptied pages stay for the bytes to come.

use crate::errno::{Errno, ENOMEM};
use crate::io::IoBuffer;
use crate::mm::reclaim;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use hal::frame::{Frame, PAGE};

/// Emptied pages that a ring keeps for its next bytes.
const SPARES: usize = 16;

#[derive(Default)]
pub struct Ring {
    pages: VecDeque<Frame>,
    spares: Vec<Frame>,
    /// Offset of the first byte in `pages[0]`.
    offset: usize,
    length: usize,
    capacity: usize,
    /// Stream position of the first byte, counted from the beginning of the stream.
    position: u64,
}

impl Ring {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    pub const fn len(&self) -> usize {
        self.length
    }
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }
    pub const fn capacity(&self) -> usize {
        self.capacity
    }
    pub const fn free(&self) -> usize {
        self.capacity.saturating_sub(self.length)
    }
    /// Bytes that were ever read (the position of the first byte still here).
    pub const fn read_position(&self) -> u64 {
        self.position
    }
    /// Bytes that were ever written.
    pub const fn write_position(&self) -> u64 {
        self.position + self.length as u64
    }

    /// The caller has made sure that what is here fits.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Moves up to `most` bytes from the buffer to the end of the ring, as far as there is room. ENOMEM and EFAULT only when nothing moved.
    pub fn fill(&mut self, buffer: &mut IoBuffer<'_>, most: usize) -> Result<usize, Errno> {
        let want = most.min(self.free()).min(buffer.remaining());
        let mut moved = 0;
        while moved < want {
            let end = self.offset + self.length;
            let (index, at) = (end / PAGE, end % PAGE);
            if index == self.pages.len() {
                match self.spares.pop().or_else(reclaim::try_scratch) {
                    Some(frame) => self.pages.push_back(frame),
                    None if moved > 0 => break,
                    None => return Err(ENOMEM),
                }
            }
            let Some(frame) = self.pages.get(index) else { break };
            let part = (want - moved).min(PAGE - at);
            let done = match buffer.get_physical(frame.address() + at as u64, part) {
                Ok(done) => done,
                Err(_) if moved > 0 => break,
                Err(error) => return Err(error),
            };
            self.length += done;
            moved += done;
            if done < part {
                break;
            }
        }
        Ok(moved)
    }

    /// Moves up to `most` bytes from the front of the ring to the buffer. EFAULT only when nothing moved.
    pub fn drain(&mut self, buffer: &mut IoBuffer<'_>, most: usize) -> Result<usize, Errno> {
        let moved = self.peek(0, buffer, most)?;
        self.discard(moved);
        Ok(moved)
    }

    /// Copies up to `most` bytes, `skip` bytes behind the front, to the buffer and leaves them here.
    pub fn peek(&self, skip: usize, buffer: &mut IoBuffer<'_>, most: usize) -> Result<usize, Errno> {
        let want = most.min(self.length.saturating_sub(skip)).min(buffer.remaining());
        let mut moved = 0;
        while moved < want {
            let from = self.offset + skip + moved;
            let Some(frame) = self.pages.get(from / PAGE) else { break };
            let part = (want - moved).min(PAGE - from % PAGE);
            let done = match buffer.put_physical(frame.address() + (from % PAGE) as u64, part) {
                Ok(done) => done,
                Err(_) if moved > 0 => break,
                Err(error) => return Err(error),
            };
            moved += done;
            if done < part {
                break;
            }
        }
        Ok(moved)
    }

    /// Drops bytes from the front.
    pub fn discard(&mut self, bytes: usize) {
        let bytes = bytes.min(self.length);
        self.length -= bytes;
        self.offset += bytes;
        self.position += bytes as u64;
        if self.length == 0 {
            self.offset = 0;
            while self.pages.len() > 1 {
                self.retire();
            }
            return;
        }
        while self.offset >= PAGE {
            self.retire();
            self.offset -= PAGE;
        }
    }

    fn retire(&mut self) {
        let page = self.pages.pop_front();
        if self.spares.len() < SPARES {
            self.spares.extend(page);
        }
    }

    /// Copies up to `most` bytes to another ring (splice, tee).
    pub fn peek_into(&self, target: &mut Self, most: usize) -> usize {
        let want = most.min(self.length).min(target.free());
        let mut moved = 0;
        let mut bounce = [0_u8; 512];
        while moved < want {
            let part = (want - moved).min(bounce.len());
            let Ok(read) = self.peek(moved, &mut IoBuffer::fill(&mut bounce[..part]), part) else { break };
            let Ok(written) = target.fill(&mut IoBuffer::take(&bounce[..read]), read) else { break };
            moved += written;
            if written < part {
                break;
            }
        }
        moved
    }
}
