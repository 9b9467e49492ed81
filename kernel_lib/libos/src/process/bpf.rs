//! Classic BPF as seccomp(2) has it: the checker and the interpreter. Pure.

use alloc::vec::Vec;
use linux_abi::seccomp::{SeccompData, SockFilter, AUDIT_ARCH_X86_64, BPF_MAXINSNS};
use zerocopy::IntoBytes;

const MEMORY_WORDS: u32 = 16;
const DATA_BYTES: u32 = core::mem::size_of::<SeccompData>() as u32;

// Instruction classes and fields (linux/bpf_common.h).
const LD: u16 = 0;
const LDX: u16 = 1;
const ST: u16 = 2;
const STX: u16 = 3;
const ALU: u16 = 4;
const JMP: u16 = 5;
const RET: u16 = 6;
const MISC: u16 = 7;
const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const X: u16 = 0x08;

/// A program that the checker accepted: it ends, and touches nothing outside of its data.
#[derive(Debug)]
pub struct Program(Vec<SockFilter>);

impl Program {
    /// As seccomp_check_filter and bpf_check_classic: None is EINVAL.
    pub fn check(code: Vec<SockFilter>) -> Option<Self> {
        if code.is_empty() || code.len() > BPF_MAXINSNS {
            return None;
        }
        for (index, instruction) in code.iter().enumerate() {
            if !Self::is_allowed(instruction, code.len() - index - 1) {
                return None;
            }
        }
        (code.last()?.code & 7 == RET).then_some(Self(code))
    }

    fn is_allowed(i: &SockFilter, left: usize) -> bool {
        let left = left as u64;
        match (i.code & 7, i.code & !7) {
            (LD, ABS) => i.k & 3 == 0 && i.k < DATA_BYTES,
            (LD | LDX, IMM | LEN) => true,
            (LD | LDX, MEM) | (ST | STX, 0) => i.k < MEMORY_WORDS,
            (ALU, operation) => match operation {
                0x00 | 0x10 | 0x20 | 0x40 | 0x50 | 0xa0 => true,
                0x30 => i.k != 0,
                0x60 | 0x70 => i.k < 32,
                0x08 | 0x18 | 0x28 | 0x38 | 0x48 | 0x58 | 0x68 | 0x78 | 0xa8 | 0x80 => true,
                _ => false,
            },
            (JMP, 0x00) => u64::from(i.k) < left,
            (JMP, 0x10 | 0x20 | 0x30 | 0x40 | 0x18 | 0x28 | 0x38 | 0x48) => u64::from(i.jt) < left && u64::from(i.jf) < left,
            (RET, 0x00 | 0x10) | (MISC, 0x00 | 0x80) => true,
            _ => false,
        }
    }

    /// Runs the program: its return value.
    pub fn run(&self, data: &SeccompData) -> u32 {
        let bytes = data.as_bytes();
        self.interpret(|offset| {
            let at = offset as usize;
            Some(bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes))
        })
        .unwrap_or(0)
    }

    /// What the program answers to a call whatever its arguments are; None when it looks at them.
    pub fn constant_for(&self, number: u32) -> Option<u32> {
        self.interpret(|offset| match offset {
            0 => Some(number),
            4 => Some(AUDIT_ARCH_X86_64),
            _ => None,
        })
    }

    fn interpret(&self, load: impl Fn(u32) -> Option<u32>) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut memory = [0u32; MEMORY_WORDS as usize];
        let mut pc = 0;
        loop {
            let i = self.0.get(pc)?;
            pc += 1;
            let operand = if i.code & X != 0 { x } else { i.k };
            match i.code & 7 {
                LD | LDX => {
                    let value = match i.code & !7 {
                        ABS => load(i.k)?,
                        MEM => memory[i.k as usize & 15],
                        LEN => DATA_BYTES,
                        _ => i.k,
                    };
                    *(if i.code & 7 == LD { &mut a } else { &mut x }) = value;
                }
                ST => memory[i.k as usize & 15] = a,
                STX => memory[i.k as usize & 15] = x,
                ALU => a = Self::arithmetic(i.code & 0xf0, a, operand)?,
                JMP => {
                    let jump = match i.code & 0xf0 {
                        0x00 => i.k as usize,
                        0x10 => Self::choose(i, a == operand),
                        0x20 => Self::choose(i, a > operand),
                        0x30 => Self::choose(i, a >= operand),
                        _ => Self::choose(i, a & operand != 0),
                    };
                    pc += jump;
                }
                RET => return Some(if i.code & 0x18 == 0x10 { a } else { i.k }),
                _ => {
                    if i.code & 0x80 == 0 {
                        x = a;
                    } else {
                        a = x;
                    }
                }
            }
        }
    }

    fn choose(i: &SockFilter, condition: bool) -> usize {
        usize::from(if condition { i.jt } else { i.jf })
    }

    /// None: division by zero, which ends the program with 0 (kill).
    fn arithmetic(operation: u16, a: u32, operand: u32) -> Option<u32> {
        Some(match operation {
            0x00 => a.wrapping_add(operand),
            0x10 => a.wrapping_sub(operand),
            0x20 => a.wrapping_mul(operand),
            0x30 => a.checked_div(operand)?,
            0x40 => a | operand,
            0x50 => a & operand,
            0x60 => a.wrapping_shl(operand),
            0x70 => a.wrapping_shr(operand),
            0xa0 => a ^ operand,
            _ => a.wrapping_neg(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter { code, jt, jf, k }
    }

    fn data(nr: u32, first: u64) -> SeccompData {
        SeccompData { nr, arch: AUDIT_ARCH_X86_64, instruction_pointer: 0, args: [first, 0, 0, 0, 0, 0] }
    }

    #[test]
    fn looks_at_number_and_arguments() {
        // ld nr; jeq 39 → errno 1; ld args[0] low; jeq 7 → kill; allow
        let program = Program::check(alloc::vec![
            op(0x20, 0, 0, 0),
            op(0x15, 0, 1, 39),
            op(0x06, 0, 0, 0x0005_0001),
            op(0x20, 0, 0, 16),
            op(0x15, 0, 1, 7),
            op(0x06, 0, 0, 0),
            op(0x06, 0, 0, 0x7fff_0000),
        ])
        .expect("valid");
        assert_eq!(program.run(&data(39, 0)), 0x0005_0001);
        assert_eq!(program.run(&data(1, 7)), 0);
        assert_eq!(program.run(&data(1, 8)), 0x7fff_0000);
        assert_eq!(program.constant_for(39), Some(0x0005_0001));
        assert_eq!(program.constant_for(1), None);
    }

    #[test]
    fn refuses_what_linux_refuses() {
        assert!(Program::check(Vec::new()).is_none());
        assert!(Program::check(alloc::vec![op(0x20, 0, 0, 0)]).is_none(), "no return at the end");
        assert!(Program::check(alloc::vec![op(0x20, 0, 0, 64), op(6, 0, 0, 0)]).is_none(), "load behind the data");
        assert!(Program::check(alloc::vec![op(0x20, 0, 0, 2), op(6, 0, 0, 0)]).is_none(), "unaligned load");
        assert!(Program::check(alloc::vec![op(0x05, 0, 0, 1), op(6, 0, 0, 0)]).is_none(), "jump behind the end");
        assert!(Program::check(alloc::vec![op(0x34, 0, 0, 0), op(6, 0, 0, 0)]).is_none(), "division by the constant zero");
        assert!(Program::check(alloc::vec![op(0x02, 0, 0, 16), op(6, 0, 0, 0)]).is_none(), "store outside of memory");
    }
}
