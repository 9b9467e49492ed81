//! devpts: a node for each terminal's slave side, and ptmx. Terminals come and go with their masters; what chmod(2) and chown(2) change of a
//! node is kept here.

use super::inode::{Attributes, FileSystem};
use super::synthetic::{Name, Node, SyntheticFs};
use crate::errno::{Errno, ENOENT};
use crate::tty::job::PTS_MAJOR;
use crate::tty::pty;
use abi::request::{ATTR_GID, ATTR_MODE, ATTR_UID};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use linux_abi::fs::{makedev, DEVPTS_SUPER_MAGIC, S_IFCHR, S_IFDIR};

#[derive(Clone, Copy)]
struct Access {
    mode: u32,
    uid: u32,
    gid: u32,
    /// Of this terminal, not of another one with the same number later.
    created: u64,
}

struct Root {
    mode: u32,
    gid: Option<u32>,
    ptmx_mode: u32,
    changed: SpinLock<BTreeMap<u32, Access>>,
}

pub fn mount<'o>(options: impl Iterator<Item = &'o str>) -> Arc<dyn FileSystem> {
    let mut root = Root { mode: 0o620, gid: None, ptmx_mode: 0o666, changed: SpinLock::default() };
    for option in options {
        match option.split_once('=') {
            Some(("mode", value)) => root.mode = u32::from_str_radix(value, 8).unwrap_or(0o620) & 0o777,
            Some(("ptmxmode", value)) => root.ptmx_mode = u32::from_str_radix(value, 8).unwrap_or(0o666) & 0o777,
            Some(("gid", value)) => root.gid = value.parse().ok(),
            _ => {}
        }
    }
    let gid = root.gid.map_or(String::new(), |gid| format!("gid={gid},"));
    let text = format!("{gid}mode={:03o},ptmxmode={:03o}", root.mode, root.ptmx_mode);
    SyntheticFs::with_options(DEVPTS_SUPER_MAGIC, Arc::new(Shared(Arc::new(root))), text)
}

struct Shared(Arc<Root>);

impl Root {
    fn access(&self, index: u32) -> Option<Access> {
        let ((uid, gid), created) = pty::find(index)?;
        let changed = self.changed.lock().get(&index).copied().filter(|access| access.created == created);
        Some(changed.unwrap_or(Access { mode: self.mode, uid, gid: self.gid.unwrap_or(gid), created }))
    }
}

impl Node for Shared {
    fn mode(&self) -> u32 {
        S_IFDIR | 0o755
    }
    fn ino(&self) -> u64 {
        1
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        if name == b"ptmx" {
            return Ok(Arc::new(Multiplexer(self.0.ptmx_mode)));
        }
        let index = core::str::from_utf8(name).ok().and_then(|name| name.parse::<u32>().ok()).ok_or(ENOENT)?;
        if format!("{index}").as_bytes() != name || pty::find(index).is_none() {
            return Err(ENOENT);
        }
        Ok(Arc::new(Slave { root: self.0.clone(), index }))
    }
    fn names(&self) -> Result<Vec<Name>, Errno> {
        let ptmx = Name { name: b"ptmx".to_vec(), mode: S_IFCHR, ino: 2, position: 2 };
        let slave = |index: u32| Name {
            name: format!("{index}").into_bytes(),
            mode: S_IFCHR,
            ino: 3 + u64::from(index),
            position: 3 + u64::from(index),
        };
        let mut names = alloc::vec![ptmx];
        names.extend(pty::list().into_iter().map(|(index, ..)| slave(index)));
        names.sort_by_key(|name| name.position);
        Ok(names)
    }
}

struct Multiplexer(u32);

impl Node for Multiplexer {
    fn mode(&self) -> u32 {
        S_IFCHR | self.0
    }
    fn ino(&self) -> u64 {
        2
    }
    fn rdev(&self) -> u64 {
        makedev(5, 2)
    }
}

struct Slave {
    root: Arc<Root>,
    index: u32,
}

impl Node for Slave {
    fn mode(&self) -> u32 {
        S_IFCHR | self.root.access(self.index).map_or(0, |access| access.mode)
    }
    fn ino(&self) -> u64 {
        3 + u64::from(self.index)
    }
    fn owner(&self) -> (u32, u32) {
        self.root.access(self.index).map_or((0, 0), |access| (access.uid, access.gid))
    }
    fn rdev(&self) -> u64 {
        makedev(PTS_MAJOR, self.index)
    }
    fn time(&self) -> u64 {
        self.root.access(self.index).map_or(0, |access| access.created)
    }
    fn valid(&self) -> bool {
        pty::find(self.index).is_some()
    }
    fn set_attributes(&self, attributes: &Attributes) -> Result<(), Errno> {
        let mut access = self.root.access(self.index).ok_or(ENOENT)?;
        if attributes.mask & ATTR_MODE != 0 {
            access.mode = attributes.mode & 0o7777;
        }
        if attributes.mask & ATTR_UID != 0 {
            access.uid = attributes.uid;
        }
        if attributes.mask & ATTR_GID != 0 {
            access.gid = attributes.gid;
        }
        self.root.changed.lock().insert(self.index, access);
        Ok(())
    }
}
