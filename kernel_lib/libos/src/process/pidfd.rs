//! Descriptors that stand for a process (pidfd_open(2)): ready when it has ended.

use super::{Process, Task};
use crate::errno::{Errno, EBADF, ECHILD};
use crate::fs::{synthetic, Events, FileOps, OpenFile};
use crate::wait::WaitQueue;
use alloc::sync::Arc;
use core::any::Any;

pub struct PidFd {
    pub process: Arc<Process>,
}

impl FileOps for PidFd {
    fn poll(&self, _file: &OpenFile) -> Events {
        if self.process.is_zombie() {
            Events::IN | Events::RDNORM
        } else {
            Events::default()
        }
    }
    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        Some(&self.process.ended)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The process behind a descriptor. EBADF: not open, or not a pidfd.
pub fn process_of(task: &Task, fd: i32) -> Result<Arc<Process>, Errno> {
    let file = task.files().get(fd)?;
    file.ops_as::<PidFd>().map(|pidfd| pidfd.process.clone()).ok_or(EBADF)
}

/// As [`process_of`]; a directory of /proc stands for its process, too (pidfd_send_signal(2)).
pub fn target_of(task: &Task, fd: i32) -> Result<Arc<Process>, Errno> {
    let file = task.files().get(fd)?;
    synthetic::process_of(&file).map_or_else(|| process_of(task, fd), Ok)
}

/// As [`process_of`], and whether waiting for it is nonblocking (PIDFD_NONBLOCK). ECHILD: it was reaped.
pub fn waitable(task: &Task, fd: i32) -> Result<(Arc<Process>, bool), Errno> {
    let file = task.files().get(fd)?;
    let process = file.ops_as::<PidFd>().map(|pidfd| pidfd.process.clone()).ok_or(EBADF)?;
    if process.is_reaped() {
        return Err(ECHILD);
    }
    Ok((process, file.nonblocking()))
}
