//! The system-call trace (`litebox trace`): one line a call, as strace(1) prints it, sent to the runtime.

use super::TABLE;
use crate::boot;
use crate::process::Task;
use crate::SysResult;
use abi::config::FromGuest;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::context::UserContext;

static ON: AtomicBool = AtomicBool::new(false);

/// Bytes of a string that are shown.
const STRING_MOST: usize = 48;

/// How arguments are shown, by the call's name: d signed, u unsigned, x hexadecimal, o octal, s string, b bytes (their number is the
/// next argument), f descriptor of a directory. What is not listed shows six hexadecimal words.
const SHAPES: &[(&str, &str)] = &[
    ("access", "so"),
    ("arch_prctl", "xx"),
    ("bind", "dxu"),
    ("brk", "x"),
    ("chdir", "s"),
    ("chmod", "so"),
    ("clock_gettime", "dx"),
    ("clock_nanosleep", "ddxx"),
    ("clone", "xxxxx"),
    ("clone3", "xu"),
    ("close", "d"),
    ("connect", "dxu"),
    ("dup", "d"),
    ("dup2", "dd"),
    ("dup3", "ddx"),
    ("epoll_ctl", "dddx"),
    ("epoll_wait", "dxdd"),
    ("execve", "sxx"),
    ("exit", "d"),
    ("exit_group", "d"),
    ("faccessat", "fsd"),
    ("faccessat2", "fsdx"),
    ("fchdir", "d"),
    ("fchmodat", "fso"),
    ("fchownat", "fsddx"),
    ("fcntl", "ddx"),
    ("fork", ""),
    ("fstat", "dx"),
    ("ftruncate", "du"),
    ("futex", "xxdxxx"),
    ("getcwd", "xu"),
    ("getdents64", "dxu"),
    ("getegid", ""),
    ("geteuid", ""),
    ("getgid", ""),
    ("getpgrp", ""),
    ("getpid", ""),
    ("getppid", ""),
    ("getrandom", "xux"),
    ("gettid", ""),
    ("getuid", ""),
    ("ioctl", "dxx"),
    ("kill", "dd"),
    ("listen", "dd"),
    ("lseek", "ddd"),
    ("lstat", "sx"),
    ("madvise", "xud"),
    ("mkdir", "so"),
    ("mkdirat", "fso"),
    ("mmap", "xuxxdx"),
    ("mprotect", "xux"),
    ("munmap", "xu"),
    ("nanosleep", "xx"),
    ("newfstatat", "fsxx"),
    ("open", "sxo"),
    ("openat", "fsxo"),
    ("pipe2", "xx"),
    ("poll", "xud"),
    ("prctl", "dxxxx"),
    ("pread64", "dxud"),
    ("prlimit64", "ddxx"),
    ("pwrite64", "dbud"),
    ("read", "dxu"),
    ("readlink", "sxu"),
    ("readlinkat", "fsxu"),
    ("recvfrom", "dxuxxx"),
    ("rename", "ss"),
    ("renameat2", "fsfsx"),
    ("rmdir", "s"),
    ("rseq", "xudx"),
    ("rt_sigaction", "dxxu"),
    ("rt_sigprocmask", "dxxu"),
    ("rt_sigreturn", ""),
    ("sched_yield", ""),
    ("sendto", "dbuxxu"),
    ("set_robust_list", "xu"),
    ("set_tid_address", "x"),
    ("setpgid", "dd"),
    ("setsid", ""),
    ("sigaltstack", "xx"),
    ("socket", "ddd"),
    ("stat", "sx"),
    ("statx", "fsxxx"),
    ("symlinkat", "sfs"),
    ("tgkill", "ddd"),
    ("umask", "o"),
    ("uname", "x"),
    ("unlink", "s"),
    ("unlinkat", "fsx"),
    ("vfork", ""),
    ("wait4", "dxxx"),
    ("write", "dbu"),
    ("writev", "dxu"),
];

pub fn set(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

#[inline]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// The call with its arguments, before it runs (it may change what they point to).
pub fn describe(context: &UserContext) -> String {
    let number = context.orig_rax as usize;
    let args = context.args();
    let Some(Some(entry)) = TABLE.get(number) else {
        return format!("syscall_{number:#x}({:#x}, {:#x}, {:#x})", args[0], args[1], args[2]);
    };
    let shape = SHAPES.binary_search_by_key(&entry.name, |(name, _)| name).map_or("xxxxxx", |index| SHAPES[index].1);
    let mut text = format!("{}(", entry.name);
    for (index, kind) in shape.bytes().enumerate() {
        if index != 0 {
            text.push_str(", ");
        }
        let value = args[index];
        // Writing to a String does not fail.
        let _ = match kind {
            b'd' => write!(text, "{}", value as i32),
            b'u' => write!(text, "{value}"),
            b'o' => write!(text, "{value:#o}"),
            b'f' if value as i32 == -100 => write!(text, "AT_FDCWD"),
            b'f' => write!(text, "{}", value as i32),
            b's' => quote(&mut text, value, 4096, true),
            b'b' => quote(&mut text, value, args[index + 1] as usize, false),
            _ if value == 0 => write!(text, "0"),
            _ => write!(text, "{value:#x}"),
        };
    }
    text.push(')');
    text
}

fn quote(text: &mut String, address: u64, bytes: usize, ends_at_nul: bool) -> core::fmt::Result {
    if address == 0 {
        return text.write_str("NULL");
    }
    let mut buffer = [0; STRING_MOST];
    let want = bytes.min(STRING_MOST);
    let mut got = hal::user::read_partial(address, &mut buffer[..want]);
    if ends_at_nul {
        // A string near the end of a mapping: what can be read of it.
        got = buffer[..got].iter().position(|&byte| byte == 0).unwrap_or(got);
    }
    text.push('"');
    for &byte in &buffer[..got] {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'"' | b'\\' => write!(text, "\\{}", byte as char)?,
            b' '..=b'~' => text.push(byte as char),
            _ => write!(text, "\\{byte:o}")?,
        }
    }
    text.push('"');
    if got == STRING_MOST && bytes > STRING_MOST {
        text.push_str("...");
    }
    Ok(())
}

/// Sends the line. May sleep.
pub fn finished(task: &Arc<Task>, call: &str, result: SysResult) {
    let outcome = match result {
        Ok(value) if value > 0xffff_ffff => format!("{value:#x}"),
        Ok(value) => format!("{value}"),
        Err(errno) if errno.0 >= 512 => format!("? {} (to be restarted)", errno.name()),
        Err(errno) => format!("-1 {}", errno.name()),
    };
    boot::send(&FromGuest::Trace { line: format!("[{}] {call} = {outcome}", task.tid()) });
}

/// Calls that do not come back: their line is sent before.
pub const fn never_returns(number: u64) -> bool {
    matches!(number, 60 | 231)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_sorted_by_name() {
        assert!(SHAPES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
