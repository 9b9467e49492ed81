//! What the compiled programs share: how Python is started for what they do not do themselves, and a VMM beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

pub mod ahead;

/// Python with one of the programs in `../lib/litebox`.
#[must_use]
pub fn python(program: &str) -> Command {
    let library = library();
    let mut command = Command::new(library.join("python"));
    command.arg("-IS").arg(library.join(program)).env_remove(ahead::VARIABLE);
    command
}

/// Where litebox-vmm and the guest image are.
#[must_use]
pub fn machine_directory() -> PathBuf {
    std::env::var_os("LITEBOX_LIBDIR").map_or_else(library, PathBuf::from)
}

/// `../lib/litebox` of this program.
fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().and_then(Path::parent).unwrap_or(Path::new("/")).join("lib/litebox")
}
