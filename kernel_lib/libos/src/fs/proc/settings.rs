//! /proc/sys/net: the settings of the container's network namespace, which the host has; where it shows none of a name, the library OS's
//! own (`sysctl`).

use crate::errno::Errno;
use crate::fs::synthetic::{next_ino, Directory, Name, Node};
use crate::net::host::settings;
use crate::process::Task;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_abi::capability::CAP_NET_ADMIN;
use linux_abi::fs::{S_IFDIR, S_IFREG};

struct Setting {
    /// Below /proc/sys/net.
    path: String,
    mode: u32,
    ino: u64,
    /// What the library OS has in a directory of that name.
    own: Option<Arc<Directory>>,
}

/// `own`: the settings that are there in any case.
pub fn directory(own: Arc<Directory>) -> Arc<dyn Node> {
    Arc::new(Setting { path: String::new(), mode: S_IFDIR | 0o555, ino: next_ino(), own: Some(own) })
}

impl Node for Setting {
    fn mode(&self) -> u32 {
        self.mode
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        let text = core::str::from_utf8(name).map_err(|_| crate::errno::ENOENT)?;
        let path = if self.path.is_empty() { String::from(text) } else { format!("{}/{text}", self.path) };
        let own = self.own.as_ref();
        match settings::stat(&path) {
            Ok((mode, ino)) => Ok(Arc::new(Self { path, mode, ino, own: own.and_then(|own| own.below(name)) })),
            Err(error) => own.and_then(|own| own.entry(name)).ok_or(error),
        }
    }
    fn names(&self) -> Result<Vec<Name>, Errno> {
        let list = settings::list(&self.path).unwrap_or_default();
        let entries = list.lines().filter_map(|line| {
            let (ino, name) = line.split_once(' ')?;
            let mode = if name.ends_with('/') { S_IFDIR } else { S_IFREG };
            Some(Name { name: name.trim_end_matches('/').into(), mode, ino: ino.parse().ok()?, position: 0 })
        });
        let mut names: Vec<Name> = entries.collect();
        let own = self.own.as_ref().map(|own| own.entries()).unwrap_or_default();
        names.extend(own);
        // The host's come first among those of one name.
        names.sort_by(|one, other| one.name.cmp(&other.name));
        names.dedup_by(|later, first| later.name == first.name);
        names.iter_mut().zip(2..).for_each(|(name, position)| name.position = position);
        Ok(names)
    }
    fn read(&self, _reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        settings::read(&self.path)
    }
    fn write(&self, writer: &Arc<Task>, data: &[u8]) -> Result<(), Errno> {
        settings::write(&self.path, data, writer.capable(CAP_NET_ADMIN))
    }
}
