//! What a program finds on its stack (System V ABI, "Initial Stack and Register State"; getauxval(3)). Pure.
//!
//! ```text
//! argc | argv.. NULL | envp.. NULL | auxv.. AT_NULL | random, platform | argv strings | envp strings | file name | 8 zero bytes
//! ▲ RSP, 16-byte aligned                                                                                       stack top ▲
//! ```

use alloc::vec::Vec;

pub const AT_PHDR: u64 = 3;
pub const AT_PHENT: u64 = 4;
pub const AT_PHNUM: u64 = 5;
pub const AT_PAGESZ: u64 = 6;
pub const AT_BASE: u64 = 7;
pub const AT_FLAGS: u64 = 8;
pub const AT_ENTRY: u64 = 9;
pub const AT_UID: u64 = 11;
pub const AT_EUID: u64 = 12;
pub const AT_GID: u64 = 13;
pub const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
pub const AT_HWCAP: u64 = 16;
pub const AT_CLKTCK: u64 = 17;
pub const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
pub const AT_HWCAP2: u64 = 26;
const AT_EXECFN: u64 = 31;
pub const AT_SYSINFO_EHDR: u64 = 33;
pub const AT_MINSIGSTKSZ: u64 = 51;

/// The finished stack: `bytes` end at the top that was given.
pub struct Stack {
    pub bytes: Vec<u8>,
    pub pointer: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    pub auxv: Vec<u8>,
}

/// Strings and pointers need so many bytes, at most (Linux counts both against the limit).
pub fn size(argv: &[Vec<u8>], envp: &[Vec<u8>], name: &[u8]) -> u64 {
    let strings: usize = argv.iter().chain(envp).map(|text| text.len() + 1 + 8).sum();
    (strings + name.len() + 1) as u64
}

/// Lays the stack out below `top`. `auxv` lacks what points into the stack: AT_RANDOM, AT_PLATFORM, AT_EXECFN and the end.
pub fn build(top: u64, argv: &[Vec<u8>], envp: &[Vec<u8>], name: &[u8], random: &[u8; 16], auxv: &[(u64, u64)]) -> Stack {
    let length = |texts: &[Vec<u8>]| texts.iter().map(|text| text.len() as u64 + 1).sum::<u64>();
    let name_at = top - 8 - (name.len() as u64 + 1);
    let env_start = name_at - length(envp);
    let arg_start = env_start - length(argv);
    let platform_at = (arg_start & !15) - 16;
    let random_at = platform_at - 16;

    let mut auxiliary: Vec<u8> = Vec::new();
    let pointers = [(AT_RANDOM, random_at), (AT_EXECFN, name_at), (AT_PLATFORM, platform_at), (0, 0)];
    for (kind, value) in auxv.iter().copied().chain(pointers) {
        auxiliary.extend_from_slice(&kind.to_le_bytes());
        auxiliary.extend_from_slice(&value.to_le_bytes());
    }
    let words = 1 + argv.len() + 1 + envp.len() + 1;
    let pointer = (random_at - (words * 8 + auxiliary.len()) as u64) & !15;

    let mut bytes = Vec::with_capacity((top - pointer) as usize);
    let mut push = |value: u64| bytes.extend_from_slice(&value.to_le_bytes());
    push(argv.len() as u64);
    for (texts, start) in [(argv, arg_start), (envp, env_start)] {
        let mut at = start;
        for text in texts {
            push(at);
            at += text.len() as u64 + 1;
        }
        push(0);
    }
    bytes.extend_from_slice(&auxiliary);
    bytes.resize((random_at - pointer) as usize, 0);
    bytes.extend_from_slice(random);
    bytes.extend_from_slice(b"x86_64\0");
    bytes.resize((arg_start - pointer) as usize, 0);
    for text in argv.iter().chain(envp) {
        bytes.extend_from_slice(text);
        bytes.push(0);
    }
    bytes.extend_from_slice(name);
    bytes.resize((top - pointer) as usize, 0);
    Stack { bytes, pointer, arg_start, arg_end: env_start, env_start, env_end: name_at, auxv: auxiliary }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(stack: &Stack, at: u64) -> u64 {
        let offset = (at - stack.pointer) as usize;
        u64::from_le_bytes(stack.bytes[offset..offset + 8].try_into().unwrap())
    }

    fn text(stack: &Stack, at: u64) -> &[u8] {
        let bytes = &stack.bytes[(at - stack.pointer) as usize..];
        &bytes[..bytes.iter().position(|&byte| byte == 0).unwrap()]
    }

    #[test]
    fn a_program_finds_its_arguments() {
        let argv = [b"a".to_vec(), b"".to_vec(), b"third".to_vec()];
        let envp = [b"K=V".to_vec()];
        let top = 0x7000_0000;
        let stack = build(top, &argv, &envp, b"/bin/a", &[7; 16], &[(AT_PAGESZ, 4096)]);
        assert_eq!(stack.pointer % 16, 0);
        assert_eq!(stack.pointer + stack.bytes.len() as u64, top);
        assert_eq!(word(&stack, stack.pointer), 3);
        for (index, expected) in argv.iter().enumerate() {
            assert_eq!(text(&stack, word(&stack, stack.pointer + 8 + index as u64 * 8)), expected);
        }
        assert_eq!(word(&stack, stack.pointer + 32), 0);
        assert_eq!(text(&stack, word(&stack, stack.pointer + 40)), b"K=V");
        assert_eq!(word(&stack, stack.pointer + 48), 0);
        let mut at = stack.pointer + 56;
        let mut seen = Vec::new();
        loop {
            let (kind, value) = (word(&stack, at), word(&stack, at + 8));
            match kind {
                0 => break,
                AT_RANDOM => assert_eq!(word(&stack, value), 0x0707_0707_0707_0707),
                AT_EXECFN => assert_eq!(text(&stack, value), b"/bin/a"),
                AT_PLATFORM => assert_eq!(text(&stack, value), b"x86_64"),
                _ => {}
            }
            seen.push(kind);
            at += 16;
        }
        assert_eq!(seen, [AT_PAGESZ, AT_RANDOM, AT_EXECFN, AT_PLATFORM]);
        assert_eq!(stack.arg_end - stack.arg_start, 2 + 1 + 6);
        assert_eq!(word(&stack, top - 8), 0);
    }
}
