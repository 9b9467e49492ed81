//! /proc/PID/fd and /proc/PID/fdinfo.

use super::process::{may_look, Target};
use crate::errno::{Errno, ENOENT, ENXIO};
use crate::fs::file::{FileOps, OpenFile};
use crate::fs::inode::{Inode, InodeState, Owner, Stat};
use crate::fs::stream::StreamFile;
use crate::fs::synthetic::{Name, Node};
use crate::fs::Location;
use crate::ipc::pipe;
use crate::process::Task;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use linux_abi::fs::{O_ACCMODE, O_CLOEXEC, O_WRONLY, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};

struct Folder {
    target: Target,
    ino: u64,
    info: bool,
}

pub fn folder(target: Target, ino: u64, info: bool) -> Arc<dyn Node> {
    Arc::new(Folder { target, ino, info })
}

fn parse(name: &[u8]) -> Result<i32, Errno> {
    if name.len() > 1 && name[0] == b'0' {
        return Err(ENOENT);
    }
    core::str::from_utf8(name).ok().and_then(|text| text.parse().ok()).filter(|&fd| fd >= 0).ok_or(ENOENT)
}

impl Folder {
    fn mode(&self) -> u32 {
        if self.info {
            S_IFREG | 0o400
        } else {
            S_IFLNK | 0o700
        }
    }
}

impl Node for Folder {
    fn mode(&self) -> u32 {
        S_IFDIR | if self.info { 0o555 } else { 0o500 }
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn owner(&self) -> (u32, u32) {
        self.target.task().map_or((0, 0), |task| {
            let credentials = task.credentials();
            (credentials.euid, credentials.egid)
        })
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        let fd = parse(name)?;
        let files = self.target.task().map_err(|_| ENOENT)?.files();
        let file = files.get_any(fd).map_err(|_| ENOENT)?;
        let ino = self.ino << 16 | fd as u64;
        if self.info {
            let close_on_exec = files.close_on_exec(fd).unwrap_or(false);
            return Ok(Arc::new(Info { file: Arc::downgrade(&file), close_on_exec, ino }));
        }
        let mode = S_IFLNK | if file.readable() { 0o500 } else { 0 } | if file.writable() { 0o300 } else { 0 };
        Ok(Arc::new(Link { target: self.target.clone(), file: Arc::downgrade(&file), mode, ino, owner: self.owner() }))
    }
    fn names(&self) -> Result<Vec<Name>, Errno> {
        let Ok(task) = self.target.task() else { return Ok(Vec::new()) };
        let name = |(fd, _): (i32, Arc<OpenFile>)| Name {
            name: format!("{fd}").into_bytes(),
            mode: Self::mode(self),
            ino: self.ino << 16 | fd as u64,
            position: 2 + fd as u64,
        };
        Ok(task.files().list().into_iter().map(name).collect())
    }
}

/// A cached entry must not keep the file open: a pipe's reader would wait for its end for ever.
struct Link {
    target: Target,
    file: Weak<OpenFile>,
    mode: u32,
    ino: u64,
    owner: (u32, u32),
}

impl Node for Link {
    fn mode(&self) -> u32 {
        self.mode
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn owner(&self) -> (u32, u32) {
        self.owner
    }
    /// The descriptor may stand for something else by now.
    fn valid(&self) -> bool {
        false
    }
    fn link(&self, reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        may_look(reader, &self.target)?;
        let file = self.file.upgrade().ok_or(ENOENT)?;
        Ok(match &file.location {
            Some(location) => location.display_path(&reader.fs().root()),
            None => file.ops.describe(&file).into_bytes(),
        })
    }
    fn follow(&self, reader: &Arc<Task>) -> Option<Result<Location, Errno>> {
        if let Err(errno) = may_look(reader, &self.target) {
            return Some(Err(errno));
        }
        let Some(file) = self.file.upgrade() else { return Some(Err(ENOENT)) };
        Some(Ok(match &file.location {
            Some(location) => location.clone(),
            None => {
                let name = file.ops.describe(&file).into_bytes();
                crate::fs::memfd::nowhere(&name, Arc::new(Detached { file, state: InodeState::default() }))
            }
        }))
    }
}

struct Info {
    file: Weak<OpenFile>,
    close_on_exec: bool,
    ino: u64,
}

impl Node for Info {
    fn mode(&self) -> u32 {
        S_IFREG | 0o400
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn valid(&self) -> bool {
        false
    }
    fn read(&self, _reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        let file = self.file.upgrade().ok_or(ENOENT)?;
        let flags = file.flags() | if self.close_on_exec { O_CLOEXEC } else { 0 };
        let mount = file.location.as_ref().map_or(15, |location| location.mount.id);
        let ino = file.stat().map_or(0, |stat| stat.ino);
        let position = *file.position.lock();
        let mut text = format!("pos:\t{position}\nflags:\t0{flags:o}\nmnt_id:\t{mount}\nino:\t{ino}\n");
        let details: String = file.ops.details(&file);
        text.push_str(&details);
        Ok(text.into_bytes())
    }
}

/// What a descriptor's magic link leads to when no file system has the file: stat shows the file, open gives another description of it.
struct Detached {
    file: Arc<OpenFile>,
    state: InodeState,
}

impl Inode for Detached {
    fn state(&self) -> &InodeState {
        &self.state
    }
    fn kind(&self) -> u32 {
        self.file.ops.stat(&self.file).map_or(0, |stat| stat.mode & S_IFMT)
    }
    fn stat(&self) -> Result<Stat, Errno> {
        self.file.ops.stat(&self.file)
    }
    /// Whoever may follow the link may open what the descriptor could do already.
    fn owner(&self) -> Result<Owner, Errno> {
        let stat = self.stat()?;
        Ok(Owner { mode: stat.mode | 0o666, uid: stat.uid, gid: stat.gid })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
    fn open(self: Arc<Self>, _flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        Err(ENXIO)
    }
    fn set_attributes(&self, _attributes: &crate::fs::inode::Attributes) -> Result<(), Errno> {
        Ok(())
    }
    fn reopen(&self, _task: &Arc<Task>, flags: u32) -> Option<Result<Arc<OpenFile>, Errno>> {
        if let Some(end) = pipe::of(&self.file) {
            let mode = flags & O_ACCMODE;
            let end = end.pipe.end(mode != O_WRONLY, mode != 0);
            return Some(Ok(OpenFile::new(end, flags & !O_CLOEXEC)));
        }
        if self.file.ops_as::<StreamFile>().is_some() {
            return Some(Ok(OpenFile::new(self.file.ops.clone(), flags & !O_CLOEXEC)));
        }
        Some(Err(ENXIO))
    }
}
