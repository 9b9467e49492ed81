//! Allow-lists of system calls, one for each kind of thread. What is not listed ends the process.
//!
//! The first thread only waits. The main thread's list is the union of all (the threads that it starts inherit it, and add their own,
//! narrower one). Lists are data: names that a reader can check; arguments are checked where a call can do more than we need (ioctl by
//! request, no executable memory, threads but no processes, sockets of three families). What changes a network is listed where the container
//! may change its own, and nowhere else.

use std::collections::BTreeMap;

use seccompiler::{
    apply_filter, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::error::{During, HostError, Kind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    First,
    Main,
    /// Serves short requests itself when the guest asks for it by an exit.
    Vcpu,
    Server,
    Readiness,
    Control,
}

/// Memory, locks, time, descriptors in hand, and the end.
const COMMON: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    // Debug builds of std look whether a descriptor is open before they close it.
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// A vCPU that finds that a mapped file has shrunk asks for the file's size.
const VCPU: &[i64] = &[libc::SYS_fstat];

const SERVER: &[i64] = &[
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_lseek,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_getdents64,
    libc::SYS_copy_file_range,
    libc::SYS_sync_file_range,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_readlinkat,
    libc::SYS_getxattr,
    libc::SYS_setxattr,
    libc::SYS_listxattr,
    libc::SYS_removexattr,
    libc::SYS_flock,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_ctl,
    libc::SYS_getrandom,
    libc::SYS_geteuid,
    libc::SYS_memfd_create,
];

/// CAP_NET_ADMIN for a moment, where it was kept.
const NETWORK: &[i64] = &[libc::SYS_capget, libc::SYS_capset];

/// It also looks at the size of mapped files that others have changed.
const READINESS: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_fstat];

const CONTROL: &[i64] = &[
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_memfd_create,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
];

/// Starting threads.
const MAIN: &[i64] =
    &[libc::SYS_rt_sigaction, libc::SYS_set_robust_list, libc::SYS_rseq, libc::SYS_sched_getaffinity, libc::SYS_prctl, libc::SYS_seccomp];

mod request {
    pub const KVM_RUN: u64 = 0xae80;
    pub const KVM_SIGNAL_MSI: u64 = 0x4020_aea5;
    pub const KVM_GET_REGS: u64 = 0x8090_ae81;
    pub const KVM_GET_SREGS: u64 = 0x8138_ae83;
    pub const KVM_SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
    pub const KVM_SET_NR_MMU_PAGES: u64 = 0xae44;
    /// What making a vCPU and binding the doorbell takes: CREATE_VCPU, GET_VCPU_MMAP_SIZE, SET_CPUID2, SET_SREGS, GET and SET_XCRS,
    /// SET_MSRS, SET_DEVICE_ATTR, SET_REGS, SET_MP_STATE, GET_TSC_KHZ, IOEVENTFD.
    pub const VCPU_SETUP: &[u64] = &[
        0xae41,
        0xae04,
        0x4008_ae90,
        0x4138_ae84,
        0x8188_aea6,
        0x4188_aea7,
        0x4008_ae89,
        0x4018_aee1,
        0x4090_ae82,
        0x4004_ae99,
        0xaea3,
        0x4040_ae79,
    ];
    /// `services::terminals`.
    pub const DEVICES: &[u64] = &[
        0x5401,
        0x5402,
        0x5403,
        0x5404,
        0x540f,
        0x5411,
        0x5413,
        0x5414,
        0x541b,
        0x4004_9409,
        0x8910,
        0x8912,
        0x8913,
        0x8915,
        0x8917,
        0x8919,
        0x891b,
        0x891d,
        0x8921,
        0x8927,
        0x8933,
        0x8942,
        0x8954,
        0x8970,
    ];
    /// Changes of the network (netdevice(7), and of routes, neighbours, bridges): the kernel asks for CAP_NET_ADMIN.
    pub const NETWORK: &[u64] = &[
        0x890b, 0x890c, 0x8914, 0x8916, 0x8918, 0x891a, 0x891c, 0x8922, 0x8923, 0x8924, 0x8931, 0x8932, 0x8936, 0x8943, 0x8953, 0x8955,
        0x89a0, 0x89a1, 0x89a2, 0x89a3,
    ];
    pub const TIOCGWINSZ: u64 = 0x5413;
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, HostError> {
    let condition = SeccompCondition::new(argument, Dword, operator, value).during(Kind::Jail, "seccomp")?;
    SeccompRule::new(vec![condition]).during(Kind::Jail, "seccomp")
}

fn names(rules: &mut Rules, list: &[i64]) {
    for number in list {
        rules.entry(*number).or_default();
    }
}

fn controls(rules: &mut Rules, requests: &[u64]) -> Result<(), HostError> {
    for number in requests {
        rules.entry(libc::SYS_ioctl).or_default().push(condition(1, SeccompCmpOp::Eq, *number)?);
    }
    Ok(())
}

fn vcpu(rules: &mut Rules) -> Result<(), HostError> {
    names(rules, VCPU);
    controls(rules, &[request::KVM_RUN, request::KVM_SIGNAL_MSI, request::KVM_GET_REGS, request::KVM_GET_SREGS])
}

fn server(rules: &mut Rules, changes_network: bool) -> Result<(), HostError> {
    names(rules, SERVER);
    if changes_network {
        names(rules, NETWORK);
        controls(rules, request::NETWORK)?;
    }
    for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
        rules.entry(libc::SYS_socket).or_default().push(condition(0, SeccompCmpOp::Eq, family as u64)?);
    }
    controls(rules, request::DEVICES)?;
    controls(rules, &[request::KVM_SIGNAL_MSI, request::KVM_SET_USER_MEMORY_REGION, request::KVM_SET_NR_MMU_PAGES])
}

fn control(rules: &mut Rules) -> Result<(), HostError> {
    names(rules, CONTROL);
    controls(rules, &[request::KVM_SIGNAL_MSI, request::TIOCGWINSZ])
}

fn rules(thread: Thread, changes_network: bool) -> Result<Rules, HostError> {
    let mut rules = Rules::new();
    names(&mut rules, COMMON);
    rules.insert(libc::SYS_mmap, vec![condition(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)?]);
    rules.insert(libc::SYS_mprotect, vec![condition(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)?]);
    match thread {
        Thread::First => {}
        Thread::Vcpu => {
            vcpu(&mut rules)?;
            server(&mut rules, changes_network)?;
        }
        Thread::Server => server(&mut rules, changes_network)?,
        Thread::Readiness => {
            names(&mut rules, READINESS);
            controls(&mut rules, &[request::KVM_SIGNAL_MSI])?;
        }
        Thread::Control => control(&mut rules)?,
        Thread::Main => {
            vcpu(&mut rules)?;
            server(&mut rules, changes_network)?;
            names(&mut rules, READINESS);
            control(&mut rules)?;
            names(&mut rules, MAIN);
            controls(&mut rules, request::VCPU_SETUP)?;
            let thread_flags = (libc::CLONE_VM | libc::CLONE_THREAD) as u64;
            rules.insert(libc::SYS_clone, vec![condition(0, SeccompCmpOp::MaskedEq(thread_flags), thread_flags)?]);
            // Its flags lie in memory, where a filter cannot see them; `without_clone3` answers it.
            names(&mut rules, &[libc::SYS_clone3]);
        }
    }
    Ok(rules)
}

fn compile(rules: Rules, mismatch: SeccompAction, found: SeccompAction) -> Result<BpfProgram, HostError> {
    let filter = SeccompFilter::new(rules, mismatch, found, TargetArch::x86_64).during(Kind::Jail, "seccomp")?;
    filter.try_into().during(Kind::Jail, "seccomp")
}

/// clone3(2) is ENOSYS, so that libc uses clone(2), whose flags can be checked.
fn without_clone3() -> Result<BpfProgram, HostError> {
    compile(Rules::from([(libc::SYS_clone3, Vec::new())]), SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
}

/// Compiled lists, made before the threads that install them.
#[derive(Clone, Debug, Default)]
pub struct Filter(Vec<BpfProgram>);

impl Filter {
    /// `changes_network`: of a container that may change its own.
    pub fn new(thread: Thread, changes_network: bool) -> Result<Self, HostError> {
        let mut programs = vec![compile(rules(thread, changes_network)?, SeccompAction::KillProcess, SeccompAction::Allow)?];
        if thread == Thread::Main {
            programs.push(without_clone3()?);
        }
        Ok(Self(programs))
    }

    /// For this thread, and those that it starts.
    pub fn install(&self) -> Result<(), HostError> {
        for program in self.0.iter().rev() {
            apply_filter(program).during(Kind::Jail, "cannot install a seccomp filter")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_compile_and_stay_short() {
        let count = |thread| rules(thread, true).unwrap().len();
        for thread in [Thread::First, Thread::Main, Thread::Vcpu, Thread::Server, Thread::Readiness, Thread::Control] {
            Filter::new(thread, true).unwrap();
        }
        assert!(count(Thread::First) < 30 && count(Thread::Vcpu) < 110 && count(Thread::Readiness) < 30 && count(Thread::Server) < 90);
        for forbidden in [libc::SYS_execve, libc::SYS_ptrace, libc::SYS_mount, libc::SYS_fork, libc::SYS_unshare, libc::SYS_setuid] {
            assert!(!rules(Thread::Main, true).unwrap().contains_key(&forbidden));
        }
    }

    #[test]
    fn networks_are_changed_by_those_that_may() {
        for thread in [Thread::Main, Thread::Vcpu, Thread::Server] {
            let (with, without) = (rules(thread, true).unwrap(), rules(thread, false).unwrap());
            assert!(NETWORK.iter().all(|number| with.contains_key(number) && !without.contains_key(number)));
            assert_eq!(with[&libc::SYS_ioctl].len() - without[&libc::SYS_ioctl].len(), request::NETWORK.len());
        }
    }
}
