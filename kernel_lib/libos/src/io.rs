//! Where the bytes of a read or write go: program memory (one or several ranges) or the library OS's own buffers.

use crate::errno::{Errno, EFAULT, EINVAL};
use alloc::vec::Vec;

/// Linux's MAX_RW_COUNT.
pub const MAX_TRANSFER: usize = 0x7fff_f000;

enum Target<'a> {
    /// (address, bytes) in the current address space.
    User(Vec<(u64, usize)>),
    /// Library-OS memory to be filled (as a read's target).
    Fill(&'a mut [u8]),
    /// Library-OS memory to be taken from (as a write's source).
    Take(&'a [u8]),
}

/// A transfer in progress: what is left shrinks as bytes are moved.
pub struct IoBuffer<'a> {
    target: Target<'a>,
    position: usize,
    total: usize,
}

impl<'a> IoBuffer<'a> {
    /// One range of program memory.
    pub fn user(address: u64, bytes: usize) -> Self {
        let bytes = bytes.min(MAX_TRANSFER);
        Self { target: Target::User(alloc::vec![(address, bytes)]), position: 0, total: bytes }
    }

    /// Ranges from an iovec array. EINVAL when the sum overflows.
    pub fn user_ranges(mut ranges: Vec<(u64, usize)>) -> Result<Self, Errno> {
        let mut total: usize = 0;
        for range in &mut ranges {
            if range.1 > isize::MAX as usize {
                return Err(EINVAL);
            }
            range.1 = range.1.min(MAX_TRANSFER - total);
            total += range.1;
        }
        Ok(Self { target: Target::User(ranges), position: 0, total })
    }

    pub fn fill(bytes: &'a mut [u8]) -> Self {
        let total = bytes.len();
        Self { target: Target::Fill(bytes), position: 0, total }
    }

    pub fn take(bytes: &'a [u8]) -> Self {
        let total = bytes.len();
        Self { target: Target::Take(bytes), position: 0, total }
    }

    pub fn remaining(&self) -> usize {
        self.total - self.position
    }

    /// Moves at most `bytes` more.
    pub fn limit(&mut self, bytes: usize) {
        self.total = self.total.min(self.position.saturating_add(bytes));
    }

    /// Bytes moved so far.
    pub fn done(&self) -> usize {
        self.position
    }

    /// The user ranges that are left (address, bytes); empty for library-OS buffers.
    pub fn user_remaining(&self) -> Vec<(u64, usize)> {
        let Target::User(ranges) = &self.target else {
            return Vec::new();
        };
        let mut skip = self.position;
        let mut rest = Vec::new();
        for &(address, bytes) in ranges {
            if skip >= bytes {
                skip -= bytes;
                continue;
            }
            rest.push((address + skip as u64, bytes - skip));
            skip = 0;
        }
        rest
    }

    /// Where a library-OS buffer goes on, guest-physical (heap memory is contiguous): for host requests. None: program memory.
    pub fn kernel_address(&self) -> Option<u64> {
        match &self.target {
            Target::User(_) => None,
            Target::Fill(buffer) => Some(hal::phys::slice_address(&buffer[self.position..])),
            Target::Take(buffer) => Some(hal::phys::slice_address(&buffer[self.position..])),
        }
    }

    /// Puts back the last `bytes` that were moved: they were fetched, but not consumed (a short write).
    pub fn rewind(&mut self, bytes: usize) {
        self.position -= bytes.min(self.position);
    }

    /// Counts bytes as moved that somebody else moved (the host, straight into the frames).
    pub fn advance(&mut self, bytes: usize) {
        self.position += bytes.min(self.remaining());
    }

    fn each(&mut self, most: usize, mut step: impl FnMut(Piece<'_>, usize) -> usize) -> usize {
        let mut moved = 0;
        let want = most.min(self.remaining());
        match &mut self.target {
            Target::User(ranges) => {
                let mut skip = self.position;
                for &(address, bytes) in ranges.iter() {
                    if skip >= bytes {
                        skip -= bytes;
                        continue;
                    }
                    let n = (bytes - skip).min(want - moved);
                    let did = step(Piece::User(address + skip as u64, n), moved);
                    moved += did;
                    if did < n || moved == want {
                        break;
                    }
                    skip = 0;
                }
            }
            Target::Fill(buffer) => moved = step(Piece::Fill(&mut buffer[self.position..self.position + want]), 0),
            Target::Take(buffer) => moved = step(Piece::Take(&buffer[self.position..self.position + want]), 0),
        }
        self.position += moved;
        moved
    }

    /// A read's data: copies `data` into the buffer, as far as there is room. EFAULT when not a single byte could be stored.
    pub fn put(&mut self, data: &[u8]) -> Result<usize, Errno> {
        let want = data.len().min(self.remaining());
        let moved = self.each(want, |piece, at| match piece {
            Piece::User(address, n) => hal::user::write_partial(address, &data[at..at + n]),
            Piece::Fill(buffer) => {
                buffer.copy_from_slice(&data[at..at + buffer.len()]);
                buffer.len()
            }
            Piece::Take(_) => 0,
        });
        if moved == 0 && want > 0 {
            Err(EFAULT)
        } else {
            Ok(moved)
        }
    }

    /// A write's data: copies from the buffer into `out`, as far as there is data. EFAULT when not a single byte could be fetched.
    pub fn get(&mut self, out: &mut [u8]) -> Result<usize, Errno> {
        let want = out.len().min(self.remaining());
        let moved = self.each(want, |piece, at| match piece {
            Piece::User(address, n) => hal::user::read_partial(address, &mut out[at..at + n]),
            Piece::Take(buffer) => {
                out[at..at + buffer.len()].copy_from_slice(buffer);
                buffer.len()
            }
            Piece::Fill(_) => 0,
        });
        if moved == 0 && want > 0 {
            Err(EFAULT)
        } else {
            Ok(moved)
        }
    }

    /// As [`Self::put`], straight from guest-physical memory (a DAX window or a frame the caller holds), without a bounce.
    pub fn put_physical(&mut self, gpa: u64, bytes: usize) -> Result<usize, Errno> {
        let want = bytes.min(self.remaining());
        let moved = self.each(want, |piece, at| match piece {
            Piece::User(address, n) => hal::user::write_from_physical(address, gpa + at as u64, n),
            Piece::Fill(buffer) => {
                hal::phys::read(gpa + at as u64, buffer);
                buffer.len()
            }
            Piece::Take(_) => 0,
        });
        if moved == 0 && want > 0 {
            Err(EFAULT)
        } else {
            Ok(moved)
        }
    }

    /// As [`Self::get`], straight into guest-physical memory.
    pub fn get_physical(&mut self, gpa: u64, bytes: usize) -> Result<usize, Errno> {
        let want = bytes.min(self.remaining());
        let moved = self.each(want, |piece, at| match piece {
            Piece::User(address, n) => hal::user::read_to_physical(address, gpa + at as u64, n),
            Piece::Take(buffer) => {
                hal::phys::write(gpa + at as u64, buffer);
                buffer.len()
            }
            Piece::Fill(_) => 0,
        });
        if moved == 0 && want > 0 {
            Err(EFAULT)
        } else {
            Ok(moved)
        }
    }

    /// Fills with zeros (reading /dev/zero, holes).
    pub fn put_zeros(&mut self, bytes: usize) -> Result<usize, Errno> {
        let want = bytes.min(self.remaining());
        let moved = self.each(want, |piece, _| match piece {
            Piece::User(address, n) => hal::user::zero(address, n).map_or(0, |()| n),
            Piece::Fill(buffer) => {
                buffer.fill(0);
                buffer.len()
            }
            Piece::Take(_) => 0,
        });
        if moved == 0 && want > 0 {
            Err(EFAULT)
        } else {
            Ok(moved)
        }
    }
}

enum Piece<'a> {
    User(u64, usize),
    Fill(&'a mut [u8]),
    Take(&'a [u8]),
}
