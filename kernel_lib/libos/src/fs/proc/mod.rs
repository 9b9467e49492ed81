//! proc(5).
//!
//! | file | what |
//! |---|---|
//! | `mod` | the root: everything fixed, the processes, self and thread-self |
//! | `system` | meminfo, cpuinfo, stat, uptime, loadavg, … |
//! | `sysctl` | /proc/sys |
//! | `network` | /proc/net |
//! | `process` | /proc/PID and /proc/PID/task/TID |
//! | `report` | the texts in there |
//! | `descriptors` | fd, fdinfo |

mod cpu;
mod descriptors;
mod memory;
mod network;
mod process;
mod report;
mod settings;
pub mod sysctl;
mod system;

pub use system::{container_age, cpu_list, memory as memory_figures};

use super::inode::FileSystem;
use super::synthetic::{next_ino, Directory, Name, Node, SyntheticFs};
use crate::errno::{Errno, ENOENT};
use crate::process::{tree, Task};
use abi::config::ContainerSpec;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_abi::fs::{PROC_SUPER_MAGIC, S_IFDIR, S_IFLNK};

/// Positions of processes in the root directory begin here.
const PROCESSES: u64 = 1000;

struct Root {
    fixed: Arc<Directory>,
    own: (u64, u64),
}

/// A link that says something else to everybody: self, thread-self.
struct OwnLink {
    thread: bool,
    ino: u64,
}

pub fn mount(container: &ContainerSpec) -> Arc<dyn FileSystem> {
    let fixed = Directory::new();
    system::fill(&fixed);
    sysctl::fill(&fixed, container);
    fixed.symlink("mounts", "self/mounts");
    fixed.symlink("net", "self/net");
    SyntheticFs::new(PROC_SUPER_MAGIC, Arc::new(Root { fixed, own: (next_ino(), next_ino()) }))
}

/// A decimal id without leading zeros.
fn parse_id(name: &[u8]) -> Option<u32> {
    if name.is_empty() || name.len() > 9 || name[0] == b'0' {
        return None;
    }
    core::str::from_utf8(name).ok()?.parse().ok()
}

impl Node for Root {
    fn mode(&self) -> u32 {
        S_IFDIR | 0o555
    }
    fn ino(&self) -> u64 {
        1
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        match name {
            b"self" => return Ok(Arc::new(OwnLink { thread: false, ino: self.own.0 })),
            b"thread-self" => return Ok(Arc::new(OwnLink { thread: true, ino: self.own.1 })),
            _ => {}
        }
        if let Some(node) = self.fixed.entry(name) {
            return Ok(node);
        }
        let id = parse_id(name).ok_or(ENOENT)?;
        process::directory(id).ok_or(ENOENT)
    }
    fn names(&self) -> Result<Vec<Name>, Errno> {
        let mut names = self.fixed.entries();
        let next = names.len() as u64 + 2;
        for (offset, (name, ino)) in [("self", self.own.0), ("thread-self", self.own.1)].into_iter().enumerate() {
            names.push(Name { name: name.into(), mode: S_IFLNK, ino, position: next + offset as u64 });
        }
        for process in tree::processes().iter().filter(|process| !process.is_reaped()) {
            names.push(Name {
                name: format!("{}", process.pid).into_bytes(),
                mode: S_IFDIR,
                ino: process::ino(process.pid, 0),
                position: PROCESSES + u64::from(process.pid),
            });
        }
        Ok(names)
    }
}

impl Node for OwnLink {
    fn mode(&self) -> u32 {
        S_IFLNK | 0o777
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn link(&self, reader: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        let pid = reader.process.pid;
        let text = if self.thread { format!("{pid}/task/{}", reader.tid()) } else { format!("{pid}") };
        Ok(text.into_bytes())
    }
}
