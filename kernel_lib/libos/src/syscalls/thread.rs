//! Threads: ids, scheduling, robust lists, restartable sequences, prctl and arch_prctl.

use super::{full, partial, refused, Call, Entry};
use crate::errno::{Errno, E2BIG, EACCES, EBUSY, EFAULT, EINVAL, ENODEV, EPERM, ESRCH};
use crate::process::{rseq, tree, Task};
use crate::sched;
use crate::SysResult;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::user;
use linux_abi::capability::{CAP_SYS_ADMIN, CAP_SYS_NICE};
use linux_abi::process::{
    SchedAttr, ARCH_GET_CPUID, ARCH_GET_FS, ARCH_GET_GS, ARCH_GET_XCOMP_PERM, ARCH_GET_XCOMP_SUPP, ARCH_REQ_XCOMP_PERM, ARCH_SET_CPUID,
    ARCH_SET_FS, ARCH_SET_GS, CLONE_FILES, CLONE_FS, CLONE_NEWTIME, CLONE_NEW_ANY, CLONE_SIGHAND, CLONE_SYSVSEM, CLONE_THREAD, CLONE_VM,
    ROBUST_LIST_HEAD_BYTES, SCHED_BATCH, SCHED_FIFO, SCHED_IDLE, SCHED_OTHER, SCHED_RESET_ON_FORK, SCHED_RR,
};
use linux_abi::resource::{RLIMIT_NICE, RLIMIT_RTPRIO};

pub const CALLS: &[Entry] = &[
    full(24, "sched_yield", |_| {
        sched::yield_now();
        Ok(0)
    }),
    full(135, "personality", sys_personality),
    full(140, "getpriority", sys_getpriority),
    partial(141, "setpriority", sys_setpriority, "stored; every thread gets an equal share"),
    partial(142, "sched_setparam", sys_sched_setparam, "stored"),
    full(143, "sched_getparam", sys_sched_getparam),
    partial(144, "sched_setscheduler", sys_sched_setscheduler, "stored; the scheduler has one class"),
    full(145, "sched_getscheduler", |call| Ok(task_of(call, call.int(0))?.scheduling.policy.load(Ordering::Relaxed) as usize)),
    full(146, "sched_get_priority_max", |call| priority_range(call.int(0)).map(|range| range.1)),
    full(147, "sched_get_priority_min", |call| priority_range(call.int(0)).map(|range| range.0)),
    full(148, "sched_rr_get_interval", sys_sched_rr_get_interval),
    partial(158, "arch_prctl", sys_arch_prctl, "CPUID faulting, AMX permission"),
    full(203, "sched_setaffinity", sys_sched_setaffinity),
    full(204, "sched_getaffinity", sys_sched_getaffinity),
    full(218, "set_tid_address", sys_set_tid_address),
    partial(251, "ioprio_set", sys_ioprio_set, "stored"),
    full(252, "ioprio_get", sys_ioprio_get),
    partial(272, "unshare", sys_unshare, "new namespaces"),
    full(273, "set_robust_list", sys_set_robust_list),
    full(274, "get_robust_list", sys_get_robust_list),
    refused(308, "setns", sys_setns, "namespaces belong to the container as a whole"),
    full(309, "getcpu", sys_getcpu),
    partial(314, "sched_setattr", sys_sched_setattr, "stored; SCHED_DEADLINE"),
    full(315, "sched_getattr", sys_sched_getattr),
    full(324, "membarrier", sys_membarrier),
    full(334, "rseq", sys_rseq),
];

const IOPRIO_CLASS_NONE: i32 = 0;
const IOPRIO_CLASS_RT: i32 = 1;
const IOPRIO_CLASS_IDLE: i32 = 3;

/// A thread by id; 0: the caller.
fn task_of(call: &Call<'_>, tid: i32) -> Result<Arc<Task>, Errno> {
    match tid {
        0 => Ok(call.task.clone()),
        1.. => tree::find_task(tid as u32).ok_or(ESRCH),
        _ => Err(EINVAL),
    }
}

/// sched_setscheduler(2) and friends: the caller may change a thread of its own user.
fn may_change(call: &Call<'_>, target: &Task) -> Result<(), Errno> {
    let (own, other) = (call.task.credentials(), target.credentials());
    if own.euid == other.uid || own.euid == other.euid || own.capable(CAP_SYS_NICE) {
        Ok(())
    } else {
        Err(EPERM)
    }
}

/// set_tid_address(2).
fn sys_set_tid_address(call: &mut Call<'_>) -> SysResult {
    call.task.clear_child_tid.store(call.args[0], Ordering::Relaxed);
    Ok(call.task.tid() as usize)
}

/// set_robust_list(2).
fn sys_set_robust_list(call: &mut Call<'_>) -> SysResult {
    if call.size(1) != ROBUST_LIST_HEAD_BYTES {
        return Err(EINVAL);
    }
    call.task.robust_list.store(call.args[0], Ordering::Relaxed);
    Ok(0)
}

fn sys_get_robust_list(call: &mut Call<'_>) -> SysResult {
    let task = task_of(call, call.int(0)).map_err(|_| ESRCH)?;
    may_change(call, &task)?;
    user::write(call.args[2], &(ROBUST_LIST_HEAD_BYTES as u64))?;
    user::write(call.args[1], &task.robust_list.load(Ordering::Relaxed))?;
    Ok(0)
}

/// rseq(2).
fn sys_rseq(call: &mut Call<'_>) -> SysResult {
    const UNREGISTER: i32 = 1;
    const BYTES: u32 = 32;
    let (address, bytes, flags, signature) = (call.args[0], call.uint(1), call.int(2), call.uint(3));
    let (known, known_bytes, known_signature) = call.task.rseq.get();
    if flags & UNREGISTER != 0 {
        if flags != UNREGISTER || known == 0 || known != address || bytes != known_bytes {
            return Err(EINVAL);
        }
        if signature != known_signature {
            return Err(EPERM);
        }
        rseq::forget(address)?;
        call.task.rseq.set(0, 0, 0);
        return Ok(0);
    }
    if flags != 0 {
        return Err(EINVAL);
    }
    if known != 0 {
        if known != address || bytes != known_bytes {
            return Err(EINVAL);
        }
        return Err(if signature == known_signature { EBUSY } else { EPERM });
    }
    if address & 31 != 0 || bytes != BYTES {
        return Err(EINVAL);
    }
    if address.checked_add(u64::from(bytes)).is_none_or(|end| end > abi::layout::LIBOS_BASE) {
        return Err(EFAULT);
    }
    call.task.rseq.set(address, bytes, signature);
    Ok(0)
}

/// arch_prctl(2).
fn sys_arch_prctl(call: &mut Call<'_>) -> SysResult {
    let (code, value) = (call.int(0), call.args[1]);
    let thread = &call.task.thread;
    match code {
        ARCH_SET_FS | ARCH_SET_GS if value >= abi::layout::LIBOS_BASE => Err(EPERM),
        ARCH_SET_FS => {
            thread.set_fs_base(value);
            Ok(0)
        }
        ARCH_SET_GS => {
            if let Some(memory) = call.task.memory() {
                memory.leave_trampoline(call.context);
                memory.forbid_patches();
            }
            thread.set_gs_base(value);
            Ok(0)
        }
        ARCH_GET_FS => user::write(value, &thread.fs_base()).map(|()| 0),
        ARCH_GET_GS => user::write(value, &thread.gs_base()).map(|()| 0),
        ARCH_GET_CPUID => Ok(1),
        ARCH_SET_CPUID => Err(ENODEV),
        ARCH_GET_XCOMP_SUPP | ARCH_GET_XCOMP_PERM => user::write(value, &hal::xstate::features().0).map(|()| 0),
        ARCH_REQ_XCOMP_PERM => {
            let has = value < 64 && hal::xstate::features().0 & 1 << value != 0;
            if has {
                Ok(0)
            } else {
                Err(crate::errno::EOPNOTSUPP)
            }
        }
        _ => Err(EINVAL),
    }
}

/// personality(2).
fn sys_personality(call: &mut Call<'_>) -> SysResult {
    const QUERY: u32 = u32::MAX;
    let wanted = call.uint(0);
    let old = call.task.personality.load(Ordering::Relaxed);
    if wanted != QUERY {
        call.task.personality.store(wanted, Ordering::Relaxed);
    }
    Ok(old as usize)
}

/// unshare(2).
fn sys_unshare(call: &mut Call<'_>) -> SysResult {
    let flags = call.args[0];
    let own = CLONE_FILES | CLONE_FS | CLONE_SYSVSEM | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM;
    if flags & !(own | CLONE_NEW_ANY | CLONE_NEWTIME) != 0 {
        return Err(EINVAL);
    }
    if flags & (CLONE_NEW_ANY | CLONE_NEWTIME) != 0 {
        return Err(EPERM);
    }
    let alone = call.task.process.threads.lock().len() == 1;
    if flags & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM) != 0 && !alone {
        return Err(EINVAL);
    }
    if flags & CLONE_FILES != 0 {
        drop(call.task.set_files(Some(call.task.files().duplicate()?)));
    }
    if flags & CLONE_FS != 0 {
        drop(call.task.set_fs(Some(call.task.fs().duplicate())));
    }
    Ok(0)
}

/// setns(2): no namespace can be named, so any open descriptor is the wrong one.
fn sys_setns(call: &mut Call<'_>) -> SysResult {
    call.task.files().get(call.int(0))?;
    Err(EINVAL)
}

/// getcpu(2).
fn sys_getcpu(call: &mut Call<'_>) -> SysResult {
    if call.args[0] != 0 {
        user::write(call.args[0], &(hal::cpu::id() as u32))?;
    }
    if call.args[1] != 0 {
        user::write(call.args[1], &0u32)?;
    }
    Ok(0)
}

/// sched_setaffinity(2).
fn sys_sched_setaffinity(call: &mut Call<'_>) -> SysResult {
    let task = task_of(call, call.int(0)).map_err(|_| ESRCH)?;
    let mut bytes = [0; 8];
    let given = call.size(1).min(8);
    user::read_bytes(call.args[2], &mut bytes[..given])?;
    may_change(call, &task)?;
    let there = u64::MAX >> (64 - hal::cpu::count());
    let mask = u64::from_le_bytes(bytes) & there;
    if mask == 0 {
        return Err(EINVAL);
    }
    // 0 is the scheduler's "all".
    task.sched.affinity.store(if mask == there { 0 } else { mask }, Ordering::Relaxed);
    if Arc::ptr_eq(&task, call.task) {
        sched::leave_forbidden_cpu();
    } else {
        sched::kick(&task);
    }
    Ok(0)
}

/// sched_getaffinity(2): bytes written.
fn sys_sched_getaffinity(call: &mut Call<'_>) -> SysResult {
    const BYTES: usize = 8;
    let bytes = call.size(1);
    if bytes < BYTES || !bytes.is_multiple_of(BYTES) {
        return Err(EINVAL);
    }
    let task = task_of(call, call.int(0)).map_err(|_| ESRCH)?;
    let there = u64::MAX >> (64 - hal::cpu::count());
    let mask = match task.sched.affinity.load(Ordering::Relaxed) {
        0 => there,
        mask => mask & there,
    };
    user::write(call.args[2], &mask)?;
    Ok(BYTES)
}

fn priority_range(policy: i32) -> Result<(usize, usize), Errno> {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok((1, 99)),
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE | linux_abi::process::SCHED_DEADLINE => Ok((0, 0)),
        _ => Err(EINVAL),
    }
}

/// Stores policy and priority, with the checks of sched_setscheduler(2) and sched(7).
fn set_policy(call: &Call<'_>, task: &Task, policy: i32, priority: i32) -> SysResult {
    let class = policy & !SCHED_RESET_ON_FORK;
    let (low, high) = priority_range(class)?;
    if class == linux_abi::process::SCHED_DEADLINE || priority < low as i32 || priority > high as i32 {
        return Err(EINVAL);
    }
    may_change(call, task)?;
    let real_time = class == SCHED_FIFO || class == SCHED_RR;
    if real_time && !call.task.capable(CAP_SYS_NICE) && task.limit(RLIMIT_RTPRIO) < priority as u64 {
        return Err(EPERM);
    }
    task.scheduling.policy.store(policy, Ordering::Relaxed);
    task.scheduling.priority.store(priority, Ordering::Relaxed);
    Ok(0)
}

fn sys_sched_setscheduler(call: &mut Call<'_>) -> SysResult {
    if call.int(1) < 0 || call.args[2] == 0 || call.int(0) < 0 {
        return Err(EINVAL);
    }
    let priority: i32 = user::read(call.args[2])?;
    let task = task_of(call, call.int(0))?;
    set_policy(call, &task, call.int(1), priority)
}

fn sys_sched_setparam(call: &mut Call<'_>) -> SysResult {
    if call.args[1] == 0 || call.int(0) < 0 {
        return Err(EINVAL);
    }
    let priority: i32 = user::read(call.args[1])?;
    let task = task_of(call, call.int(0))?;
    set_policy(call, &task, task.scheduling.policy.load(Ordering::Relaxed), priority)
}

fn sys_sched_getparam(call: &mut Call<'_>) -> SysResult {
    if call.args[1] == 0 {
        return Err(EINVAL);
    }
    let task = task_of(call, call.int(0))?;
    user::write(call.args[1], &task.scheduling.priority.load(Ordering::Relaxed)).map(|()| 0)
}

fn sys_sched_rr_get_interval(call: &mut Call<'_>) -> SysResult {
    const SLICE_NS: u64 = 4_000_000;
    let task = task_of(call, call.int(0))?;
    let class = task.scheduling.policy.load(Ordering::Relaxed) & !SCHED_RESET_ON_FORK;
    let ns = if class == SCHED_FIFO { 0 } else { SLICE_NS };
    user::write(call.args[1], &linux_abi::time::Timespec::from_ns(ns)).map(|()| 0)
}

/// sched_setattr(2).
fn sys_sched_setattr(call: &mut Call<'_>) -> SysResult {
    if call.args[1] == 0 || call.int(0) < 0 || call.args[2] != 0 {
        return Err(EINVAL);
    }
    let bytes: u32 = user::read(call.args[1])?;
    let bytes = if bytes == 0 { 48 } else { bytes as usize };
    if bytes < 48 {
        return Err(E2BIG);
    }
    let attributes: SchedAttr = super::read_versioned(call.args[1], bytes)?;
    let task = task_of(call, call.int(0))?;
    let reset = if attributes.flags & 1 != 0 { SCHED_RESET_ON_FORK } else { 0 };
    set_policy(call, &task, attributes.policy as i32 | reset, attributes.priority as i32)?;
    if matches!(attributes.policy as i32, SCHED_OTHER | SCHED_BATCH) {
        set_nice(call, &task, attributes.nice)?;
    }
    Ok(0)
}

/// sched_getattr(2).
fn sys_sched_getattr(call: &mut Call<'_>) -> SysResult {
    if call.args[1] == 0 || call.size(2) < 48 || call.args[3] != 0 {
        return Err(EINVAL);
    }
    let task = task_of(call, call.int(0))?;
    let policy = task.scheduling.policy.load(Ordering::Relaxed);
    let attributes = SchedAttr {
        size: 48,
        policy: (policy & !SCHED_RESET_ON_FORK) as u32,
        flags: u64::from(policy & SCHED_RESET_ON_FORK != 0),
        nice: task.scheduling.nice.load(Ordering::Relaxed),
        priority: task.scheduling.priority.load(Ordering::Relaxed) as u32,
        ..SchedAttr::default()
    };
    user::write(call.args[1], &attributes).map(|()| 0)
}

/// Threads that getpriority(2) and setpriority(2) mean.
fn chosen(call: &Call<'_>) -> Result<Vec<Arc<Task>>, Errno> {
    chosen_by(call, call.int(0))
}

fn chosen_by(call: &Call<'_>, kind: i32) -> Result<Vec<Arc<Task>>, Errno> {
    const PRIO_PROCESS: i32 = 0;
    const PRIO_PGRP: i32 = 1;
    const PRIO_USER: i32 = 2;
    let id = call.uint(1);
    let found: Vec<Arc<Task>> = match kind {
        PRIO_PROCESS => task_of(call, id as i32).map_err(|_| ESRCH).map(|task| alloc::vec![task])?,
        PRIO_PGRP => {
            let group = if id == 0 { call.task.process.group() } else { id };
            tree::group(group).iter().flat_map(|process| process.thread_list()).collect()
        }
        PRIO_USER => {
            let user = if id == 0 { call.task.credentials().uid } else { id };
            let all = tree::processes();
            all.iter().flat_map(|process| process.thread_list()).filter(|task| task.credentials().uid == user).collect()
        }
        _ => return Err(EINVAL),
    };
    if found.is_empty() {
        Err(ESRCH)
    } else {
        Ok(found)
    }
}

/// getpriority(2): 20 - nice, the largest of all.
fn sys_getpriority(call: &mut Call<'_>) -> SysResult {
    let lowest = chosen(call)?.iter().map(|task| task.scheduling.nice.load(Ordering::Relaxed)).min().unwrap_or(0);
    Ok((20 - lowest) as usize)
}

fn set_nice(call: &Call<'_>, task: &Task, nice: i32) -> Result<(), Errno> {
    let nice = nice.clamp(-20, 19);
    may_change(call, task)?;
    let floor = 20 - task.limit(RLIMIT_NICE).min(40) as i32;
    if nice < task.scheduling.nice.load(Ordering::Relaxed) && nice < floor && !call.task.capable(CAP_SYS_NICE) {
        return Err(EACCES);
    }
    task.scheduling.nice.store(nice, Ordering::Relaxed);
    Ok(())
}

fn sys_setpriority(call: &mut Call<'_>) -> SysResult {
    let mut result = Ok(0);
    for task in chosen(call)? {
        if let Err(errno) = set_nice(call, &task, call.int(2)) {
            result = Err(errno);
        }
    }
    result
}

/// ioprio_set(2): the kinds of target count from 1, otherwise as those of setpriority(2).
fn sys_ioprio_set(call: &mut Call<'_>) -> SysResult {
    let wanted = call.int(2);
    // Between class and level are hints, which mean nothing here.
    let (class, level) = (wanted >> 13, wanted & 7);
    match class {
        IOPRIO_CLASS_RT if !call.task.capable(CAP_SYS_NICE) && !call.task.capable(CAP_SYS_ADMIN) => return Err(EPERM),
        IOPRIO_CLASS_NONE if level != 0 => return Err(EINVAL),
        IOPRIO_CLASS_NONE..=IOPRIO_CLASS_IDLE => {}
        _ => return Err(EINVAL),
    }
    for task in chosen_by(call, call.int(0).wrapping_sub(1))? {
        may_change(call, &task)?;
        task.scheduling.io_priority.store(wanted, Ordering::Relaxed);
    }
    Ok(0)
}

/// ioprio_get(2): the best of all.
fn sys_ioprio_get(call: &mut Call<'_>) -> SysResult {
    let targets = chosen_by(call, call.int(0).wrapping_sub(1))?;
    Ok(targets.iter().map(|task| task.scheduling.io_priority.load(Ordering::Relaxed)).min().unwrap_or(0) as usize)
}

/// membarrier(2).
fn sys_membarrier(call: &mut Call<'_>) -> SysResult {
    const GLOBAL: i32 = 1;
    const GLOBAL_EXPEDITED: i32 = 2;
    const REGISTER_GLOBAL_EXPEDITED: i32 = 4;
    const PRIVATE_EXPEDITED: i32 = 8;
    const REGISTER_PRIVATE_EXPEDITED: i32 = 16;
    const PRIVATE_EXPEDITED_SYNC_CORE: i32 = 32;
    const REGISTER_SYNC_CORE: i32 = 64;
    const EVERY: i32 = GLOBAL
        | GLOBAL_EXPEDITED
        | REGISTER_GLOBAL_EXPEDITED
        | PRIVATE_EXPEDITED
        | REGISTER_PRIVATE_EXPEDITED
        | PRIVATE_EXPEDITED_SYNC_CORE
        | REGISTER_SYNC_CORE;
    let registered = &call.task.process.membarrier;
    if call.args[1] != 0 {
        return Err(EINVAL);
    }
    match call.int(0) {
        0 => Ok(EVERY as usize),
        REGISTER_GLOBAL_EXPEDITED => Ok(0),
        command @ (REGISTER_PRIVATE_EXPEDITED | REGISTER_SYNC_CORE) => {
            registered.fetch_or(command as u32, Ordering::SeqCst);
            Ok(0)
        }
        // The commands' registrations are the next bits.
        command @ (PRIVATE_EXPEDITED | PRIVATE_EXPEDITED_SYNC_CORE) if registered.load(Ordering::SeqCst) & (command as u32) << 1 == 0 => {
            Err(EPERM)
        }
        GLOBAL | GLOBAL_EXPEDITED | PRIVATE_EXPEDITED | PRIVATE_EXPEDITED_SYNC_CORE => {
            hal::cpu::synchronize(sched::started_cpus());
            Ok(0)
        }
        _ => Err(EINVAL),
    }
}
