//! Allow-lists of system calls, one for each kind of thread. What is not listed ends the process.
//!
//! The first thread only waits. The main thread's list is the union of all (the threads that it starts inherit it, and add their own,
//! narrower one). Lists are data: names that a reader can check; arguments are checked where a call can do more than we need (ioctl by
//! request, no executable memory, threads but no processes, sockets of three families). What changes a network is listed where the container
//! may change its own, and nowhere else.

use seccompiler::{apply_filter, BpfProgram};

use super::bpf::{compile, Allowed, List};
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
    pub const KVM_RUN: u32 = 0xae80;
    pub const KVM_SIGNAL_MSI: u32 = 0x4020_aea5;
    pub const KVM_GET_REGS: u32 = 0x8090_ae81;
    pub const KVM_GET_SREGS: u32 = 0x8138_ae83;
    pub const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
    pub const KVM_SET_NR_MMU_PAGES: u32 = 0xae44;
    /// What making a vCPU and binding the doorbell takes: CREATE_VCPU, GET_VCPU_MMAP_SIZE, SET_CPUID2, SET_SREGS, GET and SET_XCRS,
    /// SET_MSRS, SET_DEVICE_ATTR, SET_REGS, SET_MP_STATE, GET_TSC_KHZ, IOEVENTFD.
    pub const VCPU_SETUP: &[u32] = &[
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
    pub const DEVICES: &[u32] = &[
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
    pub const NETWORK: &[u32] = &[
        0x890b, 0x890c, 0x8914, 0x8916, 0x8918, 0x891a, 0x891c, 0x8922, 0x8923, 0x8924, 0x8931, 0x8932, 0x8936, 0x8943, 0x8953, 0x8955,
        0x89a0, 0x89a1, 0x89a2, 0x89a3,
    ];
    pub const TIOCGWINSZ: u32 = 0x5413;
}

fn names(list: &mut List, numbers: &[i64]) {
    for number in numbers {
        list.entry(*number).or_default();
    }
}

/// One more value of an argument that may be `values` alone.
fn values(list: &mut List, number: i64, index: u8, more: &[u32]) {
    let allowed = list.entry(number).or_insert_with(|| Allowed::Argument { index, mask: u32::MAX, values: Vec::new() });
    if let Allowed::Argument { values, .. } = allowed {
        values.extend(more);
        values.sort_unstable();
        values.dedup();
    }
}

fn bits(list: &mut List, number: i64, index: u8, mask: i32, value: i32) {
    list.insert(number, Allowed::Argument { index, mask: mask as u32, values: vec![value as u32] });
}

fn controls(list: &mut List, requests: &[u32]) {
    values(list, libc::SYS_ioctl, 1, requests);
}

fn vcpu(list: &mut List) {
    names(list, VCPU);
    controls(list, &[request::KVM_RUN, request::KVM_SIGNAL_MSI, request::KVM_GET_REGS, request::KVM_GET_SREGS]);
}

fn server(list: &mut List, changes_network: bool) {
    names(list, SERVER);
    if changes_network {
        names(list, NETWORK);
        controls(list, request::NETWORK);
    }
    values(list, libc::SYS_socket, 0, &[libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(|family| family as u32));
    controls(list, request::DEVICES);
    controls(list, &[request::KVM_SIGNAL_MSI, request::KVM_SET_USER_MEMORY_REGION, request::KVM_SET_NR_MMU_PAGES]);
}

fn control(list: &mut List) {
    names(list, CONTROL);
    controls(list, &[request::KVM_SIGNAL_MSI, request::TIOCGWINSZ]);
}

fn list(thread: Thread, changes_network: bool) -> List {
    let mut list = List::new();
    names(&mut list, COMMON);
    bits(&mut list, libc::SYS_mmap, 2, libc::PROT_EXEC, 0);
    bits(&mut list, libc::SYS_mprotect, 2, libc::PROT_EXEC, 0);
    match thread {
        Thread::First => {}
        Thread::Vcpu => {
            vcpu(&mut list);
            server(&mut list, changes_network);
        }
        Thread::Server => server(&mut list, changes_network),
        Thread::Readiness => {
            names(&mut list, READINESS);
            controls(&mut list, &[request::KVM_SIGNAL_MSI]);
        }
        Thread::Control => control(&mut list),
        Thread::Main => {
            vcpu(&mut list);
            server(&mut list, changes_network);
            names(&mut list, READINESS);
            control(&mut list);
            names(&mut list, MAIN);
            controls(&mut list, request::VCPU_SETUP);
            let flags = libc::CLONE_VM | libc::CLONE_THREAD;
            bits(&mut list, libc::SYS_clone, 0, flags, flags);
            // Its flags lie in memory, where a filter cannot see them: libc uses clone(2) then.
            list.insert(libc::SYS_clone3, Allowed::Error(libc::ENOSYS as u16));
        }
    }
    list
}

/// A compiled list, made before the threads that install it. None: nothing is forbidden.
#[derive(Clone, Debug, Default)]
pub struct Filter(Option<BpfProgram>);

impl Filter {
    /// `changes_network`: of a container that may change its own.
    pub fn new(thread: Thread, changes_network: bool) -> Result<Self, HostError> {
        compile(&list(thread, changes_network)).map(|program| Self(Some(program)))
    }

    /// For this thread, and those that it starts.
    pub fn install(&self) -> Result<(), HostError> {
        self.0.iter().try_for_each(|program| apply_filter(program).during(Kind::Jail, "cannot install a seccomp filter"))
    }
}

#[cfg(test)]
mod tests {
    use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};

    use super::super::bpf::tests::run;
    use super::*;

    const THREADS: [Thread; 6] = [Thread::First, Thread::Main, Thread::Vcpu, Thread::Server, Thread::Readiness, Thread::Control];

    #[test]
    fn lists_compile_and_stay_short() {
        let count = |thread| list(thread, true).len();
        assert!(THREADS.into_iter().all(|thread| Filter::new(thread, true).is_ok()));
        assert!(count(Thread::First) < 30 && count(Thread::Vcpu) < 110 && count(Thread::Readiness) < 30 && count(Thread::Server) < 90);
        for forbidden in [libc::SYS_execve, libc::SYS_ptrace, libc::SYS_mount, libc::SYS_fork, libc::SYS_unshare, libc::SYS_setuid] {
            assert!(!list(Thread::Main, true).contains_key(&forbidden));
        }
    }

    #[test]
    fn networks_are_changed_by_those_that_may() {
        let requests = |list: &List| match &list[&libc::SYS_ioctl] {
            Allowed::Argument { values, .. } => values.len(),
            other => panic!("ioctl: {other:?}"),
        };
        for thread in [Thread::Main, Thread::Vcpu, Thread::Server] {
            let (with, without) = (list(thread, true), list(thread, false));
            assert!(NETWORK.iter().all(|number| with.contains_key(number) && !without.contains_key(number)));
            assert_eq!(requests(&with) - requests(&without), request::NETWORK.len());
        }
    }

    /// The same list, compiled by seccompiler, without what fails.
    fn reference(list: &List) -> BpfProgram {
        let condition = |index, mask: u32, value| {
            let operator = if mask == u32::MAX { SeccompCmpOp::Eq } else { SeccompCmpOp::MaskedEq(mask.into()) };
            let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value).unwrap();
            SeccompRule::new(vec![condition]).unwrap()
        };
        let rules = list.iter().filter_map(|(number, allowed)| match allowed {
            Allowed::Anything => Some((*number, Vec::new())),
            Allowed::Error(_) => None,
            Allowed::Argument { index, mask, values } => {
                Some((*number, values.iter().map(|value| condition(*index, *mask, u64::from(*value))).collect()))
            }
        });
        let filter = SeccompFilter::new(rules.collect(), SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64);
        filter.unwrap().try_into().unwrap()
    }

    #[test]
    fn they_mean_what_seccompiler_makes_of_them() {
        let requests = [&[0, 1, 2, 3, 4, 5, 7, 10, 16, 0x10000, 0x10100, 0x5413, 0x5414, 0xae80], request::NETWORK, request::VCPU_SETUP];
        let values: Vec<u64> = requests.concat().into_iter().flat_map(|value| [value.into(), u64::from(value) + (1 << 32)]).collect();
        for (thread, changes_network) in THREADS.into_iter().flat_map(|thread| [(thread, false), (thread, true)]) {
            let list = list(thread, changes_network);
            let (ours, theirs) = (compile(&list).unwrap(), reference(&list));
            for number in (0..512).chain(0x4000_0000..0x4000_0200).filter(|number| *number != libc::SYS_clone3 as u32) {
                for value in &values {
                    let result = |program| run(program, 0xc000_003e, number, [*value; 6]);
                    assert_eq!(result(&ours), result(&theirs), "{thread:?}: system call {number} with {value:#x}");
                }
            }
        }
    }
}
