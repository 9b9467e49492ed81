//! Who may do what (path_resolution(7), capabilities(7)). The VMM checks nothing of this: the guest's users exist only here.

use super::inode::{Inode, Owner};
use crate::errno::{Errno, EACCES, EPERM};
use crate::process::Credentials;
use alloc::sync::Arc;
use linux_abi::capability::{CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID};
use linux_abi::fs::{S_IFDIR, S_IFMT, S_ISGID, S_ISVTX, S_IXGRP};

pub const READ: u32 = 4;
pub const WRITE: u32 = 2;
pub const EXECUTE: u32 = 1;

pub fn capable(credentials: &Credentials, capability: u32) -> bool {
    credentials.effective >> capability & 1 != 0
}

pub fn in_group(credentials: &Credentials, gid: u32) -> bool {
    credentials.fsgid == gid || credentials.groups.contains(&gid)
}

/// Whether `mask` (READ, WRITE, EXECUTE) is granted.
pub fn granted(credentials: &Credentials, owner: &Owner, mask: u32) -> bool {
    let bits = if credentials.fsuid == owner.uid {
        owner.mode >> 6
    } else if in_group(credentials, owner.gid) {
        owner.mode >> 3
    } else {
        owner.mode
    };
    if bits & mask == mask {
        return true;
    }
    if owner.mode & S_IFMT == S_IFDIR {
        return capable(credentials, CAP_DAC_OVERRIDE) || mask & WRITE == 0 && capable(credentials, CAP_DAC_READ_SEARCH);
    }
    if capable(credentials, CAP_DAC_OVERRIDE) && (mask & EXECUTE == 0 || owner.mode & 0o111 != 0) {
        return true;
    }
    mask == READ && capable(credentials, CAP_DAC_READ_SEARCH)
}

pub fn check(credentials: &Credentials, inode: &dyn Inode, mask: u32) -> Result<(), Errno> {
    if granted(credentials, &inode.owner()?, mask) {
        Ok(())
    } else {
        Err(EACCES)
    }
}

/// The owner, or CAP_FOWNER (chmod, utimes, O_NOATIME …).
pub fn is_owner(credentials: &Credentials, owner: &Owner) -> bool {
    credentials.fsuid == owner.uid || capable(credentials, CAP_FOWNER)
}

/// Whether an entry may be taken out of a directory: write and search permission, and in a sticky directory ownership.
pub fn may_delete(credentials: &Credentials, directory: &dyn Inode, child: &Arc<dyn Inode>) -> Result<(), Errno> {
    let owner = directory.owner()?;
    if !granted(credentials, &owner, WRITE | EXECUTE) {
        return Err(EACCES);
    }
    if owner.mode & S_ISVTX != 0
        && credentials.fsuid != owner.uid
        && credentials.fsuid != child.owner()?.uid
        && !capable(credentials, CAP_FOWNER)
    {
        return Err(EPERM);
    }
    Ok(())
}

/// Group and mode of a new object (mkdir(2), open(2)): a set-group-ID directory hands down its group, and to directories the bit.
pub fn inherit(credentials: &Credentials, directory: &Owner, mode: u32) -> (u32, u32) {
    if directory.mode & S_ISGID == 0 {
        return (mode, credentials.fsgid);
    }
    if mode & S_IFMT == S_IFDIR {
        return (mode | S_ISGID, directory.gid);
    }
    let strip =
        mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP && !in_group(credentials, directory.gid) && !capable(credentials, CAP_FSETID);
    (if strip { mode & !S_ISGID } else { mode }, directory.gid)
}
