//! inotify_init(2), inotify_add_watch(2), inotify_rm_watch(2).

use super::{full, Call, Entry};
use crate::errno::{EINVAL, ENOTDIR};
use crate::fs::inode::is_directory;
use crate::fs::{permission, OpenFile, Walk};
use crate::ipc::inotify::{self, Inotify, IN_ALL_EVENTS, IN_MASK_ADD, IN_MASK_CREATE};
use crate::SysResult;
use linux_abi::fs::{O_CLOEXEC, O_NONBLOCK};

pub const CALLS: &[Entry] = &[
    full(253, "inotify_init", inotify_init),
    full(254, "inotify_add_watch", inotify_add_watch),
    full(255, "inotify_rm_watch", inotify_rm_watch),
    full(294, "inotify_init1", inotify_init1),
];

const RLIMIT_NOFILE: usize = 7;
const PATH_MAX: usize = 4096;
const IN_ONLYDIR: u32 = 0x0100_0000;
const IN_DONT_FOLLOW: u32 = 0x0200_0000;

fn make(call: &Call<'_>, flags: u32) -> SysResult {
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(EINVAL);
    }
    let file = OpenFile::new(Inotify::new(), flags & O_NONBLOCK);
    call.task.files().insert(file, flags & O_CLOEXEC != 0, 0, call.task.limit(RLIMIT_NOFILE)).map(|fd| fd as usize)
}

fn inotify_init(call: &mut Call<'_>) -> SysResult {
    make(call, 0)
}

fn inotify_init1(call: &mut Call<'_>) -> SysResult {
    make(call, call.uint(0))
}

fn inotify_add_watch(call: &mut Call<'_>) -> SysResult {
    let mask = call.uint(2);
    if mask & IN_ALL_EVENTS == 0 || mask & (IN_MASK_ADD | IN_MASK_CREATE) == IN_MASK_ADD | IN_MASK_CREATE {
        return Err(EINVAL);
    }
    let file = call.task.files().get(call.int(0))?;
    let instance = inotify::of(&file)?;
    let path = hal::user::read_string(call.args[1], PATH_MAX)?;
    let mut walk = Walk::new(call.task);
    let location = walk.lookup(call.task.fs().cwd(), &path, mask & IN_DONT_FOLLOW == 0)?;
    if mask & IN_ONLYDIR != 0 && !is_directory(&**location.inode()) {
        return Err(ENOTDIR);
    }
    permission::check(walk.credentials(), &**location.inode(), permission::READ)?;
    let number = instance.add(&location.dentry, mask)?;
    crate::fs::host::watch(location.inode());
    Ok(number as usize)
}

fn inotify_rm_watch(call: &mut Call<'_>) -> SysResult {
    let file = call.task.files().get(call.int(0))?;
    inotify::of(&file)?.remove(call.int(1)).map(|()| 0)
}
