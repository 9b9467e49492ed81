//! eventfd(2), eventfd2(2).

use super::{full, Call, Entry};
use crate::errno::EINVAL;
use crate::fs::file::{O_CLOEXEC, O_NONBLOCK, O_RDWR};
use crate::fs::OpenFile;
use crate::ipc::eventfd::EventFd;
use crate::SysResult;

pub const CALLS: &[Entry] = &[full(284, "eventfd", eventfd), full(290, "eventfd2", eventfd2)];

const RLIMIT_NOFILE: usize = 7;
const EFD_SEMAPHORE: u32 = 1;

fn make(call: &Call<'_>, flags: u32) -> SysResult {
    if flags & !(EFD_SEMAPHORE | O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(EINVAL);
    }
    let ops = EventFd::new(u64::from(call.uint(0)), flags & EFD_SEMAPHORE != 0);
    let file = OpenFile::new(ops, O_RDWR | flags & O_NONBLOCK);
    call.task.files().insert(file, flags & O_CLOEXEC != 0, 0, call.task.limit(RLIMIT_NOFILE)).map(|fd| fd as usize)
}

fn eventfd(call: &mut Call<'_>) -> SysResult {
    make(call, 0)
}

fn eventfd2(call: &mut Call<'_>) -> SysResult {
    make(call, call.uint(1))
}
