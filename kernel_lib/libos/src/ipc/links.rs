//! What pipes, sockets and terminals ask of the process, signal and file families, in one place.

use super::fifo::InodeKey;
use crate::errno::{Errno, EINTR};
use crate::process::Task;
use crate::sched;
use crate::signal::{self, SigSet};
use crate::SysResult;
use alloc::sync::Arc;
use linux_abi::signal::{SigInfo, SI_KERNEL};

pub const SIGHUP: i32 = 1;
pub const SIGPIPE: i32 = 13;
pub const CAP_SYS_ADMIN: u32 = 21;
pub const CAP_SYS_RESOURCE: u32 = 24;
pub const CAP_NET_RAW: u32 = 13;
pub const CAP_SETUID: u32 = 7;
pub const CAP_SETGID: u32 = 6;
pub const CAP_IPC_OWNER: u32 = 15;

/// Whether the current task has the capability (capabilities(7)).
pub fn capable(capability: u32) -> bool {
    sched::current().credentials().effective >> capability & 1 == 1
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
    if result != Err(EINTR) {
        task.signals.restore_mask();
    }
    result
}

/// bind(2) to a path: makes a socket inode there (mode 0777 without the umask). EADDRINUSE when the name is taken.
pub fn make_socket(_path: &[u8]) -> Result<InodeKey, Errno> {
    Err(crate::errno::EOPNOTSUPP)
}

/// The inode of a socket's path that the caller may write to. ECONNREFUSED when it is no socket.
pub fn find_socket(_path: &[u8]) -> Result<InodeKey, Errno> {
    Err(crate::errno::ENOENT)
}
