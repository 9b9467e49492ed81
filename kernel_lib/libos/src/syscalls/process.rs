//! Processes: making, executing, ending, waiting, sessions and groups, pidfds.

use super::{full, partial, Call, Entry};
use crate::errno::{Errno, EAGAIN, EBADF, EFAULT, EINVAL, EIO, EPERM, ESRCH};
use crate::fs::{Location, OpenFile};
use crate::process::exec::{self, Program};
use crate::process::pidfd::{self, PidFd};
use crate::process::wait::{self, Change, Which};
use crate::process::{begin_group_exit, clone, exit, session, tree, CloneRequest, Task};
use crate::{ptrace, signal, SysResult};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;
use hal::user;
use linux_abi::process::{
    CloneArgs, __WALL, __WCLONE, __WNOTHREAD, CLONE_DETACHED, CLONE_NEWTIME, CLONE_PARENT_SETTID, CLONE_PIDFD, CLONE_VFORK, CLONE_VM,
    CSIGNAL, P_ALL, P_PGID, P_PID, P_PIDFD, WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WSTOPPED, WUNTRACED,
};
use linux_abi::ptrace::{PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_TRACEME};
use linux_abi::resource::RLIMIT_NOFILE;
use linux_abi::signal::{SigInfo, SIGCHLD, SI_TKILL, SI_USER};

const KCMP_FILE: u64 = 0;
const KCMP_VM: u64 = 1;
const KCMP_FILES: u64 = 2;
const KCMP_FS: u64 = 3;
const KCMP_SIGHAND: u64 = 4;
const KCMP_IO: u64 = 5;
const KCMP_SYSVSEM: u64 = 6;

pub const CALLS: &[Entry] = &[
    full(39, "getpid", |call| Ok(call.task.process.pid as usize)),
    full(56, "clone", sys_clone),
    full(57, "fork", |call| clone(call.task, call.context, &CloneRequest { exit_signal: SIGCHLD as u32, ..CloneRequest::default() })),
    full(58, "vfork", sys_vfork),
    full(59, "execve", sys_execve),
    full(60, "exit", sys_exit),
    full(61, "wait4", sys_wait4),
    partial(
        101,
        "ptrace",
        sys_ptrace,
        "hardware breakpoints (debug registers); PTRACE_PEEKSIGINFO, PTRACE_O_SUSPEND_SECCOMP, PTRACE_SECCOMP_GET_FILTER",
    ),
    full(109, "setpgid", sys_setpgid),
    full(110, "getppid", |call| Ok(call.task.process.parent_pid() as usize)),
    full(111, "getpgrp", |call| Ok(call.task.process.group() as usize)),
    full(112, "setsid", |call| session::set_session(&call.task.process).map(|id| id as usize)),
    full(121, "getpgid", |call| session::of(&call.task.process, call.uint(0)).map(|process| process.group() as usize)),
    full(124, "getsid", |call| session::of(&call.task.process, call.uint(0)).map(|process| process.session().id as usize)),
    full(186, "gettid", |call| Ok(call.task.tid() as usize)),
    full(231, "exit_group", sys_exit_group),
    full(247, "waitid", sys_waitid),
    full(310, "process_vm_readv", |call| transfer(call, false)),
    full(311, "process_vm_writev", |call| transfer(call, true)),
    full(322, "execveat", sys_execveat),
    full(424, "pidfd_send_signal", sys_pidfd_send_signal),
    full(434, "pidfd_open", sys_pidfd_open),
    partial(435, "clone3", sys_clone3, "cgroups, new namespaces"),
    partial(312, "kcmp", sys_kcmp, "KCMP_EPOLL_TFD"),
    partial(438, "pidfd_getfd", sys_pidfd_getfd, "only of processes of the same user"),
];

/// clone(2).
fn sys_clone(call: &mut Call<'_>) -> SysResult {
    let flags = call.args[0];
    // A pidfd goes where the parent's copy of the id would go.
    if flags & CLONE_PIDFD != 0 && flags & CLONE_PARENT_SETTID != 0 {
        return Err(EINVAL);
    }
    let request = CloneRequest {
        flags: flags & !CSIGNAL,
        exit_signal: (flags & CSIGNAL) as u32,
        stack: call.args[1],
        parent_tid: call.args[2],
        pidfd: call.args[2],
        child_tid: call.args[3],
        tls: call.args[4],
        set_tid: 0,
    };
    clone(call.task, call.context, &request)
}

fn sys_vfork(call: &mut Call<'_>) -> SysResult {
    let request = CloneRequest { flags: CLONE_VM | CLONE_VFORK, exit_signal: SIGCHLD as u32, ..CloneRequest::default() };
    clone(call.task, call.context, &request)
}

/// clone3(2).
fn sys_clone3(call: &mut Call<'_>) -> SysResult {
    const VERSION_0: usize = 64;
    let (address, size) = (call.args[0], call.size(1));
    if size < VERSION_0 {
        return Err(EINVAL);
    }
    let args: CloneArgs = super::read_versioned(address, size)?;
    let known = args.flags >> 34 == 0 && args.flags & (CSIGNAL & !CLONE_NEWTIME | CLONE_DETACHED) == 0;
    if !known || args.exit_signal & !CSIGNAL != 0 || (args.stack == 0) != (args.stack_size == 0) || args.set_tid_size > 32 {
        return Err(EINVAL);
    }
    if args.flags & CLONE_NEWTIME != 0 {
        return Err(EPERM);
    }
    let set_tid = if args.set_tid_size == 0 { 0 } else { wanted_tid(call, &args)? };
    let request = CloneRequest {
        flags: args.flags,
        exit_signal: args.exit_signal as u32,
        stack: args.stack.wrapping_add(args.stack_size),
        parent_tid: args.parent_tid,
        pidfd: args.pidfd,
        child_tid: args.child_tid,
        tls: args.tls,
        set_tid,
    };
    clone(call.task, call.context, &request)
}

/// set_tid names an id in each nested PID namespace: there is one.
fn wanted_tid(call: &Call<'_>, args: &CloneArgs) -> Result<u32, Errno> {
    let tid: i32 = user::read(args.set_tid)?;
    if args.set_tid_size != 1 || tid < 1 || tid as u32 >= tree::PID_MAX {
        return Err(EINVAL);
    }
    let may = call.task.capable(linux_abi::capability::CAP_SYS_ADMIN) || call.task.capable(linux_abi::capability::CAP_CHECKPOINT_RESTORE);
    if may {
        Ok(tid as u32)
    } else {
        Err(EPERM)
    }
}

fn read_name(address: u64) -> Result<Vec<u8>, Errno> {
    const PATH_MOST: usize = 4096;
    let name = user::read_string(address, PATH_MOST)?;
    if name.is_empty() {
        Err(crate::errno::ENOENT)
    } else {
        Ok(name)
    }
}

/// execve(2).
fn sys_execve(call: &mut Call<'_>) -> SysResult {
    let name = read_name(call.args[0])?;
    let file = crate::fs::open_executable(call.task, call.task.fs().cwd(), &name, true)?;
    run(call, file, name, false, 1)
}

/// execveat(2).
fn sys_execveat(call: &mut Call<'_>) -> SysResult {
    const AT_FDCWD: i32 = -100;
    const AT_SYMLINK_NOFOLLOW: i32 = 0x100;
    const AT_EMPTY_PATH: i32 = 0x1000;
    let (fd, flags) = (call.int(0), call.int(4));
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(EINVAL);
    }
    let path = user::read_string(call.args[1], 4096)?;
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    if path.starts_with(b"/") || (fd == AT_FDCWD && !path.is_empty()) {
        let file = crate::fs::open_executable(call.task, call.task.fs().cwd(), &path, follow)?;
        return run(call, file, path, false, 2);
    }
    if path.is_empty() && flags & AT_EMPTY_PATH == 0 {
        return Err(crate::errno::ENOENT);
    }
    let files = call.task.files();
    let start: Location =
        if fd == AT_FDCWD { call.task.fs().cwd() } else { files.get_any(fd)?.location.clone().ok_or(crate::errno::EACCES)? };
    // A script's interpreter opens it by this name, unless the descriptor will be gone by then.
    let mut name: Vec<u8> = alloc::format!("/dev/fd/{fd}").into_bytes();
    let inaccessible = fd != AT_FDCWD && files.close_on_exec(fd)?;
    let file = if path.is_empty() {
        crate::fs::open_executable_at(&call.task.credentials(), start)?
    } else {
        name.push(b'/');
        name.extend_from_slice(&path);
        crate::fs::open_executable(call.task, start, &path, follow)?
    };
    drop(files);
    run(call, file, name, inaccessible, 2)
}

fn run(call: &mut Call<'_>, file: Arc<OpenFile>, name: Vec<u8>, inaccessible: bool, first: usize) -> SysResult {
    let mut left = exec::strings_limit(call.task);
    let argv = exec::read_strings(call.args[first], &mut left)?;
    let envp = exec::read_strings(call.args[first + 1], &mut left)?;
    exec::execute(call.task, call.context, Program { file, name, inaccessible, argv, envp })?;
    Ok(0)
}

/// _exit(2) of the calling thread.
fn sys_exit(call: &mut Call<'_>) -> SysResult {
    exit::end_current(call.task, (call.uint(0) & 0xff) << 8);
    Ok(0)
}

fn sys_exit_group(call: &mut Call<'_>) -> SysResult {
    begin_group_exit(&call.task.process, (call.uint(0) & 0xff) << 8);
    Ok(0)
}

/// wait4(2).
fn sys_wait4(call: &mut Call<'_>) -> SysResult {
    let (pid, options) = (call.int(0), call.uint(2));
    if options & !(WNOHANG | WUNTRACED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL) != 0 {
        return Err(EINVAL);
    }
    let which = match pid {
        i32::MIN => return Err(ESRCH),
        -1 => Which::Any,
        0 => Which::Group(call.task.process.group()),
        1.. => Which::Pid(pid as u32),
        _ => Which::Group(pid.unsigned_abs()),
    };
    let Some(change) = wait::wait(&call.task.process, &which, options | WEXITED)? else { return Ok(0) };
    if call.args[1] != 0 {
        user::write(call.args[1], &change.status)?;
    }
    store_usage(call.args[3], &change)?;
    Ok(change.pid as usize)
}

fn store_usage(address: u64, change: &Change) -> Result<(), Errno> {
    if address == 0 {
        Ok(())
    } else {
        user::write(address, &change.usage.rusage())
    }
}

/// waitid(2).
fn sys_waitid(call: &mut Call<'_>) -> SysResult {
    let (kind, id, mut options) = (call.uint(0), call.int(1), call.uint(3));
    if options & !(WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL) != 0
        || options & (WEXITED | WSTOPPED | WCONTINUED) == 0
    {
        return Err(EINVAL);
    }
    let mut nonblocking = false;
    let which = match kind {
        P_ALL => Which::Any,
        P_PID if id > 0 => Which::Pid(id as u32),
        P_PGID if id >= 0 => Which::Group(if id == 0 { call.task.process.group() } else { id as u32 }),
        P_PIDFD if id >= 0 => {
            let (process, flag) = pidfd::waitable(call.task, id)?;
            nonblocking = flag;
            Which::Process(process)
        }
        _ => return Err(EINVAL),
    };
    if nonblocking {
        options |= WNOHANG;
    }
    let change = wait::wait(&call.task.process, &which, options)?;
    if change.is_none() && nonblocking && call.uint(3) & WNOHANG == 0 {
        return Err(EAGAIN);
    }
    if call.args[2] != 0 {
        // Without a change the fields that tell are zero; Linux leaves the rest as it is.
        let words = change.as_ref().map_or([0; 6], |change| [SIGCHLD, 0, change.code, change.pid as i32, change.uid as i32, change.value]);
        user::write(call.args[2], &[words[0], words[1], words[2]])?;
        user::write(call.args[2] + 16, &[words[3], words[4], words[5]])?;
    }
    if let Some(change) = &change {
        store_usage(call.args[4], change)?;
    }
    Ok(0)
}

/// setpgid(2).
fn sys_setpgid(call: &mut Call<'_>) -> SysResult {
    let (pid, group) = (call.int(0), session::valid_group(call.int(1))?);
    if pid < 0 {
        return Err(ESRCH);
    }
    session::set_group(&call.task.process, pid as u32, group).map(|()| 0)
}

/// pidfd_open(2).
fn sys_pidfd_open(call: &mut Call<'_>) -> SysResult {
    const O_RDWR: u32 = 2;
    const PIDFD_NONBLOCK: u32 = 0o4000;
    let (pid, flags) = (call.int(0), call.uint(1));
    if flags & !PIDFD_NONBLOCK != 0 || pid <= 0 {
        return Err(EINVAL);
    }
    let Some(process) = tree::find_process(pid as u32) else {
        // A thread that is not a leader is no process.
        return Err(if tree::find_task(pid as u32).is_some() { EINVAL } else { ESRCH });
    };
    let file = OpenFile::new(Arc::new(PidFd { process }), O_RDWR | flags);
    call.task.files().insert(file, true, 0, call.task.limit(RLIMIT_NOFILE)).map(|fd| fd as usize)
}

/// pidfd_send_signal(2).
fn sys_pidfd_send_signal(call: &mut Call<'_>) -> SysResult {
    let (fd, number) = (call.int(0), call.int(1));
    if call.uint(3) != 0 {
        return Err(EINVAL);
    }
    let process = pidfd::target_of(call.task, fd)?;
    if !(0..=64).contains(&number) {
        return Err(EINVAL);
    }
    let info = if call.args[2] == 0 {
        SigInfo::from_process(number, SI_USER, call.task.process.pid, call.task.credentials().uid)
    } else {
        let info: SigInfo = user::read(call.args[2])?;
        if info.signo != number {
            return Err(EINVAL);
        }
        let own = Arc::ptr_eq(&process, &call.task.process);
        if !own && (info.code >= 0 || info.code == SI_TKILL) {
            return Err(EPERM);
        }
        info
    };
    if process.is_reaped() {
        return Err(ESRCH);
    }
    signal::check_permission(call.task, &process, number)?;
    if number != 0 {
        signal::queue(signal::Scope::Process(&process), info, false)?;
    }
    Ok(0)
}

/// What ptrace(2) attach would be allowed to look into.
fn may_look_into(call: &Call<'_>, target: &Task) -> Result<(), Errno> {
    let own = call.task.credentials();
    if ptrace::may_access(call.task, (own.uid, own.gid), target) {
        Ok(())
    } else {
        Err(EPERM)
    }
}

/// ptrace(2).
fn sys_ptrace(call: &mut Call<'_>) -> SysResult {
    let (request, pid, address, data) = (call.uint(0), call.uint(1), call.args[2], call.args[3]);
    if request == PTRACE_TRACEME {
        return ptrace::trace_me(call.task).map(|()| 0);
    }
    let target = tree::find_task(pid).ok_or(ESRCH)?;
    match request {
        PTRACE_ATTACH => ptrace::attach(call.task, &target).map(|()| 0),
        PTRACE_SEIZE if address != 0 => Err(EIO),
        PTRACE_SEIZE => ptrace::seize(call.task, &target, data).map(|()| 0),
        _ => ptrace::request(call.task, &target, request, address, data),
    }
}

/// An array of struct iovec as (address, bytes).
fn ranges(address: u64, count: u64) -> Result<Vec<(u64, u64)>, Errno> {
    const UIO_MAXIOV: u64 = 1024;
    if count > UIO_MAXIOV {
        return Err(EINVAL);
    }
    let vectors: Vec<[u64; 2]> = user::read_array(address, count as usize)?;
    if vectors.iter().any(|vector| vector[1] > i64::MAX as u64) {
        return Err(EINVAL);
    }
    Ok(vectors.iter().map(|vector| (vector[0], vector[1])).collect())
}

/// process_vm_readv(2), process_vm_writev(2): bytes moved before the first that cannot be; EFAULT when that is the first of all.
fn transfer(call: &Call<'_>, write: bool) -> SysResult {
    const PIECE: u64 = 4096;
    if call.args[5] != 0 {
        return Err(EINVAL);
    }
    let (local, remote) = (ranges(call.args[1], call.args[2])?, ranges(call.args[3], call.args[4])?);
    let target = tree::find_task(call.uint(0)).ok_or(ESRCH)?;
    may_look_into(call, &target)?;
    let memory = target.memory().ok_or(ESRCH)?;
    let mut local = local.into_iter().filter(|range| range.1 != 0);
    let (mut here, mut room) = local.next().unwrap_or((0, 0));
    let mut done = 0;
    let mut piece = alloc::vec![0; PIECE as usize];
    for (mut there, mut left) in remote {
        while left != 0 && room != 0 {
            let bytes = left.min(room).min(PIECE - there % PIECE) as usize;
            let moved = if write {
                let got = user::read_partial(here, &mut piece[..bytes]);
                memory.write(there, &piece[..got], false)
            } else {
                let got = memory.read(there, &mut piece[..bytes], false);
                user::write_partial(here, &piece[..got])
            };
            done += moved;
            if moved < bytes {
                return if done == 0 { Err(EFAULT) } else { Ok(done) };
            }
            (there, left, here, room) = (there + bytes as u64, left - bytes as u64, here + bytes as u64, room - bytes as u64);
            if room == 0 {
                (here, room) = local.next().unwrap_or((0, 0));
            }
        }
    }
    Ok(done)
}

/// kcmp(2): whether two tasks share a resource. Objects are ordered by where they are.
fn sys_kcmp(call: &mut Call<'_>) -> SysResult {
    let [_, _, kind, first_fd, second_fd, _] = call.args;
    let target = |pid: i32| tree::find_task(pid as u32).ok_or(ESRCH);
    let (first, second) = (target(call.int(0))?, target(call.int(1))?);
    may_look_into(call, &first)?;
    may_look_into(call, &second)?;
    let place = |task: &Arc<Task>, fd: u64| -> Result<usize, Errno> {
        Ok(match kind {
            KCMP_FILE => Arc::as_ptr(&task.files().get_any(fd as i32)?) as usize,
            KCMP_VM => task.memory().map_or(0, |memory| Arc::as_ptr(&memory) as usize),
            KCMP_FILES => Arc::as_ptr(&task.files()) as usize,
            KCMP_FS => Arc::as_ptr(&task.fs()) as usize,
            KCMP_SIGHAND => Arc::as_ptr(&task.process.signals.actions()) as usize,
            // Nobody has one: contexts of I/O priorities are the host's, and undo lists are the process's.
            KCMP_IO => 0,
            KCMP_SYSVSEM => task.process.pid as usize,
            _ => return Err(EINVAL),
        })
    };
    Ok(match place(&first, first_fd)?.cmp(&place(&second, second_fd)?) {
        Ordering::Equal => 0,
        Ordering::Less => 1,
        Ordering::Greater => 2,
    })
}

/// pidfd_getfd(2): as ptrace(2) attach would be allowed.
fn sys_pidfd_getfd(call: &mut Call<'_>) -> SysResult {
    if call.uint(2) != 0 {
        return Err(EINVAL);
    }
    let process = pidfd::process_of(call.task, call.int(0))?;
    let target = process.leader().filter(|_| !process.is_zombie()).ok_or(ESRCH)?;
    may_look_into(call, &target)?;
    let file = target.files().get_any(call.int(1)).map_err(|_| EBADF)?;
    call.task.files().insert(file, true, 0, call.task.limit(RLIMIT_NOFILE)).map(|fd| fd as usize)
}
