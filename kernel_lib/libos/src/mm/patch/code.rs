//! The machine code of patched system calls (Intel SDM volume 2). Pure.
//!
//! ```text
//! site A   b8 nr 00 00 00  mov $nr,%eax       ──▶  e9 ..  jmp trampoline      (the SYSCALL stays, for jumps to it)
//!          0f 05           syscall                 0f 05
//! site B   ..              anything           ──▶  ..
//!          0f 05           syscall                 eb ..  jmp hole
//!          hole: 5 bytes of padding behind a ret or jmp within reach: e9 .. jmp trampoline
//!
//! trampoline   [mov $nr,%eax]  lea return(%rip),%rcx   jmp *entry(%rip)
//! ```
//!
//! No stack is used (the red zone), and of the registers only RCX, which SYSCALL overwrites too.

/// Bytes of a trampoline's slot; the first slot of each page holds the entry's address instead.
pub const SLOT: usize = 24;
pub const SYSCALL: [u8; 2] = [0x0f, 0x05];
const MOV_EAX: u8 = 0xb8;
const JMP_NEAR: u8 = 0xe9;
const JMP_SHORT: u8 = 0xeb;
const RET: u8 = 0xc3;
const INT3: u8 = 0xcc;

/// A change of code: these bytes at this offset of the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    pub offset: usize,
    pub length: usize,
    pub bytes: [u8; 5],
}

/// How a site is to be patched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Site {
    /// The `mov $nr,%eax` at this offset becomes the jump.
    Number { at: usize, number: u32 },
    /// The SYSCALL at this offset jumps to the hole at that offset.
    Hole { at: usize, hole: usize },
}

/// Looks at the SYSCALL that ends at `behind` of a page of code and was called with `number`.
pub fn examine(page: &[u8], behind: usize, number: u64) -> Option<Site> {
    let at = behind.checked_sub(2)?;
    if page.get(at..behind)? != SYSCALL {
        return None;
    }
    if let Some(start) = at.checked_sub(5) {
        let loads = page[start] == MOV_EAX
            && u64::from(u32::from_le_bytes([page[start + 1], page[start + 2], page[start + 3], page[start + 4]])) == number;
        // A REX prefix would make it `mov $imm,%r8d`.
        let prefixed = start > 0 && page[start - 1] & 0xf0 == 0x40;
        if loads && !prefixed {
            return Some(Site::Number { at: start, number: number as u32 });
        }
    }
    find_hole(page, behind).map(|hole| Site::Hole { at, hole })
}

/// Five bytes of padding behind an unconditional jump or return, by decoding from `from` (an instruction's start) on, within reach of a
/// short jump.
fn find_hole(page: &[u8], from: usize) -> Option<usize> {
    let reach = (from + 127).min(page.len());
    let mut at = from;
    while at < reach {
        let length = instruction_length(&page[at..])?;
        let ends =
            matches!(page[at], RET | JMP_NEAR | JMP_SHORT) || page[at..].starts_with(&[0xf3, RET]) || page[at..].starts_with(&[0x0f, 0x0b]);
        at += length;
        if !ends {
            continue;
        }
        let padding = padding_length(page.get(at..)?);
        if padding >= 5 && at <= reach && at + 5 <= page.len() {
            return Some(at);
        }
        at += padding;
    }
    None
}

/// Bytes of whole padding instructions (NOPs of any length, INT3) at the start of `code`.
fn padding_length(code: &[u8]) -> usize {
    let mut at = 0;
    while let Some(length) = padding_instruction(&code[at..]) {
        at += length;
    }
    at
}

fn padding_instruction(code: &[u8]) -> Option<usize> {
    let prefixes = code.iter().take_while(|&&byte| byte == 0x66 || byte == 0x2e).count();
    match *code.get(prefixes)? {
        INT3 if prefixes == 0 => Some(1),
        0x90 => Some(prefixes + 1),
        0x0f if code.get(prefixes + 1) == Some(&0x1f) => {
            Some(prefixes + 2 + modrm_length(code.get(prefixes + 2..)?)?).filter(|&n| n <= code.len())
        }
        _ => None,
    }
}

/// Bytes of a ModRM byte with its SIB and displacement.
fn modrm_length(code: &[u8]) -> Option<usize> {
    let modrm = *code.first()?;
    let (mode, rm) = (modrm >> 6, modrm & 7);
    if mode == 3 {
        return Some(1);
    }
    let sib = rm == 4;
    let base_is_displacement = if sib { *code.get(1)? & 7 == 5 && mode == 0 } else { rm == 5 && mode == 0 };
    let displacement = match mode {
        1 => 1,
        2 => 4,
        _ if base_is_displacement => 4,
        _ => 0,
    };
    Some(1 + usize::from(sib) + displacement)
}

/// Length of an instruction of the kinds that stand around system calls. None: unknown, or cut off.
pub fn instruction_length(code: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut operand_16 = false;
    while let Some(&byte) = code.get(at) {
        match byte {
            0x66 => operand_16 = true,
            0x2e | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3 => {}
            _ => break,
        }
        at += 1;
    }
    let mut wide = false;
    if let Some(rex) = code.get(at).filter(|&&byte| byte & 0xf0 == 0x40) {
        wide = rex & 8 != 0;
        at += 1;
    }
    let immediate = if operand_16 { 2 } else { 4 };
    let opcode = *code.get(at)?;
    at += 1;
    let with_modrm = |rest: usize| code.get(at..).and_then(modrm_length).map(|length| at + length + rest);
    let length = match opcode {
        0x0f => {
            let second = *code.get(at)?;
            at += 1;
            let with_modrm = |rest: usize| code.get(at..).and_then(modrm_length).map(|length| at + length + rest);
            match second {
                0x05 | 0x0b | 0x31 | 0xa2 => Some(at),
                0x80..=0x8f => Some(at + 4),
                0x10..=0x17 | 0x1e | 0x1f | 0x28..=0x2f | 0x40..=0x4f | 0x54..=0x5f | 0x6e | 0x6f | 0x7e | 0x7f | 0x90..=0x9f => {
                    with_modrm(0)
                }
                0xa3 | 0xab | 0xae | 0xaf | 0xb0 | 0xb1 | 0xb3 | 0xb6..=0xb8 | 0xbb..=0xbf | 0xc0 | 0xc1 | 0xd6 | 0xef => with_modrm(0),
                0xba | 0xc2 | 0xc6 => with_modrm(1),
                0xc8..=0xcf => Some(at),
                _ => None,
            }
        }
        // ALU operations: six forms in each row of eight.
        0x00..=0x3f => match opcode & 7 {
            0..=3 => with_modrm(0),
            4 => Some(at + 1),
            5 => Some(at + immediate),
            _ => None,
        },
        0x50..=0x5f | 0x90..=0x99 | 0xc3 | 0xc9 | 0xcc | 0xf4 | 0xa4 | 0xa5 | 0xaa | 0xab => Some(at),
        0x63 | 0x84..=0x8b | 0x8d | 0x8f | 0xd0..=0xd3 | 0xff | 0xfe => with_modrm(0),
        0x68 | 0xa9 => Some(at + immediate),
        0x6a | 0x70..=0x7f | 0xa8 | 0xb0..=0xb7 | 0xeb | 0xcd => Some(at + 1),
        0x69 | 0x81 | 0xc7 => with_modrm(immediate),
        0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => with_modrm(1),
        0xb8..=0xbf => Some(at + if wide { 8 } else { immediate }),
        0xc2 => Some(at + 2),
        0xe8 | 0xe9 => Some(at + 4),
        0xf6 | 0xf7 => {
            let tests = *code.get(at)? >> 3 & 7 < 2;
            with_modrm(match (tests, opcode) {
                (false, _) => 0,
                (true, 0xf6) => 1,
                (true, _) => immediate,
            })
        }
        _ => None,
    };
    length.filter(|&length| length <= code.len())
}

fn relative(from: u64, to: u64) -> Option<[u8; 4]> {
    i32::try_from(to.wrapping_sub(from) as i64).ok().map(i32::to_le_bytes)
}

fn near_jump(from: u64, to: u64) -> Option<[u8; 5]> {
    let rel = relative(from + 5, to)?;
    Some([JMP_NEAR, rel[0], rel[1], rel[2], rel[3]])
}

/// The changes of a page at `page_address` that lead a site to its trampoline; the one that makes it take effect comes last.
pub fn changes(site: Site, page_address: u64, trampoline: u64) -> Option<[Option<Change>; 2]> {
    let jump = |at: usize| near_jump(page_address + at as u64, trampoline).map(|bytes| Change { offset: at, length: 5, bytes });
    match site {
        Site::Number { at, .. } => Some([None, Some(jump(at)?)]),
        Site::Hole { at, hole } => {
            let distance = i8::try_from(hole as i64 - (at as i64 + 2)).ok()?;
            let short = Change { offset: at, length: 2, bytes: [JMP_SHORT, distance as u8, 0, 0, 0] };
            Some([Some(jump(hole)?), Some(short)])
        }
    }
}

/// Where the site's SYSCALL returns to, as an offset of its page.
pub const fn return_offset(site: Site) -> usize {
    match site {
        Site::Number { at, .. } => at + 7,
        Site::Hole { at, .. } => at + 2,
    }
}

/// A trampoline at `address` that goes back to `back`; the entry's address is stored at `entry_at`.
pub fn trampoline(site: Site, address: u64, back: u64, entry_at: u64) -> Option<[u8; SLOT]> {
    let mut code = [INT3; SLOT];
    let mut at = 0;
    if let Site::Number { number, .. } = site {
        code[0] = MOV_EAX;
        code[1..5].copy_from_slice(&number.to_le_bytes());
        at = 5;
    }
    code[at..at + 3].copy_from_slice(&[0x48, 0x8d, 0x0d]);
    code[at + 3..at + 7].copy_from_slice(&relative(address + at as u64 + 7, back)?);
    at += 7;
    code[at..at + 2].copy_from_slice(&[0xff, 0x25]);
    code[at + 2..at + 6].copy_from_slice(&relative(address + at as u64 + 6, entry_at)?);
    Some(code)
}

/// The place in the program that corresponds to `rip` within a trampoline (`code` at `address`): the SYSCALL, or what stood before it.
pub fn original(code: &[u8; SLOT], address: u64, rip: u64) -> Option<u64> {
    let skip = if code[0] == MOV_EAX { 5 } else { 0 };
    let rel = i32::from_le_bytes(code[skip + 3..skip + 7].try_into().ok()?);
    let back = (address + skip as u64 + 7).wrapping_add_signed(i64::from(rel));
    Some(if skip == 5 && rip == address { back - 7 } else { back - 2 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn page(code: &[u8]) -> Vec<u8> {
        let mut page = code.to_vec();
        page.resize(4096, 0xcc);
        page
    }

    #[test]
    fn a_loaded_number_is_replaced() {
        let page = page(&[0x90, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3]);
        let site = examine(&page, 8, 39).unwrap();
        assert_eq!(site, Site::Number { at: 1, number: 39 });
        let [none, change] = changes(site, 0x7000_0000, 0x6fff_0018).unwrap();
        assert_eq!(none, None);
        let change = change.unwrap();
        assert_eq!((change.offset, change.length, change.bytes[0]), (1, 5, 0xe9));
        let rel = i32::from_le_bytes(change.bytes[1..5].try_into().unwrap());
        assert_eq!((0x7000_0006i64 + i64::from(rel)) as u64, 0x6fff_0018);
        // Another number in RAX: somebody jumped to the SYSCALL; there is a hole behind the ret.
        assert_eq!(examine(&page, 8, 40), Some(Site::Hole { at: 6, hole: 9 }));
    }

    #[test]
    fn an_argument_that_looks_like_the_number_is_none() {
        // mov $8,%r8d; syscall
        let page = page(&[0x41, 0xb8, 8, 0, 0, 0, 0x0f, 0x05, 0xc3]);
        assert_eq!(examine(&page, 8, 8), Some(Site::Hole { at: 6, hole: 9 }));
    }

    #[test]
    fn a_hole_lies_behind_a_return_only() {
        // xor %eax,%eax; syscall; cmp $-4096,%rax; ja +8; ret; nopl 0(%rax) (4 bytes); mov ..; ret; nopw (10 bytes)
        let code = [
            0x31, 0xc0, 0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x05, 0xc3, 0x0f, 0x1f, 0x40, 0x00, 0x48, 0x8b, 0x15, 1, 2,
            3, 4, 0xf7, 0xd8, 0x64, 0x89, 0x02, 0x48, 0x83, 0xc8, 0xff, 0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x55,
        ];
        assert_eq!(examine(&page(&code), 4, 0), Some(Site::Hole { at: 2, hole: 34 }));
        // mov %rax,%rbx ends in the byte of a ret; the padding behind it runs.
        let code = [0x0f, 0x05, 0x48, 0x89, 0xc3, 0x0f, 0x1f, 0x44, 0, 0, 0xff, 0x00];
        let mut page = page(&code);
        page[12..].fill(0x06);
        assert_eq!(examine(&page, 2, 0), None);
    }

    #[test]
    fn a_trampoline_leads_there_and_back() {
        let (address, back, entry) = (0x1000_0018, 0x1001_0007, 0x1000_0000);
        let number = trampoline(Site::Number { at: 0, number: 1 }, address, back, entry).unwrap();
        assert_eq!(number[..5], [0xb8, 1, 0, 0, 0]);
        assert_eq!(original(&number, address, address), Some(back - 7));
        assert_eq!(original(&number, address, address + 5), Some(back - 2));
        let hole = trampoline(Site::Hole { at: 0, hole: 9 }, address, back, entry).unwrap();
        assert_eq!(original(&hole, address, address), Some(back - 2));
        assert_eq!(instruction_length(&hole), Some(7));
        assert_eq!(instruction_length(&hole[7..]), Some(6));
        assert!(trampoline(Site::Hole { at: 0, hole: 9 }, address, back + (4 << 30), entry).is_none());
    }

    #[test]
    fn instructions_have_their_lengths() {
        let cases: [(&[u8], usize); 14] = [
            (&[0x48, 0x3d, 0, 0xf0, 0xff, 0xff], 6),
            (&[0x77, 8], 2),
            (&[0x0f, 0x87, 0, 0, 0, 0], 6),
            (&[0x48, 0x8b, 0x15, 1, 2, 3, 4], 7),
            (&[0x64, 0x89, 0x02], 3),
            (&[0x48, 0xc7, 0xc0, 1, 2, 3, 4], 7),
            (&[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8], 10),
            (&[0x8b, 0x44, 0x24, 8], 4),
            (&[0x8b, 0x04, 0x25, 1, 2, 3, 4], 7),
            (&[0xf3, 0x0f, 0x1e, 0xfa], 4),
            (&[0xf7, 0xd8], 2),
            (&[0xf6, 0x05, 1, 2, 3, 4, 1], 7),
            (&[0x41, 0x54], 2),
            (&[0xf3, 0xc3], 2),
        ];
        for (code, length) in cases {
            assert_eq!(instruction_length(code), Some(length), "{code:x?}");
        }
        assert_eq!(instruction_length(&[0x48]), None);
        assert_eq!(instruction_length(&[0xe8, 0]), None);
    }
}
