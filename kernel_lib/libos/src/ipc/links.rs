//! What pipes, sockets and terminals ask of the process, signal and file families, in one place.

use super::fifo::InodeKey;
use crate::errno::{Errno, EADDRINUSE, ECONNREFUSED, EEXIST, EINTR, ERESTARTNOHAND};
use crate::fs::file::ANONYMOUS_DEVICE;
use crate::fs::{namei, permission, Stat, Walk};
use crate::process::Task;
use crate::sched;
use crate::signal::{self, SigSet};
use crate::SysResult;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_abi::fs::S_IFSOCK;
use linux_abi::signal::{SigInfo, SIGPIPE, SI_KERNEL};

pub use linux_abi::capability::{CAP_IPC_OWNER, CAP_NET_RAW, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, CAP_SYS_RESOURCE};

/// Whether the current task has the capability (capabilities(7)).
pub fn capable(capability: u32) -> bool {
    sched::current().capable(capability)
}

/// A write into a pipe or socket without a reader: SIGPIPE for the writing thread (pipe(7)).
pub fn broken_pipe() {
    signal::send_to_task(&sched::current(), SigInfo::new(SIGPIPE, SI_KERNEL));
}

/// Runs `wait` with another signal mask (ppoll(2), epoll_pwait(2)); the old one comes back afterwards, behind the delivery of a signal that
/// ended the wait.
pub fn with_mask(task: &Arc<Task>, mask: Option<u64>, wait: impl FnOnce() -> SysResult) -> SysResult {
    let Some(mask) = mask else { return wait() };
    task.signals.replace_mask(SigSet(mask));
    let result = wait();
    if !matches!(result, Err(EINTR | ERESTARTNOHAND)) {
        task.signals.restore_mask();
    }
    result
}

/// What fstat(2) says of a file that only the library OS knows: a number of its own, the owner being whoever asks.
pub fn anonymous_stat(mode: u32, number: u64) -> Stat {
    let (uid, gid) = sched::try_current().map_or((0, 0), |task| (task.credentials().fsuid, task.credentials().fsgid));
    Stat { mode, nlink: 1, uid, gid, blksize: 4096, dev: ANONYMOUS_DEVICE, ino: number, ..Stat::default() }
}

/// A number for a pipe or socket: what "pipe:[N]" shows.
pub fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(4097);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// bind(2) to a path: makes a socket inode there (mode 0777 without the umask). EADDRINUSE when the name is taken.
pub fn make_socket(path: &[u8]) -> Result<InodeKey, Errno> {
    let location = namei::make_socket(&sched::current(), path).map_err(|error| if error == EEXIST { EADDRINUSE } else { error })?;
    let stat = location.inode().stat()?;
    Ok((stat.dev, stat.ino))
}

/// The inode of a socket's path that the caller may write to. ECONNREFUSED when it is no socket.
pub fn find_socket(path: &[u8]) -> Result<InodeKey, Errno> {
    let task = sched::current();
    let mut walk = Walk::new(&task);
    let location = walk.lookup(task.fs().cwd(), path, true)?;
    let inode = location.inode();
    permission::check(walk.credentials(), &**inode, permission::WRITE)?;
    if inode.kind() != S_IFSOCK {
        return Err(ECONNREFUSED);
    }
    let stat = inode.stat()?;
    Ok((stat.dev, stat.ino))
}
