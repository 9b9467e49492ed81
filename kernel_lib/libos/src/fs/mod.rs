//! Files: the VFS and its file systems.
//!
//! ```text
//! system calls (syscalls/{open,read_write,attributes,directory,descriptor,locking,mounting})
//!        │
//! path (resolution) · namei (create, remove, rename) · open · permission · mount · dentry (the cache) · context
//!        │ Inode, FileSystem, FileOps
//! host (trees of the host) · tmpfs · overlay · proc · sysfs · devices · stream (stdio)
//!        │
//! notify (inotify's events) · locks (advisory locks) · sigio, dnotify, lease (signals) · table (descriptors) · file (open files)
//! ```
//!
//! Lock order: rename lock > directory's `change` (parent before child) > open file position > inode's own sleeping lock > address space
//! (program memory is touched under the former) > spin locks.

pub mod behind;
pub mod cgroup;
pub mod context;
pub mod dentry;
pub mod device;
pub mod devpts;
pub mod directory;
pub mod dnotify;
pub mod file;
pub mod host;
pub mod inode;
pub mod kinds;
pub mod lease;
pub mod locks;
pub mod memfd;
pub mod mount;
pub mod namei;
pub mod notify;
pub mod open;
pub mod overlay;
pub mod path;
pub mod permission;
pub mod proc;
pub mod setup;
pub mod sigio;
pub mod stream;
pub mod synthetic;
pub mod sysfs;
pub mod table;
pub mod tmpfs;

pub use behind::hurry as hurry_output;
pub use context::{FsContext, Location};
pub use file::{Events, FileOps, OpenFile, SeekFrom};
pub use inode::{Executing, Inode, Stat};
pub use open::{open_executable, open_executable_at};
pub use path::Walk;
pub use setup::{init, stdio};
pub use table::FdTable;

/// The host reports inotify records for a watched volume (see [`abi::request::Op::Notify`]).
pub fn host_notify(_watch: u32) {
    host::notify_announced();
}

/// pivot_root(2): tasks whose root or current directory was the old root move to the new one.
pub(crate) fn root_pivoted(task: &alloc::sync::Arc<crate::process::Task>, old: &Location, new: &Location) {
    task.fs().pivot(old, new);
}

/// (total, free) bytes of the container's memory, as /proc/meminfo has them.
pub(crate) fn proc_memory() -> (u64, u64) {
    proc::memory_figures()
}

/// How long the container has been up, ns: what sysinfo(2) and /proc/uptime say.
pub(crate) fn container_age() -> u64 {
    proc::container_age()
}

/// The CPUs as a list ("0-3").
pub(crate) fn proc_cpu_list() -> alloc::string::String {
    proc::cpu_list()
}

/// A write or truncation beyond RLIMIT_FSIZE: SIGXFSZ for the thread (setrlimit(2)).
pub(crate) fn size_exceeded(task: &alloc::sync::Arc<crate::process::Task>) {
    use linux_abi::signal::{SigInfo, SIGXFSZ, SI_KERNEL};
    crate::signal::send_to_task(task, SigInfo::new(SIGXFSZ, SI_KERNEL));
}
