//! ELF64 headers (elf(5), System V ABI chapter 4): decoded and checked as Linux's binfmt_elf does. Pure.

use super::PAGE_SIZE;
use abi::layout::LIBOS_BASE;
use alloc::vec::Vec;
use hal::paging::Rights;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub const HEADER_BYTES: usize = 64;
pub const PROGRAM_HEADER_BYTES: usize = 56;
/// Most program headers (Linux: 64 KiB of them).
const MOST_HEADERS: usize = 65536 / PROGRAM_HEADER_BYTES;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// Most bytes of notes that are looked at.
const MOST_NOTES: u64 = 1024;
/// The note that the GNU C library's start-up code puts into every program: name size, size, NT_GNU_ABI_TAG, "GNU", Linux.
const GNU_ABI_TAG: [u8; 20] = *b"\x04\0\0\0\x10\0\0\0\x01\0\0\0GNU\0\0\0\0\0";

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    pub ident: [u8; 16],
    pub kind: u16,
    pub machine: u16,
    pub version: u32,
    pub entry: u64,
    pub program_headers: u64,
    pub section_headers: u64,
    pub flags: u32,
    pub header_bytes: u16,
    pub program_header_bytes: u16,
    pub program_header_count: u16,
    pub section_header_bytes: u16,
    pub section_header_count: u16,
    pub section_names: u16,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProgramHeader {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub address: u64,
    pub physical: u64,
    pub file_bytes: u64,
    pub memory_bytes: u64,
    pub align: u64,
}

/// What is wrong with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Not an ELF file of this machine that could be run: ENOEXEC (ELIBBAD for an interpreter).
    NotForUs,
    /// Program headers that make no sense: EINVAL once the file was recognised.
    Segments,
}

impl Header {
    /// Decodes the first bytes of a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let header = Self::read_from_bytes(bytes.get(..HEADER_BYTES).ok_or(Flaw::NotForUs)?).map_err(|_| Flaw::NotForUs)?;
        let good = header.ident[..4] == *b"\x7fELF"
            && header.ident[4] == 2
            && matches!(header.kind, ET_EXEC | ET_DYN)
            && header.machine == EM_X86_64
            && header.program_header_bytes as usize == PROGRAM_HEADER_BYTES
            && (1..=MOST_HEADERS).contains(&(header.program_header_count as usize));
        if good {
            Ok(header)
        } else {
            Err(Flaw::NotForUs)
        }
    }

    /// Bytes of the program-header table.
    pub const fn table_bytes(&self) -> usize {
        self.program_header_count as usize * PROGRAM_HEADER_BYTES
    }

    pub const fn position_independent(&self) -> bool {
        self.kind == ET_DYN
    }
}

/// A PT_LOAD segment, page aligned: file pages from `offset` at `start`, then zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Of the first page, relative to the load bias.
    pub start: u64,
    /// File offset of the first page.
    pub offset: u64,
    /// End of the file's bytes, and of the segment.
    pub file_end: u64,
    pub end: u64,
    pub rights: Rights,
}

/// What there is to map of an ELF file.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub segments: Vec<Segment>,
    /// (file offset, bytes) of the interpreter's name.
    pub interpreter: Option<(u64, u64)>,
    /// (file offset, bytes) of notes.
    pub notes: Vec<(u64, u64)>,
    pub executable_stack: bool,
    /// Address of the program headers in memory, relative to the bias.
    pub headers_at: u64,
    /// Largest alignment that a segment asks for.
    pub align: u64,
}

impl Program {
    pub fn parse(header: &Header, table: &[u8]) -> Result<Self, Flaw> {
        let mut program = Self { align: PAGE_SIZE, ..Self::default() };
        let mut previous_end = 0;
        for chunk in table.chunks_exact(PROGRAM_HEADER_BYTES) {
            let entry = ProgramHeader::read_from_bytes(chunk).map_err(|_| Flaw::NotForUs)?;
            match entry.kind {
                PT_LOAD if entry.memory_bytes != 0 => {
                    let segment = segment(&entry).ok_or(Flaw::Segments)?;
                    if segment.start < previous_end {
                        // Linux maps overlapping segments one over the other; nothing real needs it.
                        return Err(Flaw::Segments);
                    }
                    previous_end = segment.start.max(segment.end & !(PAGE_SIZE - 1));
                    if (entry.offset..entry.offset.saturating_add(entry.file_bytes)).contains(&header.program_headers) {
                        program.headers_at = entry.address.wrapping_add(header.program_headers - entry.offset);
                    }
                    if entry.align.is_power_of_two() {
                        program.align = program.align.max(entry.align.min(1 << 30));
                    }
                    program.segments.push(segment);
                }
                PT_INTERP if program.interpreter.is_none() => {
                    // Linux: a name of 2..=PATH_MAX bytes with its NUL.
                    if !(2..=4096).contains(&entry.file_bytes) {
                        return Err(Flaw::NotForUs);
                    }
                    program.interpreter = Some((entry.offset, entry.file_bytes));
                }
                PT_NOTE => program.notes.push((entry.offset, entry.file_bytes.min(MOST_NOTES))),
                PT_GNU_STACK => program.executable_stack = entry.flags & PF_X != 0,
                PT_PHDR if program.headers_at == 0 => program.headers_at = entry.address,
                _ => {}
            }
        }
        if program.segments.is_empty() {
            return Err(Flaw::Segments);
        }
        Ok(program)
    }

    /// Lowest and highest address, relative to the bias, page aligned.
    pub fn span(&self) -> (u64, u64) {
        let low = self.segments.iter().map(|segment| segment.start).min().unwrap_or(0);
        let high = self.segments.iter().map(|segment| segment.end).max().unwrap_or(0);
        (low, high.next_multiple_of(PAGE_SIZE))
    }
}

/// Whether notes name the GNU C library.
pub fn is_gnu(notes: &[u8]) -> bool {
    notes.windows(GNU_ABI_TAG.len()).any(|bytes| bytes == GNU_ABI_TAG)
}

fn segment(entry: &ProgramHeader) -> Option<Segment> {
    let within = entry.address % PAGE_SIZE;
    let end = entry.address.checked_add(entry.memory_bytes).filter(|&end| end <= LIBOS_BASE)?;
    let good = entry.file_bytes <= entry.memory_bytes
        && entry.offset % PAGE_SIZE == within
        && entry.offset.checked_add(entry.file_bytes).is_some();
    good.then_some(Segment {
        start: entry.address - within,
        offset: entry.offset - within,
        file_end: entry.address + entry.file_bytes,
        end,
        rights: Rights { read: entry.flags & PF_R != 0, write: entry.flags & PF_W != 0, execute: entry.flags & PF_X != 0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let mut ident = [0; 16];
        ident[..6].copy_from_slice(b"\x7fELF\x02\x01");
        Header {
            ident,
            kind: ET_DYN,
            machine: EM_X86_64,
            version: 1,
            entry: 0x1000,
            program_headers: 64,
            section_headers: 0,
            flags: 0,
            header_bytes: 64,
            program_header_bytes: 56,
            program_header_count: 2,
            section_header_bytes: 64,
            section_header_count: 0,
            section_names: 0,
        }
    }

    fn load(offset: u64, address: u64, file_bytes: u64, memory_bytes: u64, flags: u32) -> ProgramHeader {
        ProgramHeader { kind: PT_LOAD, flags, offset, address, physical: 0, file_bytes, memory_bytes, align: 4096 }
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        assert!(Header::parse(header().as_bytes()).is_ok());
        let lies: [fn(&mut Header); 6] = [
            |h| h.ident[1] = b'e',
            |h| h.ident[4] = 1,
            |h| h.kind = 1,
            |h| h.machine = 183,
            |h| h.program_header_bytes = 7,
            |h| h.program_header_count = 0,
        ];
        for lie in lies {
            let mut header = header();
            lie(&mut header);
            assert_eq!(Header::parse(header.as_bytes()).err(), Some(Flaw::NotForUs));
        }
        assert!(Header::parse(&header().as_bytes()[..40]).is_err());
    }

    #[test]
    fn segments_are_page_aligned() {
        let table = [load(0, 0, 0x1234, 0x1234, 5), load(0x1e10, 0x2e10, 0x200, 0x900, 6)];
        let program = Program::parse(&header(), table.as_bytes()).unwrap();
        assert_eq!(program.span(), (0, 0x4000));
        assert_eq!(program.headers_at, 64);
        let data = program.segments[1];
        assert_eq!((data.start, data.offset, data.file_end, data.end), (0x2000, 0x1000, 0x3010, 0x3710));
        assert_eq!(data.rights, Rights::READ_WRITE);
    }

    #[test]
    fn segments_that_make_no_sense_are_refused() {
        for bad in [load(0, 0, 2, 1, 4), load(1, 0, 1, 1, 4), load(0, u64::MAX - 1, 1, 4, 4), load(!4095, 0, 4096, 4096, 4)] {
            assert_eq!(Program::parse(&header(), bad.as_bytes()).err(), Some(Flaw::Segments));
        }
        assert!(Program::parse(&header(), &[]).is_err());
    }
}
