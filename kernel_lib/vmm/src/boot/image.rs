//! Loads the guest image: a static ELF linked at LIBOS_BASE + IMAGE. It is ours, not the container's, but checked all the same.

use std::os::fd::{AsFd, OwnedFd};

use abi::layout::{IMAGE, LIBOS_BASE, PAGE_SIZE};

use crate::error::{During, HostError, Kind};
use crate::memory::GuestMemory;
use crate::memory_sys;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const MAX_PROGRAM_HEADERS: usize = 16;
const PT_LOAD: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    gpa: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

/// ELF header and program headers, parsed.
#[derive(Debug, PartialEq, Eq)]
struct Elf {
    entry: u64,
    segments: Vec<Segment>,
}

#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// Ring-0 entry (virtual).
    pub entry: u64,
    /// First free page behind the image (guest-physical).
    pub end: u64,
}

fn bad(what: &str) -> HostError {
    HostError::new(Kind::Kernel, format!("guest image: {what}"))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], HostError> {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).ok_or_else(|| bad("truncated"))
}

/// `head`: the first page of the file.
fn parse(head: &[u8], ram_end: u64) -> Result<Elf, HostError> {
    if head.get(..7) != Some(b"\x7fELF\x02\x01\x01")
        || number(head, 16).map(u16::from_le_bytes)? != 2
        || number(head, 18).map(u16::from_le_bytes)? != 62
    {
        return Err(bad("not a static x86-64 ELF executable"));
    }
    let entry = u64::from_le_bytes(number(head, 24)?);
    let table = u64::from_le_bytes(number(head, 32)?) as usize;
    let count = u16::from_le_bytes(number(head, 56)?) as usize;
    if u16::from_le_bytes(number(head, 54)?) as usize != PROGRAM_HEADER_BYTES
        || count > MAX_PROGRAM_HEADERS
        || table > PAGE_SIZE as usize
        || table < HEADER_BYTES
    {
        return Err(bad("bad program headers"));
    }
    let mut segments = Vec::new();
    for index in 0..count {
        let at = table + index * PROGRAM_HEADER_BYTES;
        if u32::from_le_bytes(number(head, at)?) != PT_LOAD {
            continue;
        }
        let word = |offset: usize| number(head, at + offset).map(u64::from_le_bytes);
        let segment = Segment {
            offset: word(8)?,
            gpa: word(16)?.checked_sub(LIBOS_BASE).ok_or_else(|| bad("segment below the library OS's base"))?,
            file_bytes: word(32)?,
            memory_bytes: word(40)?,
        };
        let end = segment.gpa.checked_add(segment.memory_bytes);
        if segment.gpa < IMAGE || segment.file_bytes > segment.memory_bytes || end.is_none_or(|end| end > ram_end) {
            return Err(bad("segment outside the memory present at start"));
        }
        if segment.memory_bytes > 0 {
            segments.push(segment);
        }
    }
    if segments.is_empty() {
        return Err(bad("nothing to load"));
    }
    Ok(Elf { entry, segments })
}

/// Reads the image into RAM. It could be mapped from the file, and containers would share its pages: but then a paging-based KVM has a trap for
/// each of them, where a huge page of RAM has one for all (docs/decisions/0013).
pub fn load(memory: &GuestMemory, file: &OwnedFd) -> Result<Loaded, HostError> {
    let mut head = vec![0; PAGE_SIZE as usize];
    let bytes = rustix::io::pread(file, &mut head, 0).during(Kind::Kernel, "cannot read the guest image")?;
    head.truncate(bytes);
    let elf = parse(&head, memory.ram_end())?;
    let mut end = 0;
    for segment in &elf.segments {
        read(memory, file, *segment)?;
        end = end.max((segment.gpa + segment.memory_bytes).next_multiple_of(PAGE_SIZE));
    }
    Ok(Loaded { entry: elf.entry, end })
}

fn read(memory: &GuestMemory, file: &OwnedFd, segment: Segment) -> Result<(), HostError> {
    let mut done = 0;
    while done < segment.file_bytes {
        let rest = memory.vector(segment.gpa + done, segment.file_bytes - done)?;
        let offset = segment.offset.saturating_add(done) as i64;
        match memory_sys::read(file.as_fd(), &rest, offset, 0).during(Kind::Kernel, "cannot read the guest image")? {
            0 => return Err(bad("truncated")),
            count => done += count,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(vaddr: u64, file_bytes: u64, memory_bytes: u64) -> Vec<u8> {
        let mut head = vec![0; 256];
        head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        head[16] = 2;
        head[18] = 62;
        head[24..32].copy_from_slice(&(LIBOS_BASE + IMAGE + 16).to_le_bytes());
        head[32] = 64;
        head[54] = 56;
        head[56] = 1;
        head[64] = 1;
        head[72..80].copy_from_slice(&4096u64.to_le_bytes());
        head[80..88].copy_from_slice(&vaddr.to_le_bytes());
        head[96..104].copy_from_slice(&file_bytes.to_le_bytes());
        head[104..112].copy_from_slice(&memory_bytes.to_le_bytes());
        head
    }

    #[test]
    fn segments_must_fit() {
        let elf = parse(&header(LIBOS_BASE + IMAGE, 10, 20), 64 << 20).unwrap();
        assert_eq!(elf.segments, [Segment { offset: 4096, gpa: IMAGE, file_bytes: 10, memory_bytes: 20 }]);
        assert!(parse(&header(LIBOS_BASE, 10, 20), 64 << 20).is_err());
        assert!(parse(&header(0x400000, 10, 20), 64 << 20).is_err());
        assert!(parse(&header(LIBOS_BASE + IMAGE, 20, 10), 64 << 20).is_err());
        assert!(parse(&header(LIBOS_BASE + IMAGE, 20, u64::MAX), 64 << 20).is_err());
        assert!(parse(&header(LIBOS_BASE + IMAGE, 10, 20)[..100], 64 << 20).is_err());
        assert!(parse(b"#!/bin/sh", 64 << 20).is_err());
    }
}
