//! The machine code of patched system calls and CPUIDs (Intel SDM volume 2). Pure.
//!
//! ```text
//! number   b8 nr 00 00 00  mov $nr,%eax       ──▶  e9 ..  jmp trampoline
//!          ..              (preparations)          ..                           (stay, with the SYSCALL, for jumps to them)
//!          0f 05           syscall                 0f 05
//! hole     ..              anything           ──▶  ..
//!          0f 05           syscall                 eb ..  jmp hole
//!          hole: 5 bytes of padding behind a ret or jmp within reach: e9 .. jmp trampoline
//!
//! trampoline   [mov $nr,%eax  preparations]  lea return(%rip),%rcx   jmp *entry(%rip)
//!
//! cpuid    0f a2           cpuid              ──▶  e9 ..  jmp trampoline
//!          ..              3 bytes or more
//! trampoline   lea -128(%rsp),%rsp   call look_up   lea 128(%rsp),%rsp   the instructions overwritten   jmp behind them
//! ```
//!
//! Preparations are instructions between the number and the SYSCALL that do not touch RAX: so these five bytes are the `mov` that they
//! look like. Within a longer instruction they would be its displacement, and the number in RAX the base that it counts from.
//! System calls use no stack and of the registers only RCX, which SYSCALL overwrites too. CPUID's answers come from the VMM's table
//! of the vCPU, by code that runs as the program's and keeps its flags and its red zone. A CPUID stays as it is when a jump may lead to
//! what would be overwritten.

use core::ops::Range;

/// Bytes of a trampoline's slot (a long one takes two). The first slots of each page hold what [`header`] makes.
pub const SLOT: usize = 24;
pub const HEADER_SLOTS: usize = 3;
const LOOK_UP: usize = 8;
pub const SYSCALL: [u8; 2] = [0x0f, 0x05];
pub const CPUID: [u8; 2] = [0x0f, 0xa2];
const MOV_EAX: u8 = 0xb8;
pub(super) const JMP_NEAR: u8 = 0xe9;
pub(super) const JMP_SHORT: u8 = 0xeb;
const CALL: u8 = 0xe8;
pub(super) const RET: u8 = 0xc3;
const INT3: u8 = 0xcc;
const NOP: u8 = 0x90;
/// Bytes of `mov $nr,%eax`, of a near jump, and of what ends a system call's trampoline.
const NUMBER: usize = 5;
const LEAVE: usize = 13;
const MOST_PREPARATIONS: usize = 2 * SLOT - NUMBER - LEAVE;

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
    /// The `mov $nr,%eax` at this offset becomes the jump, with so many bytes of instructions between it and the SYSCALL.
    Number { at: usize, number: u32, moved: usize },
    /// The SYSCALL at this offset jumps to the hole at that offset.
    Hole { at: usize, hole: usize },
    /// The CPUID at this offset becomes the jump, with so many bytes of instructions behind it.
    Cpuid { at: usize, moved: usize },
}

/// What begins every page of trampolines: the address of the library OS's fast entry, and `look_up`. `table`: where from GS base on the
/// address of the vCPU's table of CPUID's answers is.
pub fn header(entry: u64, table: u32) -> [u8; HEADER_SLOTS * SLOT] {
    const CODE: [u8; 56] = [
        0x9c, // pushf
        0x56, // push %rsi
        0x65, 0x48, 0x8b, 0x34, 0x25, 0, 0, 0, 0, // mov %gs:table,%rsi
        0x83, 0x3e, 0xff, // 1: cmpl $-1,(%rsi)       the end: ask the CPU
        0x74, 0x23, // je 4f
        0x39, 0x06, // cmp %eax,(%rsi)
        0x75, 0x0b, // jne 2f
        0x83, 0x7e, 0x04, 0xff, // cmpl $-1,4(%rsi)    any subleaf
        0x74, 0x0b, // je 3f
        0x39, 0x4e, 0x04, // cmp %ecx,4(%rsi)
        0x74, 0x06, // je 3f
        0x48, 0x83, 0xc6, 0x18, // 2: add $24,%rsi
        0xeb, 0xe6, // jmp 1b
        0x8b, 0x46, 0x08, // 3: mov 8(%rsi),%eax
        0x8b, 0x5e, 0x0c, // mov 12(%rsi),%ebx
        0x8b, 0x4e, 0x10, // mov 16(%rsi),%ecx
        0x8b, 0x56, 0x14, // mov 20(%rsi),%edx
        0xeb, 0x02, // jmp 5f
        0x0f, 0xa2, // 4: cpuid
        0x5e, // 5: pop %rsi
        0x9d, // popf
        0xc3, // ret
    ];
    let mut bytes = [INT3; HEADER_SLOTS * SLOT];
    bytes[..8].copy_from_slice(&entry.to_le_bytes());
    bytes[LOOK_UP..LOOK_UP + CODE.len()].copy_from_slice(&CODE);
    bytes[LOOK_UP + 7..LOOK_UP + 11].copy_from_slice(&table.to_le_bytes());
    bytes
}

/// Looks at the CPUID at offset `at` of a page of code: it and what follows it make room for a jump. `is_jumped_to`: whether some other jump may
/// lead into these offsets.
pub fn examine_cpuid(page: &[u8], at: usize, is_jumped_to: impl Fn(&Range<usize>) -> bool) -> Option<Site> {
    if page.get(at..at + 2)? != CPUID {
        return None;
    }
    let mut moved = 0;
    while moved < 3 {
        let code = &page[at + 2 + moved..];
        let instruction = decode(code)?;
        if instruction.jump(code).is_some() {
            // Nothing behind it is run, so it may be followed by padding only.
            moved += instruction.length;
            if moved < 3 && !matches!(code.get(instruction.length), Some(&(NOP | INT3))) {
                return None;
            }
            break;
        }
        if !instruction.may_move(code) {
            return None;
        }
        moved += instruction.length;
    }
    let overwritten = at + CPUID.len()..at + near_jump(0, 0)?.len();
    (!is_jumped_to(&overwritten)).then_some(Site::Cpuid { at, moved })
}

/// Looks at the SYSCALL that ends at `behind` of a page of code and was called with `number`.
pub fn examine(page: &[u8], behind: usize, number: u64) -> Option<Site> {
    let at = behind.checked_sub(2)?;
    if page.get(at..behind)? != SYSCALL {
        return None;
    }
    let loads = |&start: &usize| {
        let number = u32::try_from(number).ok().map(u32::to_le_bytes);
        // A prefix would make it `mov $imm,%r8d` or a shorter one.
        let prefixed = start > 0 && (page[start - 1] & 0xf0 == 0x40 || page[start - 1] == 0x66);
        page[start] == MOV_EAX && number.is_some_and(|number| page[start + 1..start + NUMBER] == number) && !prefixed
    };
    let starts = (0..=MOST_PREPARATIONS).map_while(|moved| at.checked_sub(NUMBER + moved));
    if let Some(start) = starts.filter(loads).find(|start| are_preparations(&page[start + NUMBER..at])) {
        return Some(Site::Number { at: start, number: number as u32, moved: at - start - NUMBER });
    }
    find_hole(page, behind).map(|hole| Site::Hole { at, hole })
}

/// Whether these are whole instructions, one after the other, that may be run elsewhere and leave RAX as it is.
fn are_preparations(mut code: &[u8]) -> bool {
    while !code.is_empty() {
        match decode(code) {
            Some(instruction) if instruction.leaves_rax(code) => code = &code[instruction.length..],
            _ => return false,
        }
    }
    true
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

/// An instruction of the kinds that stand around system calls and CPUIDs.
#[derive(Clone, Copy)]
pub(super) struct Instruction {
    pub(super) length: usize,
    opcode_at: usize,
    modrm_at: Option<usize>,
}

impl Instruction {
    /// Does the same elsewhere, once its displacement is corrected: conditional jumps do, calls, jumps and system calls need not.
    fn may_move(&self, code: &[u8]) -> bool {
        let second = code.get(self.opcode_at + 1).copied().unwrap_or(0);
        match code[self.opcode_at] {
            0xe8 | 0xe9 | 0xeb | 0xc2 | 0xc3 | 0xcc | 0xcd | 0xf4 => false,
            0xff => !(2..=5).contains(&(second >> 3 & 7)),
            0x0f => !matches!(second, 0x05 | 0x0b | 0xa2),
            _ => true,
        }
    }

    /// Surely does not write RAX or a part of it, and is neither a jump nor a call.
    fn leaves_rax(&self, code: &[u8]) -> bool {
        let rex = self.opcode_at.checked_sub(1).map(|at| code[at]).filter(|byte| byte & 0xf0 == 0x40);
        let extended = |bit: u8| rex.is_some_and(|rex| rex & bit != 0);
        let modrm = self.modrm_at.map_or(0, |at| code[at]);
        // AH is number 4 of bytes, unless there is a prefix.
        let other = |number: u8, bit: u8| number & 3 != 0 || (number == 4 && rex.is_some()) || extended(bit);
        let operand = modrm < 0xc0 || other(modrm & 7, 1);
        let register = other(modrm >> 3 & 7, 4);
        match code[self.opcode_at] {
            0x0f => match code[self.opcode_at + 1] {
                0x10 | 0x11 | 0x1f | 0x28 | 0x29 | 0x60..=0x6f | 0x7f | 0xd6 | 0xef => true,
                0x40..=0x4f | 0xaf | 0xb6 | 0xb7 | 0xbe | 0xbf => register,
                0x90..=0x9f => operand,
                _ => false,
            },
            // ALU operations: to the operand, to the register.
            opcode @ 0x00..=0x3f => (opcode & 7 < 2 && operand) || (matches!(opcode & 7, 2 | 3) && register),
            0x63 | 0x8a | 0x8b | 0x8d => register,
            0x80 | 0x81 | 0x83 | 0x88 | 0x89 | 0xc0 | 0xc1 | 0xc6 | 0xc7 | 0xd0..=0xd3 => operand,
            0x84 | 0x85 => true,
            opcode @ 0xb0..=0xbf => other(opcode & 7, 1),
            _ => false,
        }
    }

    /// A conditional jump: its condition and how far it goes from its end.
    pub(super) fn branch(&self, code: &[u8]) -> Option<(u8, i32)> {
        match code[self.opcode_at] {
            opcode @ 0x70..=0x7f => Some((opcode & 15, i32::from(code[self.opcode_at + 1] as i8))),
            0x0f if code[self.opcode_at + 1] & 0xf0 == 0x80 => {
                let distance = code.get(self.length - 4..self.length)?.try_into().ok()?;
                Some((code[self.opcode_at + 1] & 15, i32::from_le_bytes(distance)))
            }
            _ => None,
        }
    }

    /// A jump to a fixed place: how far it goes from its end.
    pub(super) fn jump(&self, code: &[u8]) -> Option<i32> {
        match code[self.opcode_at] {
            JMP_SHORT => Some(i32::from(code[self.opcode_at + 1] as i8)),
            JMP_NEAR => Some(i32::from_le_bytes(code.get(self.length - 4..self.length)?.try_into().ok()?)),
            _ => None,
        }
    }

    /// A call of a fixed place: how far it goes from its end.
    pub(super) fn call(&self, code: &[u8]) -> Option<i32> {
        match code[self.opcode_at] {
            CALL => Some(i32::from_le_bytes(code.get(self.length - 4..self.length)?.try_into().ok()?)),
            _ => None,
        }
    }

    /// Nothing behind it is run because of it: a return, a jump to a place that it computes, a halt or what is no instruction.
    pub(super) fn ends_flow(&self, code: &[u8]) -> bool {
        let second = code.get(self.opcode_at + 1).copied().unwrap_or(0);
        match code[self.opcode_at] {
            RET | 0xc2 | INT3 | 0xf4 => true,
            0xff => matches!(second >> 3 & 7, 4 | 5),
            0x0f => second == 0x0b,
            _ => false,
        }
    }

    /// Offset of a displacement that counts from the instruction's end.
    fn relative_displacement(&self, code: &[u8]) -> Option<usize> {
        self.modrm_at.filter(|&at| code[at] & 0xc7 == 5).map(|at| at + 1)
    }
}

/// Length of an instruction. None: unknown, or cut off.
pub fn instruction_length(code: &[u8]) -> Option<usize> {
    decode(code).map(|instruction| instruction.length)
}

pub(super) fn decode(code: &[u8]) -> Option<Instruction> {
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
    let opcode_at = at;
    let immediate = if operand_16 { 2 } else { 4 };
    let opcode = *code.get(at)?;
    at += 1;
    // (has a ModRM byte, bytes behind it or behind the opcode)
    let (modrm, rest) = match opcode {
        0x0f => {
            let second = *code.get(at)?;
            at += 1;
            match second {
                0x05 | 0x0b | 0x31 | 0xa2 | 0xc8..=0xcf => (false, 0),
                0x80..=0x8f => (false, 4),
                0x01 | 0x10..=0x17 | 0x1e | 0x1f | 0x28..=0x2f | 0x40..=0x4f | 0x54..=0x6f | 0x7e | 0x7f | 0x90..=0x9f => (true, 0),
                0xa3 | 0xab | 0xae | 0xaf | 0xb0 | 0xb1 | 0xb3 | 0xb6..=0xb8 | 0xbb..=0xbf | 0xc0 | 0xc1 | 0xd6 | 0xef => (true, 0),
                0xba | 0xc2 | 0xc6 => (true, 1),
                _ => return None,
            }
        }
        // ALU operations: six forms in each row of eight.
        0x00..=0x3f => match opcode & 7 {
            0..=3 => (true, 0),
            4 => (false, 1),
            5 => (false, immediate),
            _ => return None,
        },
        0x50..=0x5f | 0x90..=0x99 | 0xc3 | 0xc9 | 0xcc | 0xf4 | 0xa4 | 0xa5 | 0xaa | 0xab => (false, 0),
        0x63 | 0x84..=0x8b | 0x8d | 0x8f | 0xd0..=0xd3 | 0xff | 0xfe => (true, 0),
        0x68 | 0xa9 => (false, immediate),
        0x6a | 0x70..=0x7f | 0xa8 | 0xb0..=0xb7 | 0xeb | 0xcd => (false, 1),
        0x69 | 0x81 | 0xc7 => (true, immediate),
        0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => (true, 1),
        0xb8..=0xbf => (false, if wide { 8 } else { immediate }),
        0xc2 => (false, 2),
        0xe8 | 0xe9 => (false, 4),
        0xf6 | 0xf7 => match (*code.get(at)? >> 3 & 7 < 2, opcode) {
            (false, _) => (true, 0),
            (true, 0xf6) => (true, 1),
            (true, _) => (true, immediate),
        },
        _ => return None,
    };
    let modrm_at = modrm.then_some(at);
    if modrm {
        at += modrm_length(code.get(at..)?)?;
    }
    let length = at + rest;
    (length <= code.len()).then_some(Instruction { length, opcode_at, modrm_at })
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
        Site::Number { at, .. } | Site::Cpuid { at, .. } => Some([None, Some(jump(at)?)]),
        Site::Hole { at, hole } => {
            let distance = i8::try_from(hole as i64 - (at as i64 + 2)).ok()?;
            let short = Change { offset: at, length: 2, bytes: [JMP_SHORT, distance as u8, 0, 0, 0] };
            Some([Some(jump(hole)?), Some(short)])
        }
    }
}

/// Where the trampoline goes back to, as an offset of its page.
pub const fn return_offset(site: Site) -> usize {
    match site {
        Site::Number { at, moved, .. } => at + NUMBER + moved + SYSCALL.len(),
        Site::Hole { at, .. } => at + 2,
        Site::Cpuid { at, moved } => at + 2 + moved,
    }
}

/// Bytes at the start of a system call's trampoline that stand for as many of the program's before the SYSCALL.
pub const fn own_bytes(site: Site) -> usize {
    match site {
        Site::Number { moved, .. } => NUMBER + moved,
        Site::Hole { .. } | Site::Cpuid { .. } => 0,
    }
}

/// Slots that a site's trampoline takes.
pub const fn slots(site: Site) -> usize {
    match site {
        Site::Cpuid { .. } => 2,
        _ if own_bytes(site) + LEAVE > SLOT => 2,
        _ => 1,
    }
}

/// A trampoline at `address` for a site on `page`, which is mapped at `page_address`; its own page has its header at `header`.
pub fn trampoline(site: Site, address: u64, page: &[u8], page_address: u64, header: u64) -> Option<[u8; 2 * SLOT]> {
    let mut code = [INT3; 2 * SLOT];
    let back = page_address + return_offset(site) as u64;
    let mut at = 0;
    let mut put = |bytes: &[u8], at: &mut usize| -> Option<()> {
        code.get_mut(*at..*at + bytes.len())?.copy_from_slice(bytes);
        *at += bytes.len();
        Some(())
    };
    if let Site::Cpuid { at: site_at, moved } = site {
        put(&[0x48, 0x8d, 0x64, 0x24, 0x80], &mut at)?;
        put(&[CALL], &mut at)?;
        put(&relative(address + at as u64 + 4, header + LOOK_UP as u64)?, &mut at)?;
        put(&[0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0], &mut at)?;
        let mut from = site_at + 2;
        while from < site_at + 2 + moved {
            let instruction = decode(&page[from..])?;
            if let Some(distance) = instruction.jump(&page[from..]) {
                let target = (page_address + (from + instruction.length) as u64).wrapping_add_signed(i64::from(distance));
                put(&near_jump(address + at as u64, target)?, &mut at)?;
                return Some(code);
            }
            if let Some((condition, distance)) = instruction.branch(&page[from..]) {
                let target = (page_address + (from + instruction.length) as u64).wrapping_add_signed(i64::from(distance));
                put(&[0x0f, 0x80 | condition], &mut at)?;
                put(&relative(address + at as u64 + 4, target)?, &mut at)?;
                from += instruction.length;
                continue;
            }
            put(&relocated(&page[from..], instruction, page_address + from as u64, address + at as u64)?[..instruction.length], &mut at)?;
            from += instruction.length;
        }
        put(&near_jump(address + at as u64, back)?, &mut at)?;
        return Some(code);
    }
    if let Site::Number { at: site_at, number, moved: bytes } = site {
        put(&[MOV_EAX], &mut at)?;
        put(&number.to_le_bytes(), &mut at)?;
        let mut from = site_at + NUMBER;
        while from < site_at + NUMBER + bytes {
            let instruction = decode(&page[from..])?;
            put(&relocated(&page[from..], instruction, page_address + from as u64, address + at as u64)?[..instruction.length], &mut at)?;
            from += instruction.length;
        }
    }
    put(&[0x48, 0x8d, 0x0d], &mut at)?;
    put(&relative(address + at as u64 + 4, back)?, &mut at)?;
    put(&[0xff, 0x25], &mut at)?;
    put(&relative(address + at as u64 + 4, header)?, &mut at)?;
    Some(code)
}

/// An instruction at `from` as it must be at `to` to do the same.
fn relocated(code: &[u8], instruction: Instruction, from: u64, to: u64) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    bytes.get_mut(..instruction.length)?.copy_from_slice(&code[..instruction.length]);
    if let Some(displacement) = instruction.relative_displacement(code) {
        let old = i32::from_le_bytes(bytes[displacement..displacement + 4].try_into().ok()?);
        let target = (from + instruction.length as u64).wrapping_add_signed(i64::from(old));
        bytes[displacement..displacement + 4].copy_from_slice(&relative(to + instruction.length as u64, target)?);
    }
    Some(bytes)
}

/// What a thread at `rip` within a system call's trampoline (`code` at `address`, see [`own_bytes`]) is about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pending {
    /// The number, if it has yet to be loaded.
    pub number: Option<u32>,
    /// Bytes of the program's instructions that are still to be run before the SYSCALL.
    pub left: u64,
    /// Behind the SYSCALL.
    pub back: u64,
}

impl Pending {
    pub fn at(code: &[u8], own_bytes: usize, address: u64, rip: u64) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(code.get(at..at + 4)?.try_into().ok()?));
        let back = (address + own_bytes as u64 + 7).wrapping_add_signed(i64::from(word(own_bytes + 3)? as i32));
        let number = if own_bytes != 0 && rip == address { word(1) } else { None };
        Some(Self { number, left: (own_bytes as u64).saturating_sub(rip - address), back })
    }

    /// The place in the program that corresponds to it: the SYSCALL, or what stood before it.
    pub const fn original(&self) -> u64 {
        self.back - SYSCALL.len() as u64 - self.left
    }

    /// The same when the number has been loaded: nothing that a patch overwrites.
    pub const fn behind_number(&self) -> u64 {
        self.original() + if self.number.is_some() { NUMBER as u64 } else { 0 }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::flow::Jumps;
    use super::*;
    use alloc::vec::Vec;

    /// A page that begins with this code.
    pub fn page(code: &[u8]) -> Vec<u8> {
        let mut page = code.to_vec();
        page.resize(4096, 0xcc);
        page
    }

    #[test]
    fn a_loaded_number_is_replaced() {
        let page = page(&[0x90, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3]);
        let site = examine(&page, 8, 39).unwrap();
        assert_eq!(site, Site::Number { at: 1, number: 39, moved: 0 });
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
    fn preparations_go_along() {
        // mov $14,%eax; lea 0x100(%rip),%rsi; xor %r10d,%r10d; syscall
        let code = page(&[0xb8, 14, 0, 0, 0, 0x48, 0x8d, 0x35, 0, 1, 0, 0, 0x45, 0x31, 0xd2, 0x0f, 0x05]);
        let site = examine(&code, 17, 14).unwrap();
        assert_eq!(site, Site::Number { at: 0, number: 14, moved: 10 });
        assert_eq!((return_offset(site), own_bytes(site), slots(site)), (17, 15, 2));
        let (address, page_address) = (0x1000_0048, 0x1001_0000);
        let bytes = trampoline(site, address, &code, page_address, 0x1000_0000).unwrap();
        let word = |at: usize| i64::from(i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()));
        assert_eq!(bytes[..8], [0xb8, 14, 0, 0, 0, 0x48, 0x8d, 0x35]);
        assert_eq!(address as i64 + 12 + word(8), page_address as i64 + 12 + 0x100);
        assert_eq!(bytes[12..18], [0x45, 0x31, 0xd2, 0x48, 0x8d, 0x0d]);
        assert_eq!(address as i64 + 22 + word(18), page_address as i64 + 17);
        for (inside, place) in [(0, 0), (5, 5), (12, 12), (15, 15), (22, 15)] {
            assert_eq!(Pending::at(&bytes, own_bytes(site), address, address + inside).unwrap().original(), page_address + place);
        }
        // It fits into one slot when there is little of it.
        assert_eq!(slots(Site::Number { at: 0, number: 14, moved: 6 }), 1);
        assert_eq!(slots(Site::Number { at: 0, number: 14, moved: 7 }), 2);
    }

    #[test]
    fn what_touches_rax_or_jumps_is_no_preparation() {
        let cases: [(&[u8], bool); 16] = [
            (&[0x40, 0x80, 0xf6, 0x81], true),                // xor $0x81,%sil
            (&[0x80, 0xf4, 0x81], false),                     // xor $0x81,%ah
            (&[0x40, 0x80, 0xf4, 0x81], true),                // xor $0x81,%spl
            (&[0x31, 0xd2], true),                            // xor %edx,%edx
            (&[0x31, 0xd0], false),                           // xor %edx,%eax
            (&[0x41, 0x31, 0xd0], true),                      // xor %edx,%r8d
            (&[0x48, 0x89, 0x3e], true),                      // mov %rdi,(%rsi)
            (&[0x8b, 0x03], false),                           // mov (%rbx),%eax
            (&[0x44, 0x8b, 0x03], true),                      // mov (%rbx),%r8d
            (&[0xba, 1, 0, 0, 0], true),                      // mov $1,%edx
            (&[0xb8, 1, 0, 0, 0], false),                     // mov $1,%eax
            (&[0x48, 0xc7, 0x04, 0x24, 0x20, 0, 0, 0], true), // movq $32,(%rsp)
            (&[0x0f, 0x95, 0xc0], false),                     // setne %al
            (&[0x74, 0x00], false),                           // je
            (&[0xe8, 0, 0, 0, 0], false),                     // call
            (&[0x0f, 0x05], false),                           // syscall
        ];
        for (preparation, good) in cases {
            let mut code = alloc::vec![0xb8, 14, 0, 0, 0];
            code.extend(preparation);
            code.extend([0x0f, 0x05, 0x06]);
            let behind = 7 + preparation.len();
            let site = Site::Number { at: 0, number: 14, moved: preparation.len() };
            assert_eq!(examine(&page(&code), behind, 14), good.then_some(site), "{preparation:x?}");
        }
        // A prefix makes another instruction of it.
        assert_eq!(examine(&page(&[0x66, 0xb8, 14, 0, 0, 0, 0x31, 0xd2, 0x0f, 0x05, 0x06]), 10, 14), None);
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
        let (address, page_address, header) = (0x1000_0048, 0x1001_0000, 0x1000_0000);
        let code = |site, page_address| trampoline(site, address, &[], page_address, header);
        let slot = |code: [u8; 2 * SLOT]| -> [u8; SLOT] { code[..SLOT].try_into().unwrap() };
        let number = slot(code(Site::Number { at: 0, number: 1, moved: 0 }, page_address).unwrap());
        assert_eq!(number[..5], [0xb8, 1, 0, 0, 0]);
        let pending = |slot: &[u8; SLOT], own_bytes, rip| Pending::at(slot, own_bytes, address, rip).unwrap();
        assert_eq!(pending(&number, 5, address), Pending { number: Some(1), left: 5, back: page_address + 7 });
        assert_eq!(pending(&number, 5, address).original(), page_address);
        assert_eq!(pending(&number, 5, address).behind_number(), page_address + 5);
        assert_eq!(pending(&number, 5, address + 5).original(), page_address + 5);
        let hole = slot(code(Site::Hole { at: 4, hole: 9 }, page_address).unwrap());
        assert_eq!(pending(&hole, 0, address).original(), page_address + 4);
        assert_eq!(instruction_length(&hole), Some(7));
        assert_eq!(instruction_length(&hole[7..]), Some(6));
        assert!(code(Site::Hole { at: 4, hole: 9 }, page_address + (4 << 30)).is_none());
    }

    #[test]
    fn a_cpuid_takes_its_neighbours_along() {
        // cpuid; mov %eax,0x100(%rip); ret
        let code = page(&[0x0f, 0xa2, 0x89, 0x05, 0, 1, 0, 0, 0xc3]);
        let site = examine_cpuid(&code, 0, |_| false).unwrap();
        assert_eq!(site, Site::Cpuid { at: 0, moved: 6 });
        let (address, page_address, header) = (0x1000_0048u64, 0x1001_0000u64, 0x1000_0000u64);
        let trampoline = trampoline(site, address, &code, page_address, header).unwrap();
        let word = |at: usize| i64::from(i32::from_le_bytes(trampoline[at..at + 4].try_into().unwrap()));
        assert_eq!(address as i64 + 10 + word(6), header as i64 + LOOK_UP as i64);
        // The moved store still hits the same place.
        assert_eq!(trampoline[18..20], [0x89, 0x05]);
        assert_eq!(address as i64 + 24 + word(20), page_address as i64 + 8 + 0x100);
        assert_eq!(trampoline[24], 0xe9);
        assert_eq!(address as i64 + 29 + word(25), page_address as i64 + 8);
        // Nor does a conditional jump go astray.
        let code = page(&[0x0f, 0xa2, 0x85, 0xdb, 0x74, 0x10]);
        let site = examine_cpuid(&code, 0, |_| false).unwrap();
        let trampoline = super::trampoline(site, address, &code, page_address, header).unwrap();
        let word = |at: usize| i64::from(i32::from_le_bytes(trampoline[at..at + 4].try_into().unwrap()));
        assert_eq!(trampoline[18..22], [0x85, 0xdb, 0x0f, 0x84]);
        assert_eq!(address as i64 + 26 + word(22), page_address as i64 + 6 + 0x10);
        assert_eq!(address as i64 + 31 + word(27), page_address as i64 + 6);
        // A jump ends what is moved.
        let code = page(&[0x0f, 0xa2, 0x89, 0xc2, 0xeb, 5]);
        let site = examine_cpuid(&code, 0, |_| false).unwrap();
        assert_eq!(site, Site::Cpuid { at: 0, moved: 4 });
        let trampoline = super::trampoline(site, address, &code, page_address, header).unwrap();
        assert_eq!(trampoline[18..21], [0x89, 0xc2, 0xe9]);
        let word = i64::from(i32::from_le_bytes(trampoline[21..25].try_into().unwrap()));
        assert_eq!(address as i64 + 25 + word, page_address as i64 + 6 + 5);
        assert_eq!(examine_cpuid(&page(&[0x0f, 0xa2, 0xeb, 5, 0x90]), 0, |_| false), Some(Site::Cpuid { at: 0, moved: 2 }));
        assert_eq!(examine_cpuid(&page(&[0x0f, 0xa2, 0xeb, 5, 0x48, 0x89]), 0, |_| false), None);
        assert_eq!(examine_cpuid(&page(&[0x0f, 0xa2, 0x89, 0xc2, 0x83, 0xe2, 0x1f]), 0, |_| false), Some(Site::Cpuid { at: 0, moved: 5 }));
    }

    #[test]
    fn a_cpuid_that_a_loop_comes_back_behind_stays() {
        let examine = |code: &[u8]| examine_cpuid(&page(code), 0, |offsets| Jumps::of(&page(code), &[]).lead_into(0, offsets));
        // cpuid; mov %eax,%edx; inc %ecx; jne back to the mov, to the inc
        assert_eq!(examine(&[0x0f, 0xa2, 0x89, 0xc2, 0xff, 0xc1, 0x75, 0xfa]), None);
        assert_eq!(examine(&[0x0f, 0xa2, 0x89, 0xc2, 0xff, 0xc1, 0x75, 0xfc]), None);
        // To the CPUID itself it may.
        let near = [0x0f, 0xa2, 0x89, 0xc2, 0xff, 0xc1, 0x0f, 0x85, 0xf4, 0xff, 0xff, 0xff];
        assert_eq!(examine(&near), Some(Site::Cpuid { at: 0, moved: 4 }));
    }

    #[test]
    fn the_look_up_is_whole() {
        let header = header(1, 2);
        let mut at = LOOK_UP;
        let mut last = 0;
        while header[at] != INT3 {
            last = header[at];
            at += if matches!(header[at], 0x9c | 0x9d) { 1 } else { instruction_length(&header[at..]).unwrap() };
        }
        assert_eq!((last, at - LOOK_UP), (RET, 56));
        assert_eq!(header[LOOK_UP + 7], 2);
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
