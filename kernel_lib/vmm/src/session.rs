//! What a process that is started with its plan inherits or is given, and one that was started ahead of it has to do: session, terminal,
//! cgroups, standard error.

use std::os::fd::OwnedFd;

use crate::backends::signal;
use crate::error::{During, HostError, Kind};
use crate::plan::Session;

/// While there is one thread.
pub fn enter(plan: &Session, terminal: Option<&OwnedFd>, cgroups: Vec<OwnedFd>, has_log: bool) -> Result<(), HostError> {
    if plan.new {
        rustix::process::setsid().during(Kind::Host, "setsid")?;
    } else {
        signal::ignore(&[libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGHUP]);
    }
    if let Some(terminal) = terminal {
        rustix::process::ioctl_tiocsctty(terminal).during(Kind::Host, "cannot make the terminal the controlling one")?;
    }
    for tasks in cgroups {
        // The only way into another cgroup that waits for no RCU grace period (see `cgroup`): one thread, which is the caller.
        rustix::io::write(&tasks, b"0").during(Kind::Host, "cannot join the container's cgroup")?;
    }
    if has_log {
        // Whoever reads our caller's standard error to its end shall not have to wait for the container's.
        let null = std::fs::File::options().write(true).open("/dev/null").during(Kind::Host, "/dev/null")?;
        rustix::stdio::dup2_stderr(&null).during(Kind::Host, "dup2")?;
    }
    Ok(())
}
