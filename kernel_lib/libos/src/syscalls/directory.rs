//! Names: mkdir(2), rmdir(2), link(2), symlink(2), unlink(2), rename(2), mknod(2), readlink(2), getdents64(2), chdir(2), getcwd(2).

use super::paths::{lookup, path, start, target, Target};
use super::{full, Call, Entry};
use crate::errno::{Errno, EINVAL, ENOENT, ENOTDIR, EPERM, ERANGE};
use crate::fs::inode::is_directory;
use crate::fs::{namei, permission, Location};
use crate::io::IoBuffer;
use crate::SysResult;
use alloc::vec::Vec;
use linux_abi::fs::{
    AT_EMPTY_PATH, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, DIRENT64_HEADER, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO,
    S_IFMT, S_IFREG, S_IFSOCK,
};

pub const CALLS: &[Entry] = &[
    full(78, "getdents", getdents),
    full(79, "getcwd", getcwd),
    full(80, "chdir", chdir),
    full(81, "fchdir", fchdir),
    full(82, "rename", rename),
    full(83, "mkdir", mkdir),
    full(84, "rmdir", rmdir),
    full(86, "link", link),
    full(87, "unlink", unlink),
    full(88, "symlink", symlink),
    full(89, "readlink", readlink),
    full(95, "umask", umask),
    full(133, "mknod", mknod),
    full(217, "getdents64", getdents64),
    full(258, "mkdirat", mkdirat),
    full(259, "mknodat", mknodat),
    full(263, "unlinkat", unlinkat),
    full(264, "renameat", renameat),
    full(265, "linkat", linkat),
    full(266, "symlinkat", symlinkat),
    full(267, "readlinkat", readlinkat),
    full(316, "renameat2", renameat2),
];

/// A path argument and where it starts.
fn name(call: &Call<'_>, dirfd: i32, address: u64) -> Result<(Location, Vec<u8>), Errno> {
    let path = path(address)?;
    let start = start(call, dirfd, &path)?;
    Ok((start, path))
}

fn make(call: &Call<'_>, dirfd: i32, address: u64, mode: u32, rdev: u64) -> SysResult {
    let (start, path) = name(call, dirfd, address)?;
    namei::make(call.task, start, &path, mode, rdev).map(|_| 0)
}

fn mkdir(call: &mut Call<'_>) -> SysResult {
    make(call, AT_FDCWD, call.args[0], S_IFDIR | call.uint(1) & 0o1777, 0)
}

fn mkdirat(call: &mut Call<'_>) -> SysResult {
    make(call, call.int(0), call.args[1], S_IFDIR | call.uint(2) & 0o1777, 0)
}

/// The device argument is the kernel's 32-bit encoding, which for the numbers in use is stat's as well.
fn make_node(call: &Call<'_>, dirfd: i32, address: u64, mode: u32, rdev: u64) -> SysResult {
    let mode = match mode & S_IFMT {
        0 => mode & 0o7777 | S_IFREG,
        S_IFREG | S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK => mode & (S_IFMT | 0o7777),
        S_IFDIR => return Err(EPERM),
        _ => return Err(EINVAL),
    };
    make(call, dirfd, address, mode, rdev & 0xffff_ffff)
}

fn mknod(call: &mut Call<'_>) -> SysResult {
    make_node(call, AT_FDCWD, call.args[0], call.uint(1), call.args[2])
}

fn mknodat(call: &mut Call<'_>) -> SysResult {
    make_node(call, call.int(0), call.args[1], call.uint(2), call.args[3])
}

fn remove(call: &Call<'_>, dirfd: i32, address: u64, directory: bool) -> SysResult {
    let (start, path) = name(call, dirfd, address)?;
    namei::remove(call.task, start, &path, directory).map(|()| 0)
}

fn unlink(call: &mut Call<'_>) -> SysResult {
    remove(call, AT_FDCWD, call.args[0], false)
}

fn rmdir(call: &mut Call<'_>) -> SysResult {
    remove(call, AT_FDCWD, call.args[0], true)
}

fn unlinkat(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(2);
    if flags & !AT_REMOVEDIR != 0 {
        return Err(EINVAL);
    }
    remove(call, call.int(0), call.args[1], flags != 0)
}

fn make_link(call: &Call<'_>, source: &Location, dirfd: i32, address: u64) -> SysResult {
    let (start, path) = name(call, dirfd, address)?;
    namei::link(call.task, source, start, &path).map(|()| 0)
}

fn link(call: &mut Call<'_>) -> SysResult {
    let source = lookup(call, AT_FDCWD, 0, false)?;
    make_link(call, &source, AT_FDCWD, call.args[1])
}

fn linkat(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(4);
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(EINVAL);
    }
    let no_follow = if flags & AT_SYMLINK_FOLLOW == 0 { AT_SYMLINK_NOFOLLOW } else { 0 };
    let source = match target(call, call.int(0), 1, flags & AT_EMPTY_PATH | no_follow)? {
        Target::Place(location) => location,
        // CAP_DAC_READ_SEARCH: without it an empty path names nothing (linkat(2)).
        Target::File(_) if !permission::capable(&call.task.credentials(), linux_abi::capability::CAP_DAC_READ_SEARCH) => {
            return Err(ENOENT)
        }
        Target::File(file) => file.location.clone().ok_or(crate::errno::EXDEV)?,
    };
    make_link(call, &source, call.int(2), call.args[3])
}

fn make_symlink(call: &Call<'_>, target: u64, dirfd: i32, address: u64) -> SysResult {
    let target = path(target)?;
    let (start, path) = name(call, dirfd, address)?;
    namei::symlink(call.task, start, &path, &target).map(|()| 0)
}

fn symlink(call: &mut Call<'_>) -> SysResult {
    make_symlink(call, call.args[0], AT_FDCWD, call.args[1])
}

fn symlinkat(call: &mut Call<'_>) -> SysResult {
    make_symlink(call, call.args[0], call.int(1), call.args[2])
}

fn move_name(call: &Call<'_>, from: (i32, u64), to: (i32, u64), flags: u32) -> SysResult {
    let (start, path) = name(call, from.0, from.1)?;
    let (new_start, new_path) = name(call, to.0, to.1)?;
    namei::rename(call.task, (start, &path), (new_start, &new_path), flags).map(|()| 0)
}

fn rename(call: &mut Call<'_>) -> SysResult {
    move_name(call, (AT_FDCWD, call.args[0]), (AT_FDCWD, call.args[1]), 0)
}

fn renameat(call: &mut Call<'_>) -> SysResult {
    move_name(call, (call.int(0), call.args[1]), (call.int(2), call.args[3]), 0)
}

fn renameat2(call: &mut Call<'_>) -> SysResult {
    move_name(call, (call.int(0), call.args[1]), (call.int(2), call.args[3]), call.uint(4))
}

/// Not NUL-terminated; cut off silently when the buffer is small.
fn read_link(call: &Call<'_>, dirfd: i32, address: u64, buffer: u64, room: i32) -> SysResult {
    if room <= 0 {
        return Err(EINVAL);
    }
    let path = path(address)?;
    let location = if path.is_empty() && dirfd != AT_FDCWD {
        // An empty path: the link that an O_PATH | O_NOFOLLOW descriptor stands for.
        call.task.files().get_any(dirfd)?.location.clone().ok_or(ENOENT)?
    } else {
        let start = start(call, dirfd, &path)?;
        crate::fs::Walk::new(call.task).lookup(start, &path, false)?
    };
    let target = location.inode().read_link().map_err(|errno| if path.is_empty() && errno == EINVAL { ENOENT } else { errno })?;
    let bytes = target.len().min(room as usize);
    hal::user::write_bytes(buffer, &target[..bytes])?;
    Ok(bytes)
}

fn readlink(call: &mut Call<'_>) -> SysResult {
    read_link(call, AT_FDCWD, call.args[0], call.args[1], call.int(2))
}

fn readlinkat(call: &mut Call<'_>) -> SysResult {
    read_link(call, call.int(0), call.args[1], call.args[2], call.int(3))
}

fn getdents64(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    file.ops.read_directory(&file, &mut IoBuffer::user(call.args[1], call.uint(2) as usize))
}

/// struct linux_dirent: 32-bit programs' ancestor of getdents64, with the type in the last byte.
fn getdents(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    let room = (call.uint(2) as usize).min(1 << 16);
    // An old record is never longer than a new one: what fits in the new form fits in the old.
    let mut records = alloc::vec![0u8; room];
    let bytes = file.ops.read_directory(&file, &mut IoBuffer::fill(&mut records))?;
    let mut out = Vec::with_capacity(bytes);
    let mut rest = &records[..bytes];
    while rest.len() > DIRENT64_HEADER {
        let length = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
        let Some(record) = rest.get(..length) else {
            break;
        };
        let name = record[DIRENT64_HEADER..].split(|&b| b == 0).next().unwrap_or_default();
        let start = out.len();
        out.extend_from_slice(&record[..18]);
        out.extend_from_slice(name);
        out.resize(start + length - 1, 0);
        out.push(record[18]);
        rest = &rest[length..];
    }
    hal::user::write_bytes(call.args[1], &out)?;
    Ok(out.len())
}

fn enter(call: &Call<'_>, location: Location) -> SysResult {
    if !is_directory(&**location.inode()) {
        return Err(ENOTDIR);
    }
    permission::check(&call.task.credentials(), &**location.inode(), permission::EXECUTE)?;
    call.task.fs().set_cwd(location);
    Ok(0)
}

fn chdir(call: &mut Call<'_>) -> SysResult {
    let location = lookup(call, AT_FDCWD, 0, true)?;
    enter(call, location)
}

fn fchdir(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get_any(call.int(0))?;
    enter(call, file.location.clone().ok_or(ENOTDIR)?)
}

/// The length with the NUL. A directory outside of the root shows as "(unreachable)".
fn getcwd(call: &mut Call<'_>) -> SysResult {
    let context = call.task.fs();
    let cwd = context.cwd();
    if cwd.dentry.is_dead() {
        return Err(ENOENT);
    }
    let mut path = cwd.display_path(&context.root());
    path.push(0);
    if path.len() > call.size(1) {
        return Err(ERANGE);
    }
    hal::user::write_bytes(call.args[0], &path)?;
    Ok(path.len())
}

fn umask(call: &mut Call<'_>) -> SysResult {
    Ok(call.task.fs().set_umask(call.uint(0)) as usize)
}
