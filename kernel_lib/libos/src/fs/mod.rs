//! Files: the VFS and its file systems.
//!
//! ```text
//! system calls (syscalls/{open,read_write,attributes,directory,descriptor,locking,mounting})
//!        │
//! path (resolution) · namei (create, remove, rename) · open · permission · mount · dentry (the cache) · context
//!        │ Inode, FileSystem, FileOps
//! host (trees of the host) · tmpfs · overlay · proc · sysfs · devices · stream (stdio)
//!        │
//! notify (inotify's events) · locks (advisory locks) · table (descriptors) · file (open files)
//! ```
//!
//! Lock order: rename lock > directory's `change` (parent before child) > open file position > inode's own sleeping lock > address space
//! (program memory is touched under the former) > spin locks.

pub mod context;
pub mod dentry;
pub mod device;
pub mod directory;
pub mod file;
pub mod host;
pub mod inode;
pub mod kinds;
pub mod locks;
pub mod memfd;
pub mod mount;
pub mod namei;
pub mod notify;
pub mod open;
pub mod path;
pub mod permission;
pub mod setup;
pub mod stream;
pub mod table;
pub mod tmpfs;

pub use context::{FsContext, Location};
pub use file::{Events, FileOps, OpenFile, SeekFrom};
pub use inode::{Executing, Inode, Stat};
pub use open::{open_executable, open_executable_at};
pub use path::Walk;
pub use setup::{init, stdio};
pub use table::FdTable;

/// The host reports inotify records for a watched volume (see [`abi::request::Op::Notify`]).
pub fn host_notify(_watch: u32) {}

/// Random bytes for /dev/random and /dev/urandom.
pub(crate) fn random(bytes: &mut [u8]) {
    for part in bytes.chunks_mut(256) {
        let at = hal::phys::slice_address(part);
        let _ = crate::host::call(&hal::host::Request::new(abi::request::Op::Random, 0, [at, part.len() as u64, 0, 0, 0, 0]), &[]);
    }
}

/// A write or truncation beyond RLIMIT_FSIZE: SIGXFSZ for the thread (setrlimit(2)).
pub(crate) fn size_exceeded(_task: &alloc::sync::Arc<crate::process::Task>) {}

/// pivot_root(2): tasks whose root or current directory was the old root move to the new one.
pub(crate) fn root_pivoted(task: &alloc::sync::Arc<crate::process::Task>, old: &Location, new: &Location) {
    task.fs().pivot(old, new);
}
