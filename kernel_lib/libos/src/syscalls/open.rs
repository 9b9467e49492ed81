//! open(2), openat(2), openat2(2), creat(2), memfd_create(2), name_to_handle_at(2).

use super::paths::{install, path, start};
use super::{full, refused, Call, Entry};
use crate::errno::{E2BIG, EAGAIN, EINVAL, EOPNOTSUPP, EXDEV};
use crate::fs::{memfd, open, Walk};
use crate::SysResult;
use linux_abi::fs::{
    OpenHow, AT_FDCWD, O_ACCMODE, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_KNOWN, O_LARGEFILE, O_NOFOLLOW, O_PATH, O_TMPFILE, O_TRUNC,
    O_WRONLY, RESOLVE_BENEATH, RESOLVE_CACHED, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV,
};

pub const CALLS: &[Entry] = &[
    full(2, "open", open_call),
    full(85, "creat", creat),
    full(257, "openat", openat),
    full(437, "openat2", openat2),
    full(319, "memfd_create", memfd_create),
    refused(303, "name_to_handle_at", no_handles, "file handles"),
    refused(304, "open_by_handle_at", no_handles, "file handles"),
];

const RESOLVE_KNOWN: u64 =
    RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | RESOLVE_IN_ROOT | RESOLVE_CACHED;
/// __O_TMPFILE without the O_DIRECTORY that belongs to it.
const TMPFILE_BIT: u32 = O_TMPFILE & !O_DIRECTORY;

/// open(2)'s flags as they are meant: unknown bits are ignored, O_PATH drops what it does not know.
fn tidy(flags: u32) -> Result<u32, crate::Errno> {
    let mut flags = flags & O_KNOWN;
    if flags & TMPFILE_BIT != 0 && (flags & O_TMPFILE != O_TMPFILE || flags & O_CREAT != 0 || flags & O_ACCMODE == 0) {
        return Err(EINVAL);
    }
    if flags & (O_CREAT | O_DIRECTORY) == O_CREAT | O_DIRECTORY {
        return Err(EINVAL);
    }
    if flags & O_PATH != 0 {
        return Ok(flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    }
    if flags & O_EXCL != 0 && flags & O_CREAT == 0 {
        flags &= if flags & TMPFILE_BIT == 0 { !O_EXCL } else { !0 };
    }
    Ok(flags | O_LARGEFILE)
}

fn open_at(call: &mut Call<'_>, dirfd: i32, name: u64, flags: u32, mode: u32, resolve: u64) -> SysResult {
    let flags = tidy(flags)?;
    let path = path(name)?;
    let from = start(call, dirfd, &path)?;
    let mut walk = if resolve == 0 {
        Walk::new(call.task)
    } else {
        let scoped = resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT) != 0;
        let root = if scoped { from.clone() } else { call.task.fs().root() };
        Walk::scoped(call.task, root, resolve)
    };
    // O_EXCL: a symbolic link at the end is something that exists.
    let follow_flags = if flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL { flags | O_NOFOLLOW } else { flags };
    let file = open::open(&mut walk, call.task, from, &path, follow_flags, mode & 0o7777)?;
    install(call, file, flags & O_CLOEXEC != 0)
}

fn open_call(call: &mut Call<'_>) -> SysResult {
    let (flags, mode) = (call.uint(1), call.uint(2));
    open_at(call, AT_FDCWD, call.args[0], flags, mode, 0)
}

fn creat(call: &mut Call<'_>) -> SysResult {
    let mode = call.uint(1);
    open_at(call, AT_FDCWD, call.args[0], O_CREAT | O_WRONLY | O_TRUNC, mode, 0)
}

fn openat(call: &mut Call<'_>) -> SysResult {
    let (dirfd, flags, mode) = (call.int(0), call.uint(2), call.uint(3));
    open_at(call, dirfd, call.args[1], flags, mode, 0)
}

/// Unlike openat, everything unknown is an error.
fn openat2(call: &mut Call<'_>) -> SysResult {
    let size = call.size(3);
    let known = core::mem::size_of::<OpenHow>();
    if size < known {
        return Err(EINVAL);
    }
    if size > 4096 {
        return Err(E2BIG);
    }
    let how: OpenHow = hal::user::read(call.args[2])?;
    let mut rest = alloc::vec![0; size - known];
    hal::user::read_bytes(call.args[2] + known as u64, &mut rest)?;
    if rest.iter().any(|&byte| byte != 0) {
        return Err(E2BIG);
    }
    let flags = u32::try_from(how.flags).map_err(|_| EINVAL)?;
    if flags & !O_KNOWN != 0 || how.resolve & !RESOLVE_KNOWN != 0 || how.mode & !0o7777 != 0 {
        return Err(EINVAL);
    }
    if how.mode != 0 && flags & (O_CREAT | TMPFILE_BIT) == 0 {
        return Err(EINVAL);
    }
    if flags & O_PATH != 0 && flags & !(O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) != 0 {
        return Err(EINVAL);
    }
    if how.resolve & RESOLVE_BENEATH != 0 && how.resolve & RESOLVE_IN_ROOT != 0 {
        return Err(EINVAL);
    }
    if how.resolve & RESOLVE_CACHED != 0 && flags & (O_TRUNC | O_CREAT | TMPFILE_BIT) != 0 {
        return Err(EAGAIN);
    }
    let mut path_start = [0u8; 1];
    hal::user::read_bytes(call.args[1], &mut path_start)?;
    if how.resolve & RESOLVE_BENEATH != 0 && path_start[0] == b'/' {
        return Err(EXDEV);
    }
    let dirfd = call.int(0);
    if how.resolve & RESOLVE_IN_ROOT != 0 && path_start[0] == b'/' {
        // Absolute means from dirfd: start there, the walk's root is the same place.
        let path = path(call.args[1])?;
        let from = start(call, dirfd, b".")?;
        let mut walk = Walk::scoped(call.task, from.clone(), how.resolve);
        let flags = tidy(flags)?;
        let file = open::open(&mut walk, call.task, from, &path, flags, how.mode as u32)?;
        return install(call, file, flags & O_CLOEXEC != 0);
    }
    open_at(call, dirfd, call.args[1], flags, how.mode as u32, how.resolve)
}

const MFD_CLOEXEC: u32 = 1;
const MFD_ALLOW_SEALING: u32 = 2;
const MFD_HUGETLB: u32 = 4;
const MFD_NOEXEC_SEAL: u32 = 8;
const MFD_EXEC: u32 = 16;
const MFD_HUGE_SIZE: u32 = 0xfc00_0000;
/// NAME_MAX without "memfd:".
const MEMFD_NAME_MAX: usize = 249;

fn memfd_create(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(1);
    let known = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_NOEXEC_SEAL | MFD_EXEC;
    let sizes = if flags & MFD_HUGETLB != 0 { MFD_HUGE_SIZE } else { 0 };
    if flags & !(known | sizes) != 0 || flags & (MFD_EXEC | MFD_NOEXEC_SEAL) == MFD_EXEC | MFD_NOEXEC_SEAL {
        return Err(EINVAL);
    }
    let name = hal::user::read_string(call.args[0], MEMFD_NAME_MAX + 1).map_err(|errno| match errno {
        crate::errno::ENAMETOOLONG => EINVAL,
        other => other,
    })?;
    let sealing = flags & (MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL) != 0;
    let file = memfd::create(call.task, &name, sealing, flags & MFD_NOEXEC_SEAL != 0)?;
    install(call, file, flags & MFD_CLOEXEC != 0)
}

fn no_handles(_call: &mut Call<'_>) -> SysResult {
    Err(EOPNOTSUPP)
}
