//! /sys/fs/cgroup: the container's own group, with its limits, as version 1 or 2 shows them. A view: groups below it cannot be made.

use super::proc_memory;
use super::synthetic::{Directory, SyntheticFs};
use crate::errno::EPERM;
use crate::fs::inode::FileSystem;
use crate::process::tree;
use abi::config::{ContainerSpec, Limits};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt::Write;
use core::sync::atomic::Ordering;
use hal::sync::SpinLock;
use linux_abi::fs::{CGROUP2_SUPER_MAGIC, TMPFS_MAGIC};

struct Known {
    path: String,
    version: u32,
    limits: Limits,
}

static KNOWN: SpinLock<Option<Known>> = SpinLock::new(None);

const CONTROLLERS: [&str; 11] =
    ["cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "net_cls", "perf_event", "hugetlb", "pids"];

/// What the configuration says of the container's group; again when the limits change.
pub fn configure(container: &ContainerSpec) {
    let path = if container.cgroup.is_empty() { String::from("/") } else { container.cgroup.clone() };
    let version = if container.cgroup_version == 1 { 1 } else { 2 };
    *KNOWN.lock() = Some(Known { path, version, limits: container.limits.clone() });
}

pub fn set_limits(limits: &Limits) {
    if let Some(known) = KNOWN.lock().as_mut() {
        known.limits = limits.clone();
    }
}

fn limits() -> Limits {
    KNOWN.lock().as_ref().map(|known| known.limits.clone()).unwrap_or_default()
}

/// /proc/PID/cgroup.
pub fn own_path_text() -> String {
    let known = KNOWN.lock();
    let (path, version) = known.as_ref().map_or(("/", 2), |known| (known.path.as_str(), known.version));
    if version == 2 {
        return format!("0::{path}\n");
    }
    let mut text = String::new();
    for (number, name) in (1..).zip(CONTROLLERS).collect::<alloc::vec::Vec<_>>().into_iter().rev() {
        let _ = writeln!(text, "{number}:{name}:{path}");
    }
    text
}

/// /proc/cgroups.
pub fn controllers_text() -> String {
    let mut text = String::from("#subsys_name\thierarchy\tnum_cgroups\tenabled\n");
    let version = KNOWN.lock().as_ref().map_or(2, |known| known.version);
    for (number, name) in (1..).zip(CONTROLLERS) {
        let _ = writeln!(text, "{name}\t{}\t1\t1", if version == 1 { number } else { 0 });
    }
    text
}

fn pids() -> String {
    tree::processes()
        .iter()
        .filter(|process| !process.is_zombie())
        .fold(String::new(), |text, process| text + &format!("{}\n", process.pid))
}

fn threads() -> String {
    let tasks = tree::processes().into_iter().flat_map(|process| process.thread_list());
    tasks.fold(String::new(), |text, task| text + &format!("{}\n", task.tid()))
}

fn or_max(value: u64) -> String {
    if value == 0 {
        String::from("max\n")
    } else {
        format!("{value}\n")
    }
}

fn used() -> u64 {
    let (total, free) = proc_memory();
    total - free
}

fn cpu_usec() -> (u64, u64) {
    tree::processes().iter().fold((0, 0), |sum, process| {
        let (own, children) = (process.usage(), if process.is_init() { process.children_usage() } else { Default::default() });
        (sum.0 + (own.user + children.user) / 1000, sum.1 + (own.system + children.system) / 1000)
    })
}

pub fn mount(container: &ContainerSpec) -> Arc<dyn FileSystem> {
    let root = Directory::new();
    if container.cgroup_version == 1 {
        fill_v1(&root);
        return SyntheticFs::new(TMPFS_MAGIC, root);
    }
    fill_v2(&root);
    SyntheticFs::new(CGROUP2_SUPER_MAGIC, root)
}

fn fill_v2(root: &Arc<Directory>) {
    root.constant("cgroup.controllers", "cpuset cpu io memory pids\n");
    root.control("cgroup.subtree_control", 0o644, |_| Ok(String::from("\n")), |_, _| Err(EPERM));
    root.control("cgroup.procs", 0o644, |_| Ok(pids()), |_, _| Ok(()));
    root.control("cgroup.threads", 0o644, |_| Ok(threads()), |_, _| Ok(()));
    root.constant("cgroup.type", "domain\n");
    root.constant("cgroup.events", "populated 1\nfrozen 0\n");
    root.constant("cgroup.freeze", "0\n");
    root.constant("cgroup.max.depth", "max\n");
    root.constant("cgroup.max.descendants", "max\n");
    root.constant("cgroup.stat", "nr_descendants 0\nnr_dying_descendants 0\n");
    root.file("cpu.max", |_| {
        let limits = limits();
        let period = if limits.cpu_period == 0 { 100_000 } else { limits.cpu_period };
        Ok(if limits.cpu_quota == 0 { format!("max {period}\n") } else { format!("{} {period}\n", limits.cpu_quota) })
    });
    root.constant("cpu.weight", "100\n");
    root.constant("cpu.weight.nice", "0\n");
    root.file("cpu.stat", |_| {
        let (user, system) = cpu_usec();
        Ok(format!(
            "usage_usec {}\nuser_usec {user}\nsystem_usec {system}\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
            user + system
        ))
    });
    root.file("cpuset.cpus", |_| Ok(super::proc_cpu_list() + "\n"));
    root.file("cpuset.cpus.effective", |_| Ok(super::proc_cpu_list() + "\n"));
    root.constant("cpuset.mems", "0\n");
    root.constant("cpuset.mems.effective", "0\n");
    root.file("memory.max", |_| Ok(or_max(limits().memory)));
    root.constant("memory.high", "max\n");
    root.constant("memory.low", "0\n");
    root.constant("memory.min", "0\n");
    root.file("memory.current", |_| Ok(format!("{}\n", used())));
    root.file("memory.peak", |_| Ok(format!("{}\n", used())));
    root.constant("memory.swap.max", "0\n");
    root.constant("memory.swap.current", "0\n");
    root.file("memory.events", |_| {
        let kills = hal::cpu::counters().oom_kills.load(Ordering::Relaxed);
        Ok(format!("low 0\nhigh 0\nmax 0\noom {kills}\noom_kill {kills}\noom_group_kill 0\n"))
    });
    root.file("memory.stat", |_| {
        Ok(format!("anon {}\nfile 0\nkernel 0\nshmem 0\nfile_mapped 0\nfile_dirty 0\nfile_writeback 0\ninactive_anon 0\nactive_anon {}\ninactive_file 0\nactive_file 0\nunevictable 0\nslab 0\n", used(), used()))
    });
    root.file("pids.max", |_| Ok(or_max(limits().pids)));
    root.file("pids.current", |_| Ok(format!("{}\n", tree::count())));
    root.constant("pids.events", "max 0\n");
    root.constant("io.stat", "");
    root.constant("io.max", "");
}

/// Version 1: a folder a controller.
fn fill_v1(root: &Arc<Directory>) {
    for name in CONTROLLERS {
        for (file, text) in [("cgroup.clone_children", "0\n"), ("notify_on_release", "0\n")] {
            root.constant(&format!("{name}/{file}"), text);
        }
        root.control(&format!("{name}/cgroup.procs"), 0o644, |_| Ok(pids()), |_, _| Ok(()));
        root.control(&format!("{name}/tasks"), 0o644, |_| Ok(threads()), |_, _| Ok(()));
    }
    root.constant("cpu/cpu.shares", "1024\n");
    root.file("cpu/cpu.cfs_quota_us", |_| {
        let quota = limits().cpu_quota;
        Ok(if quota == 0 { String::from("-1\n") } else { format!("{quota}\n") })
    });
    root.file("cpu/cpu.cfs_period_us", |_| {
        let period = limits().cpu_period;
        Ok(format!("{}\n", if period == 0 { 100_000 } else { period }))
    });
    root.constant("cpu/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n");
    root.file("cpuacct/cpuacct.usage", |_| {
        let (user, system) = cpu_usec();
        Ok(format!("{}\n", (user + system) * 1000))
    });
    root.file("cpuacct/cpuacct.stat", |_| {
        let (user, system) = cpu_usec();
        Ok(format!("user {}\nsystem {}\n", user / 10_000, system / 10_000))
    });
    root.symlink("cpu,cpuacct", "cpu");
    root.file("cpuset/cpuset.cpus", |_| Ok(super::proc_cpu_list() + "\n"));
    root.file("cpuset/cpuset.effective_cpus", |_| Ok(super::proc_cpu_list() + "\n"));
    root.constant("cpuset/cpuset.mems", "0\n");
    let unlimited = (i64::MAX as u64 & !0xfff).to_string() + "\n";
    root.file("memory/memory.limit_in_bytes", move |_| {
        let limit = limits().memory;
        Ok(if limit == 0 { unlimited.clone() } else { format!("{limit}\n") })
    });
    root.file("memory/memory.usage_in_bytes", |_| Ok(format!("{}\n", used())));
    root.file("memory/memory.max_usage_in_bytes", |_| Ok(format!("{}\n", used())));
    root.constant("memory/memory.failcnt", "0\n");
    root.constant("memory/memory.use_hierarchy", "1\n");
    root.file("memory/memory.oom_control", |_| {
        Ok(format!("oom_kill_disable 0\nunder_oom 0\noom_kill {}\n", hal::cpu::counters().oom_kills.load(Ordering::Relaxed)))
    });
    root.file("memory/memory.stat", |_| {
        let limit = limits().memory;
        Ok(format!(
            "cache 0\nrss {}\nmapped_file 0\nhierarchical_memory_limit {limit}\ntotal_cache 0\ntotal_rss {}\ntotal_inactive_file 0\n",
            used(),
            used()
        ))
    });
    root.file("pids/pids.max", |_| Ok(or_max(limits().pids)));
    root.file("pids/pids.current", |_| Ok(format!("{}\n", tree::count())));
    root.constant("freezer/freezer.state", "THAWED\n");
}
