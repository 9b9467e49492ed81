//! `litebox-vmm proxy`: stands in for an exec'd process on the host. It waits for the process's exit message and ends like it.

use std::os::fd::OwnedFd;

use serde::Deserialize;

use crate::error::{During, HostError, Kind};
use crate::jail::descriptors;
use crate::machine::FAILED;

const MAX_MESSAGE: usize = 128 << 10;

/// The event that ends a proxy; other messages on its socket are not for it.
#[derive(Deserialize)]
struct Exit {
    event: String,
    #[serde(default)]
    status: u32,
}

/// Exit status of a shell for a wait(2) status.
pub const fn shell_status(wait_status: u32) -> i32 {
    let signal = wait_status & 0x7f;
    if signal == 0 {
        (wait_status >> 8 & 0xff) as i32
    } else {
        128 + signal as i32
    }
}

/// `litebox-vmm proxy`: the exit status of the process.
pub fn run(number: i32) -> i32 {
    match descriptors::adopt(number, "--socket").and_then(|socket| wait(&socket)) {
        Ok(status) => status,
        Err(error) => {
            crate::log::error(&error.message);
            FAILED
        }
    }
}

/// Waits for the exit message on `socket`.
fn wait(socket: &OwnedFd) -> Result<i32, HostError> {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let bytes = match rustix::io::read(socket, &mut buffer) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.during(Kind::Host, "cannot read from the control connection")?,
        };
        if bytes == 0 {
            return Err(HostError::new(Kind::Host, "the container ended before the process's exit status was known"));
        }
        if let Ok(exit) = serde_json::from_slice::<Exit>(buffer.get(..bytes).unwrap_or_default()) {
            if exit.event == "exit" {
                return Ok(shell_status(exit.status));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        assert_eq!(shell_status(0x0300), 3);
        assert_eq!(shell_status(9), 137);
        assert_eq!(shell_status(0x8b), 139);
    }
}
