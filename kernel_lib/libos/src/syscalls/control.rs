//! prctl(2) and seccomp(2).

use super::{partial, Call, Entry};
use crate::errno::{Errno, EACCES, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP, EPERM, ESRCH};
use crate::process::bpf::Program;
use crate::process::{seccomp, Credentials};
use crate::SysResult;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::user;
use linux_abi::capability::{
    CAP_LAST_CAP, CAP_SETPCAP, CAP_SYS_ADMIN, CAP_SYS_RESOURCE, SECBIT_KEEP_CAPS, SECBIT_KEEP_CAPS_LOCKED, SECBIT_NO_CAP_AMBIENT_RAISE,
};
use linux_abi::seccomp::{
    SockFilter, SockFprog, BPF_MAXINSNS, SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_TSYNC_ESRCH, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, SECCOMP_GET_ACTION_AVAIL,
    SECCOMP_GET_NOTIF_SIZES, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT, SECCOMP_SET_MODE_FILTER, SECCOMP_SET_MODE_STRICT,
};

pub const CALLS: &[Entry] = &[
    partial(157, "prctl", sys_prctl, "speculation and core scheduling controls, syscall user dispatch"),
    partial(317, "seccomp", sys_seccomp, "user notification"),
];

const PR_SET_PDEATHSIG: i32 = 1;
const PR_GET_PDEATHSIG: i32 = 2;
const PR_GET_DUMPABLE: i32 = 3;
const PR_SET_DUMPABLE: i32 = 4;
const PR_GET_KEEPCAPS: i32 = 7;
const PR_SET_KEEPCAPS: i32 = 8;
const PR_GET_TIMING: i32 = 13;
const PR_SET_TIMING: i32 = 14;
const PR_SET_NAME: i32 = 15;
const PR_GET_NAME: i32 = 16;
const PR_GET_SECCOMP: i32 = 21;
const PR_SET_SECCOMP: i32 = 22;
const PR_CAPBSET_READ: i32 = 23;
const PR_CAPBSET_DROP: i32 = 24;
const PR_GET_TSC: i32 = 25;
const PR_SET_TSC: i32 = 26;
const PR_GET_SECUREBITS: i32 = 27;
const PR_SET_SECUREBITS: i32 = 28;
const PR_SET_TIMERSLACK: i32 = 29;
const PR_GET_TIMERSLACK: i32 = 30;
const PR_MCE_KILL: i32 = 33;
const PR_MCE_KILL_GET: i32 = 34;
const PR_SET_MM: i32 = 35;
const PR_SET_CHILD_SUBREAPER: i32 = 36;
const PR_GET_CHILD_SUBREAPER: i32 = 37;
const PR_SET_NO_NEW_PRIVS: i32 = 38;
const PR_GET_NO_NEW_PRIVS: i32 = 39;
const PR_GET_TID_ADDRESS: i32 = 40;
const PR_SET_THP_DISABLE: i32 = 41;
const PR_GET_THP_DISABLE: i32 = 42;
const PR_CAP_AMBIENT: i32 = 47;
const PR_GET_SPECULATION_CTRL: i32 = 52;
const PR_SET_SPECULATION_CTRL: i32 = 53;
const PR_SET_PTRACER: i32 = 0x5961_6d61;
const PR_SET_VMA: i32 = 0x5356_4d41;

/// prctl(2).
fn sys_prctl(call: &mut Call<'_>) -> SysResult {
    let task = call.task;
    let process = &task.process;
    let value = call.args[1];
    let rest_is_zero = call.args[2..5].iter().all(|&argument| argument == 0);
    match call.int(0) {
        PR_SET_PDEATHSIG if value > 64 => Err(EINVAL),
        PR_SET_PDEATHSIG => {
            task.parent_death_signal.store(value as u32, Ordering::Relaxed);
            Ok(0)
        }
        PR_GET_PDEATHSIG => user::write(value, &task.parent_death_signal.load(Ordering::Relaxed)).map(|()| 0),
        PR_GET_DUMPABLE => Ok(process.dumpable.load(Ordering::Relaxed) as usize),
        PR_SET_DUMPABLE if value > 1 => Err(EINVAL),
        PR_SET_DUMPABLE => {
            process.dumpable.store(value as u32, Ordering::Relaxed);
            Ok(0)
        }
        PR_GET_KEEPCAPS => Ok(usize::from(task.credentials().securebits & SECBIT_KEEP_CAPS != 0)),
        PR_SET_KEEPCAPS => set_keep_capabilities(call, value),
        PR_GET_TIMING => Ok(0),
        PR_SET_TIMING => {
            if value == 0 {
                Ok(0)
            } else {
                Err(EINVAL)
            }
        }
        PR_SET_NAME => {
            let mut name = [0; 16];
            let got = read_name(value, &mut name)?;
            task.set_comm(&name[..got]);
            Ok(0)
        }
        PR_GET_NAME => user::write(value, &*task.name.lock()).map(|()| 0),
        PR_GET_SECCOMP => Ok(task.seccomp.mode() as usize),
        PR_SET_SECCOMP => match value as u32 {
            SECCOMP_MODE_STRICT => set_strict(call),
            SECCOMP_MODE_FILTER => set_filter(call, 0, call.args[2]),
            _ => Err(EINVAL),
        },
        PR_CAPBSET_READ if value > u64::from(CAP_LAST_CAP) => Err(EINVAL),
        PR_CAPBSET_READ => Ok(usize::from(task.credentials().bounding & 1 << value != 0)),
        PR_CAPBSET_DROP => drop_bounding(call, value),
        PR_GET_TSC => user::write(value, &1u32).map(|()| 0),
        PR_SET_TSC => {
            if value == 1 {
                Ok(0)
            } else {
                Err(EINVAL)
            }
        }
        PR_GET_SECUREBITS => Ok(task.credentials().securebits as usize),
        PR_SET_SECUREBITS => set_securebits(call, value as u32),
        PR_SET_TIMERSLACK => {
            task.timer_slack.set(value);
            Ok(0)
        }
        PR_GET_TIMERSLACK => Ok(task.timer_slack.get() as usize),
        PR_MCE_KILL | PR_MCE_KILL_GET => Ok(0),
        PR_SET_MM => set_memory_marks(call),
        PR_SET_CHILD_SUBREAPER => {
            process.subreaper.store(value != 0, Ordering::Relaxed);
            Ok(0)
        }
        PR_GET_CHILD_SUBREAPER => user::write(value, &u32::from(process.subreaper.load(Ordering::Relaxed))).map(|()| 0),
        PR_SET_NO_NEW_PRIVS if value != 1 || !rest_is_zero => Err(EINVAL),
        PR_SET_NO_NEW_PRIVS => {
            task.no_new_privs.store(true, Ordering::Relaxed);
            Ok(0)
        }
        PR_GET_NO_NEW_PRIVS if value != 0 || !rest_is_zero => Err(EINVAL),
        PR_GET_NO_NEW_PRIVS => Ok(usize::from(task.no_new_privs.load(Ordering::Relaxed))),
        PR_GET_TID_ADDRESS => user::write(value, &task.clear_child_tid.load(Ordering::Relaxed)).map(|()| 0),
        PR_SET_THP_DISABLE if !rest_is_zero => Err(EINVAL),
        PR_SET_THP_DISABLE => Ok(0),
        PR_GET_THP_DISABLE if value != 0 || !rest_is_zero => Err(EINVAL),
        PR_GET_THP_DISABLE => Ok(0),
        PR_CAP_AMBIENT => ambient(call, value, call.args[2]),
        PR_GET_SPECULATION_CTRL if !rest_is_zero => Err(EINVAL),
        PR_SET_SPECULATION_CTRL if call.args[3] != 0 || call.args[4] != 0 => Err(EINVAL),
        PR_GET_SPECULATION_CTRL | PR_SET_SPECULATION_CTRL => Err(crate::errno::ENODEV),
        PR_SET_PTRACER => Ok(0),
        // The name of an anonymous mapping: as a Linux without CONFIG_ANON_VMA_NAME.
        PR_SET_VMA => Err(EINVAL),
        _ => Err(EINVAL),
    }
}

/// Up to 16 bytes, ending at a NUL if there is one before.
fn read_name(address: u64, name: &mut [u8; 16]) -> Result<usize, Errno> {
    for (index, byte) in name.iter_mut().enumerate() {
        let [found]: [u8; 1] = user::read(address.checked_add(index as u64).ok_or(EFAULT)?)?;
        *byte = found;
        if found == 0 {
            return Ok(index);
        }
    }
    Ok(name.len())
}

fn change(call: &Call<'_>, change: impl FnOnce(&mut Credentials)) -> SysResult {
    let mut new = (*call.task.credentials()).clone();
    change(&mut new);
    call.task.set_credentials(new);
    Ok(0)
}

fn set_keep_capabilities(call: &Call<'_>, value: u64) -> SysResult {
    if value > 1 {
        return Err(EINVAL);
    }
    if call.task.credentials().securebits & SECBIT_KEEP_CAPS_LOCKED != 0 {
        return Err(EPERM);
    }
    change(call, |new| new.securebits = new.securebits & !SECBIT_KEEP_CAPS | if value == 1 { SECBIT_KEEP_CAPS } else { 0 })
}

fn drop_bounding(call: &Call<'_>, capability: u64) -> SysResult {
    if !call.task.capable(CAP_SETPCAP) {
        return Err(EPERM);
    }
    if capability > u64::from(CAP_LAST_CAP) {
        return Err(EINVAL);
    }
    change(call, |new| new.bounding &= !(1 << capability))
}

/// capabilities(7), "The securebits flags": locked bits stay.
fn set_securebits(call: &Call<'_>, bits: u32) -> SysResult {
    const EVERY: u32 = 0xff;
    const LOCKS: u32 = 0xaa;
    let old = call.task.credentials().securebits;
    let locked = (old & LOCKS) >> 1 | old & LOCKS;
    if bits & !EVERY != 0 || (old ^ bits) & locked != 0 || !call.task.capable(CAP_SETPCAP) {
        return Err(EPERM);
    }
    change(call, |new| new.securebits = bits)
}

/// PR_CAP_AMBIENT.
fn ambient(call: &Call<'_>, operation: u64, capability: u64) -> SysResult {
    const IS_SET: u64 = 1;
    const RAISE: u64 = 2;
    const LOWER: u64 = 3;
    const CLEAR_ALL: u64 = 4;
    if call.args[3] != 0 || call.args[4] != 0 {
        return Err(EINVAL);
    }
    if operation == CLEAR_ALL {
        return if capability == 0 { change(call, |new| new.ambient = 0) } else { Err(EINVAL) };
    }
    if capability > u64::from(CAP_LAST_CAP) {
        return Err(EINVAL);
    }
    let credentials = call.task.credentials();
    let bit = 1 << capability;
    match operation {
        IS_SET => Ok(usize::from(credentials.ambient & bit != 0)),
        RAISE => {
            let allowed =
                credentials.permitted & credentials.inheritable & bit != 0 && credentials.securebits & SECBIT_NO_CAP_AMBIENT_RAISE == 0;
            if allowed {
                change(call, |new| new.ambient |= bit)
            } else {
                Err(EPERM)
            }
        }
        LOWER => change(call, |new| new.ambient &= !bit),
        _ => Err(EINVAL),
    }
}

/// PR_SET_MM: the marks that /proc shows (setproctitle of some programs).
fn set_memory_marks(call: &Call<'_>) -> SysResult {
    if !call.task.capable(CAP_SYS_RESOURCE) {
        return Err(EPERM);
    }
    let address = call.args[2];
    if address >= abi::layout::LIBOS_BASE {
        return Err(EINVAL);
    }
    let memory = call.task.memory().ok_or(ESRCH)?;
    let mut known = true;
    memory.set_layout(|layout| match call.args[1] {
        1 => layout.start_code = address,
        2 => layout.end_code = address,
        3 => layout.start_data = address,
        4 => layout.end_data = address,
        5 => layout.start_stack = address,
        8 => layout.arg_start = address,
        9 => layout.arg_end = address,
        10 => layout.env_start = address,
        11 => layout.env_end = address,
        _ => known = false,
    });
    if known {
        Ok(0)
    } else {
        Err(EINVAL)
    }
}

/// seccomp(2).
fn sys_seccomp(call: &mut Call<'_>) -> SysResult {
    let (operation, flags, argument) = (call.uint(0), call.args[1], call.args[2]);
    match operation {
        SECCOMP_SET_MODE_STRICT if flags != 0 || argument != 0 => Err(EINVAL),
        SECCOMP_SET_MODE_STRICT => set_strict(call),
        SECCOMP_SET_MODE_FILTER => set_filter(call, flags & u64::from(u32::MAX), argument),
        SECCOMP_GET_ACTION_AVAIL if flags != 0 => Err(EINVAL),
        SECCOMP_GET_ACTION_AVAIL => {
            let action: u32 = user::read(argument)?;
            if seccomp::is_available(action) {
                Ok(0)
            } else {
                Err(EOPNOTSUPP)
            }
        }
        SECCOMP_GET_NOTIF_SIZES if flags != 0 => Err(EINVAL),
        SECCOMP_GET_NOTIF_SIZES => user::write(argument, &[80u16, 24, 64]).map(|()| 0),
        _ => Err(EINVAL),
    }
}

fn set_strict(call: &Call<'_>) -> SysResult {
    if call.task.seccomp.mode() == SECCOMP_MODE_FILTER {
        return Err(EINVAL);
    }
    call.task.seccomp.set_strict();
    Ok(0)
}

fn set_filter(call: &Call<'_>, flags: u64, address: u64) -> SysResult {
    /// MAX_INSNS_PER_PATH.
    const PATH_MOST: usize = 32_768;
    const KNOWN: u64 = SECCOMP_FILTER_FLAG_TSYNC
        | SECCOMP_FILTER_FLAG_LOG
        | SECCOMP_FILTER_FLAG_SPEC_ALLOW
        | SECCOMP_FILTER_FLAG_NEW_LISTENER
        | SECCOMP_FILTER_FLAG_TSYNC_ESRCH
        | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let task = call.task;
    let both = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_NEW_LISTENER;
    if flags & !KNOWN != 0
        || (flags & both == both && flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH == 0)
        || task.seccomp.mode() == SECCOMP_MODE_STRICT
    {
        return Err(EINVAL);
    }
    // Nobody would listen.
    if flags & (SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) != 0 {
        return Err(EINVAL);
    }
    let program: SockFprog = user::read(address)?;
    if program.len == 0 || usize::from(program.len) > BPF_MAXINSNS {
        return Err(EINVAL);
    }
    if !task.no_new_privs.load(Ordering::Relaxed) && !task.capable(CAP_SYS_ADMIN) {
        return Err(EACCES);
    }
    let code: Vec<SockFilter> = user::read_array(program.filter, usize::from(program.len))?;
    let weight = task.seccomp.filter().map_or(0, |filter| filter.weight);
    if weight + code.len() > PATH_MOST {
        return Err(ENOMEM);
    }
    let program = Program::check(code).ok_or(EINVAL)?;
    if flags & SECCOMP_FILTER_FLAG_TSYNC == 0 {
        task.seccomp.push_program(program);
        return Ok(0);
    }
    let others: Vec<_> = task.process.thread_list().into_iter().filter(|other| other.tid() != task.tid()).collect();
    if let Some(stranger) = others.iter().find(|other| !other.seccomp.is_ancestor_of(&task.seccomp)) {
        return if flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH != 0 { Err(ESRCH) } else { Ok(stranger.tid() as usize) };
    }
    task.seccomp.push_program(program);
    for other in others {
        other.seccomp.synchronize(&task.seccomp);
        if task.no_new_privs.load(Ordering::Relaxed) {
            other.no_new_privs.store(true, Ordering::Relaxed);
        }
    }
    Ok(0)
}
