//! Files: the VFS and its file systems.

pub mod context;
pub mod file;
pub mod table;

pub use context::{FsContext, Location};
pub use file::{Events, FileOps, OpenFile, SeekFrom};
pub use table::FdTable;

/// The host reports inotify records for a watched volume (see [`abi::request::Op::Notify`]).
pub fn host_notify(_watch: u32) {}
