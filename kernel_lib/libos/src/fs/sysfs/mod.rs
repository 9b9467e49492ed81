//! sysfs(5): what programs look for there. CPUs, memory, network interfaces; no devices.

mod network;

use super::inode::FileSystem;
use super::synthetic::{Directory, SyntheticFs};
use alloc::format;
use alloc::sync::Arc;
use linux_abi::fs::SYSFS_MAGIC;

pub fn mount() -> Arc<dyn FileSystem> {
    let root = Directory::new();
    for folder in
        ["block", "bus", "class", "dev/block", "dev/char", "devices", "firmware", "fs/cgroup", "hypervisor", "kernel", "module", "power"]
    {
        root.directory(folder);
    }
    processors(&root);
    root.constant("devices/system/node/online", "0\n");
    root.constant("devices/system/node/possible", "0\n");
    root.constant("devices/system/node/has_memory", "0\n");
    root.constant("devices/system/node/has_cpu", "0\n");
    root.constant("devices/system/node/node0/distance", "10\n");
    root.file("devices/system/node/node0/cpulist", |_| Ok(super::proc_cpu_list() + "\n"));
    root.file("devices/system/node/node0/cpumap", |_| Ok(mask()));
    root.file("devices/system/node/node0/meminfo", |_| {
        let (total, free) = super::proc_memory();
        Ok(format!(
            "Node 0 MemTotal:       {} kB\nNode 0 MemFree:        {} kB\nNode 0 MemUsed:        {} kB\n",
            total >> 10,
            free >> 10,
            (total - free) >> 10
        ))
    });
    network::put(&root);
    for (name, value) in [
        ("enabled", "always [madvise] never\n"),
        ("defrag", "always defer defer+madvise [madvise] never\n"),
        ("shmem_enabled", "always within_size advise [never] deny force\n"),
        ("use_zero_page", "1\n"),
        ("hpage_pmd_size", "2097152\n"),
    ] {
        root.constant(&format!("kernel/mm/transparent_hugepage/{name}"), value);
    }
    root.constant("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n");
    root.constant("kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n");
    root.constant("kernel/mm/ksm/run", "0\n");
    root.constant("kernel/security/lsm", "capability\n");
    root.constant("kernel/profiling", "0\n");
    root.directory("kernel/debug");
    root.directory("kernel/tracing");
    root.constant("module/apparmor/parameters/enabled", "N\n");
    SyntheticFs::new(SYSFS_MAGIC, root)
}

/// A mask of all CPUs, as sysfs writes them.
fn mask() -> alloc::string::String {
    let count = hal::cpu::count().clamp(1, 64);
    let bits = if count == 64 { u64::MAX } else { (1 << count) - 1 };
    if count > 32 {
        format!("{:08x},{:08x}\n", bits >> 32, bits as u32)
    } else {
        format!("{bits:x}\n")
    }
}

fn processors(root: &Arc<Directory>) {
    let base = "devices/system/cpu";
    for name in ["online", "possible", "present"] {
        root.file(&format!("{base}/{name}"), |_| Ok(super::proc_cpu_list() + "\n"));
    }
    root.constant(&format!("{base}/offline"), "\n");
    root.constant(&format!("{base}/isolated"), "\n");
    root.constant(&format!("{base}/kernel_max"), "63\n");
    root.constant(&format!("{base}/smt/active"), "0\n");
    root.constant(&format!("{base}/smt/control"), "notsupported\n");
    for cpu in 0..hal::cpu::count().max(1) {
        let folder = format!("{base}/cpu{cpu}");
        root.constant(&format!("{folder}/online"), "1\n");
        root.constant(&format!("{folder}/topology/core_id"), &format!("{cpu}\n"));
        root.constant(&format!("{folder}/topology/physical_package_id"), "0\n");
        root.constant(&format!("{folder}/topology/thread_siblings_list"), &format!("{cpu}\n"));
        root.constant(&format!("{folder}/topology/thread_siblings"), &format!("{:x}\n", 1u64 << cpu));
        root.constant(&format!("{folder}/topology/core_cpus_list"), &format!("{cpu}\n"));
        root.file(&format!("{folder}/topology/core_siblings"), |_| Ok(mask()));
        root.file(&format!("{folder}/topology/core_siblings_list"), |_| Ok(super::proc_cpu_list() + "\n"));
        for (index, level, kind, size) in
            [(0, 1, "Data", "32K"), (1, 1, "Instruction", "32K"), (2, 2, "Unified", "1024K"), (3, 3, "Unified", "32768K")]
        {
            let cache = format!("{folder}/cache/index{index}");
            root.constant(&format!("{cache}/level"), &format!("{level}\n"));
            root.constant(&format!("{cache}/type"), &format!("{kind}\n"));
            root.constant(&format!("{cache}/size"), &format!("{size}\n"));
            root.constant(&format!("{cache}/coherency_line_size"), "64\n");
            root.constant(&format!("{cache}/shared_cpu_list"), &format!("{cpu}\n"));
            root.constant(&format!("{cache}/shared_cpu_map"), &format!("{:x}\n", 1u64 << cpu));
        }
    }
}
