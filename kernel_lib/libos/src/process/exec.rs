//! execve(2), execveat(2): the same process becomes another program.
//!
//! Up to the point of no return everything can fail and leave the caller as it was: the file is opened, its interpreter line followed, the
//! new address space filled. Behind it the other threads end, and memory, signals, timers, descriptors and credentials change over.

use super::credentials::FileCapabilities;
use super::{futex, random, tree, Credentials, Process, Task};
use crate::errno::{Errno, E2BIG, EACCES, EAGAIN, EFAULT, EINTR, ELOOP, ENOENT, ENOEXEC};
use crate::fs::{open_executable, Executing, Location, OpenFile};
use crate::io::IoBuffer;
use crate::mm::{self, AddressSpace, Pages};
use crate::ptrace;
use crate::signal::AltStack;
use crate::wait::Interruptible;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::context::UserContext;
use hal::user;
use hal::xstate::XState;
use linux_abi::resource::RLIMIT_STACK;
use linux_abi::signal::SIGCHLD;

/// BINPRM_BUF_SIZE: as much of the file is looked at for `#!`.
const HEAD_BYTES: usize = 256;
/// Interpreters of interpreters: a file may be reached through so many `#!` lines.
const SCRIPTS_MOST: usize = 5;
/// MAX_ARG_STRLEN.
const STRING_MOST: usize = 128 << 10;
/// Most bytes of arguments and environment whatever RLIMIT_STACK says (3/4 of _STK_LIM), and what always fits.
const STRINGS_MOST: u64 = 6 << 20;
const STRINGS_ALWAYS: u64 = 128 << 10;
const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o010;

/// What to execute.
pub struct Program {
    pub file: Arc<OpenFile>,
    /// As given: AT_EXECFN, comm, and the name that a script's interpreter gets.
    pub name: Vec<u8>,
    /// The name leads through a descriptor that execve closes: no interpreter could open it (execveat(2), ENOENT).
    pub inaccessible: bool,
    pub argv: Vec<Vec<u8>>,
    pub envp: Vec<Vec<u8>>,
}

/// Reads an argument or environment array. `left`: bytes that may still be used, pointers included; E2BIG beyond.
pub fn read_strings(address: u64, left: &mut u64) -> Result<Vec<Vec<u8>>, Errno> {
    let mut strings = Vec::new();
    if address == 0 {
        return Ok(strings);
    }
    loop {
        let pointer: u64 = user::read(address.wrapping_add(strings.len() as u64 * 8))?;
        if pointer == 0 {
            return Ok(strings);
        }
        let text = user::read_string(pointer, STRING_MOST).map_err(|errno| if errno == EFAULT { EFAULT } else { E2BIG })?;
        *left = left.checked_sub(text.len() as u64 + 9).ok_or(E2BIG)?;
        strings.push(text);
    }
}

/// Bytes that argv and envp may take together (execve(2), "Limits on size of arguments and environment").
pub fn strings_limit(task: &Task) -> u64 {
    (task.limit(RLIMIT_STACK) / 4).clamp(STRINGS_ALWAYS, STRINGS_MOST)
}

/// Turns the calling task into the program. On success the context is the program's first.
pub fn execute(task: &Arc<Task>, context: &mut UserContext, mut program: Program) -> Result<(), Errno> {
    if program.argv.is_empty() {
        // Linux since 5.18: a program always has a name.
        program.argv.push(Vec::new());
    }
    follow_interpreters(task, &mut program)?;
    let location = program.file.location.clone().ok_or(EACCES)?;
    let executing = Executing::new(location.inode())?;
    let (credentials, secure) = new_credentials(task, &location)?;
    let (space, first) = load(task, &program, &credentials, secure)?;
    if task.tracee.is_on() {
        space.forbid_patches();
    }
    let old_tid = task.tid();
    let path = location.path_from(&task.fs().root()).unwrap_or_default();

    // The point of no return: only a fatal signal comes in between.
    become_single(task)?;
    replace_memory(task, space);
    reset_process(task, &program.name, secure);
    *task.process.executable.lock() = (Some(location), String::from_utf8_lossy(&path).into_owned(), Some(Arc::new(executing)));
    let changed = credentials.euid != credentials.uid || credentials.egid != credentials.gid || secure;
    task.process.dumpable.store(u32::from(!changed), Ordering::Relaxed);
    task.set_credentials(credentials);
    task.thread.set_fs_base(0);
    task.thread.set_gs_base(0);
    task.thread.load_xstate(&XState::initial());
    *context = first;
    ptrace::executed(task, context, old_tid);
    Ok(())
}

fn read_head(file: &Arc<OpenFile>) -> Result<Vec<u8>, Errno> {
    let mut head = alloc::vec![0; HEAD_BYTES];
    let mut buffer = IoBuffer::fill(&mut head);
    let count = file.ops.read_at(file, &mut buffer, 0)?;
    head.truncate(count);
    Ok(head)
}

/// While the file begins with `#!`: its interpreter takes its place (execve(2), "Interpreter scripts").
fn follow_interpreters(task: &Arc<Task>, program: &mut Program) -> Result<(), Errno> {
    for depth in 0.. {
        if depth > SCRIPTS_MOST {
            return Err(ELOOP);
        }
        let head = read_head(&program.file)?;
        if !head.starts_with(b"#!") {
            break;
        }
        if program.inaccessible {
            return Err(ENOENT);
        }
        let (interpreter, argument) = parse_interpreter(&head)?;
        let mut argv = alloc::vec![interpreter.clone()];
        argv.extend(argument);
        // The first script goes by the name that execve was given, an interpreter that is a script by its own.
        argv.push(if depth == 0 { program.name.clone() } else { program.argv[0].clone() });
        argv.extend(program.argv.drain(..).skip(1));
        program.argv = argv;
        program.file = open_executable(task, task.fs().cwd(), &interpreter, true)?;
    }
    Ok(())
}

/// The interpreter and its one argument from a `#!` line. ENOEXEC: no name, or one that does not fit.
fn parse_interpreter(head: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), Errno> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let text = &head[2..];
    let end = text.iter().position(|&byte| byte == b'\n' || byte == 0);
    let line = &text[..end.unwrap_or(text.len())];
    let start = line.iter().position(|byte| !is_blank(byte)).ok_or(ENOEXEC)?;
    let line = &line[start..];
    let name_end = line.iter().position(is_blank);
    if end.is_none() && name_end.is_none() && head.len() == HEAD_BYTES {
        return Err(ENOEXEC);
    }
    let (name, rest) = line.split_at(name_end.unwrap_or(line.len()));
    let from = rest.iter().position(|byte| !is_blank(byte));
    let argument = from.map(|from| {
        let to = rest.iter().rposition(|byte| !is_blank(byte)).map_or(rest.len(), |last| last + 1);
        rest[from..to].to_vec()
    });
    Ok((name.to_vec(), argument))
}

/// Set-user-ID, set-group-ID and file capabilities, as far as mount and task allow them.
fn new_credentials(task: &Arc<Task>, location: &Location) -> Result<(Credentials, bool), Errno> {
    let old = task.credentials();
    let forbidden = task.no_new_privs.load(Ordering::Relaxed) || location.mount.flags() & crate::fs::mount::NOSUID != 0;
    if forbidden {
        return Ok(old.after_exec((None, None), None));
    }
    let owner = location.inode().owner()?;
    let user = (owner.mode & S_ISUID != 0).then_some(owner.uid);
    let group = (owner.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP).then_some(owner.gid);
    // For root "the file's sets are notionally all", so the attribute need not be asked for.
    let file = match user.unwrap_or(old.euid) {
        0 => None,
        _ => location.inode().get_xattr(b"security.capability").ok().and_then(|value| FileCapabilities::parse(&value)),
    };
    Ok(old.after_exec((user, group), file))
}

fn load(task: &Arc<Task>, program: &Program, credentials: &Credentials, secure: bool) -> Result<(Arc<AddressSpace>, UserContext), Errno> {
    let resolve = |path: &[u8]| -> Result<Arc<dyn Pages>, Errno> {
        let file = open_executable(task, task.fs().cwd(), path, true)?;
        file.ops.pages(&file)
    };
    let mut bytes = [0; 48];
    random::fill(&mut bytes);
    mm::exec::load(&mm::exec::Image {
        file: program.file.ops.pages(&program.file).map_err(|_| EACCES)?,
        interpreter: &resolve,
        argv: &program.argv,
        envp: &program.envp,
        name: &program.name,
        ids: [credentials.uid, credentials.euid, credentials.gid, credentials.egid],
        secure,
        stack_limit: task.limit(RLIMIT_STACK),
        fixed_addresses: task.personality.load(Ordering::Relaxed) & ADDR_NO_RANDOMIZE != 0,
        random: bytes,
    })
}

/// Ends the other threads; the calling one becomes the leader.
fn become_single(task: &Arc<Task>) -> Result<(), Errno> {
    let process = &task.process;
    if process.is_exiting() || process.executing.swap(true, Ordering::AcqRel) {
        return Err(EAGAIN);
    }
    // Under the tree's lock no new thread comes in (see `create::enter`).
    let others = tree::with(|_| process.thread_list());
    for other in others.iter().filter(|other| !Arc::ptr_eq(other, task)) {
        super::exit::end_thread(other);
    }
    drop(others);
    let alone = || (process.threads.lock().len() == 1).then_some(());
    let result = process.thread_gone.wait(Interruptible::Killable, None, alone);
    process.executing.store(false, Ordering::Release);
    result.map_err(|_| EINTR)?;
    if !task.is_leader() {
        tree::with(|tree| tree.rename_task(task, process.pid));
    }
    Ok(())
}

fn replace_memory(task: &Arc<Task>, space: Arc<AddressSpace>) {
    futex::leave_memory(task);
    task.rseq.set(0, 0, 0);
    let old = task.set_memory(Some(space));
    // vfork's parent goes on before the old memory is taken down.
    if let Some(waiting) = task.vfork.lock().take() {
        waiting.complete();
    }
    drop(old);
}

/// execve(2), "Effect on process attributes".
fn reset_process(task: &Arc<Task>, name: &[u8], secure: bool) {
    let process = &task.process;
    process.signals.unshare_actions();
    *task.signals.alt_stack.lock() = AltStack::default();
    process.timers.clear_posix();
    process.aio.clear();
    let files = task.files();
    if Arc::strong_count(&files) > 2 {
        // Without memory for a table of its own it keeps the one that it shares.
        if let Ok(own) = files.duplicate() {
            drop(task.set_files(Some(own)));
        }
    }
    drop(files);
    drop(task.files().remove_where(|_, close_on_exec| close_on_exec));
    if secure {
        task.parent_death_signal.store(0, Ordering::Relaxed);
    }
    task.set_comm(name.rsplit(|&byte| byte == b'/').next().unwrap_or(name));
    process.exit_signal.store(SIGCHLD as u32, Ordering::Relaxed);
    process.executed.store(true, Ordering::Relaxed);
}

impl Process {
    /// The program file, for /proc/PID/exe.
    pub fn program(&self) -> Option<Location> {
        self.executable.lock().0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreter_lines() {
        let parse = |text: &[u8]| parse_interpreter(text).map(|(name, argument)| (name, argument.unwrap_or_default()));
        assert_eq!(parse(b"#!/bin/sh\n"), Ok((b"/bin/sh".to_vec(), Vec::new())));
        assert_eq!(parse(b"#! \t/usr/bin/env  python3 -u \nrest"), Ok((b"/usr/bin/env".to_vec(), b"python3 -u".to_vec())));
        assert_eq!(parse(b"#!/bin/sh"), Ok((b"/bin/sh".to_vec(), Vec::new())), "a short file needs no newline");
        assert_eq!(parse(b"#!\n"), Err(ENOEXEC));
        assert_eq!(parse(b"#!   "), Err(ENOEXEC));
        let mut long = Vec::from(&b"#!/"[..]);
        long.resize(HEAD_BYTES, b'x');
        assert_eq!(parse(&long), Err(ENOEXEC), "a name that does not fit");
        long[100] = b' ';
        assert_eq!(parse(&long).map(|(name, _)| name.len()), Ok(98));
    }
}
