//! memfd_create(2): nameless files on a tmpfs that is mounted nowhere.

use super::dentry::Dentry;
use super::inode::{FileSystem, Inode, NewNode};
use super::mount::{Mount, NewMount};
use super::tmpfs::{Options, TmpFs};
use super::{Location, OpenFile};
use crate::errno::{Errno, ENOMEM};
use crate::mm::shmem::F_SEAL_EXEC;
use crate::process::Task;
use alloc::sync::Arc;
use hal::sync::Once;
use linux_abi::fs::{O_LARGEFILE, O_RDWR, S_IFREG};

static MOUNT: Once<(Arc<TmpFs>, Arc<Mount>)> = Once::new();

fn mount() -> &'static (Arc<TmpFs>, Arc<Mount>) {
    MOUNT.get_or_init(|| {
        let options = Options { size: u64::MAX >> 1, inodes: u64::MAX >> 1, ..Options::default() };
        let fs = TmpFs::new(&options);
        let root = Dentry::root(fs.root());
        let new = NewMount { fs: fs.clone(), root, flags: 0, source: "tmpfs".into(), fstype: "tmpfs".into() };
        (fs, Mount::new(new))
    })
}

/// A file of its own, open for reading and writing. `sealing`: seals may be added; `no_execute`: it never becomes executable.
pub fn create(task: &Arc<Task>, name: &[u8], sealing: bool, no_execute: bool) -> Result<Arc<OpenFile>, Errno> {
    let (fs, mount) = mount();
    let credentials = task.credentials();
    let mode = if no_execute { 0o666 } else { 0o777 };
    let node = NewNode { mode: S_IFREG | mode, uid: credentials.fsuid, gid: credentials.fsgid, rdev: 0 };
    let inode = fs.memory_file(&node)?;
    let memory = inode.memory().ok_or(ENOMEM)?;
    if sealing {
        memory.allow_sealing();
    }
    if no_execute {
        memory.add_seals(F_SEAL_EXEC)?;
    }
    let mut shown = b"memfd:".to_vec();
    shown.extend_from_slice(name);
    let dentry = Dentry::nameless(&shown, inode as Arc<dyn Inode>);
    let ops = dentry.inode().clone().open(O_RDWR)?;
    // Not counted as a writer: what it made, a program may execute (fexecve(3)).
    Ok(OpenFile::at(ops, O_RDWR | O_LARGEFILE, Some(Location { mount: mount.clone(), dentry })))
}

/// A place that no path leads to, for an inode without a file system of its own.
pub fn nowhere(name: &[u8], inode: Arc<dyn Inode>) -> Location {
    Location { mount: mount().1.clone(), dentry: Dentry::nameless(name, inode) }
}
