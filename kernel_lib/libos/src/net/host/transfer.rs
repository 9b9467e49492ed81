//! Bytes between programs and host sockets. Short messages are copied through a scratch page or two, which is cheaper than finding out
//! where the program's pages are; long ones go straight between the program's frames and the host.

use super::request::{self, Received, With};
use crate::errno::{Errno, EFAULT, ENOMEM};
use crate::io::IoBuffer;
use crate::sched;
use abi::request::Segment;
use alloc::vec::Vec;
use hal::frame::{Frame, PAGE};

/// Up to here a transfer is copied.
const BOUNCE: usize = 16 << 10;
/// Most bytes of one request: what fits into the segment list even when no two pages are neighbours.
const MOST: usize = 2 << 20;

struct Scratch {
    frames: Vec<Frame>,
    segments: Vec<Segment>,
}

impl Scratch {
    fn new(bytes: usize) -> Result<Self, Errno> {
        let count = bytes.div_ceil(PAGE);
        let (mut frames, mut segments) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for index in 0..count {
            let frame = Frame::scratch().ok_or(ENOMEM)?;
            segments.push(Segment { gpa: frame.address(), bytes: (bytes - index * PAGE).min(PAGE) as u64 });
            frames.push(frame);
        }
        Ok(Self { frames, segments })
    }

    /// Runs `copy` over the first `bytes` bytes, page by page; stops at the first short one.
    fn each(&self, bytes: usize, mut copy: impl FnMut(u64, usize) -> Result<usize, Errno>) -> Result<usize, Errno> {
        let mut done = 0;
        for frame in &self.frames {
            let part = (bytes - done).min(PAGE);
            if part == 0 {
                break;
            }
            let moved = copy(frame.address(), part)?;
            done += moved;
            if moved < part {
                break;
            }
        }
        Ok(done)
    }
}

/// Cuts (address, bytes) ranges after `most` bytes.
fn cut(ranges: Vec<(u64, usize)>, most: usize) -> Vec<(u64, usize)> {
    let mut left = most;
    let mut kept = Vec::with_capacity(ranges.len());
    for (address, bytes) in ranges {
        let part = bytes.min(left);
        if part > 0 {
            kept.push((address, part));
        }
        left -= part;
    }
    kept
}

fn pinned(ranges: Vec<(u64, usize)>, write: bool) -> Result<crate::mm::Pinned, Errno> {
    sched::current().memory().ok_or(EFAULT)?.pin(&cut(ranges, MOST), write)
}

/// Sends what fits into one request. `whole`: a message that must not be split.
pub fn send(handle: u32, buffer: &mut IoBuffer<'_>, whole: bool, with: &With<'_>) -> Result<usize, Errno> {
    let want = buffer.remaining();
    let ranges = if want > BOUNCE { buffer.user_remaining() } else { Vec::new() };
    if !ranges.is_empty() {
        let pages = pinned(ranges, false)?;
        let sent = request::send(handle, &pages.segments, with)?;
        buffer.advance(sent);
        return Ok(sent);
    }
    let bytes = if whole { want } else { want.min(MOST) };
    let scratch = Scratch::new(bytes)?;
    // The program's position moves only by what the host took.
    let ready = scratch.each(bytes, |gpa, part| buffer.get_physical(gpa, part))?;
    if whole && ready < bytes {
        return Err(EFAULT);
    }
    let mut segments = scratch.segments.clone();
    trim(&mut segments, ready);
    match request::send(handle, &segments, with) {
        Ok(sent) => {
            buffer.rewind(ready.saturating_sub(sent));
            Ok(sent)
        }
        Err(error) => {
            buffer.rewind(ready);
            Err(error)
        }
    }
}

fn trim(segments: &mut Vec<Segment>, bytes: usize) {
    let mut left = bytes as u64;
    segments.retain_mut(|segment| {
        segment.bytes = segment.bytes.min(left);
        left -= segment.bytes;
        segment.bytes > 0
    });
}

/// Receives once: what the host said, and how many bytes reached the program (fewer than the message when that was longer).
pub fn receive(
    handle: u32,
    buffer: &mut IoBuffer<'_>,
    flags: u32,
    wants_address: bool,
    control_room: usize,
) -> Result<(Received, usize), Errno> {
    let want = buffer.remaining();
    let ranges = if want > BOUNCE { buffer.user_remaining() } else { Vec::new() };
    if !ranges.is_empty() {
        let pages = pinned(ranges, true)?;
        let received = request::receive(handle, &pages.segments, flags, wants_address, control_room)?;
        let fits = received.bytes.min(want);
        buffer.advance(fits);
        return Ok((received, fits));
    }
    let bytes = want.min(MOST);
    let scratch = Scratch::new(bytes)?;
    let received = request::receive(handle, &scratch.segments, flags, wants_address, control_room)?;
    let fits = scratch.each(received.bytes.min(bytes), |gpa, part| buffer.put_physical(gpa, part))?;
    Ok((received, fits))
}
