//! Pseudo-terminals as files (pty(7), ptmx(4)): the master of /dev/ptmx, the slaves of /dev/pts, /dev/tty.
//!
//! Lock order: `TERMINALS` is a leaf.

use super::ioctl::{self, Side};
use super::job::{controlling_of, PTS_MAJOR};
use super::terminal::Terminal;
use crate::errno::{Errno, EBUSY, EIO, ENOSPC, ENXIO};
use crate::fs::device::{self, Opened};
use crate::fs::file::{O_ACCMODE, O_CLOEXEC, O_NONBLOCK};
use crate::fs::path::Walk;
use crate::fs::{Events, FileOps, Location, OpenFile, Stat};
use crate::io::IoBuffer;
use crate::ipc::links::{capable, CAP_SYS_ADMIN};
use crate::process::Task;
use crate::sched;
use crate::wait::WaitQueue;
use crate::SysResult;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use hal::sync::SpinLock;
use linux_abi::fs::{makedev, minor, O_NOCTTY, S_IFCHR};

/// /proc/sys/kernel/pty/max.
const MAX_TERMINALS: u32 = 4096;
const RLIMIT_NOFILE: usize = 7;

/// A terminal is here while its master (or the library OS, for the container's own) has it open.
struct Entry {
    terminal: Weak<Terminal>,
    /// Who opened the master: the owner of /dev/pts/N.
    owner: (u32, u32),
    created: u64,
}

static TERMINALS: SpinLock<BTreeMap<u32, Entry>> = SpinLock::new(BTreeMap::new());

/// For devpts: index, (uid, gid) and creation time (realtime, ns) of every slave.
pub fn list() -> Vec<(u32, (u32, u32), u64)> {
    let terminals = TERMINALS.lock();
    terminals
        .iter()
        .filter(|(_, entry)| entry.terminal.strong_count() > 0)
        .map(|(&index, entry)| (index, entry.owner, entry.created))
        .collect()
}

/// For devpts: (uid, gid) and creation time of /dev/pts/`index`.
pub fn find(index: u32) -> Option<((u32, u32), u64)> {
    let terminals = TERMINALS.lock();
    let entry = terminals.get(&index).filter(|entry| entry.terminal.strong_count() > 0)?;
    Some((entry.owner, entry.created))
}

/// A new terminal with the lowest free number. ENOSPC when there are too many.
pub fn create(owner: (u32, u32)) -> Result<Arc<Terminal>, Errno> {
    let mut terminals = TERMINALS.lock();
    terminals.retain(|_, entry| entry.terminal.strong_count() > 0);
    // The first gap in the numbers that are taken.
    let index = terminals.keys().zip(0..).find(|(&taken, index)| taken != *index).map_or(terminals.len() as u32, |(_, index)| index);
    if index >= MAX_TERMINALS {
        return Err(ENOSPC);
    }
    let terminal = Terminal::new(index);
    let entry = Entry { terminal: Arc::downgrade(&terminal), owner, created: hal::time::realtime() };
    terminals.insert(index, entry);
    Ok(terminal)
}

pub(super) fn remove(index: u32) {
    TERMINALS.lock().remove(&index);
}

pub struct MasterEnd {
    terminal: Arc<Terminal>,
}

impl FileOps for MasterEnd {
    fn read(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        self.terminal.master_read(file.nonblocking(), buffer)
    }
    fn write(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        self.terminal.master_write(file.nonblocking(), buffer)
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        self.terminal.poll_master()
    }
    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        Some(&self.terminal.master_queue)
    }
    fn default_owner(&self) -> Option<i32> {
        Some(self.terminal.signalled())
    }
    fn ioctl(&self, file: &OpenFile, _task: &Arc<Task>, request: u32, argument: u64) -> SysResult {
        ioctl::ioctl(&self.terminal, Side::Master, file, request, argument)
    }
    fn release(&self, _file: &OpenFile) {
        remove(self.terminal.index);
        self.terminal.master_closed();
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An open slave; dead after a hang-up.
pub struct SlaveEnd {
    pub(super) terminal: Arc<Terminal>,
    generation: u32,
}

impl SlaveEnd {
    fn new(terminal: &Arc<Terminal>) -> Arc<Self> {
        Arc::new(Self { terminal: terminal.clone(), generation: terminal.slave_opened() })
    }

    pub(super) fn is_dead(&self) -> bool {
        let core = self.terminal.core.lock();
        core.generation != self.generation || core.master_left
    }
}

impl Drop for SlaveEnd {
    fn drop(&mut self) {
        self.terminal.slave_closed();
    }
}

impl FileOps for SlaveEnd {
    fn read(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        self.terminal.slave_read(self.generation, file.nonblocking(), buffer)
    }
    fn write(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        self.terminal.slave_write(self.generation, file.nonblocking(), buffer)
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        self.terminal.poll_slave(self.generation)
    }
    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        Some(&self.terminal.slave_queue)
    }
    fn default_owner(&self) -> Option<i32> {
        Some(self.terminal.signalled())
    }
    fn ioctl(&self, file: &OpenFile, _task: &Arc<Task>, request: u32, argument: u64) -> SysResult {
        ioctl::of_slave(self, file, request, argument)
    }
    fn stat(&self, _file: &OpenFile) -> Result<Stat, Errno> {
        let rdev = makedev(PTS_MAJOR, self.terminal.index);
        Ok(Stat { mode: S_IFCHR | 0o620, nlink: 1, rdev, blksize: 1024, ino: u64::from(self.terminal.index) + 3, ..Stat::default() })
    }
    fn describe(&self, _file: &OpenFile) -> String {
        format!("/dev/pts/{}", self.terminal.index)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// open(2) of /dev/ptmx.
fn open_master(task: &Arc<Task>, _rdev: u64, _flags: u32, _location: &Location) -> Result<Opened, Errno> {
    let credentials = task.credentials();
    let terminal = create((credentials.fsuid, credentials.fsgid))?;
    Ok(Opened::Ops(Arc::new(MasterEnd { terminal })))
}

/// The checks of opening a slave, and its operations.
fn open_terminal(terminal: &Arc<Terminal>, flags: u32) -> Result<Arc<SlaveEnd>, Errno> {
    let core = terminal.core.lock();
    if core.master_left || core.locked {
        return Err(EIO);
    }
    if core.exclusive && !capable(CAP_SYS_ADMIN) {
        return Err(EBUSY);
    }
    drop(core);
    let end = SlaveEnd::new(terminal);
    if flags & O_NOCTTY == 0 {
        terminal.take_control_on_open();
    }
    Ok(end)
}

/// open(2) of /dev/pts/N.
fn open_slave(_task: &Arc<Task>, rdev: u64, flags: u32, _location: &Location) -> Result<Opened, Errno> {
    let terminal = TERMINALS.lock().get(&minor(rdev)).and_then(|entry| entry.terminal.upgrade()).ok_or(EIO)?;
    Ok(Opened::Ops(open_terminal(&terminal, flags)?))
}

/// open(2) of /dev/tty: the terminal that controls the caller.
fn open_controlling(task: &Arc<Task>, _rdev: u64, flags: u32, _location: &Location) -> Result<Opened, Errno> {
    let terminal = controlling_of(&task.process).ok_or(ENXIO)?;
    Ok(Opened::Ops(open_terminal(&terminal, flags | O_NOCTTY)?))
}

/// open(2) of /dev/console: the container's own terminal.
fn open_console(_task: &Arc<Task>, _rdev: u64, flags: u32, _location: &Location) -> Result<Opened, Errno> {
    let terminal = super::container::the_console().ok_or(EIO)?;
    Ok(Opened::Ops(open_terminal(&terminal, flags)?))
}

/// A slave's open file: by its name in /dev/pts when the task has one there, so that ttyname(3) finds it.
pub(super) fn open_file(task: &Arc<Task>, terminal: &Arc<Terminal>, flags: u32) -> Result<Arc<OpenFile>, Errno> {
    let status = flags & (O_ACCMODE | O_NONBLOCK);
    let rdev = makedev(PTS_MAJOR, terminal.index);
    let ops = open_terminal(terminal, flags)?;
    let path = format!("/dev/pts/{}", terminal.index);
    let place = Walk::new(task).lookup(task.fs().root(), path.as_bytes(), true).ok();
    let place = place.filter(|location| location.inode().stat().is_ok_and(|stat| stat.rdev == rdev));
    Ok(OpenFile::at(ops, status, place))
}

/// TIOCGPTPEER: a descriptor of the slave, whatever mounts the caller sees.
pub(super) fn open_peer(terminal: &Arc<Terminal>, flags: u32) -> SysResult {
    let task = sched::current();
    let file = open_file(&task, terminal, flags)?;
    task.files().insert(file, flags & O_CLOEXEC != 0, 0, task.limit(RLIMIT_NOFILE)).map(|fd| fd as usize)
}

/// Registers the terminal devices. Once, at boot.
pub fn register() {
    device::register(5, 0, open_controlling);
    device::register(5, 1, open_console);
    device::register(5, 2, open_master);
    device::register_major(PTS_MAJOR, open_slave);
}
