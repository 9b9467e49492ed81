//! User and group ids, supplementary groups, capabilities (credentials(7), capabilities(7)).

use super::{full, Call, Entry};
use crate::errno::{Errno, EFAULT, EINVAL, EPERM, ESRCH};
use crate::process::{tree, Credentials};
use crate::SysResult;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::user;
use linux_abi::capability::{
    CAP_SETGID, CAP_SETPCAP, CAP_SETUID, LINUX_CAPABILITY_VERSION_1, LINUX_CAPABILITY_VERSION_2, LINUX_CAPABILITY_VERSION_3,
};

/// NGROUPS_MAX.
const GROUPS_MOST: usize = 65_536;
/// "Leave as it is".
const KEEP: u32 = u32::MAX;

pub const CALLS: &[Entry] = &[
    full(102, "getuid", |call| Ok(call.task.credentials().uid as usize)),
    full(104, "getgid", |call| Ok(call.task.credentials().gid as usize)),
    full(105, "setuid", sys_setuid),
    full(106, "setgid", sys_setgid),
    full(107, "geteuid", |call| Ok(call.task.credentials().euid as usize)),
    full(108, "getegid", |call| Ok(call.task.credentials().egid as usize)),
    full(113, "setreuid", sys_setreuid),
    full(114, "setregid", sys_setregid),
    full(115, "getgroups", sys_getgroups),
    full(116, "setgroups", sys_setgroups),
    full(117, "setresuid", sys_setresuid),
    full(118, "getresuid", |call| store_three(call, |c| [c.uid, c.euid, c.suid])),
    full(119, "setresgid", sys_setresgid),
    full(120, "getresgid", |call| store_three(call, |c| [c.gid, c.egid, c.sgid])),
    full(122, "setfsuid", sys_setfsuid),
    full(123, "setfsgid", sys_setfsgid),
    full(125, "capget", sys_capget),
    full(126, "capset", sys_capset),
];

/// Makes changed credentials the task's. A change of the effective ids makes the process undumpable (prctl(2), PR_SET_DUMPABLE).
fn commit(call: &Call<'_>, old: &Credentials, new: Credentials) -> SysResult {
    if old.euid != new.euid || old.egid != new.egid || old.fsuid != new.fsuid || old.fsgid != new.fsgid {
        call.task.process.dumpable.store(0, Ordering::Relaxed);
        call.task.parent_death_signal.store(0, Ordering::Relaxed);
    }
    call.task.set_credentials(new);
    Ok(0)
}

fn commit_user(call: &Call<'_>, old: &Credentials, mut new: Credentials) -> SysResult {
    new.fix_capabilities(old);
    commit(call, old, new)
}

/// setuid(2).
fn sys_setuid(call: &mut Call<'_>) -> SysResult {
    let uid = call.uint(0);
    if uid == KEEP {
        return Err(EINVAL);
    }
    let old = call.task.credentials();
    let mut new = (*old).clone();
    if old.capable(CAP_SETUID) {
        new.uid = uid;
        new.suid = uid;
    } else if uid != old.uid && uid != old.suid {
        return Err(EPERM);
    }
    new.euid = uid;
    new.fsuid = uid;
    commit_user(call, &old, new)
}

/// setgid(2).
fn sys_setgid(call: &mut Call<'_>) -> SysResult {
    let gid = call.uint(0);
    if gid == KEEP {
        return Err(EINVAL);
    }
    let old = call.task.credentials();
    let mut new = (*old).clone();
    if old.capable(CAP_SETGID) {
        new.gid = gid;
        new.sgid = gid;
    } else if gid != old.gid && gid != old.sgid {
        return Err(EPERM);
    }
    new.egid = gid;
    new.fsgid = gid;
    commit(call, &old, new)
}

/// setreuid(2).
fn sys_setreuid(call: &mut Call<'_>) -> SysResult {
    let (real, effective) = (call.uint(0), call.uint(1));
    let old = call.task.credentials();
    let mut new = (*old).clone();
    let privileged = old.capable(CAP_SETUID);
    if real != KEEP {
        if real != old.uid && real != old.euid && !privileged {
            return Err(EPERM);
        }
        new.uid = real;
    }
    if effective != KEEP {
        if ![old.uid, old.euid, old.suid].contains(&effective) && !privileged {
            return Err(EPERM);
        }
        new.euid = effective;
    }
    if real != KEEP || (effective != KEEP && effective != old.uid) {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    commit_user(call, &old, new)
}

/// setregid(2).
fn sys_setregid(call: &mut Call<'_>) -> SysResult {
    let (real, effective) = (call.uint(0), call.uint(1));
    let old = call.task.credentials();
    let mut new = (*old).clone();
    let privileged = old.capable(CAP_SETGID);
    if real != KEEP {
        if real != old.gid && real != old.egid && !privileged {
            return Err(EPERM);
        }
        new.gid = real;
    }
    if effective != KEEP {
        if ![old.gid, old.egid, old.sgid].contains(&effective) && !privileged {
            return Err(EPERM);
        }
        new.egid = effective;
    }
    if real != KEEP || (effective != KEEP && effective != old.gid) {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    commit(call, &old, new)
}

/// setresuid(2).
fn sys_setresuid(call: &mut Call<'_>) -> SysResult {
    let wanted = [call.uint(0), call.uint(1), call.uint(2)];
    let old = call.task.credentials();
    let known = [old.uid, old.euid, old.suid];
    if !old.capable(CAP_SETUID) && wanted.iter().any(|id| *id != KEEP && !known.contains(id)) {
        return Err(EPERM);
    }
    let mut new = (*old).clone();
    for (slot, id) in [&mut new.uid, &mut new.euid, &mut new.suid].into_iter().zip(wanted) {
        if id != KEEP {
            *slot = id;
        }
    }
    new.fsuid = new.euid;
    commit_user(call, &old, new)
}

/// setresgid(2).
fn sys_setresgid(call: &mut Call<'_>) -> SysResult {
    let wanted = [call.uint(0), call.uint(1), call.uint(2)];
    let old = call.task.credentials();
    let known = [old.gid, old.egid, old.sgid];
    if !old.capable(CAP_SETGID) && wanted.iter().any(|id| *id != KEEP && !known.contains(id)) {
        return Err(EPERM);
    }
    let mut new = (*old).clone();
    for (slot, id) in [&mut new.gid, &mut new.egid, &mut new.sgid].into_iter().zip(wanted) {
        if id != KEEP {
            *slot = id;
        }
    }
    new.fsgid = new.egid;
    commit(call, &old, new)
}

fn store_three(call: &Call<'_>, ids: impl Fn(&Credentials) -> [u32; 3]) -> SysResult {
    for (address, id) in call.args.iter().zip(ids(&call.task.credentials())) {
        user::write(*address, &id)?;
    }
    Ok(0)
}

/// setfsuid(2): the old id, whether or not it changed.
fn sys_setfsuid(call: &mut Call<'_>) -> SysResult {
    let uid = call.uint(0);
    let old = call.task.credentials();
    let known = [old.uid, old.euid, old.suid, old.fsuid].contains(&uid);
    if uid != KEEP && uid != old.fsuid && (known || old.capable(CAP_SETUID)) {
        let mut new = Credentials { fsuid: uid, ..(*old).clone() };
        new.fix_fs_capabilities(&old);
        commit(call, &old, new)?;
    }
    Ok(old.fsuid as usize)
}

/// setfsgid(2).
fn sys_setfsgid(call: &mut Call<'_>) -> SysResult {
    let gid = call.uint(0);
    let old = call.task.credentials();
    let known = [old.gid, old.egid, old.sgid, old.fsgid].contains(&gid);
    if gid != KEEP && gid != old.fsgid && (known || old.capable(CAP_SETGID)) {
        commit(call, &old, Credentials { fsgid: gid, ..(*old).clone() })?;
    }
    Ok(old.fsgid as usize)
}

/// getgroups(2).
fn sys_getgroups(call: &mut Call<'_>) -> SysResult {
    let size = call.int(0);
    let credentials = call.task.credentials();
    let count = credentials.groups.len();
    if size < 0 || (size != 0 && (size as usize) < count) {
        return Err(EINVAL);
    }
    if size != 0 {
        let bytes: Vec<u8> = credentials.groups.iter().flat_map(|group| group.to_le_bytes()).collect();
        user::write_bytes(call.args[1], &bytes)?;
    }
    Ok(count)
}

/// setgroups(2).
fn sys_setgroups(call: &mut Call<'_>) -> SysResult {
    let old = call.task.credentials();
    if !old.capable(CAP_SETGID) {
        return Err(EPERM);
    }
    let count = call.size(0);
    if call.int(0) < 0 || count > GROUPS_MOST {
        return Err(EINVAL);
    }
    let mut groups: Vec<u32> = user::read_array(call.args[1], count)?;
    if groups.contains(&KEEP) {
        return Err(EINVAL);
    }
    groups.sort_unstable();
    call.task.set_credentials(Credentials { groups, ..(*old).clone() });
    Ok(0)
}

/// Version and words (32 capabilities each) of the structures. An unknown version is answered with the present one.
fn capability_words(header: u64) -> Result<Option<(i32, usize)>, Errno> {
    let version: u32 = user::read(header)?;
    let words = match version {
        LINUX_CAPABILITY_VERSION_1 => 1,
        LINUX_CAPABILITY_VERSION_2 | LINUX_CAPABILITY_VERSION_3 => 2,
        _ => {
            user::write(header, &LINUX_CAPABILITY_VERSION_3)?;
            return Ok(None);
        }
    };
    Ok(Some((user::read(header.checked_add(4).ok_or(EFAULT)?)?, words)))
}

/// capget(2).
fn sys_capget(call: &mut Call<'_>) -> SysResult {
    let (header, data) = (call.args[0], call.args[1]);
    let Some((pid, words)) = capability_words(header)? else {
        // A null pointer asks for the version only.
        return if data == 0 { Ok(0) } else { Err(EINVAL) };
    };
    if pid < 0 {
        return Err(EINVAL);
    }
    let task = if pid == 0 { call.task.clone() } else { tree::find_task(pid as u32).ok_or(ESRCH)? };
    if data == 0 {
        return Ok(0);
    }
    let credentials = task.credentials();
    for word in 0..words {
        let part = |set: u64| (set >> (32 * word)) as u32;
        user::write(data + word as u64 * 12, &[part(credentials.effective), part(credentials.permitted), part(credentials.inheritable)])?;
    }
    Ok(0)
}

/// capset(2).
fn sys_capset(call: &mut Call<'_>) -> SysResult {
    let Some((pid, words)) = capability_words(call.args[0])? else { return Err(EINVAL) };
    if pid != 0 && pid as u32 != call.task.tid() {
        return Err(EPERM);
    }
    let mut sets = [0u64; 3];
    for word in 0..words {
        let parts: [u32; 3] = user::read(call.args[1] + word as u64 * 12)?;
        for (set, part) in sets.iter_mut().zip(parts) {
            *set |= u64::from(part) << (32 * word);
        }
    }
    let [effective, permitted, inheritable] = sets.map(|set| set & linux_abi::capability::ALL);
    let old = call.task.credentials();
    let within = |set: u64, bound: u64| set & !bound == 0;
    let allowed = within(permitted, old.permitted)
        && within(effective, permitted)
        && within(inheritable, old.inheritable | old.bounding)
        && (old.capable(CAP_SETPCAP) || within(inheritable, old.inheritable | old.permitted));
    if !allowed {
        return Err(EPERM);
    }
    let ambient = old.ambient & permitted & inheritable;
    call.task.set_credentials(Credentials { effective, permitted, inheritable, ambient, ..(*old).clone() });
    Ok(0)
}
