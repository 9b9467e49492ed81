//! Descriptors: close, dup, fcntl(2), ioctl(2), flock(2), fsync and the like.

use super::paths::NOFILE;
use super::{full, Call, Entry};
use crate::errno::{Errno, EBADF, EINVAL, ENOTTY, EOVERFLOW};
use crate::fs::dnotify;
use crate::fs::file::OpenFile;
use crate::fs::lease;
use crate::fs::locks::{self, Owner, Record};
use crate::fs::permission;
use crate::fs::sigio::{self, Notifier, Owner as SignalOwner};
use crate::ipc::pipe;
use crate::SysResult;
use alloc::sync::Arc;
use linux_abi::fs::{
    Flock, FD_CLOEXEC, F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_GETLEASE, F_GETLK, F_GETOWN, F_GETOWN_EX, F_GETPIPE_SZ, F_GETSIG,
    F_NOTIFY, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_RDLCK, F_SETFD, F_SETFL, F_SETLEASE, F_SETLK, F_SETLKW, F_SETOWN, F_SETOWN_EX,
    F_SETPIPE_SZ, F_SETSIG, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, O_APPEND, O_ASYNC, O_CLOEXEC, O_DIRECT, O_NOATIME,
    O_NONBLOCK, O_PATH, SEEK_CUR, SEEK_END, SEEK_SET, S_IFREG,
};
use linux_abi::signal::SIGRTMAX;

pub const CALLS: &[Entry] = &[
    full(3, "close", close),
    full(16, "ioctl", ioctl),
    full(32, "dup", dup),
    full(33, "dup2", dup2),
    full(72, "fcntl", fcntl),
    full(73, "flock", flock),
    full(292, "dup3", dup3),
    full(436, "close_range", close_range),
];

fn close(call: &mut Call<'_>) -> SysResult {
    drop(call.task.files().remove(call.int(0))?);
    Ok(0)
}

fn dup(call: &mut Call<'_>) -> SysResult {
    let files = call.task.files();
    let file = files.get_any(call.int(0))?;
    files.insert(file, false, 0, call.task.limit(NOFILE)).map(|fd| fd as usize)
}

fn duplicate_to(call: &Call<'_>, close_on_exec: bool) -> SysResult {
    let files = call.task.files();
    let file = files.get_any(call.int(0))?;
    let target = call.int(1);
    drop(files.replace(target, file, close_on_exec, call.task.limit(NOFILE))?);
    Ok(target as usize)
}

fn dup2(call: &mut Call<'_>) -> SysResult {
    if call.int(0) == call.int(1) {
        call.task.files().get_any(call.int(0))?;
        return Ok(call.int(0) as usize);
    }
    duplicate_to(call, false)
}

fn dup3(call: &mut Call<'_>) -> SysResult {
    if call.uint(2) & !O_CLOEXEC != 0 || call.int(0) == call.int(1) {
        return Err(EINVAL);
    }
    duplicate_to(call, call.uint(2) & O_CLOEXEC != 0)
}

const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

fn close_range(call: &mut Call<'_>) -> SysResult {
    let (first, last, flags) = (call.uint(0), call.uint(1), call.uint(2));
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 || first > last {
        return Err(EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        let own = call.task.files().duplicate()?;
        drop(call.task.set_files(Some(own)));
    }
    let files = call.task.files();
    let chosen = |fd: i32| (first..=last).contains(&(fd as u32));
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        for (fd, _) in files.list().into_iter().filter(|(fd, _)| chosen(*fd)) {
            // Closed meanwhile by another thread: nothing to mark.
            let _ = files.set_close_on_exec(fd, true);
        }
    } else {
        drop(files.remove_where(|fd, _| chosen(fd)));
    }
    Ok(0)
}

/// Status flags that F_SETFL may change.
const SETTABLE: u32 = O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME | O_NONBLOCK;

fn fcntl(call: &mut Call<'_>) -> SysResult {
    let (fd, command, argument) = (call.int(0), call.uint(1), call.args[2]);
    let files = call.task.files();
    let file = files.get_any(fd)?;
    let path_only = file.flags() & O_PATH != 0;
    if path_only && !matches!(command, F_DUPFD | F_DUPFD_CLOEXEC | F_GETFD | F_SETFD | F_GETFL) {
        return Err(EBADF);
    }
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => {
            let limit = call.task.limit(NOFILE);
            let from = i32::try_from(argument).map_err(|_| EINVAL)?;
            if from as u64 >= limit {
                return Err(EINVAL);
            }
            files.insert(file, command == F_DUPFD_CLOEXEC, from, limit).map(|fd| fd as usize)
        }
        F_GETFD => files.close_on_exec(fd).map(usize::from),
        F_SETFD => files.set_close_on_exec(fd, argument as u32 & FD_CLOEXEC != 0).map(|()| 0),
        F_GETFL => Ok(file.flags() as usize),
        F_SETFL => set_flags(call, &file, fd, argument as u32),
        F_GETLK | F_OFD_GETLK => get_lock(call, &file, command == F_OFD_GETLK),
        F_SETLK | F_SETLKW => set_lock(call, &file, false, command == F_SETLKW),
        F_OFD_SETLK | F_OFD_SETLKW => set_lock(call, &file, true, command == F_OFD_SETLKW),
        F_GETOWN => Ok(owner_of(&file).signed_id() as isize as usize),
        F_SETOWN => set_owner(call, &file, SignalOwner::from_id(argument as i32)?),
        F_GETOWN_EX => hal::user::write(argument, &owner_of(&file).described()).map(|()| 0),
        F_SETOWN_EX => set_owner(call, &file, SignalOwner::new(hal::user::read(argument)?)?),
        F_GETSIG => Ok(file.known_notifier().map_or(0, |notifier| notifier.signal()) as usize),
        F_SETSIG if argument <= SIGRTMAX as u64 => {
            Notifier::of(&file).set_signal(argument as i32);
            Ok(0)
        }
        F_SETLEASE => lease::set(&file, fd, argument as i16, call.task).map(|()| 0),
        F_GETLEASE => Ok(lease::get(&file) as usize),
        F_NOTIFY => dnotify::ask(&file, fd, argument as u32, call.task).map(|()| 0),
        F_GETPIPE_SZ => pipe::of(&file).map(|end| end.pipe.capacity()).ok_or(EBADF),
        F_SETPIPE_SZ => {
            let privileged = permission::capable(&call.task.credentials(), linux_abi::capability::CAP_SYS_RESOURCE);
            pipe::of(&file).ok_or(EBADF)?.pipe.set_capacity(argument as usize, privileged)
        }
        _ => file.ops.fcntl(&file, command, argument).unwrap_or(Err(EINVAL)),
    }
}

fn set_flags(call: &Call<'_>, file: &OpenFile, fd: i32, flags: u32) -> SysResult {
    let old = file.flags();
    if flags & O_NOATIME != 0 && old & O_NOATIME == 0 {
        if let Some(inode) = file.inode() {
            if !permission::is_owner(&call.task.credentials(), &inode.owner()?) {
                return Err(crate::errno::EPERM);
            }
        }
    }
    let mut settable = SETTABLE;
    if (old ^ flags) & O_ASYNC != 0 && !sigio::set_async(file, fd, flags & O_ASYNC != 0, call.task) {
        settable &= !O_ASYNC;
    }
    file.set_flags(old & !settable | flags & settable);
    Ok(0)
}

fn owner_of(file: &OpenFile) -> SignalOwner {
    file.known_notifier().map(|notifier| notifier.owner()).unwrap_or_default()
}

fn set_owner(call: &Call<'_>, file: &OpenFile, owner: SignalOwner) -> SysResult {
    Notifier::of(file).set_owner(owner, &call.task.credentials());
    Ok(0)
}

/// The bytes that a struct flock names, as first and last.
fn lock_range(file: &OpenFile, lock: &Flock) -> Result<(u64, u64), Errno> {
    let base = match lock.whence as u32 {
        SEEK_SET => 0,
        SEEK_CUR => *file.position.lock() as i64,
        SEEK_END => file.stat()?.size as i64,
        _ => return Err(EINVAL),
    };
    let start = base.checked_add(lock.start).ok_or(EOVERFLOW)?;
    let (start, last) = match lock.bytes {
        0 => (start, i64::MAX),
        bytes if bytes > 0 => (start, start.checked_add(bytes - 1).ok_or(EOVERFLOW)?),
        // A negative length: the bytes before.
        bytes => (start.checked_add(bytes).ok_or(EINVAL)?, start - 1),
    };
    if start < 0 {
        Err(EINVAL)
    } else {
        Ok((start as u64, last as u64))
    }
}

fn record(call: &Call<'_>, file: &Arc<OpenFile>, lock: &Flock, description: bool) -> Result<Record, Errno> {
    if description && lock.pid != 0 {
        return Err(EINVAL);
    }
    let (start, last) = lock_range(file, lock)?;
    let (owner, pid) = if description {
        (Owner::Description(Arc::as_ptr(file) as usize), -1)
    } else {
        (Owner::Posix(call.task.files().identity()), call.task.process.pid as i32)
    };
    Ok(Record { owner, pid, write: lock.kind == F_WRLCK, start, last })
}

fn get_lock(call: &Call<'_>, file: &Arc<OpenFile>, description: bool) -> SysResult {
    let mut lock: Flock = hal::user::read(call.args[2])?;
    if lock.kind != F_RDLCK && lock.kind != F_WRLCK {
        return Err(EINVAL);
    }
    let wanted = record(call, file, &lock, description)?;
    let inode = file.inode().ok_or(EINVAL)?;
    match inode.state().locks.conflict(&wanted) {
        None => lock.kind = F_UNLCK,
        Some(other) => {
            let bytes = if other.last == i64::MAX as u64 { 0 } else { (other.last - other.start + 1) as i64 };
            lock = Flock { kind: locks::kind_of(&other), whence: 0, start: other.start as i64, bytes, pid: other.pid, ..Flock::default() };
        }
    }
    hal::user::write(call.args[2], &lock).map(|()| 0)
}

fn set_lock(call: &Call<'_>, file: &Arc<OpenFile>, description: bool, wait: bool) -> SysResult {
    let lock: Flock = hal::user::read(call.args[2])?;
    match lock.kind {
        F_RDLCK if !file.readable() => return Err(EBADF),
        F_WRLCK if !file.writable() => return Err(EBADF),
        F_RDLCK | F_WRLCK | F_UNLCK => {}
        _ => return Err(EINVAL),
    }
    let wanted = record(call, file, &lock, description)?;
    let inode = file.inode().ok_or(EBADF)?;
    locks::set_record(inode, lock.kind, wanted, wait).map(|()| 0)
}

fn flock(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    let operation = call.uint(1);
    let wait = operation & LOCK_NB == 0;
    let operation = operation & !LOCK_NB;
    if !matches!(operation, LOCK_SH | LOCK_EX | LOCK_UN) {
        return Err(EINVAL);
    }
    let inode = file.inode().ok_or(EBADF)?;
    locks::flock(&file, inode, operation, wait).map(|()| 0)
}

const FIGETBSZ: u32 = 2;
const FIONBIO: u32 = 0x5421;
const FIONREAD: u32 = 0x541b;
const FIONCLEX: u32 = 0x5450;
const FIOCLEX: u32 = 0x5451;
const FIOASYNC: u32 = 0x5452;
const FIOQSIZE: u32 = 0x5460;
const FICLONE: u32 = 0x4004_9409;
const FICLONERANGE: u32 = 0x4020_940d;

fn ioctl(call: &mut Call<'_>) -> SysResult {
    let (fd, request, argument) = (call.int(0), call.uint(1), call.args[2]);
    let files = call.task.files();
    let file = files.get(fd)?;
    match request {
        FIOCLEX | FIONCLEX => files.set_close_on_exec(fd, request == FIOCLEX).map(|()| 0),
        FIONBIO | FIOASYNC => {
            let on = hal::user::read::<i32>(argument)? != 0;
            let bit = if request == FIONBIO { O_NONBLOCK } else { O_ASYNC };
            let flags = file.flags();
            let changed = (flags & bit != 0) != on;
            if request == FIOASYNC && changed && !sigio::set_async(&file, fd, on, call.task) {
                return Err(ENOTTY);
            }
            file.set_flags(if on { flags | bit } else { flags & !bit });
            Ok(0)
        }
        FIOQSIZE => match file.inode() {
            Some(inode) => hal::user::write(argument, &inode.stat()?.size).map(|()| 0),
            None => Err(ENOTTY),
        },
        FIGETBSZ if file.location.is_some() => hal::user::write(argument, &(file.stat()?.blksize as i32)).map(|()| 0),
        FIONREAD if file.inode().is_some_and(|inode| inode.kind() == S_IFREG) => {
            let left = file.stat()?.size.saturating_sub(*file.position.lock());
            hal::user::write(argument, &(left.min(i32::MAX as u64) as i32)).map(|()| 0)
        }
        FICLONE | FICLONERANGE if file.inode().is_some_and(|inode| inode.kind() == S_IFREG) => Err(crate::errno::EOPNOTSUPP),
        _ => file.ops.ioctl(&file, call.task, request, argument),
    }
}
