//! The fixed files of /proc that tell about the machine: what the container has of it.

use crate::fs::synthetic::Directory;
use crate::ipc::sysv;
use crate::mm::reclaim;
use crate::process::accounting::TICKS;
use crate::process::{tree, Process};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Write;
use core::sync::atomic::Ordering;

/// "0-3".
pub fn cpu_list() -> String {
    match hal::cpu::count() {
        0 | 1 => String::from("0"),
        count => format!("0-{}", count - 1),
    }
}

pub fn fill(root: &Arc<Directory>) {
    root.file("meminfo", |_| Ok(meminfo()));
    root.file("cpuinfo", |_| Ok(super::cpu::text()));
    root.file("stat", |_| Ok(stat()));
    root.file("uptime", |_| Ok(uptime()));
    root.file("loadavg", |_| Ok(loadavg()));
    root.file("version", |_| Ok(super::sysctl::version_line()));
    root.file("vmstat", |_| Ok(vmstat()));
    root.file("swaps", |_| Ok(String::from("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")));
    root.file("locks", |_| Ok(String::new()));
    root.file("interrupts", |_| Ok(interrupts()));
    root.file("diskstats", |_| Ok(String::new()));
    root.file("partitions", |_| Ok(String::from("major minor  #blocks  name\n\n")));
    root.file("modules", |_| Ok(String::new()));
    root.file("kallsyms", |_| Ok(String::new()));
    root.file("dma", |_| Ok(String::from(" 4: cascade\n")));
    root.file("iomem", |_| Ok(String::new()));
    root.file("ioports", |_| Ok(String::new()));
    root.file("execdomains", |_| Ok(String::from("0-0\tLinux           \t[kernel]\n")));
    root.file("softirqs", |_| Ok(String::new()));
    root.file("buddyinfo", |_| Ok(String::new()));
    root.file("zoneinfo", |_| Ok(String::new()));
    root.file("schedstat", |_| Ok(String::from("version 15\ntimestamp 0\n")));
    root.file("timer_list", |_| Ok(String::new()));
    root.file("key-users", |_| Ok(String::new()));
    root.file("keys", |_| Ok(String::new()));
    root.file("kcore", |_| Err(crate::errno::EPERM));
    root.file("cmdline", |_| Ok(String::from("litebox\n")));
    root.file("consoles", |_| Ok(String::from("tty0                 -WU (EC  p  )    4:1\n")));
    root.file("crypto", |_| Ok(String::new()));
    root.file("misc", |_| Ok(String::new()));
    root.file("mtrr", |_| Ok(String::new()));
    root.file("fb", |_| Ok(String::new()));
    root.file("devices", |_| {
        Ok(String::from("Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n"))
    });
    root.file("filesystems", |_| {
        Ok(String::from(
            "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup\nnodev\tcgroup2\nnodev\tdevtmpfs\nnodev\tdevpts\nnodev\tmqueue\n\
             nodev\toverlay\nnodev\tramfs\n\text4\n",
        ))
    });
    root.file("cgroups", |_| Ok(crate::fs::cgroup::controllers_text()));
    root.file("sysvipc/msg", |_| sysv::message::report());
    root.file("sysvipc/sem", |_| sysv::semaphore::report());
    root.file("sysvipc/shm", |_| crate::mm::sysv::report());
    root.directory("fs");
    root.directory("driver");
    root.directory("tty");
    root.directory("irq");
    root.directory("bus");
    root.directory("acpi");
    root.directory("scsi");
    root.directory("pressure");
    for what in ["cpu", "memory", "io"] {
        root.constant(
            &format!("pressure/{what}"),
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        );
    }
}

/// (total, free) bytes: what the container may use.
pub fn memory() -> (u64, u64) {
    (reclaim::total(), reclaim::free())
}

fn meminfo() -> String {
    let (total, free) = memory();
    let cached = crate::mm::copies::bytes();
    let mut text = String::new();
    let rows = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free + cached),
        ("Buffers", 0),
        ("Cached", cached),
        ("SwapCached", 0),
        ("Active", total - free),
        ("Inactive", 0),
        ("Active(anon)", total - free),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", total - free),
        ("Mapped", 0),
        ("Shmem", 0),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", u64::from(tree::count()) * (32 << 10)),
        ("PageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", total),
        ("Committed_AS", total - free),
        ("VmallocTotal", 0x7fff_ffff_f000 >> 10 << 10),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
        ("ShmemPmdMapped", 0),
    ];
    for (name, bytes) in rows {
        let _ = writeln!(text, "{:<15} {:>8} kB", format!("{name}:"), bytes >> 10);
    }
    text.push_str("HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\n");
    text.push_str("Hugepagesize:       2048 kB\nHugetlb:               0 kB\n");
    text
}

/// CPU time of all processes, ended ones that were waited for included: (user, system), ns.
fn cpu_time() -> (u64, u64) {
    let mut sum = (0, 0);
    let mut add = |process: &Arc<Process>| {
        let own = process.usage();
        sum.0 += own.user;
        sum.1 += own.system;
        if process.is_init() {
            let children = process.children_usage();
            sum.0 += children.user;
            sum.1 += children.system;
        }
    };
    tree::processes().iter().for_each(&mut add);
    sum
}

fn boot_seconds() -> u64 {
    (hal::time::realtime() - container_age()) / 1_000_000_000
}

/// ns since PID 1 was started.
/// ns since PID 1 was started.
pub fn container_age() -> u64 {
    tree::find_process(1).map_or(0, |init| hal::time::monotonic().saturating_sub(init.times.start))
}

fn stat() -> String {
    let (user, system) = cpu_time();
    let cpus = hal::cpu::count().max(1) as u64;
    let tick = 1_000_000_000 / TICKS;
    let idle = (container_age() * cpus).saturating_sub(user + system) / tick;
    let (user, system) = (user / tick, system / tick);
    let mut text = format!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    for cpu in 0..cpus {
        let _ = writeln!(text, "cpu{cpu} {} 0 {} {} 0 0 0 0 0 0", user / cpus, system / cpus, idle / cpus);
    }
    let counters = hal::cpu::counters();
    let running = tree::processes().iter().filter(|process| process.state_letter() == b'R').count();
    let _ = write!(
        text,
        "intr {}\nctxt {}\nbtime {}\nprocesses {}\nprocs_running {running}\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
        counters.interrupts.load(Ordering::Relaxed),
        counters.context_switches.load(Ordering::Relaxed),
        boot_seconds(),
        tree::last_id(),
    );
    text
}

fn uptime() -> String {
    let age = container_age();
    let (user, system) = cpu_time();
    let idle = (age * hal::cpu::count().max(1) as u64).saturating_sub(user + system);
    let shown = |ns: u64| format!("{}.{:02}", ns / 1_000_000_000, ns / 10_000_000 % 100);
    format!("{} {}\n", shown(age), shown(idle))
}

fn loadavg() -> String {
    let processes = tree::processes();
    let running = processes.iter().filter(|process| process.state_letter() == b'R').count();
    format!("0.00 0.00 0.00 {running}/{} {}\n", tree::count(), tree::last_id())
}

fn vmstat() -> String {
    let (total, free) = memory();
    let faults = hal::cpu::counters().page_faults.load(Ordering::Relaxed);
    format!(
        "nr_free_pages {}\nnr_anon_pages {}\nnr_mapped 0\nnr_file_pages 0\nnr_dirty 0\nnr_writeback 0\nnr_shmem 0\npgpgin 0\npgpgout 0\n\
         pswpin 0\npswpout 0\npgfault {faults}\npgmajfault 0\noom_kill {}\n",
        free / 4096,
        (total - free) / 4096,
        hal::cpu::counters().oom_kills.load(Ordering::Relaxed),
    )
}

fn interrupts() -> String {
    let mut text = String::from("    ");
    for cpu in 0..hal::cpu::count().max(1) {
        let _ = write!(text, "       CPU{cpu}");
    }
    text.push('\n');
    text
}
