//! Allow-lists of system calls as seccomp programs: one comparison for a call, one for a value of an argument.
//!
//! Each thread installs its list when it starts, and the kernel takes as long for it as it is long: it checks, converts and compiles it, and
//! tries it with each system call that there is. seccompiler's programs, four to nine times as long, were 1 ms of each container's start; they
//! are what the tests compare with.

use std::collections::BTreeMap;

use seccompiler::{sock_filter, BpfProgram};

use crate::error::{During, HostError, Kind};

/// Calls by number.
pub type List = BTreeMap<i64, Allowed>;

/// What may be asked of a system call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    #[default]
    Anything,
    /// The bits `mask` of the low 32 of this argument are one of `values`.
    Argument { index: u8, mask: u32, values: Vec<u32> },
    /// Nothing: it fails with this error number.
    Error(u16),
}

// linux/audit.h
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
// linux/seccomp.h: offsets in struct seccomp_data
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
// linux/bpf_common.h
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

const KILL: sock_filter = does(RETURN, libc::SECCOMP_RET_KILL_PROCESS);
const ALLOW: sock_filter = does(RETURN, libc::SECCOMP_RET_ALLOW);

const fn does(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// What is not listed ends the process.
///
/// # Errors
///
/// More calls, or more values of an argument, than a jump is long (255 instructions).
pub fn compile(list: &List) -> Result<BpfProgram, HostError> {
    let mut program = vec![
        does(LOAD, ARCHITECTURE),
        sock_filter { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: AUDIT_ARCH_X86_64 },
        KILL,
        does(LOAD, NUMBER), // that of an x32 call has bit 30 set, and is none of the list
    ];
    let plain = list.iter().filter(|(_, allowed)| **allowed == Allowed::Anything).map(|(number, _)| *number as u32);
    one_of(&mut program, plain, does(JUMP, 1))?;
    for (number, allowed) in list {
        let mut own = Vec::new();
        match allowed {
            Allowed::Anything => continue,
            Allowed::Argument { index, mask, values } => {
                own.push(does(LOAD, ARGUMENTS + 8 * u32::from(*index)));
                if *mask != u32::MAX {
                    own.push(does(AND, *mask));
                }
                one_of(&mut own, values.iter().copied(), KILL)?;
            }
            Allowed::Error(error) => own.push(does(RETURN, libc::SECCOMP_RET_ERRNO | u32::from(*error))),
        }
        program.push(sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: distance(own.len())?, k: *number as u32 });
        program.append(&mut own);
    }
    program.push(KILL);
    Ok(program)
}

/// Allows when what is loaded is one of `values`; else goes on with `otherwise`, which jumps over one instruction or returns.
fn one_of(program: &mut BpfProgram, values: impl Iterator<Item = u32>, otherwise: sock_filter) -> Result<(), HostError> {
    let values: Vec<u32> = values.collect();
    for (at, value) in values.iter().enumerate() {
        program.push(sock_filter { code: JUMP_IF_EQUAL, jt: distance(values.len() - at)?, jf: 0, k: *value });
    }
    program.extend([otherwise, ALLOW]);
    Ok(())
}

fn distance(instructions: usize) -> Result<u8, HostError> {
    u8::try_from(instructions).during(Kind::Jail, "a seccomp list is too long")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// What the kernel makes of a program (linux/filter.h), as far as programs here and of seccompiler go.
    pub fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            at += 1;
            match code {
                LOAD => {
                    accumulator = match k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        _ => (arguments[(k - ARGUMENTS) as usize / 8] >> (8 * (k % 8))) as u32,
                    }
                }
                AND => accumulator &= k,
                JUMP => at += k as usize,
                JUMP_IF_EQUAL => at += usize::from(if accumulator == k { jt } else { jf }),
                RETURN => return k,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn what_is_listed_is_allowed() {
        let bits = Allowed::Argument { index: 2, mask: 6, values: vec![0, 4] };
        let list = List::from([(0, Allowed::Anything), (9, bits), (435, Allowed::Error(38)), (600, Allowed::Anything)]);
        let program = compile(&list).unwrap();
        let [allow, kill] = [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS];
        let result = |number, third| run(&program, AUDIT_ARCH_X86_64, number, [7, 7, third, 7, 7, 7]);
        assert_eq!([0, 600, 1, 0x4000_0000, 599].map(|number| result(number, 0)), [allow, allow, kill, kill, kill]);
        assert_eq!([0, 1, 2, 4, 5, 6, 1 << 33].map(|third| result(9, third)), [allow, allow, kill, allow, allow, kill, allow]);
        assert_eq!(result(435, 0), libc::SECCOMP_RET_ERRNO | 38);
        assert_eq!(run(&program, 0x4000_0003, 0, [0; 6]), kill);
    }

    #[test]
    fn a_list_that_is_too_long_is_an_error() {
        let numbers = |count| List::from_iter((0..count).map(|number| (number, Allowed::Anything)));
        assert!(compile(&numbers(255)).is_ok() && compile(&numbers(256)).is_err());
        let values = |count| List::from([(0, Allowed::Argument { index: 0, mask: u32::MAX, values: (0..count).collect() })]);
        assert!(compile(&values(252)).is_ok() && compile(&values(253)).is_err());
    }
}
