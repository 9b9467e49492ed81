//! /proc/sys: the settings that programs look for. Those that the library OS follows are read by it from here ([`get`]); the others are
//! what a container on Linux shows, and keep what is written to them.

use crate::errno::{Errno, EINVAL, EPERM};
use crate::fs::synthetic::Directory;
use crate::system;
use abi::config::ContainerSpec;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use hal::sync::SpinLock;

/// Values that were set, by path below /proc/sys.
static VALUES: SpinLock<BTreeMap<String, String>> = SpinLock::new(BTreeMap::new());

/// How a setting may be changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fixed,
    Number,
    Words,
}

use Kind::{Fixed, Number, Words};

const SETTINGS: &[(&str, Kind, &str)] = &[
    ("kernel/pid_max", Number, "4194304"),
    ("kernel/threads-max", Number, "63000"),
    ("kernel/cap_last_cap", Fixed, "40"),
    ("kernel/ngroups_max", Fixed, "65536"),
    ("kernel/overflowuid", Number, "65534"),
    ("kernel/overflowgid", Number, "65534"),
    ("kernel/panic", Number, "0"),
    ("kernel/printk", Words, "4\t4\t1\t7"),
    ("kernel/tainted", Fixed, "0"),
    ("kernel/randomize_va_space", Number, "2"),
    ("kernel/core_pattern", Words, "core"),
    ("kernel/core_uses_pid", Number, "0"),
    ("kernel/kptr_restrict", Number, "1"),
    ("kernel/dmesg_restrict", Number, "1"),
    ("kernel/perf_event_paranoid", Number, "4"),
    ("kernel/unprivileged_bpf_disabled", Number, "2"),
    ("kernel/modules_disabled", Number, "1"),
    ("kernel/sched_rt_runtime_us", Number, "950000"),
    ("kernel/sched_rt_period_us", Number, "1000000"),
    ("kernel/sched_child_runs_first", Number, "0"),
    ("kernel/sched_autogroup_enabled", Number, "0"),
    ("kernel/numa_balancing", Number, "0"),
    ("kernel/shmmax", Number, "18446744073692774399"),
    ("kernel/shmall", Number, "18446744073692774399"),
    ("kernel/shmmni", Number, "4096"),
    ("kernel/shm_rmid_forced", Number, "0"),
    ("kernel/msgmax", Number, "8192"),
    ("kernel/msgmnb", Number, "16384"),
    ("kernel/msgmni", Number, "32000"),
    ("kernel/sem", Words, "32000\t1024000000\t500\t32000"),
    ("kernel/yama/ptrace_scope", Number, "1"),
    ("kernel/seccomp/actions_avail", Fixed, "kill_process kill_thread trap errno user_notif trace log allow"),
    ("kernel/random/entropy_avail", Fixed, "256"),
    ("kernel/random/poolsize", Fixed, "256"),
    ("kernel/pty/max", Number, "4096"),
    ("kernel/pty/reserve", Number, "1024"),
    ("kernel/keys/maxkeys", Number, "200"),
    ("kernel/keys/maxbytes", Number, "20000"),
    ("fs/file-max", Number, "9223372036854775807"),
    ("fs/nr_open", Number, "1048576"),
    ("fs/aio-max-nr", Number, "65536"),
    ("fs/aio-nr", Fixed, "0"),
    ("fs/pipe-max-size", Number, "1048576"),
    ("fs/pipe-user-pages-soft", Number, "16384"),
    ("fs/pipe-user-pages-hard", Number, "0"),
    ("fs/lease-break-time", Number, "45"),
    ("fs/leases-enable", Number, "1"),
    ("fs/mount-max", Number, "100000"),
    ("fs/overflowuid", Number, "65534"),
    ("fs/overflowgid", Number, "65534"),
    ("fs/protected_fifos", Number, "0"),
    ("fs/protected_hardlinks", Number, "1"),
    ("fs/protected_regular", Number, "0"),
    ("fs/protected_symlinks", Number, "0"),
    ("fs/suid_dumpable", Number, "0"),
    ("fs/epoll/max_user_watches", Number, "1000000"),
    ("fs/inotify/max_queued_events", Number, "16384"),
    ("fs/inotify/max_user_instances", Number, "128"),
    ("fs/inotify/max_user_watches", Number, "65536"),
    ("fs/mqueue/msg_default", Number, "10"),
    ("fs/mqueue/msg_max", Number, "10"),
    ("fs/mqueue/msgsize_default", Number, "8192"),
    ("fs/mqueue/msgsize_max", Number, "8192"),
    ("fs/mqueue/queues_max", Number, "256"),
    ("vm/overcommit_memory", Number, "0"),
    ("vm/overcommit_ratio", Number, "50"),
    ("vm/overcommit_kbytes", Number, "0"),
    ("vm/swappiness", Number, "60"),
    ("vm/max_map_count", Number, "1048576"),
    ("vm/mmap_min_addr", Number, "65536"),
    ("vm/min_free_kbytes", Number, "8192"),
    ("vm/dirty_ratio", Number, "20"),
    ("vm/dirty_background_ratio", Number, "10"),
    ("vm/dirty_expire_centisecs", Number, "3000"),
    ("vm/dirty_writeback_centisecs", Number, "500"),
    ("vm/drop_caches", Number, "0"),
    ("vm/nr_hugepages", Number, "0"),
    ("vm/oom_kill_allocating_task", Number, "0"),
    ("vm/panic_on_oom", Number, "0"),
    ("vm/vfs_cache_pressure", Number, "100"),
    ("vm/zone_reclaim_mode", Number, "0"),
    ("net/core/somaxconn", Number, "4096"),
    ("net/core/rmem_default", Number, "212992"),
    ("net/core/rmem_max", Number, "212992"),
    ("net/core/wmem_default", Number, "212992"),
    ("net/core/wmem_max", Number, "212992"),
    ("net/core/netdev_max_backlog", Number, "1000"),
    ("net/core/optmem_max", Number, "131072"),
    ("net/ipv4/ip_forward", Number, "1"),
    ("net/ipv4/ip_local_port_range", Words, "32768\t60999"),
    ("net/ipv4/ip_unprivileged_port_start", Number, "0"),
    ("net/ipv4/ip_nonlocal_bind", Number, "0"),
    ("net/ipv4/ip_default_ttl", Number, "64"),
    ("net/ipv4/ping_group_range", Words, "0\t2147483647"),
    ("net/ipv4/tcp_syncookies", Number, "1"),
    ("net/ipv4/tcp_fin_timeout", Number, "60"),
    ("net/ipv4/tcp_keepalive_time", Number, "7200"),
    ("net/ipv4/tcp_keepalive_intvl", Number, "75"),
    ("net/ipv4/tcp_keepalive_probes", Number, "9"),
    ("net/ipv4/tcp_max_syn_backlog", Number, "1024"),
    ("net/ipv4/tcp_tw_reuse", Number, "2"),
    ("net/ipv4/tcp_rmem", Words, "4096\t131072\t6291456"),
    ("net/ipv4/tcp_wmem", Words, "4096\t16384\t4194304"),
    ("net/ipv4/tcp_congestion_control", Words, "cubic"),
    ("net/ipv4/tcp_available_congestion_control", Fixed, "reno cubic"),
    ("net/ipv4/conf/all/forwarding", Number, "1"),
    ("net/ipv4/conf/default/forwarding", Number, "1"),
    ("net/ipv6/conf/all/disable_ipv6", Number, "0"),
    ("net/ipv6/conf/default/disable_ipv6", Number, "0"),
    ("net/ipv6/conf/lo/disable_ipv6", Number, "0"),
    ("net/ipv6/conf/all/forwarding", Number, "0"),
    ("net/unix/max_dgram_qlen", Number, "512"),
    ("user/max_user_namespaces", Number, "0"),
    ("user/max_mnt_namespaces", Number, "0"),
    ("user/max_net_namespaces", Number, "0"),
    ("user/max_pid_namespaces", Number, "0"),
    ("user/max_inotify_watches", Number, "65536"),
    ("user/max_inotify_instances", Number, "128"),
];

/// A setting by its path below /proc/sys ("kernel/hostname").
pub fn get(path: &str) -> String {
    if let Some(value) = VALUES.lock().get(path) {
        return value.clone();
    }
    SETTINGS.iter().find(|(known, ..)| *known == path).map_or_else(String::new, |(.., value)| String::from(*value))
}

pub fn set(path: &str, value: &str) {
    VALUES.lock().insert(path.to_string(), value.to_string());
}

/// /proc/version.
pub fn version_line() -> String {
    format!("{} version {} (litebox@litebox) (rustc) {}\n", system::SYSNAME, system::RELEASE, system::VERSION)
}

fn uuid() -> String {
    let mut bytes = [0u8; 16];
    crate::process::random::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = |part: &[u8]| part.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    format!("{}-{}-{}-{}-{}\n", hex(&bytes[..4]), hex(&bytes[4..6]), hex(&bytes[6..8]), hex(&bytes[8..10]), hex(&bytes[10..]))
}

fn write(path: &str, kind: Kind, text: &str) -> Result<(), Errno> {
    let value = text.trim_end_matches('\n').trim();
    match kind {
        Fixed => return Err(EPERM),
        Number if value.parse::<i128>().is_err() => return Err(EINVAL),
        _ => {}
    }
    set(path, value);
    Ok(())
}

/// The container's names, as sethostname(2) sets them.
fn rename(text: &str, set: fn(&[u8])) -> Result<(), Errno> {
    let name = text.trim_end_matches('\n');
    if name.len() > 64 {
        return Err(EINVAL);
    }
    set(name.as_bytes());
    Ok(())
}

pub fn fill(root: &Arc<Directory>, container: &ContainerSpec) {
    let sys = root.directory("sys");
    for &(path, kind, _) in SETTINGS {
        if kind == Fixed {
            sys.file(path, move |_| Ok(get(path) + "\n"));
        } else {
            sys.control(path, 0o644, move |_| Ok(get(path) + "\n"), move |_, text| write(path, kind, text));
        }
    }
    for (path, value) in [("kernel/ostype", system::SYSNAME), ("kernel/osrelease", system::RELEASE), ("kernel/version", system::VERSION)] {
        sys.file(path, move |_| Ok(format!("{value}\n")));
    }
    sys.control("kernel/hostname", 0o644, |_| Ok(system::hostname() + "\n"), |_, text| rename(text, system::set_hostname));
    sys.control("kernel/domainname", 0o644, |_| Ok(system::domainname() + "\n"), |_, text| rename(text, system::set_domainname));
    let boot_id = uuid();
    sys.file("kernel/random/boot_id", move |_| Ok(boot_id.clone()));
    sys.file("kernel/random/uuid", |_| Ok(uuid()));
    sys.file("kernel/pty/nr", |_| Ok(format!("{}\n", crate::tty::pty::list().len())));
    sys.file("fs/file-nr", |_| Ok(String::from("1024\t0\t9223372036854775807\n")));
    sys.file("fs/inode-nr", |_| Ok(format!("{}\t0\n", crate::fs::dentry::count())));
    sys.file("fs/inode-state", |_| Ok(format!("{}\t0\t0\t0\t0\t0\t0\n", crate::fs::dentry::count())));
    sys.file("fs/dentry-state", |_| Ok(format!("{}\t0\t45\t0\t0\t0\n", crate::fs::dentry::count())));
    for (name, value) in &container.sysctl {
        let path = name.replace('.', "/");
        set(&path, value);
        if !SETTINGS.iter().any(|(known, ..)| *known == path) {
            let (shown, changed) = (path.clone(), path.clone());
            sys.control(&path, 0o644, move |_| Ok(get(&shown) + "\n"), move |_, text| write(&changed, Words, text));
        }
    }
    sys.put("net", super::settings::directory(sys.directory("net")));
}
