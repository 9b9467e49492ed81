//! lock: flock(2) and open-file-description locks, against other users of a shared volume. Never blocks.

use std::os::fd::AsFd;

use rustix::fs::FlockOperation;

use super::{Answer, Errno, Host, Reply, Request};
use crate::memory_sys;

const FLOCK: u16 = 0;
const OFD_GET: u16 = 1;
const OFD_SET: u16 = 2;

impl Host {
    pub(super) fn lock(&self, request: &Request) -> Answer {
        let handle = self.handles.get(request.handle)?;
        let number = |index| request.args.get(index).and_then(|value: &u64| i64::try_from(*value).ok()).ok_or(Errno::INVAL);
        match request.flags() {
            FLOCK => {
                let operation = match request.small(0)? as i32 & !libc::LOCK_NB {
                    libc::LOCK_SH => FlockOperation::NonBlockingLockShared,
                    libc::LOCK_EX => FlockOperation::NonBlockingLockExclusive,
                    libc::LOCK_UN => FlockOperation::Unlock,
                    _ => return Err(Errno::INVAL),
                };
                rustix::fs::flock(&*handle, operation)?;
                Ok(Reply::of(0))
            }
            OFD_GET | OFD_SET => {
                let kind = i16::try_from(request.small(0)?).map_err(|_| Errno::INVAL)?;
                let command = if request.flags() == OFD_GET { libc::F_OFD_GETLK } else { libc::F_OFD_SETLK };
                let (kind, start, bytes) = memory_sys::ofd_lock(handle.as_fd(), command, kind, number(1)?, number(2)?)?;
                Ok(Reply::with(0, &[kind as u64, start as u64, bytes as u64]))
            }
            _ => Err(Errno::INVAL),
        }
    }
}
