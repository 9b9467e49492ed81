//! Host trees: directories of the host that the VMM holds as descriptors, served over host requests.
//!
//! An object is named to the VMM as (root handle, relative path): the path comes from the inode's first link. Open handles are made when
//! bytes move, not when the guest opens, and are kept on the inode for the next time. Of an `exclusive` tree everything is cached:
//! attributes, names and absence (for a second, then the directory is asked whether it has changed), file contents (as windows onto the
//! host's page cache); of a shared one only handles and windows.

mod ahead;
mod deferred;
mod directory;
mod handle;
mod inode;
mod mapping;
mod notify;
mod readahead;
mod regular;
pub(in crate::fs) mod request;
mod tree;
mod window;
mod xattr;

pub use deferred::flush as flush_deferred;
pub use handle::Handle;
pub use inode::{distrust, HostInode};
pub use notify::{announced as notify_announced, collect as collect_notices, unwatch, watch};
pub use request::stat_handle;
pub use tree::HostTree;
pub use window::init as init_windows;
