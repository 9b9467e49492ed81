//! File systems that are views of the library OS: proc, sysfs, cgroup, devpts. A [`Node`] says what it is when asked; this module makes
//! inodes and open files of nodes.

use super::directory;
use super::file::{FileOps, OpenFile, SeekFrom};
use super::inode::{entry_type, now, Attributes, Caching, DirEntry, FileSystem, Inode, InodeState, Stat, Time};
use super::Location;
use crate::errno::{Errno, EINVAL, EIO, ENOENT, ENOTDIR, EPERM};
use crate::io::IoBuffer;
use crate::process::{Process, Task};
use crate::sched;
use crate::sync::Mutex;
use crate::SysResult;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};
use hal::sync::SpinLock;
use linux_abi::fs::{StatFs, DT_DIR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};

/// Most bytes of one write to a control file.
const MOST_WRITTEN: usize = 64 << 10;

/// An entry of a directory: `position` orders it and stays the same while it exists (from 2 on).
pub struct Name {
    pub name: Vec<u8>,
    pub mode: u32,
    pub ino: u64,
    pub position: u64,
}

#[allow(unused_variables)]
pub trait Node: Send + Sync {
    /// With the file type.
    fn mode(&self) -> u32;
    fn ino(&self) -> u64;
    fn owner(&self) -> (u32, u32) {
        (0, 0)
    }
    fn rdev(&self) -> u64 {
        0
    }
    /// Times, ns since 1970; 0: now.
    fn time(&self) -> u64 {
        0
    }
    /// What it shows is still there.
    fn valid(&self) -> bool {
        true
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        Err(ENOENT)
    }
    /// In order of positions.
    fn names(&self) -> Result<Vec<Name>, Errno> {
        Err(ENOTDIR)
    }
    /// The whole contents, as `reader` sees them.
    fn read(&self, reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        Err(EIO)
    }
    fn write(&self, writer: &Arc<Task>, data: &[u8]) -> Result<(), Errno> {
        Err(EPERM)
    }
    /// The text of a symbolic link.
    fn link(&self, reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        Err(EINVAL)
    }
    /// Where a magic link leads.
    fn follow(&self, reader: &Arc<Task>) -> Option<Result<Location, Errno>> {
        None
    }
    /// The process that this is the directory of.
    fn process(&self) -> Option<&Arc<Process>> {
        None
    }
    /// Operations of its own instead of text.
    fn operations(&self, opener: &Arc<Task>, flags: u32) -> Option<Result<Arc<dyn FileOps>, Errno>> {
        None
    }
    /// chmod(2), chown(2).
    fn set_attributes(&self, attributes: &Attributes) -> Result<(), Errno> {
        Err(EPERM)
    }
    /// mkdir(2) (cgroups).
    fn make_directory(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        Err(ENOENT)
    }
    fn remove_directory(&self, name: &[u8]) -> Result<(), Errno> {
        Err(EPERM)
    }
}

static NEXT_INODE: AtomicU64 = AtomicU64::new(0x1_0000_0000);

/// A number for a node that is made once.
pub fn next_ino() -> u64 {
    NEXT_INODE.fetch_add(1, Ordering::Relaxed)
}

pub struct SyntheticFs {
    device: u64,
    magic: u64,
    root: Arc<SyntheticInode>,
    options: String,
}

impl SyntheticFs {
    pub fn new(magic: u64, root: Arc<dyn Node>) -> Arc<Self> {
        Self::with_options(magic, root, String::new())
    }

    /// `options` as /proc/mounts is to show them.
    pub fn with_options(magic: u64, root: Arc<dyn Node>, options: String) -> Arc<Self> {
        let device = super::tmpfs::anonymous_device();
        Arc::new(Self { device, magic, root: SyntheticInode::new(root, device), options })
    }
}

impl FileSystem for SyntheticFs {
    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }
    fn caching(&self) -> Caching {
        Caching::Never
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs { kind: self.magic, bsize: 4096, fsid: [self.device as u32, 0], namelen: 255, frsize: 4096, ..StatFs::default() })
    }
    fn options(&self) -> &str {
        &self.options
    }
}

pub struct SyntheticInode {
    node: Arc<dyn Node>,
    device: u64,
    state: InodeState,
    made: Time,
}

impl SyntheticInode {
    pub fn new(node: Arc<dyn Node>, device: u64) -> Arc<Self> {
        Arc::new(Self { node, device, state: InodeState::default(), made: now() })
    }
}

impl Inode for SyntheticInode {
    fn state(&self) -> &InodeState {
        &self.state
    }
    fn kind(&self) -> u32 {
        self.node.mode() & S_IFMT
    }
    fn stat(&self) -> Result<Stat, Errno> {
        let (uid, gid) = self.node.owner();
        let mode = self.node.mode();
        let time = match self.node.time() {
            0 => self.made,
            ns => Time { sec: (ns / 1_000_000_000) as i64, nsec: (ns % 1_000_000_000) as u32, pad: 0 },
        };
        let nlink = if mode & S_IFMT == S_IFDIR { 2 } else { 1 };
        Ok(Stat {
            dev: self.device,
            ino: self.node.ino(),
            rdev: self.node.rdev(),
            mode,
            nlink,
            uid,
            gid,
            blksize: 1024,
            atime: time,
            mtime: time,
            ctime: time,
            ..Stat::default()
        })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
    fn valid(&self) -> bool {
        self.node.valid()
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let node = self.node.lookup(name)?;
        Ok(Self::new(node, self.device))
    }
    fn list(&self, position: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<(), Errno> {
        let names = self.node.names()?;
        for (at, name) in [(0, &b"."[..]), (1, b"..")] {
            if position <= at && !emit(&DirEntry { ino: self.node.ino(), next: at + 1, kind: DT_DIR, name }) {
                return Ok(());
            }
        }
        for entry in names.iter().filter(|entry| entry.position >= position) {
            if !emit(&DirEntry { ino: entry.ino, next: entry.position + 1, kind: entry_type(entry.mode), name: &entry.name }) {
                return Ok(());
            }
        }
        Ok(())
    }
    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        self.node.link(&sched::current())
    }
    fn follow(&self, task: &Arc<Task>) -> Option<Result<Location, Errno>> {
        self.node.follow(task)
    }
    fn set_attributes(&self, attributes: &Attributes) -> Result<(), Errno> {
        // O_TRUNC of a control file changes nothing.
        if attributes.mask & !(abi::request::ATTR_SIZE | abi::request::ATTR_MTIME | abi::request::ATTR_MTIME_NOW) == 0 {
            return Ok(());
        }
        self.node.set_attributes(attributes)
    }
    fn open(self: Arc<Self>, flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        if let Some(operations) = self.node.operations(&sched::current(), flags) {
            return operations;
        }
        Ok(Arc::new(SyntheticFile { inode: self, text: Mutex::new(None) }))
    }
    fn create(&self, name: &[u8], node: &super::inode::NewNode) -> Result<Arc<dyn Inode>, Errno> {
        if node.mode & S_IFMT != S_IFDIR {
            // proc's lookup fails where others find nothing, and so does what wanted to create.
            return Err(ENOENT);
        }
        let node = self.node.make_directory(name)?;
        Ok(Self::new(node, self.device))
    }
    fn unlink(&self, name: &[u8], child: &Arc<dyn Inode>) -> Result<(), Errno> {
        if child.kind() != S_IFDIR {
            return Err(EPERM);
        }
        self.node.remove_directory(name)
    }
}

/// An open file: the text as it was when the reader was at its beginning.
struct SyntheticFile {
    inode: Arc<SyntheticInode>,
    text: Mutex<Option<Vec<u8>>>,
}

/// The process whose directory in /proc this is an open file of.
pub fn process_of(file: &OpenFile) -> Option<Arc<Process>> {
    file.ops_as::<SyntheticFile>()?.inode.node.process().cloned()
}

impl FileOps for SyntheticFile {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>, offset: u64) -> SysResult {
        if file.is_directory() {
            return Err(crate::errno::EISDIR);
        }
        let mut text = self.text.lock();
        if offset == 0 || text.is_none() {
            *text = Some(self.inode.node.read(&sched::current())?);
        }
        let text = text.as_deref().unwrap_or_default();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        buffer.put(&text[start..])
    }

    fn write_at(&self, _file: &OpenFile, buffer: &mut IoBuffer<'_>, _offset: u64) -> SysResult {
        let bytes = buffer.remaining();
        if bytes > MOST_WRITTEN {
            return Err(EINVAL);
        }
        let mut data = alloc::vec![0; bytes];
        let got = buffer.get(&mut data)?;
        self.inode.node.write(&sched::current(), &data[..got])?;
        Ok(got)
    }

    fn append(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> Result<(usize, u64), Errno> {
        self.write_at(file, buffer, 0).map(|done| (done, done as u64))
    }

    fn seek(&self, file: &OpenFile, current: u64, to: SeekFrom) -> Result<u64, Errno> {
        if file.is_directory() {
            return directory::seek(current, to);
        }
        match to {
            SeekFrom::Start(_) | SeekFrom::Current(_) => super::file::seek_in(0, current, to),
            _ => Err(EINVAL),
        }
    }

    fn read_directory(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        directory::fill(&*self.inode, file, buffer)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

pub type Reader = fn(&Arc<Task>) -> Result<String, Errno>;
pub type Writer = fn(&Arc<Task>, &str) -> Result<(), Errno>;

/// A file of text.
pub struct Text {
    ino: u64,
    mode: u32,
    read: Box<dyn Fn(&Arc<Task>) -> Result<String, Errno> + Send + Sync>,
    write: Option<Box<dyn Fn(&Arc<Task>, &str) -> Result<(), Errno> + Send + Sync>>,
}

impl Node for Text {
    fn mode(&self) -> u32 {
        S_IFREG | self.mode
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn read(&self, reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        (self.read)(reader).map(String::into_bytes)
    }
    fn write(&self, writer: &Arc<Task>, data: &[u8]) -> Result<(), Errno> {
        let write = self.write.as_ref().ok_or(EPERM)?;
        write(writer, core::str::from_utf8(data).map_err(|_| EINVAL)?)
    }
}

/// A symbolic link with a fixed text.
struct Link {
    ino: u64,
    target: String,
}

impl Node for Link {
    fn mode(&self) -> u32 {
        S_IFLNK | 0o777
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn link(&self, _reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        Ok(self.target.clone().into_bytes())
    }
}

pub fn link(target: String) -> Arc<dyn Node> {
    Arc::new(Link { ino: next_ino(), target })
}

/// A directory whose entries are put in when the file system is made.
pub struct Directory {
    ino: u64,
    mode: u32,
    entries: SpinLock<BTreeMap<Vec<u8>, Arc<dyn Node>>>,
    below: SpinLock<BTreeMap<Vec<u8>, Arc<Directory>>>,
}

impl Directory {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { ino: next_ino(), mode: 0o555, entries: SpinLock::default(), below: SpinLock::default() })
    }

    /// A node that only has a number (a namespace's).
    pub fn marker(ino: u64) -> Arc<dyn Node> {
        Arc::new(Text { ino, mode: 0o444, read: Box::new(|_| Err(EINVAL)), write: None })
    }

    fn insert(&self, name: &str, node: Arc<dyn Node>) {
        self.entries.lock().insert(name.as_bytes().to_vec(), node);
    }

    /// The directory at a path below, made with those on the way.
    pub fn directory(self: &Arc<Self>, path: &str) -> Arc<Self> {
        let mut at = self.clone();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let known = at.below.lock().get(name.as_bytes()).cloned();
            let next = known.unwrap_or_else(|| {
                let next = Self::new();
                at.below.lock().insert(name.as_bytes().to_vec(), next.clone());
                at.insert(name, next.clone());
                next
            });
            at = next;
        }
        at
    }

    /// Puts a node at a path below.
    pub fn put(self: &Arc<Self>, path: &str, node: Arc<dyn Node>) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.directory(folder).insert(name, node);
    }

    /// A file whose text is made when it is read.
    pub fn file(self: &Arc<Self>, path: &str, read: impl Fn(&Arc<Task>) -> Result<String, Errno> + Send + Sync + 'static) {
        self.put(path, Arc::new(Text { ino: next_ino(), mode: 0o444, read: Box::new(read), write: None }));
    }

    /// A file that can be written too.
    pub fn control(
        self: &Arc<Self>,
        path: &str,
        mode: u32,
        read: impl Fn(&Arc<Task>) -> Result<String, Errno> + Send + Sync + 'static,
        write: impl Fn(&Arc<Task>, &str) -> Result<(), Errno> + Send + Sync + 'static,
    ) {
        self.put(path, Arc::new(Text { ino: next_ino(), mode, read: Box::new(read), write: Some(Box::new(write)) }));
    }

    /// A file that always says the same.
    pub fn constant(self: &Arc<Self>, path: &str, text: &str) {
        let text = String::from(text);
        self.file(path, move |_| Ok(text.clone()));
    }

    pub fn symlink(self: &Arc<Self>, path: &str, target: &str) {
        self.put(path, link(String::from(target)));
    }

    /// The entries in order of name; positions from 2 on.
    pub fn entries(&self) -> Vec<Name> {
        let entries = self.entries.lock();
        let list = entries.iter().zip(2..);
        list.map(|((name, node), position)| Name { name: name.clone(), mode: node.mode(), ino: node.ino(), position }).collect()
    }

    /// The directory of that name.
    pub fn below(&self, name: &[u8]) -> Option<Arc<Self>> {
        self.below.lock().get(name).cloned()
    }

    pub fn entry(&self, name: &[u8]) -> Option<Arc<dyn Node>> {
        self.entries.lock().get(name).cloned()
    }
}

impl Node for Directory {
    fn mode(&self) -> u32 {
        S_IFDIR | self.mode
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        self.entry(name).ok_or(ENOENT)
    }
    fn names(&self) -> Result<Vec<Name>, Errno> {
        Ok(self.entries())
    }
}
