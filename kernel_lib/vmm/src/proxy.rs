//! `litebox-vmm proxy`: stands in for an exec'd process on the host. It passes on the signals that it gets and its terminal's size,
//! waits for the process's exit event and ends like it.

use std::os::fd::OwnedFd;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::net::SendFlags;
use serde::Deserialize;
use serde_json::{json, Value};

use crate::backends::signal;
use crate::error::{During, HostError, Kind};
use crate::jail::descriptors;
use crate::services::Errno;

/// The connection ended before the process did.
const LOST: i32 = 255;
const MAX_MESSAGE: usize = 128 << 10;

/// Command line of `litebox-vmm proxy`.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    socket: i32,
    exec: Option<Value>,
    pid: Option<u32>,
    terminal: Option<i32>,
}

impl Arguments {
    pub fn parse(words: &[&str]) -> Option<Self> {
        let mut arguments = Self { socket: -1, exec: None, pid: None, terminal: None };
        for pair in words.chunks(2) {
            let [name, value] = pair else { return None };
            match *name {
                "--socket" => arguments.socket = value.parse().ok()?,
                "--pid" => arguments.pid = Some(value.parse().ok()?),
                "--terminal" => arguments.terminal = Some(value.parse().ok()?),
                // An id is any JSON value; a plain word is a string.
                "--exec" => arguments.exec = Some(serde_json::from_str(value).unwrap_or_else(|_| Value::from(*value))),
                _ => return None,
            }
        }
        (arguments.socket >= 0).then_some(arguments)
    }
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

/// The exit status of the process.
pub fn run(arguments: &Arguments) -> i32 {
    // Signals of the starter's keyboard are not for it. One with a terminal was started in a session of its own already.
    let _ = rustix::process::setsid();
    let adopted = || {
        let socket = descriptors::adopt(arguments.socket, "--socket")?;
        let terminal = arguments.terminal.map(|number| descriptors::adopt(number, "--terminal")).transpose()?;
        Ok((socket, terminal))
    };
    or_lost(adopted().and_then(|(socket, terminal)| Proxy::new(socket, arguments.exec.clone(), arguments.pid, terminal)?.wait()))
}

/// The same for a process of our own: exec `exec` of this connection, which the guest knows as `pid`.
pub fn follow(socket: OwnedFd, exec: Value, pid: u32) -> i32 {
    or_lost(Proxy::new(socket, Some(exec), Some(pid), None).and_then(|proxy| proxy.wait()))
}

fn or_lost(result: Result<i32, HostError>) -> i32 {
    result.unwrap_or_else(|error| {
        crate::log::error(&error.message);
        LOST
    })
}

struct Proxy {
    socket: OwnedFd,
    exec: Option<Value>,
    pid: Option<u32>,
    terminal: Option<OwnedFd>,
    signals: OwnedFd,
}

impl Proxy {
    fn new(socket: OwnedFd, exec: Option<Value>, pid: Option<u32>, terminal: Option<OwnedFd>) -> Result<Self, HostError> {
        // Everything but what cannot be caught, what tells of a fault of our own, and of children that we have not.
        let own = [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGCHLD, libc::SIGPIPE];
        let passed: Vec<i32> =
            (1..=libc::SIGRTMAX()).filter(|number| !own.contains(number) && !(32..libc::SIGRTMIN()).contains(number)).collect();
        Ok(Self { socket, exec, pid, terminal, signals: signal::receive(&passed)? })
    }

    fn wait(&self) -> Result<i32, HostError> {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let mut list = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            match poll(&mut list, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).during(Kind::Host, "poll"),
            }
            let [socket, signals] = list.map(|entry| !entry.revents().is_empty());
            if signals {
                for number in signal::read(&self.signals) {
                    self.pass_on(number);
                }
            }
            if socket {
                let bytes = match rustix::io::read(&self.socket, &mut buffer) {
                    Ok(0) | Err(Errno::CONNRESET) => return Ok(LOST),
                    Ok(bytes) => bytes,
                    Err(Errno::INTR | Errno::AGAIN) => continue,
                    Err(error) => return Err(error).during(Kind::Host, "cannot read from the control connection"),
                };
                if let Some(status) = self.exit_status(buffer.get(..bytes).unwrap_or_default()) {
                    return Ok(shell_status(status));
                }
            }
        }
    }

    /// The wait status, if the message says that our process has ended.
    fn exit_status(&self, message: &[u8]) -> Option<u32> {
        #[derive(Deserialize)]
        struct Exit {
            event: String,
            status: u32,
            #[serde(default)]
            exec: Value,
        }
        let exit: Exit = serde_json::from_slice(message).ok()?;
        let ours = self.exec.as_ref().is_none_or(|id| *id == exit.exec);
        (exit.event == "exit" && ours).then_some(exit.status)
    }

    fn pass_on(&self, number: i32) {
        let request = if number == libc::SIGWINCH && self.terminal.is_some() {
            let size = self.terminal.as_ref().and_then(|terminal| rustix::termios::tcgetwinsize(terminal).ok());
            size.map(
                |size| json!({ "v": 1, "id": "resize", "op": "resize", "exec": self.exec, "rows": size.ws_row, "columns": size.ws_col }),
            )
        } else {
            self.pid.map(|pid| json!({ "v": 1, "id": "kill", "op": "kill", "pid": pid, "signal": number }))
        };
        if let Some(request) = request {
            let _ = rustix::net::send(&self.socket, request.to_string().as_bytes(), SendFlags::NOSIGNAL);
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

    #[test]
    fn command_line() {
        let parsed = Arguments::parse(&["--socket", "5", "--exec", "7", "--pid", "12"]).unwrap();
        assert_eq!(parsed, Arguments { socket: 5, exec: Some(Value::from(7)), pid: Some(12), terminal: None });
        assert_eq!(Arguments::parse(&["--socket", "5", "--exec", "abc"]).unwrap().exec, Some(Value::from("abc")));
        assert_eq!(Arguments::parse(&["--socket"]), None);
        assert_eq!(Arguments::parse(&["--pid", "5"]), None);
    }
}
