//! A VMM started ahead of its container: it prepares what every VM needs while Python starts, reads the bundle and plans. Python finds it by
//! the variable `LITEBOX_AHEAD`, and hands it the launch plan (`docs/control-protocol.md`); when the socket closes first, it ends.

use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
const FIRST_NUMBER: i32 = 256;

/// Its value: the VMM's process id and our end of the socket, which both are inherited by what this process becomes.
pub const VARIABLE: &str = "LITEBOX_AHEAD";

/// Starts it for the Python that this process is about to become.
pub fn start(python: &mut Command) {
    python.envs(spawn().map(|value| (VARIABLE, value)));
}

fn spawn() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None; // it would have to be in a user namespace
    }
    let (ours, its) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).ok()?;
    // Away from the numbers that --preserve-fds may mean.
    let ours = rustix::io::fcntl_dupfd_cloexec(ours, FIRST_NUMBER).ok()?;
    rustix::io::fcntl_setfd(&its, FdFlags::empty()).ok()?;
    let library = crate::machine_directory();
    let mut command = Command::new(library.join("litebox-vmm"));
    command.args(["run", "--socket", &its.as_raw_fd().to_string(), "--kernel"]).arg(library.join("litebox-kernel"));
    command.env_clear().env("PATH", PATH);
    let vmm = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().ok()?;
    rustix::io::fcntl_setfd(&ours, FdFlags::empty()).ok()?;
    let value = format!("{} {}", vmm.id(), ours.as_raw_fd());
    std::mem::forget(ours);
    Some(value)
}
