//! What the calls that take names share: paths from program memory, and where relative ones start.

use super::Call;
use crate::errno::{Errno, ENOENT, ENOTDIR};
use crate::fs::{Location, OpenFile, Walk};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_abi::fs::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, PATH_MAX};

/// RLIMIT_NOFILE.
pub const NOFILE: usize = 7;

/// A path argument. EFAULT, ENAMETOOLONG; the empty path is the resolution's business.
pub fn path(address: u64) -> Result<Vec<u8>, Errno> {
    hal::user::read_string(address, PATH_MAX)
}

/// Where a relative path starts.
pub fn start(call: &Call<'_>, dirfd: i32, path: &[u8]) -> Result<Location, Errno> {
    match path.first() {
        None => return Err(ENOENT),
        Some(b'/') => return Ok(call.task.fs().root()),
        Some(_) => {}
    }
    if dirfd == AT_FDCWD {
        return Ok(call.task.fs().cwd());
    }
    let file = call.task.files().get_any(dirfd)?;
    match &file.location {
        Some(location) if file.is_directory() => Ok(location.clone()),
        _ => Err(ENOTDIR),
    }
}

/// The path argument `index`, resolved from directory `dirfd`.
pub fn lookup(call: &Call<'_>, dirfd: i32, index: usize, follow: bool) -> Result<Location, Errno> {
    let path = path(call.args[index])?;
    let start = start(call, dirfd, &path)?;
    Walk::new(call.task).lookup(start, &path, follow)
}

/// What an …at call works on: a place, or with AT_EMPTY_PATH perhaps an open file that has no place.
pub enum Target {
    Place(Location),
    File(Arc<OpenFile>),
}

/// As [`lookup`] with the flags AT_EMPTY_PATH and AT_SYMLINK_NOFOLLOW.
pub fn target(call: &Call<'_>, dirfd: i32, index: usize, flags: u32) -> Result<Target, Errno> {
    if flags & AT_EMPTY_PATH != 0 {
        let path = if call.args[index] == 0 { Vec::new() } else { path(call.args[index])? };
        if path.is_empty() {
            if dirfd == AT_FDCWD {
                return Ok(Target::Place(call.task.fs().cwd()));
            }
            return Ok(Target::File(call.task.files().get_any(dirfd)?));
        }
    }
    lookup(call, dirfd, index, flags & AT_SYMLINK_NOFOLLOW == 0).map(Target::Place)
}

/// As [`target`], for calls that change what a file system keeps. `none`: the error for files that no file system has.
pub fn place(call: &Call<'_>, dirfd: i32, index: usize, flags: u32, none: Errno) -> Result<Location, Errno> {
    match target(call, dirfd, index, flags)? {
        Target::Place(location) => Ok(location),
        Target::File(file) => file.location.clone().ok_or(none),
    }
}

/// Puts an open file into the lowest free descriptor.
pub fn install(call: &Call<'_>, file: Arc<OpenFile>, close_on_exec: bool) -> crate::SysResult {
    let fd = call.task.files().insert(file, close_on_exec, 0, call.task.limit(NOFILE))?;
    Ok(fd as usize)
}
