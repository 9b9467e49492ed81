//! The machine: names, memory, limits, usage, randomness; and what a container has no business with.

use super::{full, partial, refused, Call, Entry};
use crate::errno::{Errno, EFAULT, EINVAL, ENOSYS, EPERM, ESRCH};
use crate::mm::reclaim;
use crate::process::{accounting, random, tree, Task};
use crate::system;
use crate::SysResult;
use alloc::sync::Arc;
use hal::user;
use linux_abi::capability::{CAP_SYS_ADMIN, CAP_SYS_RESOURCE};
use linux_abi::process::{Sysinfo, Utsname};
use linux_abi::resource::{Rlimit, RLIMIT_CPU, RLIM_NLIMITS, RUSAGE_CHILDREN, RUSAGE_SELF, RUSAGE_THREAD};

pub const CALLS: &[Entry] = &[
    full(63, "uname", sys_uname),
    full(97, "getrlimit", sys_getrlimit),
    full(98, "getrusage", sys_getrusage),
    full(99, "sysinfo", sys_sysinfo),
    partial(103, "syslog", sys_syslog, "an empty log"),
    refused(134, "uselib", |_| Err(ENOSYS), "no a.out"),
    refused(136, "ustat", |_| Err(ENOSYS), "deprecated"),
    refused(153, "vhangup", |_| Err(EPERM), "as without CAP_SYS_TTY_CONFIG"),
    refused(154, "modify_ldt", |_| Err(ENOSYS), "no 16-bit segments"),
    refused(156, "_sysctl", |_| Err(ENOSYS), "removed from Linux"),
    full(160, "setrlimit", sys_setrlimit),
    refused(163, "acct", |_| Err(EPERM), "as without CAP_SYS_PACCT"),
    refused(169, "reboot", |_| Err(EPERM), "as without CAP_SYS_BOOT"),
    full(170, "sethostname", |call| set_name(call, system::set_hostname)),
    full(171, "setdomainname", |call| set_name(call, system::set_domainname)),
    refused(172, "iopl", |_| Err(EPERM), "as without CAP_SYS_RAWIO"),
    refused(173, "ioperm", |_| Err(EPERM), "as without CAP_SYS_RAWIO"),
    refused(175, "init_module", |_| Err(EPERM), "as without CAP_SYS_MODULE"),
    refused(176, "delete_module", |_| Err(EPERM), "as without CAP_SYS_MODULE"),
    refused(246, "kexec_load", |_| Err(EPERM), "as without CAP_SYS_BOOT"),
    refused(248, "add_key", |_| Err(ENOSYS), "no keyrings"),
    refused(249, "request_key", |_| Err(ENOSYS), "no keyrings"),
    refused(250, "keyctl", |_| Err(ENOSYS), "no keyrings"),
    refused(298, "perf_event_open", |_| Err(EPERM), "as with perf_event_paranoid 3"),
    full(302, "prlimit64", sys_prlimit),
    refused(313, "finit_module", |_| Err(EPERM), "as without CAP_SYS_MODULE"),
    full(318, "getrandom", sys_getrandom),
    refused(320, "kexec_file_load", |_| Err(EPERM), "as without CAP_SYS_BOOT"),
    refused(321, "bpf", |_| Err(EPERM), "as with unprivileged_bpf_disabled"),
    refused(425, "io_uring_setup", |_| Err(ENOSYS), "as container profiles have it"),
    refused(426, "io_uring_enter", |_| Err(ENOSYS), "as container profiles have it"),
    refused(427, "io_uring_register", |_| Err(ENOSYS), "as container profiles have it"),
    refused(444, "landlock_create_ruleset", |_| Err(ENOSYS), "no Landlock"),
    refused(445, "landlock_add_rule", |_| Err(ENOSYS), "no Landlock"),
    refused(446, "landlock_restrict_self", |_| Err(ENOSYS), "no Landlock"),
];

/// uname(2).
fn sys_uname(call: &mut Call<'_>) -> SysResult {
    let mut name =
        Utsname { sysname: [0; 65], nodename: [0; 65], release: [0; 65], version: [0; 65], machine: [0; 65], domainname: [0; 65] };
    let fields = [&mut name.sysname, &mut name.nodename, &mut name.release, &mut name.version, &mut name.machine, &mut name.domainname];
    let hostname = system::hostname();
    let domainname = system::domainname();
    let texts = [system::SYSNAME, &hostname, system::RELEASE, system::VERSION, system::MACHINE, &domainname];
    for (field, text) in fields.into_iter().zip(texts) {
        for (to, from) in field.iter_mut().take(64).zip(text.bytes()) {
            *to = from;
        }
    }
    user::write(call.args[0], &name).map(|()| 0)
}

/// sethostname(2), setdomainname(2).
fn set_name(call: &Call<'_>, set: fn(&[u8])) -> SysResult {
    const MOST: usize = 64;
    if !call.task.capable(CAP_SYS_ADMIN) {
        return Err(EPERM);
    }
    let bytes = call.size(1);
    if call.int(1) < 0 || bytes > MOST {
        return Err(EINVAL);
    }
    let mut text = [0; MOST];
    user::read_bytes(call.args[0], &mut text[..bytes])?;
    set(&text[..bytes]);
    Ok(0)
}

/// sysinfo(2).
fn sys_sysinfo(call: &mut Call<'_>) -> SysResult {
    let info = Sysinfo {
        uptime: crate::fs::container_age().div_ceil(1_000_000_000) as i64,
        totalram: reclaim::total(),
        freeram: reclaim::free(),
        procs: tree::count().min(u32::from(u16::MAX)) as u16,
        mem_unit: 1,
        ..Sysinfo::default()
    };
    user::write(call.args[0], &info).map(|()| 0)
}

/// getrandom(2).
fn sys_getrandom(call: &mut Call<'_>) -> SysResult {
    const GRND_NONBLOCK: u32 = 1;
    const GRND_RANDOM: u32 = 2;
    const GRND_INSECURE: u32 = 4;
    /// Bytes made at a time.
    const CHUNK: usize = 512;
    let flags = call.uint(2);
    if flags & !(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE) != 0 || flags & (GRND_RANDOM | GRND_INSECURE) == GRND_RANDOM | GRND_INSECURE {
        return Err(EINVAL);
    }
    let bytes = call.size(1).min(crate::io::MAX_TRANSFER);
    let mut done = 0;
    let mut chunk = [0; CHUNK];
    while done < bytes {
        let part = &mut chunk[..CHUNK.min(bytes - done)];
        random::fill(part);
        let stored = user::write_partial(call.args[0] + done as u64, part);
        done += stored;
        if stored < part.len() {
            break;
        }
        if done < bytes && call.task.interrupted(crate::wait::Interruptible::Yes) {
            break;
        }
    }
    if done == 0 && bytes != 0 {
        Err(EFAULT)
    } else {
        Ok(done)
    }
}

/// syslog(2).
fn sys_syslog(call: &mut Call<'_>) -> SysResult {
    const READ_ALL: i32 = 3;
    const SIZE_BUFFER: i32 = 10;
    match call.int(0) {
        _ if !call.task.capable(linux_abi::capability::CAP_SYSLOG) => Err(EPERM),
        READ_ALL | 9 => Ok(0),
        SIZE_BUFFER => Ok(1 << 17),
        0..=8 => Ok(0),
        _ => Err(EINVAL),
    }
}

/// getrusage(2).
fn sys_getrusage(call: &mut Call<'_>) -> SysResult {
    let process = &call.task.process;
    let mut usage = match call.int(0) {
        RUSAGE_SELF => process.usage(),
        RUSAGE_CHILDREN => process.children_usage(),
        RUSAGE_THREAD => call.task.usage(),
        _ => return Err(EINVAL),
    };
    if call.int(0) != RUSAGE_CHILDREN {
        usage.max_resident = usage.max_resident.max(accounting::max_resident(call.task));
    }
    user::write(call.args[1], &usage.rusage()).map(|()| 0)
}

fn resource(number: u32) -> Result<usize, Errno> {
    let number = number as usize;
    if number < RLIM_NLIMITS {
        Ok(number)
    } else {
        Err(EINVAL)
    }
}

/// getrlimit(2), setrlimit(2), prlimit(2): the old limit.
fn exchange(call: &Call<'_>, target: &Arc<Task>, number: usize, new: Option<Rlimit>) -> Result<Rlimit, Errno> {
    let process = &target.process;
    let old = {
        let mut limits = process.limits.lock();
        let old = limits[number];
        if let Some(new) = new {
            if new.soft > new.hard {
                return Err(EINVAL);
            }
            if new.hard > old.1 && !call.task.capable(CAP_SYS_RESOURCE) {
                return Err(EPERM);
            }
            limits[number] = (new.soft, new.hard);
        }
        old
    };
    if new.is_some() && number == RLIMIT_CPU {
        process.timers.watch_cpu_limit(process);
    }
    Ok(Rlimit { soft: old.0, hard: old.1 })
}

fn sys_getrlimit(call: &mut Call<'_>) -> SysResult {
    let limit = exchange(call, call.task, resource(call.uint(0))?, None)?;
    user::write(call.args[1], &limit).map(|()| 0)
}

fn sys_setrlimit(call: &mut Call<'_>) -> SysResult {
    let new = user::read(call.args[1])?;
    exchange(call, call.task, resource(call.uint(0))?, Some(new)).map(|_| 0)
}

/// prlimit(2).
fn sys_prlimit(call: &mut Call<'_>) -> SysResult {
    let (pid, number) = (call.int(0), resource(call.uint(1))?);
    let new = if call.args[2] == 0 { None } else { Some(user::read(call.args[2])?) };
    let target = if pid == 0 { call.task.clone() } else { tree::find_task(pid as u32).ok_or(ESRCH)? };
    if !Arc::ptr_eq(&target.process, &call.task.process) {
        let (own, other) = (call.task.credentials(), target.credentials());
        let same = [other.uid, other.euid, other.suid].iter().all(|&id| id == own.uid)
            && [other.gid, other.egid, other.sgid].iter().all(|&id| id == own.gid);
        if !same && !own.capable(CAP_SYS_RESOURCE) {
            return Err(EPERM);
        }
    }
    let old = exchange(call, &target, number, new)?;
    if call.args[3] != 0 {
        user::write(call.args[3], &old)?;
    }
    Ok(0)
}
