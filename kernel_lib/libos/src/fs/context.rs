//! Where names are resolved from.

/// Root directory, current directory and umask of a task (CLONE_FS). Owned by the file-system family.
#[derive(Default)]
pub struct FsContext {}

/// A place in the mount tree: (mount, directory entry). Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Location {}
