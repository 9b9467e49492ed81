//! Inherited descriptors, named by number in the launch plan or on the command line.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use crate::error::{HostError, Kind};

/// Takes a copy of inherited descriptor `number` (close-on-exec); the original is closed by [`close_others`].
pub fn adopt(number: i32, what: &str) -> Result<OwnedFd, HostError> {
    if number < 0 {
        return Err(HostError::plan(format!("{what}: descriptor {number} is negative")));
    }
    // SAFETY: only borrowed for the call, which answers EBADF when the number means nothing.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_dupfd_cloexec(inherited, 3).map_err(|error| HostError::plan(format!("{what}: descriptor {number}: {error}")))
}

/// Closes every descriptor but `kept` and stderr. Before any other thread exists and before anything else was opened.
pub fn close_others(kept: impl Iterator<Item = RawFd>) -> Result<(), HostError> {
    let mut numbers: Vec<u32> = kept.filter_map(|number| u32::try_from(number).ok()).collect();
    numbers.push(2);
    numbers.sort_unstable();
    let mut first = 0;
    for number in numbers {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), HostError> {
    // SAFETY: what is closed here is owned by nobody: all descriptors of this process that have an owner are in the caller's list.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        Ok(())
    } else {
        Err(HostError::new(Kind::Host, format!("close_range: {}", std::io::Error::last_os_error())))
    }
}
