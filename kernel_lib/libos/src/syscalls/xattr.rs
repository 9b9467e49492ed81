//! Extended attributes (xattr(7)): namespaces and who may use them; the bytes are the file system's.

use super::paths::lookup;
use super::{full, Call, Entry};
use crate::errno::{Errno, E2BIG, EACCES, EINVAL, ENODATA, EOPNOTSUPP, EPERM, ERANGE};
use crate::fs::inode::{Inode, XattrMode};
use crate::fs::namei::writable_mount;
use crate::fs::permission::{self, capable, is_owner, READ, WRITE};
use crate::fs::{notify, Location};
use crate::process::Credentials;
use crate::SysResult;
use alloc::vec::Vec;
use linux_abi::capability::{CAP_SETFCAP, CAP_SYS_ADMIN};
use linux_abi::fs::{AT_FDCWD, S_IFDIR, S_IFREG, S_ISVTX, XATTR_CREATE, XATTR_NAME_MAX, XATTR_REPLACE, XATTR_SIZE_MAX};

pub const CALLS: &[Entry] = &[
    full(188, "setxattr", setxattr),
    full(189, "lsetxattr", lsetxattr),
    full(190, "fsetxattr", fsetxattr),
    full(191, "getxattr", getxattr),
    full(192, "lgetxattr", lgetxattr),
    full(193, "fgetxattr", fgetxattr),
    full(194, "listxattr", listxattr),
    full(195, "llistxattr", llistxattr),
    full(196, "flistxattr", flistxattr),
    full(197, "removexattr", removexattr),
    full(198, "lremovexattr", lremovexattr),
    full(199, "fremovexattr", fremovexattr),
];

fn by_descriptor(call: &Call<'_>) -> Result<Location, Errno> {
    let file = call.task.files().get(call.int(0))?;
    file.location.clone().ok_or(EOPNOTSUPP)
}

fn name(address: u64) -> Result<Vec<u8>, Errno> {
    let name = hal::user::read_string(address, XATTR_NAME_MAX + 1).map_err(|errno| match errno {
        crate::errno::ENAMETOOLONG => ERANGE,
        other => other,
    })?;
    if name.is_empty() {
        Err(ERANGE)
    } else {
        Ok(name)
    }
}

/// xattr(7), "Attribute namespaces".
fn may_use(credentials: &Credentials, inode: &dyn Inode, name: &[u8], write: bool) -> Result<(), Errno> {
    if matches!(name, b"user." | b"trusted." | b"security.") {
        return Err(EINVAL);
    }
    if name.starts_with(b"user.") {
        let kind = inode.kind();
        if kind != S_IFREG && kind != S_IFDIR {
            return Err(if write { EPERM } else { ENODATA });
        }
        let owner = inode.owner()?;
        if write && kind == S_IFDIR && owner.mode & S_ISVTX != 0 && !is_owner(credentials, &owner) {
            return Err(EPERM);
        }
        return if permission::granted(credentials, &owner, if write { WRITE } else { READ }) { Ok(()) } else { Err(EACCES) };
    }
    if name.starts_with(b"trusted.") {
        if capable(credentials, CAP_SYS_ADMIN) {
            return Ok(());
        }
        return Err(if write { EPERM } else { ENODATA });
    }
    if name.starts_with(b"security.") {
        let needed = if name == b"security.capability" { CAP_SETFCAP } else { CAP_SYS_ADMIN };
        return if !write || capable(credentials, needed) { Ok(()) } else { Err(EPERM) };
    }
    if name.starts_with(b"system.posix_acl_") {
        return if !write || is_owner(credentials, &inode.owner()?) { Ok(()) } else { Err(EPERM) };
    }
    Err(EOPNOTSUPP)
}

fn set(call: &Call<'_>, location: &Location) -> SysResult {
    let flags = call.uint(4);
    let mode = match flags {
        0 => XattrMode::Either,
        XATTR_CREATE => XattrMode::Create,
        XATTR_REPLACE => XattrMode::Replace,
        _ => return Err(EINVAL),
    };
    let name = name(call.args[1])?;
    if call.size(3) > XATTR_SIZE_MAX {
        return Err(E2BIG);
    }
    let mut value = alloc::vec![0; call.size(3)];
    hal::user::read_bytes(call.args[2], &mut value)?;
    writable_mount(location)?;
    may_use(&call.task.credentials(), &**location.inode(), &name, true)?;
    location.inode().set_xattr(&name, &value, mode)?;
    notify::attributes_changed(&location.dentry);
    Ok(0)
}

/// Copies out; a room of 0 asks for the size.
fn give(bytes: &[u8], address: u64, room: usize) -> SysResult {
    if room == 0 {
        return Ok(bytes.len());
    }
    if bytes.len() > room {
        return Err(ERANGE);
    }
    hal::user::write_bytes(address, bytes)?;
    Ok(bytes.len())
}

fn get(call: &Call<'_>, location: &Location) -> SysResult {
    let name = name(call.args[1])?;
    may_use(&call.task.credentials(), &**location.inode(), &name, false)?;
    give(&location.inode().get_xattr(&name)?, call.args[2], call.size(3))
}

/// trusted.* names show only to the privileged.
fn list(call: &Call<'_>, location: &Location) -> SysResult {
    let names = match location.inode().list_xattr() {
        Err(EOPNOTSUPP) => Vec::new(),
        other => other?,
    };
    let all = capable(&call.task.credentials(), CAP_SYS_ADMIN);
    let mut shown = Vec::with_capacity(names.len());
    for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
        if all || !name.starts_with(b"trusted.") {
            shown.extend_from_slice(name);
            shown.push(0);
        }
    }
    give(&shown, call.args[1], call.size(2))
}

fn remove(call: &Call<'_>, location: &Location) -> SysResult {
    let name = name(call.args[1])?;
    writable_mount(location)?;
    may_use(&call.task.credentials(), &**location.inode(), &name, true)?;
    location.inode().remove_xattr(&name)?;
    notify::attributes_changed(&location.dentry);
    Ok(0)
}

macro_rules! three_ways {
    ($( $operation:ident: $follow:ident $no_follow:ident $descriptor:ident; )*) => { $(
        fn $follow(call: &mut Call<'_>) -> SysResult {
            $operation(call, &lookup(call, AT_FDCWD, 0, true)?)
        }
        fn $no_follow(call: &mut Call<'_>) -> SysResult {
            $operation(call, &lookup(call, AT_FDCWD, 0, false)?)
        }
        fn $descriptor(call: &mut Call<'_>) -> SysResult {
            $operation(call, &by_descriptor(call)?)
        }
    )* };
}

three_ways! {
    set: setxattr lsetxattr fsetxattr;
    get: getxattr lgetxattr fgetxattr;
    list: listxattr llistxattr flistxattr;
    remove: removexattr lremovexattr fremovexattr;
}
