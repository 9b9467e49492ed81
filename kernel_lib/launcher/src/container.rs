//! A container as its folder in the state directory shows it (`runtime/store.py` has the rules), and its VMM
//! (`docs/control-protocol.md`).

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Deserialize;
use serde_json::{json, Value};

/// Answers to `start`, `kill` and `state` are far shorter.
const LONGEST_ANSWER: usize = 16 << 10;

/// What counts of `state.json`.
#[derive(Deserialize)]
struct State {
    phase: String,
    pid: i32,
    start_time: u64,
    #[serde(default)]
    hooks: serde_json::Map<String, Value>,
}

pub struct Container {
    path: PathBuf,
    folder: OwnedFd,
    state: State,
}

impl Container {
    /// One that has been created completely, and whose VMM runs.
    pub fn open(root: &Path, id: &str) -> Option<Self> {
        let path = root.join(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = fs::open(&path, flags, Mode::empty()).ok()?;
        let file = fs::openat(&folder, "state.json", OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let text = std::io::read_to_string(std::fs::File::from(file)).ok()?;
        let state: State = serde_json::from_str(&text).ok()?;
        let found = Self { path, folder, state };
        (found.state.phase == "created" && found.is_alive()).then_some(found)
    }

    /// Waits for whoever changes the container. None: it was deleted meanwhile. Closing the folder lets go.
    pub fn lock(&self) -> Option<()> {
        fs::flock(&self.folder, FlockOperation::LockExclusive).ok()?;
        let (now, held) = (fs::stat(&self.path).ok()?, fs::fstat(&self.folder).ok()?);
        ((now.st_dev, now.st_ino) == (held.st_dev, held.st_ino)).then_some(())
    }

    pub fn has_hooks(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| self.state.hooks.contains_key(*kind))
    }

    /// SIGKILL to the VMM, by a descriptor: its process id cannot come to mean another process on the way.
    pub fn kill(&self) -> Option<()> {
        let process = rustix::process::pidfd_open(Pid::from_raw(self.state.pid)?, PidfdFlags::empty()).ok()?;
        if !self.is_alive() {
            return None;
        }
        rustix::process::pidfd_send_signal(process, Signal::KILL).ok()
    }

    /// The process is the one that was started then: see `runtime/store.py`.
    fn is_alive(&self) -> bool {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.state.pid)).unwrap_or_default();
        // Behind the name, which may have any characters, field 3 (state) is the first, and field 22 the start time.
        let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace().collect();
        let dead = matches!(fields.first(), None | Some(&("Z" | "X" | "x")));
        !dead && fields.get(19).and_then(|field| field.parse().ok()) == Some(self.state.start_time)
    }

    pub fn connect(&self) -> Option<Connection> {
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).ok()?;
        // The path of the folder may be longer than a socket's address can be.
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/control.sock", self.folder.as_raw_fd())).ok()?;
        net::connect(&socket, &address).ok()?;
        Some(Connection { socket })
    }
}

/// One to a VMM's control socket; a request at a time.
pub struct Connection {
    socket: OwnedFd,
}

impl Connection {
    /// The answer; None when none came.
    pub fn ask(&self, mut request: Value) -> Option<Value> {
        request["v"] = json!(1);
        request["id"] = json!(1);
        net::send(&self.socket, request.to_string().as_bytes(), SendFlags::NOSIGNAL).ok()?;
        let mut answer = vec![0; LONGEST_ANSWER];
        let (_, bytes) = rustix::io::retry_on_intr(|| net::recv(&self.socket, &mut answer[..], RecvFlags::empty())).ok()?;
        serde_json::from_slice(answer.get(..bytes)?).ok()
    }
}
