//! /proc/PID and /proc/PID/task/TID: the entries, who may see them, and the magic links.

use super::{descriptors, memory, network, parse_id, report};
use crate::errno::{Errno, EACCES, ENOENT, ESRCH};
use crate::fs::file::FileOps;
use crate::fs::synthetic::{Directory, Name, Node};
use crate::fs::Location;
use crate::process::{tree, Process, Task};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_abi::capability::CAP_SYS_PTRACE;
use linux_abi::fs::{S_IFDIR, S_IFLNK, S_IFREG};

/// A process, or one of its threads.
#[derive(Clone)]
pub struct Target {
    pub process: Arc<Process>,
    /// None: the process as a whole.
    pub thread: Option<Arc<Task>>,
}

impl Target {
    /// The thread that stands for it. ESRCH: a zombie has none.
    pub fn task(&self) -> Result<Arc<Task>, Errno> {
        self.thread.clone().or_else(|| self.process.leader()).ok_or(ESRCH)
    }

    pub fn id(&self) -> u32 {
        self.thread.as_ref().map_or(self.process.pid, |thread| thread.tid())
    }

    fn is_there(&self) -> bool {
        !self.process.is_reaped() && self.thread.as_ref().is_none_or(|thread| tree::find_task(thread.tid()).is_some())
    }
}

/// Inode numbers: by id and by entry, the same each time.
pub fn ino(id: u32, entry: u64) -> u64 {
    1 << 40 | u64::from(id) << 12 | entry
}

type Read = fn(&Target, &Arc<Task>) -> Result<Vec<u8>, Errno>;
type Write = fn(&Target, &Arc<Task>, &[u8]) -> Result<(), Errno>;

#[derive(Clone, Copy)]
enum Kind {
    /// Text for everybody.
    Open(Read),
    /// Text for those who may trace the process (ptrace(2), "Ptrace access mode checking").
    Guarded(Read),
    Control(Read, Write),
    /// A magic link.
    Place(fn(&Target) -> Result<Location, Errno>),
    Descriptors,
    DescriptorInfo,
    Tasks,
    Namespaces,
    Network,
    Memory,
}

struct Entry {
    name: &'static str,
    mode: u32,
    kind: Kind,
    /// Also in task/TID.
    in_thread: bool,
}

const fn entry(name: &'static str, mode: u32, kind: Kind) -> Entry {
    Entry { name, mode, kind, in_thread: true }
}

const fn whole(name: &'static str, mode: u32, kind: Kind) -> Entry {
    Entry { name, mode, kind, in_thread: false }
}

const FILE: u32 = S_IFREG | 0o444;
const OWN: u32 = S_IFREG | 0o400;
const CONTROL: u32 = S_IFREG | 0o644;
const LINK: u32 = S_IFLNK | 0o777;

const ENTRIES: &[Entry] = &[
    entry("auxv", OWN, Kind::Guarded(report::auxv)),
    entry("cgroup", FILE, Kind::Open(report::cgroup)),
    entry("cmdline", FILE, Kind::Open(report::cmdline)),
    entry("comm", CONTROL, Kind::Control(report::comm, report::set_comm)),
    whole("coredump_filter", CONTROL, Kind::Control(|_, _| Ok(b"00000033\n".to_vec()), |_, _, _| Ok(()))),
    entry("cpuset", FILE, Kind::Open(|_, _| Ok(b"/\n".to_vec()))),
    entry("cwd", LINK, Kind::Place(report::cwd)),
    entry("environ", OWN, Kind::Guarded(report::environ)),
    entry("exe", LINK, Kind::Place(report::exe)),
    entry("fd", S_IFDIR | 0o500, Kind::Descriptors),
    entry("fdinfo", S_IFDIR | 0o555, Kind::DescriptorInfo),
    entry("gid_map", CONTROL, Kind::Open(report::gid_map)),
    entry("io", OWN, Kind::Guarded(report::io)),
    entry("limits", FILE, Kind::Open(report::limits)),
    entry("loginuid", CONTROL, Kind::Control(|_, _| Ok(b"4294967295".to_vec()), |_, _, _| Ok(()))),
    entry("maps", FILE, Kind::Guarded(memory::maps)),
    entry("mem", S_IFREG | 0o600, Kind::Memory),
    entry("mountinfo", FILE, Kind::Open(report::mountinfo)),
    entry("mounts", FILE, Kind::Open(report::mounts)),
    whole("mountstats", OWN, Kind::Open(report::mountstats)),
    whole("net", S_IFDIR | 0o555, Kind::Network),
    entry("ns", S_IFDIR | 0o511, Kind::Namespaces),
    entry("oom_adj", CONTROL, Kind::Control(report::oom_adj, report::set_oom_adj)),
    entry("oom_score", FILE, Kind::Open(report::oom_score)),
    entry("oom_score_adj", CONTROL, Kind::Control(report::oom_score_adj, report::set_oom_score_adj)),
    entry("personality", OWN, Kind::Guarded(report::personality)),
    entry("projid_map", CONTROL, Kind::Open(report::project_map)),
    entry("root", LINK, Kind::Place(report::root)),
    entry("schedstat", FILE, Kind::Open(report::schedstat)),
    entry("sessionid", FILE, Kind::Open(|_, _| Ok(b"4294967295".to_vec()))),
    whole("setgroups", CONTROL, Kind::Open(|_, _| Ok(b"allow\n".to_vec()))),
    entry("smaps", FILE, Kind::Guarded(memory::smaps)),
    entry("smaps_rollup", FILE, Kind::Guarded(memory::smaps_rollup)),
    entry("stack", OWN, Kind::Guarded(|_, _| Ok(Vec::new()))),
    entry("stat", FILE, Kind::Open(report::stat)),
    entry("statm", FILE, Kind::Open(memory::statm)),
    entry("status", FILE, Kind::Open(report::status)),
    entry("syscall", OWN, Kind::Guarded(|_, _| Ok(b"running\n".to_vec()))),
    whole("task", S_IFDIR | 0o555, Kind::Tasks),
    whole("timerslack_ns", S_IFREG | 0o666, Kind::Control(report::timer_slack, report::set_timer_slack)),
    entry("uid_map", CONTROL, Kind::Open(report::uid_map)),
    entry("wchan", FILE, Kind::Open(|_, _| Ok(b"0".to_vec()))),
];

const NAMESPACES: &[(&str, u64)] = &[
    ("cgroup", 4_026_531_835),
    ("ipc", 4_026_531_839),
    ("mnt", 4_026_531_841),
    ("net", 4_026_531_840),
    ("pid", 4_026_531_836),
    ("pid_for_children", 4_026_531_836),
    ("time", 4_026_531_834),
    ("time_for_children", 4_026_531_834),
    ("user", 4_026_531_837),
    ("uts", 4_026_531_838),
];

/// ptrace(2), PTRACE_MODE_READ_FSCREDS.
pub fn may_look(reader: &Arc<Task>, target: &Target) -> Result<(), Errno> {
    if Arc::ptr_eq(&reader.process, &target.process) {
        return Ok(());
    }
    let own = reader.credentials();
    let may = target.task().map_or_else(
        |_| crate::fs::permission::capable(&own, CAP_SYS_PTRACE),
        |task| crate::ptrace::may_access(reader, (own.fsuid, own.fsgid), &task),
    );
    if may {
        Ok(())
    } else {
        Err(EACCES)
    }
}

/// /proc/ID. Threads can be named too, though they are not listed (proc(5)).
pub fn directory(id: u32) -> Option<Arc<dyn Node>> {
    let process = match tree::find_process(id) {
        Some(process) => process,
        None => tree::find_task(id)?.process.clone(),
    };
    (!process.is_reaped()).then(|| Arc::new(Folder { target: Target { process, thread: None } }) as Arc<dyn Node>)
}

struct Folder {
    target: Target,
}

fn owner(target: &Target) -> (u32, u32) {
    let Ok(task) = target.task() else { return (0, 0) };
    if target.process.dumpable.load(Ordering::Relaxed) != 1 {
        return (0, 0);
    }
    let credentials = task.credentials();
    (credentials.euid, credentials.egid)
}

fn started(target: &Target) -> u64 {
    hal::time::realtime() - hal::time::monotonic() + target.process.times.start
}

impl Folder {
    fn shown(&self) -> impl Iterator<Item = (u64, &'static Entry)> + '_ {
        let in_thread = self.target.thread.is_some();
        (2..).zip(ENTRIES).filter(move |(_, entry)| !in_thread || entry.in_thread)
    }
}

impl Node for Folder {
    fn mode(&self) -> u32 {
        S_IFDIR | 0o555
    }
    fn ino(&self) -> u64 {
        ino(self.target.id(), if self.target.thread.is_some() { 1 } else { 0 })
    }
    fn owner(&self) -> (u32, u32) {
        owner(&self.target)
    }
    fn time(&self) -> u64 {
        started(&self.target)
    }
    fn valid(&self) -> bool {
        self.target.is_there()
    }
    fn process(&self) -> Option<&Arc<Process>> {
        self.target.thread.is_none().then_some(&self.target.process)
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        if !self.valid() {
            return Err(ENOENT);
        }
        let found = self.shown().find(|(_, entry)| entry.name.as_bytes() == name);
        let (number, entry) = found.ok_or(ENOENT)?;
        let target = self.target.clone();
        Ok(match entry.kind {
            Kind::Descriptors => descriptors::folder(target, ino(self.target.id(), number), false),
            Kind::DescriptorInfo => descriptors::folder(target, ino(self.target.id(), number), true),
            Kind::Tasks => Arc::new(Tasks { target }),
            Kind::Namespaces => Arc::new(Namespaces { target }),
            Kind::Network => network::directory(),
            _ => Arc::new(Leaf { target, entry, number }),
        })
    }
    fn names(&self) -> Result<Vec<Name>, Errno> {
        if !self.valid() {
            return Err(ENOENT);
        }
        let id = self.target.id();
        let name =
            |(number, entry): (u64, &Entry)| Name { name: entry.name.into(), mode: entry.mode, ino: ino(id, number), position: number };
        Ok(self.shown().map(name).collect())
    }
}

struct Leaf {
    target: Target,
    entry: &'static Entry,
    number: u64,
}

impl Node for Leaf {
    fn mode(&self) -> u32 {
        self.entry.mode
    }
    fn ino(&self) -> u64 {
        ino(self.target.id(), self.number)
    }
    fn owner(&self) -> (u32, u32) {
        owner(&self.target)
    }
    fn time(&self) -> u64 {
        started(&self.target)
    }
    fn valid(&self) -> bool {
        self.target.is_there()
    }
    fn read(&self, reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        if !self.valid() {
            return Err(ESRCH);
        }
        match self.entry.kind {
            Kind::Open(read) | Kind::Control(read, _) => read(&self.target, reader),
            Kind::Guarded(read) => {
                may_look(reader, &self.target)?;
                read(&self.target, reader)
            }
            _ => Err(crate::errno::EINVAL),
        }
    }
    fn write(&self, writer: &Arc<Task>, data: &[u8]) -> Result<(), Errno> {
        match self.entry.kind {
            Kind::Control(_, write) => write(&self.target, writer, data),
            _ => Err(crate::errno::EPERM),
        }
    }
    fn link(&self, reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        let Kind::Place(place) = self.entry.kind else { return Err(crate::errno::EINVAL) };
        may_look(reader, &self.target)?;
        Ok(place(&self.target)?.display_path(&reader.fs().root()))
    }
    fn follow(&self, reader: &Arc<Task>) -> Option<Result<Location, Errno>> {
        let Kind::Place(place) = self.entry.kind else { return None };
        Some(may_look(reader, &self.target).and_then(|()| place(&self.target)))
    }
    fn operations(&self, opener: &Arc<Task>, _flags: u32) -> Option<Result<Arc<dyn FileOps>, Errno>> {
        match self.entry.kind {
            Kind::Memory => Some(may_look(opener, &self.target).and_then(|()| memory::open(&self.target))),
            // Guarded at open as well, so that a descriptor cannot be had at all.
            Kind::Guarded(_) => may_look(opener, &self.target).err().map(Err),
            _ => None,
        }
    }
}

/// /proc/PID/task.
struct Tasks {
    target: Target,
}

impl Node for Tasks {
    fn mode(&self) -> u32 {
        S_IFDIR | 0o555
    }
    fn ino(&self) -> u64 {
        ino(self.target.id(), 0x800)
    }
    fn owner(&self) -> (u32, u32) {
        owner(&self.target)
    }
    fn valid(&self) -> bool {
        self.target.is_there()
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        let id = parse_id(name).ok_or(ENOENT)?;
        let thread = self.target.process.thread_list().into_iter().find(|thread| thread.tid() == id).ok_or(ENOENT)?;
        Ok(Arc::new(Folder { target: Target { process: self.target.process.clone(), thread: Some(thread) } }))
    }
    fn names(&self) -> Result<Vec<Name>, Errno> {
        let mut ids: Vec<u32> = self.target.process.thread_list().iter().map(|thread| thread.tid()).collect();
        ids.sort_unstable();
        let name = |id: u32| Name { name: format!("{id}").into_bytes(), mode: S_IFDIR, ino: ino(id, 1), position: 2 + u64::from(id) };
        Ok(ids.into_iter().map(name).collect())
    }
}

/// /proc/PID/ns: one of each kind, the same for everybody in the container.
struct Namespaces {
    target: Target,
}

struct Namespace {
    target: Target,
    name: &'static str,
    number: u64,
}

impl Node for Namespaces {
    fn mode(&self) -> u32 {
        S_IFDIR | 0o511
    }
    fn ino(&self) -> u64 {
        ino(self.target.id(), 0x801)
    }
    fn owner(&self) -> (u32, u32) {
        owner(&self.target)
    }
    fn valid(&self) -> bool {
        self.target.is_there()
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        let &(name, number) = NAMESPACES.iter().find(|(known, _)| known.as_bytes() == name).ok_or(ENOENT)?;
        Ok(Arc::new(Namespace { target: self.target.clone(), name, number }))
    }
    fn names(&self) -> Result<Vec<Name>, Errno> {
        let names = NAMESPACES.iter().zip(2..);
        Ok(names.map(|((name, number), position)| Name { name: (*name).into(), mode: S_IFLNK, ino: *number, position }).collect())
    }
}

impl Node for Namespace {
    fn mode(&self) -> u32 {
        LINK
    }
    fn ino(&self) -> u64 {
        self.number
    }
    fn valid(&self) -> bool {
        self.target.is_there()
    }
    fn link(&self, reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        may_look(reader, &self.target)?;
        let kind = self.name.strip_suffix("_for_children").unwrap_or(self.name);
        Ok(format!("{kind}:[{}]", self.number).into_bytes())
    }
    fn follow(&self, reader: &Arc<Task>) -> Option<Result<Location, Errno>> {
        let name = match self.link(reader) {
            Ok(name) => name,
            Err(errno) => return Some(Err(errno)),
        };
        Some(Ok(crate::fs::memfd::nowhere(&name, crate::fs::synthetic::SyntheticInode::new(Directory::marker(self.number), 4))))
    }
}
