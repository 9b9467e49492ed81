//! What a file system offers: inodes (files, directories, links, nodes) and the state that the VFS keeps on each of them.
//!
//! Contract between the VFS and a file system:
//! - the VFS checks types, permissions, mount flags and name lengths before it calls; a file system checks what only it knows;
//! - directory changes (`create`, `link`, `unlink`, `rename` …) come with the directory's dentry lock held, lookups of names that are not
//!   cached too; reads and writes come with no lock;
//! - a file type never changes during an inode's life.

use super::file::{FileOps, OpenFile};
use super::lease::Leases;
use super::locks::FileLocks;
use super::notify::Watches;
use super::Location;
use crate::errno::{Errno, EINVAL, ELOOP, ENOTDIR, EOPNOTSUPP, EPERM, EXDEV};
use crate::process::Task;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use hal::sync::{Once, SpinLock};
use linux_abi::fs::{StatFs, DT_BLK, DT_CHR, DT_DIR, DT_FIFO, DT_LNK, DT_REG, DT_SOCK, DT_UNKNOWN, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};

pub use abi::request::{Attributes, Stat, Time};

/// What permission checks look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What a new object gets; mode includes the file type and has the umask applied.
#[derive(Clone, Copy, Debug)]
pub struct NewNode {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
}

/// A directory entry as [`Inode::list`] reports it. `next` is the position behind it.
pub struct DirEntry<'a> {
    pub ino: u64,
    pub next: u64,
    pub kind: u8,
    pub name: &'a [u8],
}

/// One rename: everything the file system needs, types and permissions checked.
pub struct Rename<'a> {
    pub child: &'a Arc<dyn Inode>,
    pub name: &'a [u8],
    pub new_directory: &'a Arc<dyn Inode>,
    pub new_name: &'a [u8],
    /// What the new name names now.
    pub replaced: Option<&'a Arc<dyn Inode>>,
    /// RENAME_EXCHANGE or RENAME_WHITEOUT.
    pub flags: u32,
}

/// How extended attributes are set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    Either,
    Create,
    Replace,
}

#[allow(unused_variables)]
pub trait Inode: Send + Sync + Any {
    fn state(&self) -> &InodeState;
    /// S_IFMT bits.
    fn kind(&self) -> u32;
    fn stat(&self) -> Result<Stat, Errno>;
    fn owner(&self) -> Result<Owner, Errno> {
        self.stat().map(|stat| Owner { mode: stat.mode, uid: stat.uid, gid: stat.gid })
    }
    /// Of one that has just lost a name: whether that was the last.
    fn is_gone(&self) -> bool {
        self.stat().map_or(true, |stat| stat.nlink == 0)
    }
    fn as_any(&self) -> &dyn Any;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;

    /// A child by name; ENOENT when there is none.
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        Err(ENOTDIR)
    }
    /// Several components at once, each inside of the one before: those found, and why it stopped before the end (None: it did not,
    /// or the last one found is not a directory).
    fn lookup_path(&self, names: &[&[u8]]) -> (Vec<Arc<dyn Inode>>, Option<Errno>) {
        match names.first().map(|name| self.lookup(name)) {
            Some(Ok(inode)) => (alloc::vec![inode], None),
            Some(Err(errno)) => (Vec::new(), Some(errno)),
            None => (Vec::new(), None),
        }
    }
    /// As [`Self::lookup`], with names that are likely to be looked up next, if that is cheaper than asking for them then: `doubtful` ones, which
    /// were there, and those that follow in a listing. None: there is nothing under a name. Need not tell of `name` itself.
    fn lookup_ahead(&self, name: &[u8], doubtful: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Option<Arc<dyn Inode>>)> {
        Vec::new()
    }
    /// For file systems with [`Caching::Confirm`]: before cached names of this directory are believed, at the time `now` of the TSC.
    fn confirm_names(&self, now: u64) {}
    /// For file systems with [`Caching::Never`]: a cached child is still what lookup would find.
    fn valid(&self) -> bool {
        true
    }
    /// A new file, directory, or node by the type in `node.mode`.
    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        Err(EPERM)
    }
    fn symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        Err(EPERM)
    }
    fn link(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<(), Errno> {
        Err(EPERM)
    }
    /// unlink(2) or, for a directory, rmdir(2).
    fn unlink(&self, name: &[u8], child: &Arc<dyn Inode>) -> Result<(), Errno> {
        Err(EPERM)
    }
    fn rename(&self, rename: &Rename<'_>) -> Result<(), Errno> {
        Err(EXDEV)
    }
    /// A file without a name (O_TMPFILE).
    fn temporary(&self, node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        Err(EOPNOTSUPP)
    }
    fn list(&self, position: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<(), Errno> {
        Err(ENOTDIR)
    }
    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        Err(EINVAL)
    }
    /// Magic links (/proc/PID/exe and the like): where they lead, without a name. None: an ordinary link.
    fn follow(&self, task: &Arc<Task>) -> Option<Result<Location, Errno>> {
        None
    }
    fn set_attributes(&self, attributes: &Attributes) -> Result<(), Errno> {
        Err(EPERM)
    }
    /// The operations of an open file of this inode (regular files and directories; the VFS opens the rest).
    fn open(self: Arc<Self>, flags: u32) -> Result<Arc<dyn FileOps>, Errno>;
    /// Magic files whose opening yields an existing open file (/proc/self/fd/N of a pipe).
    fn reopen(&self, task: &Arc<Task>, flags: u32) -> Option<Result<Arc<OpenFile>, Errno>> {
        None
    }
    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(EOPNOTSUPP)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno> {
        Err(EOPNOTSUPP)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        Err(EOPNOTSUPP)
    }
    /// Names, each with its NUL.
    fn list_xattr(&self) -> Result<Vec<u8>, Errno> {
        Err(EOPNOTSUPP)
    }
    /// Other users of a shared volume hold locks too: ask the host (see `locks`). None: there are no others.
    fn host_lock(&self, kind: i16, flock: bool, start: u64, bytes: u64) -> Option<Result<(), Errno>> {
        None
    }
}

/// How long directory entries may be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caching {
    /// Nobody else changes the tree: names and their absence are cached.
    Always,
    /// Others change it now and then: names and their absence are cached, and a directory is asked whether it has changed when that was
    /// last known some time ago ([`Inode::confirm_names`]).
    Confirm,
    /// Others change it: every resolution asks.
    Ask,
    /// Names come and go by themselves (/proc): every resolution looks up, cached entries are kept while `valid`.
    Never,
}

impl Caching {
    /// Whether names are believed without a question of their own.
    pub fn remembers(self) -> bool {
        matches!(self, Self::Always | Self::Confirm)
    }
}

pub trait FileSystem: Send + Sync {
    fn root(&self) -> Arc<dyn Inode>;
    fn caching(&self) -> Caching {
        Caching::Always
    }
    /// What lies above its root, where it is a part of a host's file system: for /proc/PID/mountinfo.
    fn origin(&self) -> &[u8] {
        b""
    }
    fn statfs(&self) -> Result<StatFs, Errno>;
    /// Its mount options as /proc/mounts shows them, separated by commas.
    fn options(&self) -> &str {
        ""
    }
    fn sync(&self) -> Result<(), Errno> {
        Ok(())
    }
}

/// What the VFS keeps on every inode, whatever its file system.
#[derive(Default)]
pub struct InodeState {
    pub watches: Watches,
    pub locks: FileLocks,
    /// Allocated when the first is taken.
    pub leases: Once<Box<Leases>>,
    /// The pipe behind a FIFO, the socket bound to a socket node.
    pub attachment: SpinLock<Option<Arc<dyn Any + Send + Sync>>>,
    /// > 0: descriptors that may write; < 0: programs that run it (ETXTBSY for the other side).
    write_count: AtomicI32,
    /// Open files; and whether the last name is gone, so that the last close ends the object.
    opens: AtomicU32,
    gone: AtomicBool,
    /// How often somebody else has changed a directory: what is cached of its names counts for one value of this.
    doubts: AtomicU32,
}

impl InodeState {
    /// Another writer. ETXTBSY while it is executed.
    pub fn add_writer(&self) -> Result<(), Errno> {
        let update = self.write_count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n >= 0).then_some(n + 1));
        update.map(|_| ()).map_err(|_| crate::errno::ETXTBSY)
    }
    pub fn remove_writer(&self) {
        self.write_count.fetch_sub(1, Ordering::AcqRel);
    }
    pub fn deny_write(&self) -> Result<(), Errno> {
        let update = self.write_count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n <= 0).then_some(n - 1));
        update.map(|_| ()).map_err(|_| crate::errno::ETXTBSY)
    }
    pub fn allow_write(&self) {
        self.write_count.fetch_add(1, Ordering::AcqRel);
    }
    /// Open files that may write.
    pub fn writers(&self) -> i32 {
        self.write_count.load(Ordering::Acquire)
    }
    pub fn open_files(&self) -> u32 {
        self.opens.load(Ordering::Acquire)
    }
    pub fn opened(&self) {
        self.opens.fetch_add(1, Ordering::AcqRel);
    }
    /// True: this was the last open file of an object without a name.
    pub fn closed(&self) -> bool {
        self.opens.fetch_sub(1, Ordering::AcqRel) == 1 && self.gone.load(Ordering::Acquire)
    }
    pub fn mark_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }
    pub fn doubts(&self) -> u32 {
        self.doubts.load(Ordering::Acquire)
    }
    /// Cached names of this directory are to be asked for again.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::AcqRel);
    }
    pub fn is_unused(&self) -> bool {
        self.opens.load(Ordering::Acquire) == 0
    }
    /// The attachment, made by `make` when there is none yet.
    pub fn attach_with(&self, make: impl FnOnce() -> Arc<dyn Any + Send + Sync>) -> Arc<dyn Any + Send + Sync> {
        self.attachment.lock().get_or_insert_with(make).clone()
    }
}

/// The program file of a running process: nobody writes to it meanwhile.
pub struct Executing(Arc<dyn Inode>);

impl Executing {
    pub fn new(inode: &Arc<dyn Inode>) -> Result<Self, Errno> {
        inode.state().deny_write()?;
        Ok(Self(inode.clone()))
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        self.0.state().allow_write();
    }
}

pub fn is_directory(inode: &dyn Inode) -> bool {
    inode.kind() == S_IFDIR
}

pub fn is_symlink(inode: &dyn Inode) -> bool {
    inode.kind() == S_IFLNK
}

pub fn is_regular(inode: &dyn Inode) -> bool {
    inode.kind() == S_IFREG
}

/// d_type of getdents64(2) for a mode.
pub const fn entry_type(mode: u32) -> u8 {
    match mode & S_IFMT {
        linux_abi::fs::S_IFREG => DT_REG,
        linux_abi::fs::S_IFDIR => DT_DIR,
        linux_abi::fs::S_IFLNK => DT_LNK,
        linux_abi::fs::S_IFCHR => DT_CHR,
        linux_abi::fs::S_IFBLK => DT_BLK,
        linux_abi::fs::S_IFIFO => DT_FIFO,
        linux_abi::fs::S_IFSOCK => DT_SOCK,
        _ => DT_UNKNOWN,
    }
}

/// CLOCK_REALTIME as a file time.
pub fn now() -> Time {
    let ns = hal::time::realtime();
    Time { sec: (ns / 1_000_000_000) as i64, nsec: (ns % 1_000_000_000) as u32, pad: 0 }
}

/// The error of opening a symbolic link itself.
pub const CANNOT_OPEN_LINK: Errno = ELOOP;
