//! stat(2), statx(2), access(2), chmod(2), chown(2), utimensat(2), truncate(2), statfs(2).

use super::paths::{lookup, place, target, Target};
use super::{full, Call, Entry};
use crate::errno::{Errno, EACCES, EINVAL, EISDIR, EOPNOTSUPP, EPERM, EROFS};
use crate::fs::inode::{Attributes, Inode, Owner, Stat, Time};
use crate::fs::mount::{Mount, NOEXEC};
use crate::fs::namei::{set_attributes, writable_mount};
use crate::fs::permission::{self, capable, in_group, is_owner, WRITE};
use crate::fs::{lease, open, Location, Walk};
use crate::process::Credentials;
use crate::SysResult;
use abi::request::{ATTR_ATIME, ATTR_ATIME_NOW, ATTR_GID, ATTR_MODE, ATTR_MTIME, ATTR_MTIME_NOW, ATTR_UID};
use alloc::sync::Arc;
use linux_abi::capability::{CAP_CHOWN, CAP_FSETID};
use linux_abi::fs::{
    self, FileTime, StatFs, Statx, StatxTime, AT_EACCESS, AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW, R_OK, STATX_ATTR_MOUNT_ROOT, STATX_BASIC_STATS, STATX_BTIME, STATX_MNT_ID, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG,
    S_ISGID, S_ISUID, S_IXGRP, UTIME_NOW, UTIME_OMIT, W_OK, X_OK,
};

pub const CALLS: &[Entry] = &[
    full(4, "stat", stat),
    full(5, "fstat", fstat),
    full(6, "lstat", lstat),
    full(21, "access", access),
    full(76, "truncate", truncate),
    full(77, "ftruncate", ftruncate),
    full(90, "chmod", chmod),
    full(91, "fchmod", fchmod),
    full(92, "chown", chown),
    full(93, "fchown", fchown),
    full(94, "lchown", lchown),
    full(132, "utime", utime),
    full(137, "statfs", statfs),
    full(138, "fstatfs", fstatfs),
    full(235, "utimes", utimes),
    full(260, "fchownat", fchownat),
    full(261, "futimesat", futimesat),
    full(262, "newfstatat", newfstatat),
    full(268, "fchmodat", fchmodat),
    full(269, "faccessat", faccessat),
    full(280, "utimensat", utimensat),
    full(332, "statx", statx),
    full(439, "faccessat2", faccessat2),
    full(452, "fchmodat2", fchmodat2),
];

fn as_stat(stat: &Stat) -> fs::Stat {
    fs::Stat {
        dev: stat.dev,
        ino: stat.ino,
        nlink: u64::from(stat.nlink),
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.rdev,
        size: stat.size,
        blksize: u64::from(stat.blksize),
        blocks: stat.blocks,
        atime: stat.atime.sec,
        atime_nsec: u64::from(stat.atime.nsec),
        mtime: stat.mtime.sec,
        mtime_nsec: u64::from(stat.mtime.nsec),
        ctime: stat.ctime.sec,
        ctime_nsec: u64::from(stat.ctime.nsec),
        ..fs::Stat::default()
    }
}

fn store_stat(address: u64, stat: &Stat) -> SysResult {
    hal::user::write(address, &as_stat(stat)).map(|()| 0)
}

fn stat(call: &mut Call<'_>) -> SysResult {
    let location = lookup(call, AT_FDCWD, 0, true)?;
    store_stat(call.args[1], &location.inode().stat()?)
}

fn lstat(call: &mut Call<'_>) -> SysResult {
    let location = lookup(call, AT_FDCWD, 0, false)?;
    store_stat(call.args[1], &location.inode().stat()?)
}

fn fstat(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get_any(call.int(0))?;
    store_stat(call.args[1], &file.stat()?)
}

fn stat_target(target: &Target) -> Result<Stat, Errno> {
    match target {
        Target::Place(location) => location.inode().stat(),
        Target::File(file) => file.stat(),
    }
}

fn newfstatat(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(3);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH) != 0 {
        return Err(EINVAL);
    }
    let target = target(call, call.int(0), 1, flags)?;
    store_stat(call.args[2], &stat_target(&target)?)
}

fn statx(call: &mut Call<'_>) -> SysResult {
    const STATX_RESERVED: u32 = 0x8000_0000;
    let (flags, mask) = (call.uint(2), call.uint(3));
    if mask & STATX_RESERVED != 0
        || flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE) != 0
        || flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE
    {
        return Err(EINVAL);
    }
    let target = target(call, call.int(0), 1, flags)?;
    let stat = stat_target(&target)?;
    let location = match &target {
        Target::Place(location) => Some(location),
        Target::File(file) => file.location.as_ref(),
    };
    let time = |time: Time| StatxTime { sec: time.sec, nsec: time.nsec, pad: 0 };
    let has_btime = stat.btime != Time::default();
    let is_mount_root = location.is_some_and(|place| Arc::ptr_eq(&place.dentry, &place.mount.root));
    let result = Statx {
        mask: STATX_BASIC_STATS | if has_btime { STATX_BTIME } else { 0 } | if location.is_some() { STATX_MNT_ID } else { 0 },
        blksize: stat.blksize,
        attributes: u64::from(stat.attributes) & !STATX_ATTR_MOUNT_ROOT | if is_mount_root { STATX_ATTR_MOUNT_ROOT } else { 0 },
        attributes_mask: STATX_ATTR_MOUNT_ROOT,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        mode: stat.mode as u16,
        ino: stat.ino,
        size: stat.size,
        blocks: stat.blocks,
        atime: time(stat.atime),
        btime: time(stat.btime),
        ctime: time(stat.ctime),
        mtime: time(stat.mtime),
        rdev_major: fs::major(stat.rdev),
        rdev_minor: fs::minor(stat.rdev),
        dev_major: fs::major(stat.dev),
        dev_minor: fs::minor(stat.dev),
        mnt_id: location.map_or(0, |place| u64::from(place.mount.id)),
        ..Statx::default()
    };
    hal::user::write(call.args[4], &result).map(|()| 0)
}

/// access(2) asks for the real user and group, with the capabilities a set-user-ID program would drop.
fn real_credentials(call: &Call<'_>) -> Arc<Credentials> {
    let mut credentials = (*call.task.credentials()).clone();
    credentials.fsuid = credentials.uid;
    credentials.fsgid = credentials.gid;
    credentials.effective = if credentials.uid == 0 { credentials.permitted } else { 0 };
    Arc::new(credentials)
}

fn check_access(call: &Call<'_>, dirfd: i32, index: usize, mode: u32, flags: u32) -> SysResult {
    if mode & !(R_OK | W_OK | X_OK) != 0 || flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(EINVAL);
    }
    let credentials = if flags & AT_EACCESS != 0 { call.task.credentials() } else { real_credentials(call) };
    let location = if flags & AT_EMPTY_PATH != 0 {
        match target(call, dirfd, index, flags)? {
            Target::Place(location) => location,
            Target::File(file) => match &file.location {
                Some(location) => location.clone(),
                None => return Ok(0),
            },
        }
    } else {
        let path = super::paths::path(call.args[index])?;
        let start = super::paths::start(call, dirfd, &path)?;
        let mut walk = Walk::as_user(call.task, credentials.clone());
        walk.lookup(start, &path, flags & AT_SYMLINK_NOFOLLOW == 0)?
    };
    let inode = location.inode();
    let kind = inode.kind();
    if mode & X_OK != 0 && kind == S_IFREG && location.mount.flags() & NOEXEC != 0 {
        return Err(EACCES);
    }
    if !permission::granted(&credentials, &inode.owner()?, mode) {
        return Err(EACCES);
    }
    if mode & W_OK != 0 && matches!(kind, S_IFREG | S_IFDIR | S_IFLNK) && location.readonly() {
        return Err(EROFS);
    }
    Ok(0)
}

fn access(call: &mut Call<'_>) -> SysResult {
    check_access(call, AT_FDCWD, 0, call.uint(1), 0)
}

fn faccessat(call: &mut Call<'_>) -> SysResult {
    check_access(call, call.int(0), 1, call.uint(2), 0)
}

fn faccessat2(call: &mut Call<'_>) -> SysResult {
    check_access(call, call.int(0), 1, call.uint(2), call.uint(3))
}

fn change_mode(call: &Call<'_>, location: &Location, mode: u32) -> SysResult {
    let credentials = call.task.credentials();
    let owner = location.inode().owner()?;
    writable_mount(location)?;
    if owner.mode & S_IFMT == S_IFLNK {
        return Err(EOPNOTSUPP);
    }
    if !is_owner(&credentials, &owner) {
        return Err(EPERM);
    }
    let mut mode = mode & 0o7777;
    if !in_group(&credentials, owner.gid) && !capable(&credentials, CAP_FSETID) {
        mode &= !S_ISGID;
    }
    set_attributes(location, &Attributes { mask: ATTR_MODE, mode, ..Attributes::default() })?;
    Ok(0)
}

fn chmod(call: &mut Call<'_>) -> SysResult {
    let location = lookup(call, AT_FDCWD, 0, true)?;
    change_mode(call, &location, call.uint(1))
}

fn fchmod(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    change_mode(call, file.location.as_ref().ok_or(EINVAL)?, call.uint(1))
}

fn fchmodat(call: &mut Call<'_>) -> SysResult {
    let location = lookup(call, call.int(0), 1, true)?;
    change_mode(call, &location, call.uint(2))
}

fn fchmodat2(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(3);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(EINVAL);
    }
    let location = place(call, call.int(0), 1, flags, EINVAL)?;
    change_mode(call, &location, call.uint(2))
}

/// u32::MAX leaves an id as it is. Set-id bits of what is not a directory go (chown(2)).
fn change_owner(call: &Call<'_>, location: &Location, uid: u32, gid: u32) -> SysResult {
    let credentials = call.task.credentials();
    let owner: Owner = location.inode().owner()?;
    writable_mount(location)?;
    if !capable(&credentials, CAP_CHOWN) {
        let uid_stays = uid == u32::MAX || uid == owner.uid;
        let gid_allowed = gid == u32::MAX || gid == owner.gid || in_group(&credentials, gid);
        if credentials.fsuid != owner.uid && (uid != u32::MAX || gid != u32::MAX) || !uid_stays || !gid_allowed {
            return Err(EPERM);
        }
    }
    let mut attributes = Attributes::default();
    if uid != u32::MAX {
        attributes.mask |= ATTR_UID;
        attributes.uid = uid;
    }
    if gid != u32::MAX {
        attributes.mask |= ATTR_GID;
        attributes.gid = gid;
    }
    let mut kept = owner.mode & 0o7777;
    if owner.mode & S_IFMT != S_IFDIR {
        kept &= !S_ISUID;
        if owner.mode & S_IXGRP != 0 {
            kept &= !S_ISGID;
        }
    }
    if kept != owner.mode & 0o7777 {
        attributes.mask |= ATTR_MODE;
        attributes.mode = kept;
    }
    if attributes.mask != 0 {
        set_attributes(location, &attributes)?;
    }
    Ok(0)
}

fn chown(call: &mut Call<'_>) -> SysResult {
    let location = lookup(call, AT_FDCWD, 0, true)?;
    change_owner(call, &location, call.uint(1), call.uint(2))
}

fn lchown(call: &mut Call<'_>) -> SysResult {
    let location = lookup(call, AT_FDCWD, 0, false)?;
    change_owner(call, &location, call.uint(1), call.uint(2))
}

fn fchown(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    change_owner(call, file.location.as_ref().ok_or(EINVAL)?, call.uint(1), call.uint(2))
}

fn fchownat(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(4);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(EINVAL);
    }
    let location = place(call, call.int(0), 1, flags, EINVAL)?;
    change_owner(call, &location, call.uint(2), call.uint(3))
}

/// A time as utimensat(2) takes it.
#[derive(Clone, Copy)]
enum NewTime {
    Now,
    Omit,
    At(Time),
}

impl NewTime {
    fn parse(time: FileTime) -> Result<Self, Errno> {
        match time.nsec {
            UTIME_NOW => Ok(Self::Now),
            UTIME_OMIT => Ok(Self::Omit),
            0..=999_999_999 => Ok(Self::At(Time { sec: time.sec, nsec: time.nsec as u32, pad: 0 })),
            _ => Err(EINVAL),
        }
    }
}

fn change_times(call: &Call<'_>, location: &Location, times: [NewTime; 2]) -> SysResult {
    let credentials = call.task.credentials();
    let inode: &dyn Inode = &**location.inode();
    if matches!(times, [NewTime::Omit, NewTime::Omit]) {
        return Ok(0);
    }
    writable_mount(location)?;
    let owner = inode.owner()?;
    let both_now = matches!(times, [NewTime::Now, NewTime::Now]);
    if !(is_owner(&credentials, &owner) || both_now && permission::granted(&credentials, &owner, WRITE)) {
        return Err(if both_now { EACCES } else { EPERM });
    }
    let mut attributes = Attributes::default();
    match times[0] {
        NewTime::Now => attributes.mask |= ATTR_ATIME_NOW,
        NewTime::At(time) => {
            attributes.mask |= ATTR_ATIME;
            attributes.atime = time;
        }
        NewTime::Omit => {}
    }
    match times[1] {
        NewTime::Now => attributes.mask |= ATTR_MTIME_NOW,
        NewTime::At(time) => {
            attributes.mask |= ATTR_MTIME;
            attributes.mtime = time;
        }
        NewTime::Omit => {}
    }
    set_attributes(location, &attributes)?;
    Ok(0)
}

fn utimensat(call: &mut Call<'_>) -> SysResult {
    let flags = call.uint(3);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(EINVAL);
    }
    let times = match call.args[2] {
        0 => [NewTime::Now, NewTime::Now],
        address => {
            let [atime, mtime]: [[i64; 2]; 2] = hal::user::read(address)?;
            [NewTime::parse(FileTime { sec: atime[0], nsec: atime[1] })?, NewTime::parse(FileTime { sec: mtime[0], nsec: mtime[1] })?]
        }
    };
    // A null path: the descriptor itself (futimens(3)).
    if call.args[1] == 0 && call.int(0) != AT_FDCWD {
        if flags != 0 {
            return Err(EINVAL);
        }
        let file = call.task.files().get(call.int(0))?;
        return change_times(call, file.location.as_ref().ok_or(EINVAL)?, times);
    }
    let location = place(call, call.int(0), 1, flags, EINVAL)?;
    change_times(call, &location, times)
}

/// struct timeval pairs, microseconds.
fn timeval_times(address: u64) -> Result<[NewTime; 2], Errno> {
    if address == 0 {
        return Ok([NewTime::Now, NewTime::Now]);
    }
    let values: [[i64; 2]; 2] = hal::user::read(address)?;
    let mut times = [NewTime::Now; 2];
    for (time, [sec, usec]) in times.iter_mut().zip(values) {
        if !(0..1_000_000).contains(&usec) {
            return Err(EINVAL);
        }
        *time = NewTime::At(Time { sec, nsec: usec as u32 * 1000, pad: 0 });
    }
    Ok(times)
}

fn utimes(call: &mut Call<'_>) -> SysResult {
    let times = timeval_times(call.args[1])?;
    let location = lookup(call, AT_FDCWD, 0, true)?;
    change_times(call, &location, times)
}

fn futimesat(call: &mut Call<'_>) -> SysResult {
    let times = timeval_times(call.args[2])?;
    if call.args[1] == 0 {
        let file = call.task.files().get(call.int(0))?;
        return change_times(call, file.location.as_ref().ok_or(EINVAL)?, times);
    }
    let location = lookup(call, call.int(0), 1, true)?;
    change_times(call, &location, times)
}

fn utime(call: &mut Call<'_>) -> SysResult {
    let times = match call.args[1] {
        0 => [NewTime::Now, NewTime::Now],
        address => {
            let [atime, mtime]: [i64; 2] = hal::user::read(address)?;
            [atime, mtime].map(|sec| NewTime::At(Time { sec, nsec: 0, pad: 0 }))
        }
    };
    let location = lookup(call, AT_FDCWD, 0, true)?;
    change_times(call, &location, times)
}

/// The size limit of setrlimit(2) and the type checks that both truncating calls share.
fn resize(call: &Call<'_>, inode: &Arc<dyn Inode>, size: i64) -> SysResult {
    const RLIMIT_FSIZE: usize = 1;
    let size = u64::try_from(size).map_err(|_| EINVAL)?;
    match inode.kind() {
        S_IFREG => {}
        S_IFDIR => return Err(EISDIR),
        _ => return Err(EINVAL),
    }
    if size > call.task.limit(RLIMIT_FSIZE) {
        crate::fs::size_exceeded(call.task);
        return Err(crate::errno::EFBIG);
    }
    open::truncate(inode, size)?;
    Ok(0)
}

fn truncate(call: &mut Call<'_>) -> SysResult {
    if (call.args[1] as i64) < 0 {
        return Err(EINVAL);
    }
    let location = lookup(call, AT_FDCWD, 0, true)?;
    let inode = location.inode();
    match inode.kind() {
        S_IFDIR => return Err(EISDIR),
        S_IFREG => {}
        _ => return Err(EINVAL),
    }
    writable_mount(&location)?;
    permission::check(&call.task.credentials(), &**inode, WRITE)?;
    inode.state().add_writer()?;
    let done = lease::break_for(&**inode, true, true).and_then(|()| resize(call, inode, call.args[1] as i64));
    inode.state().remove_writer();
    if done.is_ok() {
        crate::fs::notify::event(&location.dentry, fs::IN_MODIFY);
    }
    done
}

fn ftruncate(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    if !file.writable() {
        return Err(EINVAL);
    }
    let done = resize(call, file.inode().ok_or(EINVAL)?, call.args[1] as i64)?;
    crate::fs::notify::modified(&file);
    Ok(done)
}

fn mount_statfs(mount: &Mount) -> Result<StatFs, Errno> {
    use crate::fs::mount as flag;
    let mut statfs = mount.fs.statfs()?;
    let flags = mount.flags();
    statfs.flags = fs::ST_VALID;
    for (bit, value) in [
        (flag::READONLY, fs::ST_RDONLY),
        (flag::NOSUID, fs::ST_NOSUID),
        (flag::NODEV, fs::ST_NODEV),
        (flag::NOEXEC, fs::ST_NOEXEC),
        (flag::NOATIME, fs::ST_NOATIME),
        (flag::RELATIME, fs::ST_RELATIME),
    ] {
        if flags & bit != 0 {
            statfs.flags |= value;
        }
    }
    Ok(statfs)
}

fn statfs(call: &mut Call<'_>) -> SysResult {
    let location = lookup(call, AT_FDCWD, 0, true)?;
    hal::user::write(call.args[1], &mount_statfs(&location.mount)?).map(|()| 0)
}

fn fstatfs(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get_any(call.int(0))?;
    let statfs = match &file.location {
        Some(location) => mount_statfs(&location.mount)?,
        None => StatFs { kind: file.ops.magic(), bsize: 4096, namelen: 255, frsize: 4096, flags: fs::ST_VALID, ..StatFs::default() },
    };
    hal::user::write(call.args[1], &statfs).map(|()| 0)
}
