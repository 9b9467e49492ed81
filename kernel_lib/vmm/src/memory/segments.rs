//! Segment lists of reads and writes, as vectors of host addresses: the data of a request goes between guest memory and the kernel
//! without a copy in between.

use abi::request::{Segment, MAX_SEGMENTS};

use super::{Fault, GuestMemory};

/// Where segments may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Ram,
    /// Data that only leaves the guest may come from a mapped file, too.
    RamOrWindow,
}

/// Checked host addresses. They stay valid as long as the guest memory does: RAM never shrinks, and a window page that vanishes makes the
/// system call fail with EFAULT.
pub struct IoVectors<'a> {
    vectors: Vec<libc::iovec>,
    bytes: u64,
    _memory: &'a GuestMemory,
}

/// A checked host address and length; as [`IoVectors`].
pub struct Buffer<'a> {
    pointer: *mut u8,
    bytes: u64,
    _memory: &'a GuestMemory,
}

impl Buffer<'_> {
    pub fn as_ptr(&self) -> *mut u8 {
        self.pointer
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl IoVectors<'_> {
    pub fn as_ptr(&self) -> *const libc::iovec {
        self.vectors.as_ptr()
    }

    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps only the first `limit` bytes.
    pub fn truncate(&mut self, limit: u64) {
        let mut left = limit;
        for vector in &mut self.vectors {
            vector.iov_len = vector.iov_len.min(left as usize);
            left -= vector.iov_len as u64;
        }
        self.vectors.retain(|vector| vector.iov_len > 0);
        self.bytes = self.bytes.min(limit);
    }
}

impl GuestMemory {
    /// Reads and checks the segment list of a request.
    pub fn vectors(&self, list: u64, count: u32, reach: Reach) -> Result<IoVectors<'_>, Fault> {
        let count = count as usize;
        if count > MAX_SEGMENTS {
            return Err(Fault);
        }
        let mut vectors = Vec::with_capacity(count);
        let mut bytes = 0u64;
        for index in 0..count {
            let segment: Segment = self.read(list.checked_add((index * size_of::<Segment>()) as u64).ok_or(Fault)?)?;
            let address = match self.ram(segment.gpa, segment.bytes) {
                Err(Fault) if reach == Reach::RamOrWindow => self.window(segment.gpa, segment.bytes)?,
                other => other?,
            };
            bytes = bytes.checked_add(segment.bytes).ok_or(Fault)?;
            vectors.push(libc::iovec { iov_base: address.cast(), iov_len: segment.bytes as usize });
        }
        Ok(IoVectors { vectors, bytes, _memory: self })
    }

    /// A copy of what the segments hold, `most` bytes at most.
    pub fn gather(&self, list: u64, count: u32, most: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        for index in 0..u64::from(count) {
            let segment: Segment = self.read(list.checked_add(index * size_of::<Segment>() as u64).ok_or(Fault)?)?;
            let start = bytes.len();
            let end = segment.bytes.checked_add(start as u64).filter(|end| *end <= most).ok_or(Fault)?;
            bytes.resize(end as usize, 0);
            self.read_into(segment.gpa, bytes.get_mut(start..).unwrap_or_default())?;
        }
        Ok(bytes)
    }

    /// A range of RAM.
    pub fn vector(&self, gpa: u64, bytes: u64) -> Result<IoVectors<'_>, Fault> {
        let vector = libc::iovec { iov_base: self.ram(gpa, bytes)?.cast(), iov_len: bytes as usize };
        Ok(IoVectors { vectors: vec![vector], bytes, _memory: self })
    }

    /// One buffer of RAM, for the calls that take an address and a length.
    pub fn buffer(&self, gpa: u64, bytes: u64) -> Result<Buffer<'_>, Fault> {
        Ok(Buffer { pointer: self.ram(gpa, bytes)?, bytes, _memory: self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_checked_one_by_one() {
        let memory = GuestMemory::reserve().unwrap();
        memory.back_ram(0, 1 << 20).unwrap();
        memory.publish_ram(1 << 20);
        memory.write(0x1000, &Segment { gpa: 0x2000, bytes: 16 }).unwrap();
        memory.write(0x1010, &Segment { gpa: 0xff_ffff, bytes: 16 }).unwrap();
        assert_eq!(memory.vectors(0x1000, 1, Reach::Ram).unwrap().bytes(), 16);
        assert!(memory.vectors(0x1000, 2, Reach::Ram).is_err());
        assert!(memory.vectors(0x1000, u32::MAX, Reach::Ram).is_err());
        assert!(memory.vectors(u64::MAX - 3, 1, Reach::Ram).is_err());
        assert!(memory.gather(0x1000, 2, 64).is_err());
        memory.write(0x1010, &Segment { gpa: 0x3000, bytes: 16 }).unwrap();
        memory.write_bytes(0x2000, b"sixteen bytes of").unwrap();
        assert_eq!(memory.gather(0x1000, 2, 32).unwrap(), *b"sixteen bytes of\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert!(memory.gather(0x1000, 2, 31).is_err());
        assert!(memory.gather(u64::MAX - 3, 1, 32).is_err());
        let mut vectors = memory.vectors(0x1000, 2, Reach::RamOrWindow).unwrap();
        vectors.truncate(20);
        assert_eq!((vectors.len(), vectors.bytes()), (2, 20));
        vectors.truncate(16);
        assert_eq!((vectors.len(), vectors.bytes()), (1, 16));
    }
}
