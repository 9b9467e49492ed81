//! Open file descriptions (open(2): "open file description") and the operations behind them.

use super::inode::Stat;
use super::sigio::Notifier;
use crate::errno::{Errno, EINVAL, ENODEV, ENOTDIR, ENOTTY, ENXIO, ESPIPE};
use crate::io::IoBuffer;
use crate::mm::Pages;
use crate::process::Task;
use crate::sync::Mutex;
use crate::wait::WaitQueue;
use crate::SysResult;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};
use hal::sync::Once;

/// EPOLL* bits (the same values as POLL*).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Events(pub u32);

impl Events {
    pub const IN: Self = Self(0x1);
    pub const PRI: Self = Self(0x2);
    pub const OUT: Self = Self(0x4);
    pub const ERR: Self = Self(0x8);
    pub const HUP: Self = Self(0x10);
    pub const RDNORM: Self = Self(0x40);
    pub const WRNORM: Self = Self(0x100);
    pub const RDHUP: Self = Self(0x2000);

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl core::ops::BitOr for Events {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl core::ops::BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

#[derive(Clone, Copy, Debug)]
pub enum SeekFrom {
    Start(i64),
    Current(i64),
    End(i64),
    Data(i64),
    Hole(i64),
}

/// What an open file can do. Defaults answer as Linux does for files that lack the operation.
///
/// Streams (pipes, sockets, terminals) implement `read` and `write` and look at `file.nonblocking()`; seekable files implement
/// `read_at` and `write_at`, and the system-call layer keeps the position.
#[allow(unused_variables)]
pub trait FileOps: Send + Sync + Any {
    /// Whether `read_at`/`write_at` (with a position) are what this file implements.
    fn seekable(&self) -> bool {
        false
    }
    fn read(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        Err(EINVAL)
    }
    fn write(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        Err(EINVAL)
    }
    fn read_at(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        Err(ESPIPE)
    }
    fn write_at(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        Err(ESPIPE)
    }
    /// O_APPEND writes of seekable files: writes at the end, gives (bytes, new position).
    fn append(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> Result<(usize, u64), Errno> {
        Err(ESPIPE)
    }
    /// The new position for lseek(2); `current` is the present one.
    fn seek(&self, file: &OpenFile, current: u64, to: SeekFrom) -> Result<u64, Errno> {
        Err(ESPIPE)
    }
    /// Present readiness. Regular files are always ready.
    fn poll(&self, file: &OpenFile) -> Events {
        Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM
    }
    /// Woken whenever `poll` may have changed. None: it never changes.
    fn poll_queue(&self, file: &OpenFile) -> Option<&WaitQueue> {
        None
    }
    fn ioctl(&self, file: &OpenFile, task: &Arc<Task>, request: u32, argument: u64) -> SysResult {
        Err(ENOTTY)
    }
    /// getdents64(2): fills the buffer with whole records, moves the position cookie on.
    fn read_directory(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        Err(ENOTDIR)
    }
    /// The object to map (mmap(2)). ENODEV: cannot be mapped.
    fn pages(&self, file: &OpenFile) -> Result<Arc<dyn Pages>, Errno> {
        Err(ENODEV)
    }
    /// The last descriptor (and mapping) of this open file description is gone.
    fn release(&self, file: &OpenFile) {}
    /// A descriptor (not the last) was closed by `task`: POSIX record locks.
    fn flush(&self, file: &OpenFile) {}
    /// Whether O_ASYNC works on it: the owner (as F_SETOWN has it) when none was set; 0: nobody.
    fn default_owner(&self) -> Option<i32> {
        None
    }
    /// fstat(2). Files of a file system answer by their location; this is for the others.
    fn stat(&self, file: &OpenFile) -> Result<Stat, Errno> {
        Ok(Stat { mode: 0o600, nlink: 1, blksize: 4096, dev: ANONYMOUS_DEVICE, ino: 1, ..Stat::default() })
    }
    /// What /proc/PID/fd/N shows for a file without a location, such as "pipe:[17]".
    fn describe(&self, file: &OpenFile) -> String {
        String::from("anon_inode:[file]")
    }
    /// Further lines of /proc/PID/fdinfo/N.
    fn details(&self, file: &OpenFile) -> String {
        String::new()
    }
    /// f_type of fstatfs(2) for a file without a location.
    fn magic(&self) -> u64 {
        linux_abi::fs::ANON_INODE_MAGIC
    }
    /// fsync(2), fdatasync(2). EINVAL: nothing that could be synced.
    fn sync(&self, file: &OpenFile, data_only: bool) -> Result<(), Errno> {
        Err(EINVAL)
    }
    /// fallocate(2).
    fn allocate(&self, file: &OpenFile, mode: u32, offset: u64, bytes: u64) -> Result<(), Errno> {
        Err(ENODEV)
    }
    /// copy_file_range(2) without the bytes passing through here. None: not between these two.
    fn copy_to(&self, from: u64, target: &Arc<dyn FileOps>, to: u64, bytes: usize) -> Option<SysResult> {
        None
    }
    /// fcntl(2) commands beyond those of every file (pipe sizes, seals). None: unknown here.
    fn fcntl(&self, file: &OpenFile, command: u32, argument: u64) -> Option<SysResult> {
        None
    }
    /// For downcasts (`as_any().downcast_ref::<Pipe>()`).
    fn as_any(&self) -> &dyn Any;
}

/// An open file description: what dup(2) and fork(2) share.
pub struct OpenFile {
    pub ops: Arc<dyn FileOps>,
    /// O_* status flags and access mode.
    flags: AtomicU32,
    pub position: Mutex<u64>,
    /// Where it was opened: file systems' files have one; pipes, sockets, anonymous files do not (they name themselves).
    pub location: Option<crate::fs::Location>,
    /// Counted as a writer of the inode.
    counts_as_writer: bool,
    /// O_ASYNC, F_SETOWN, F_SETSIG.
    pub(super) notifier: Once<Arc<Notifier>>,
}

/// Device number of files that no file system has.
pub const ANONYMOUS_DEVICE: u64 = 0xe;

pub use linux_abi::fs::{O_ACCMODE, O_APPEND, O_CLOEXEC, O_NONBLOCK, O_PATH, O_RDWR, O_WRONLY};

impl OpenFile {
    pub fn new(ops: Arc<dyn FileOps>, flags: u32) -> Arc<Self> {
        Self::at(ops, flags, None)
    }

    pub fn at(ops: Arc<dyn FileOps>, flags: u32, location: Option<crate::fs::Location>) -> Arc<Self> {
        Self::build(ops, flags, location, false)
    }

    /// An open file that keeps its inode from being executed; the caller has counted it ([`super::inode::InodeState::add_writer`]).
    pub fn writer_at(ops: Arc<dyn FileOps>, flags: u32, location: crate::fs::Location) -> Arc<Self> {
        Self::build(ops, flags, Some(location), true)
    }

    fn build(ops: Arc<dyn FileOps>, flags: u32, location: Option<crate::fs::Location>, counts_as_writer: bool) -> Arc<Self> {
        let flags = AtomicU32::new(flags);
        if let Some(location) = &location {
            location.inode().state().opened();
        }
        Arc::new(Self { ops, flags, position: Mutex::new(0), location, counts_as_writer, notifier: Once::new() })
    }

    /// The inode, when a file system has it.
    pub fn inode(&self) -> Option<&Arc<dyn super::inode::Inode>> {
        self.location.as_ref().map(super::Location::inode)
    }

    /// fstat(2).
    pub fn stat(&self) -> Result<Stat, Errno> {
        match self.inode() {
            Some(inode) => inode.stat(),
            None => self.ops.stat(self),
        }
    }

    pub fn is_directory(&self) -> bool {
        self.inode().is_some_and(|inode| inode.kind() == linux_abi::fs::S_IFDIR)
    }

    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }
    pub fn set_flags(&self, flags: u32) {
        self.flags.store(flags, Ordering::Relaxed);
    }
    /// What sends signals about it, if anybody has asked for any.
    pub fn known_notifier(&self) -> Option<&Arc<Notifier>> {
        self.notifier.get()
    }
    pub fn nonblocking(&self) -> bool {
        self.flags() & O_NONBLOCK != 0
    }
    pub fn readable(&self) -> bool {
        self.flags() & O_PATH == 0 && self.flags() & O_ACCMODE != O_WRONLY
    }
    pub fn writable(&self) -> bool {
        self.flags() & O_PATH == 0 && self.flags() & O_ACCMODE != 0
    }
    /// The operations as a concrete type.
    pub fn ops_as<T: 'static>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref::<T>()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let ops = self.ops.clone();
        ops.release(self);
        super::locks::released(self);
        super::lease::released(self);
        if self.flags() & O_PATH == 0 {
            super::notify::closed(self);
        }
        if let (true, Some(inode)) = (self.counts_as_writer, self.inode()) {
            inode.state().remove_writer();
        }
        if let Some(inode) = self.inode().filter(|inode| inode.state().closed()) {
            super::notify::gone(&**inode);
        }
    }
}

/// lseek(2) in a file of `size` bytes without holes.
pub fn seek_in(size: u64, current: u64, to: SeekFrom) -> Result<u64, Errno> {
    let from = |base: u64, delta: i64| base.checked_add_signed(delta).filter(|&at| at <= i64::MAX as u64).ok_or(EINVAL);
    match to {
        SeekFrom::Start(at) => from(0, at),
        SeekFrom::Current(delta) => from(current, delta),
        SeekFrom::End(delta) => from(size, delta),
        SeekFrom::Data(at) | SeekFrom::Hole(at) if at < 0 || at as u64 >= size => Err(ENXIO),
        SeekFrom::Data(at) => Ok(at as u64),
        SeekFrom::Hole(_) => Ok(size),
    }
}
