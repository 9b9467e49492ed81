//! The texts of /proc/PID (proc(5)), and where its magic links lead.

use super::process::Target;
use crate::boot;
use crate::errno::{Errno, EACCES, EINVAL, ENOENT, ESRCH};
use crate::fs::mount::{namespace_root, Mount};
use crate::fs::permission::capable;
use crate::fs::{FsContext, Location};
use crate::process::accounting::TICKS;
use crate::process::Task;
use abi::config::IdMapping;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;
use linux_abi::capability::CAP_SYS_RESOURCE;
use linux_abi::fs::{major, minor};

type Text = Result<Vec<u8>, Errno>;

fn ticks(ns: u64) -> u64 {
    ns / (1_000_000_000 / TICKS)
}

fn context(target: &Target) -> Result<Arc<FsContext>, Errno> {
    let task = target.task()?;
    // A task at its end has let go of it.
    task.try_fs().ok_or(ENOENT)
}

pub fn cwd(target: &Target) -> Result<Location, Errno> {
    Ok(context(target).map_err(|_| ENOENT)?.cwd())
}

pub fn root(target: &Target) -> Result<Location, Errno> {
    Ok(context(target).map_err(|_| ENOENT)?.root())
}

pub fn exe(target: &Target) -> Result<Location, Errno> {
    target.process.executable.lock().0.clone().ok_or(ENOENT)
}

pub fn auxv(target: &Target, _reader: &Arc<Task>) -> Text {
    let memory = target.task()?.memory().ok_or(ESRCH)?;
    Ok(memory.auxv().to_vec())
}

pub fn cmdline(target: &Target, _reader: &Arc<Task>) -> Text {
    if target.process.is_zombie() {
        return Ok(Vec::new());
    }
    Ok(target.process.command_line())
}

pub fn environ(target: &Target, _reader: &Arc<Task>) -> Text {
    let memory = target.task()?.memory().ok_or(ESRCH)?;
    let layout = memory.layout();
    let mut text = alloc::vec![0; layout.env_end.saturating_sub(layout.env_start).min(1 << 20) as usize];
    let got = memory.read(layout.env_start, &mut text, true);
    text.truncate(got);
    Ok(text)
}

pub fn comm(target: &Target, _reader: &Arc<Task>) -> Text {
    let mut text = name(target);
    text.push(b'\n');
    Ok(text)
}

fn name(target: &Target) -> Vec<u8> {
    target.task().map_or_else(|_| Vec::new(), |task| task.comm())
}

pub fn set_comm(target: &Target, writer: &Arc<Task>, data: &[u8]) -> Result<(), Errno> {
    if !Arc::ptr_eq(&writer.process, &target.process) {
        return Err(EINVAL);
    }
    let end = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    target.task()?.set_comm(&data[..end]);
    Ok(())
}

pub fn cgroup(_target: &Target, _reader: &Arc<Task>) -> Text {
    Ok(crate::fs::cgroup::own_path_text().into_bytes())
}

pub fn uid_map(_target: &Target, _reader: &Arc<Task>) -> Text {
    Ok(id_map(boot::container().map_or(&[], |container| &container.spec.uid_map)))
}

pub fn gid_map(_target: &Target, _reader: &Arc<Task>) -> Text {
    Ok(id_map(boot::container().map_or(&[], |container| &container.spec.gid_map)))
}

/// Projects are not mapped.
pub fn project_map(_target: &Target, _reader: &Arc<Task>) -> Text {
    Ok(id_map(&[]))
}

fn id_map(mappings: &[IdMapping]) -> Vec<u8> {
    let identity = [IdMapping { inside: 0, outside: 0, count: u32::MAX }];
    let mut text = String::new();
    for mapping in if mappings.is_empty() { &identity } else { mappings } {
        let _ = writeln!(text, "{:10} {:10} {:10}", mapping.inside, mapping.outside, mapping.count);
    }
    text.into_bytes()
}

pub fn io(target: &Target, _reader: &Arc<Task>) -> Text {
    let _ = target;
    Ok(b"rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n".to_vec())
}

const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

pub fn limits(target: &Target, _reader: &Arc<Task>) -> Text {
    let value = |limit: u64| if limit == u64::MAX { String::from("unlimited") } else { format!("{limit}") };
    let mut text = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for ((name, unit), (soft, hard)) in LIMITS.iter().zip(*target.process.limits.lock()) {
        let _ = writeln!(text, "{name:<25} {:<20} {:<20} {unit:<10}", value(soft), value(hard));
    }
    Ok(text.into_bytes())
}

pub fn oom_score(_target: &Target, _reader: &Arc<Task>) -> Text {
    Ok(b"0\n".to_vec())
}

pub fn oom_score_adj(target: &Target, _reader: &Arc<Task>) -> Text {
    Ok(format!("{}\n", target.process.oom_score_adj.load(Ordering::Relaxed)).into_bytes())
}

fn number(data: &[u8]) -> Result<i64, Errno> {
    core::str::from_utf8(data).map_err(|_| EINVAL)?.trim().parse().map_err(|_| EINVAL)
}

pub fn set_oom_score_adj(target: &Target, writer: &Arc<Task>, data: &[u8]) -> Result<(), Errno> {
    let value = i32::try_from(number(data)?).map_err(|_| EINVAL)?;
    if !(-1000..=1000).contains(&value) {
        return Err(EINVAL);
    }
    if value < target.process.oom_score_adj.load(Ordering::Relaxed) && !capable(&writer.credentials(), CAP_SYS_RESOURCE) {
        return Err(EACCES);
    }
    target.process.oom_score_adj.store(value, Ordering::Relaxed);
    Ok(())
}

/// The old scale, -17 to 15.
pub fn oom_adj(target: &Target, _reader: &Arc<Task>) -> Text {
    let adj = target.process.oom_score_adj.load(Ordering::Relaxed);
    Ok(format!("{}\n", if adj == 1000 { 15 } else { adj * 17 / 1000 }).into_bytes())
}

pub fn set_oom_adj(target: &Target, writer: &Arc<Task>, data: &[u8]) -> Result<(), Errno> {
    let value = number(data)?;
    if !(-17..=15).contains(&value) {
        return Err(EINVAL);
    }
    let adj = if value == 15 { 1000 } else { value * 1000 / 17 };
    set_oom_score_adj(target, writer, format!("{adj}").as_bytes())
}

pub fn personality(target: &Target, _reader: &Arc<Task>) -> Text {
    Ok(format!("{:08x}\n", target.task()?.personality.load(Ordering::Relaxed)).into_bytes())
}

pub fn schedstat(target: &Target, _reader: &Arc<Task>) -> Text {
    let task = target.task()?;
    Ok(format!("{} 0 {}\n", task.cpu_ns(), task.sched.turns()).into_bytes())
}

pub fn timer_slack(target: &Target, _reader: &Arc<Task>) -> Text {
    Ok(format!("{}\n", target.task()?.timer_slack.get()).into_bytes())
}

pub fn set_timer_slack(target: &Target, _writer: &Arc<Task>, data: &[u8]) -> Result<(), Errno> {
    let value = u64::try_from(number(data)?).map_err(|_| EINVAL)?;
    target.task()?.timer_slack.set(value);
    Ok(())
}

/// Mounts that the target can see, with their paths from its root.
fn visible(target: &Target) -> Result<Vec<(Arc<Mount>, Vec<u8>)>, Errno> {
    let root = context(target).map_err(|_| EINVAL)?.root();
    let mounts = namespace_root(&root.mount).tree();
    let place = |mount: Arc<Mount>| {
        let at = Location { dentry: mount.root.clone(), mount: mount.clone() };
        at.path_from(&root).map(|path| (mount, path))
    };
    Ok(mounts.into_iter().filter_map(place).collect())
}

/// Blanks, tabs, newlines and backslashes as octal (getmntent(3)).
fn escape(text: &[u8]) -> String {
    let mut out = String::new();
    for &byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => {
                let _ = write!(out, "\\{byte:03o}");
            }
            _ => out.push(char::from(byte)),
        }
    }
    out
}

fn options(mount: &Mount) -> String {
    let mut text = mount.option_text();
    if !mount.fs.options().is_empty() {
        text.push(',');
        text.push_str(mount.fs.options());
    }
    text
}

fn source(mount: &Mount) -> String {
    escape(if mount.source.is_empty() { b"none" } else { mount.source.as_bytes() })
}

pub fn mounts(target: &Target, _reader: &Arc<Task>) -> Text {
    let mut text = String::new();
    for (mount, path) in visible(target)? {
        let _ = writeln!(text, "{} {} {} {} 0 0", source(&mount), escape(&path), mount.fstype, options(&mount));
    }
    Ok(text.into_bytes())
}

pub fn mountstats(target: &Target, _reader: &Arc<Task>) -> Text {
    let mut text = String::new();
    for (mount, path) in visible(target)? {
        let _ = writeln!(text, "device {} mounted on {} with fstype {}", source(&mount), escape(&path), mount.fstype);
    }
    Ok(text.into_bytes())
}

pub fn mountinfo(target: &Target, _reader: &Arc<Task>) -> Text {
    let mut text = String::new();
    for (mount, path) in visible(target)? {
        let parent = mount.mount_point().map_or(1, |point| point.mount.id);
        let device = mount.root.inode().stat().map_or(0, |stat| stat.dev);
        let within = Location { dentry: mount.root.clone(), mount: mount.clone() }.path_in_file_system();
        let root = match mount.fs.origin() {
            b"" => within,
            origin if within == b"/" => origin.to_vec(),
            origin => [origin, &within].concat(),
        };
        let shared = match mount.propagation.load(Ordering::Relaxed) {
            8 => format!(" shared:{}", mount.id),
            1 => String::from(" unbindable"),
            _ => String::new(),
        };
        let separator = if mount.fs.options().is_empty() { "" } else { "," };
        let _ = writeln!(
            text,
            "{} {parent} {}:{} {} {} {}{shared} - {} {} rw{separator}{}",
            mount.id,
            major(device),
            minor(device),
            escape(&root),
            escape(&path),
            mount.option_text(),
            mount.fstype,
            source(&mount),
            mount.fs.options(),
        );
    }
    Ok(text.into_bytes())
}

/// proc(5), /proc/PID/stat: 52 fields.
pub fn stat(target: &Target, _reader: &Arc<Task>) -> Text {
    let process = &target.process;
    let task = target.task().ok();
    let usage = match &target.thread {
        Some(thread) => thread.usage(),
        None => process.usage(),
    };
    let children = process.children_usage();
    let state = target.thread.as_ref().map_or_else(|| process.state_letter(), |thread| thread.state_letter());
    let memory = task.as_ref().and_then(|task| task.memory());
    let (size, resident) = memory.as_ref().map_or((0, 0), |memory| {
        let usage = memory.usage();
        (usage.size, usage.resident() / 4096)
    });
    let layout = memory.map(|memory| memory.layout());
    let terminal = process.terminal_device();
    let nice = task.as_ref().map_or(0, |task| task.scheduling.nice.load(Ordering::Relaxed));
    let signals = task.as_ref().map_or([0; 4], |task| {
        let (ignored, caught) = process.signals.actions().summary();
        [task.signals.pending().0, task.signals.blocked().0, ignored.0, caught.0]
    });
    let at = |pick: fn(&crate::mm::Layout) -> u64| layout.as_ref().map_or(0, pick);
    let group_of_terminal = if terminal == 0 { -1 } else { process.group() as i32 };
    let text = format!(
        "{} ({}) {} {} {} {} {terminal} {group_of_terminal} 0 {} {} {} {} {} {} {} {} {} {nice} {} 0 {} {size} {resident} \
         18446744073709551615 {} {} {} 0 0 {} {} {} {} 0 0 0 {} {} 0 0 0 0 0 {} {} {} {} {} {} {} {}\n",
        target.id(),
        String::from_utf8_lossy(&name(target)),
        char::from(state),
        process.parent_pid(),
        process.group(),
        process.session().id,
        usage.minor_faults,
        children.minor_faults,
        usage.major_faults,
        children.major_faults,
        ticks(usage.user),
        ticks(usage.system),
        ticks(children.user),
        ticks(children.system),
        20 + nice,
        process.thread_list().len(),
        ticks(process.times.start),
        at(|layout| layout.start_code),
        at(|layout| layout.end_code),
        at(|layout| layout.start_stack),
        signals[0],
        signals[1] & 0x7fff_ffff,
        signals[2] & 0x7fff_ffff,
        signals[3] & 0x7fff_ffff,
        process.exit_signal.load(Ordering::Relaxed),
        task.as_ref().map_or(0, |task| task.sched.last_cpu()),
        at(|layout| layout.start_data),
        at(|layout| layout.end_data),
        at(|layout| layout.start_brk),
        at(|layout| layout.arg_start),
        at(|layout| layout.arg_end),
        at(|layout| layout.env_start),
        at(|layout| layout.env_end),
        process.exit_status(),
    );
    Ok(text.into_bytes())
}

const STATES: [(u8, &str); 7] = [
    (b'R', "running"),
    (b'S', "sleeping"),
    (b'D', "disk sleep"),
    (b'T', "stopped"),
    (b't', "tracing stop"),
    (b'Z', "zombie"),
    (b'X', "dead"),
];

pub fn status(target: &Target, _reader: &Arc<Task>) -> Text {
    let process = &target.process;
    let state = target.thread.as_ref().map_or_else(|| process.state_letter(), |thread| thread.state_letter());
    let word = STATES.iter().find(|(letter, _)| *letter == state).map_or("running", |(_, word)| word);
    let mut text = String::new();
    let _ = writeln!(text, "Name:\t{}", String::from_utf8_lossy(&name(target)));
    let task = target.task().ok();
    if let Some(context) = task.as_ref().and_then(|task| task.try_fs()) {
        let _ = writeln!(text, "Umask:\t{:04o}", context.umask());
    }
    let _ = writeln!(text, "State:\t{} ({word})", char::from(state));
    let id = target.id();
    let tracer = task.as_ref().map_or(0, |task| task.tracee.tracer_pid());
    let _ = write!(text, "Tgid:\t{}\nNgid:\t0\nPid:\t{id}\nPPid:\t{}\nTracerPid:\t{tracer}\n", process.pid, process.parent_pid());
    if let Some(task) = &task {
        status_of_task(&mut text, target, task);
    }
    Ok(text.into_bytes())
}

fn status_of_task(text: &mut String, target: &Target, task: &Arc<Task>) {
    let process = &target.process;
    let c = task.credentials();
    let _ = writeln!(text, "Uid:\t{}\t{}\t{}\t{}", c.uid, c.euid, c.suid, c.fsuid);
    let _ = writeln!(text, "Gid:\t{}\t{}\t{}\t{}", c.gid, c.egid, c.sgid, c.fsgid);
    let _ = writeln!(text, "FDSize:\t{}", task.files().list().len().next_power_of_two().max(64));
    let mut groups = String::new();
    for group in &c.groups {
        let _ = write!(groups, "{group} ");
    }
    let id = target.id();
    let _ = write!(
        text,
        "Groups:\t{groups}\nNStgid:\t{}\nNSpid:\t{id}\nNSpgid:\t{}\nNSsid:\t{}\n",
        process.pid,
        process.group(),
        process.session().id
    );
    if let Some(memory) = task.memory() {
        text.push_str(&memory.usage().status());
    }
    let (ignored, caught) = process.signals.actions().summary();
    let pending_limit = process.limits.lock()[11].0;
    let _ = writeln!(text, "Threads:\t{}\nSigQ:\t0/{pending_limit}", process.thread_list().len());
    for (label, set) in [
        ("SigPnd", task.signals.pending().0),
        ("ShdPnd", process.signals.pending().0),
        ("SigBlk", task.signals.blocked().0),
        ("SigIgn", ignored.0),
        ("SigCgt", caught.0),
        ("CapInh", c.inheritable),
        ("CapPrm", c.permitted),
        ("CapEff", c.effective),
        ("CapBnd", c.bounding),
        ("CapAmb", c.ambient),
    ] {
        let _ = writeln!(text, "{label}:\t{set:016x}");
    }
    let usage = task.usage();
    let cpus = hal::cpu::count();
    let _ = write!(
        text,
        "NoNewPrivs:\t{}\nSeccomp:\t{}\nSeccomp_filters:\t{}\nSpeculation_Store_Bypass:\tvulnerable\nCpus_allowed:\t{:x}\nCpus_allowed_list:\t{}\n\
         Mems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n",
        u8::from(task.no_new_privs.load(Ordering::Relaxed)),
        task.seccomp.mode(),
        task.seccomp.depth(),
        if cpus >= 64 { u64::MAX } else { (1 << cpus) - 1 },
        super::system::cpu_list(),
        usage.voluntary_switches,
        usage.involuntary_switches,
    );
}
