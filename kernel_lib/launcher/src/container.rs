//! A container as its folder in the state directory shows it (`runtime/store.py` has the rules), and its VMM
//! (`docs/control-protocol.md`).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Deserialize;
use serde_json::{json, Map, Value};

/// Answers to `start`, `exec`, `kill` and `state` are far shorter.
const LONGEST_ANSWER: usize = 16 << 10;
/// Longer requests travel in another way.
const LONGEST_REQUEST: usize = 128 << 10;
const REQUEST_ID: u32 = 1;

/// What counts of `state.json`.
#[derive(Deserialize)]
pub struct State {
    pub id: String,
    phase: String,
    pub pid: i32,
    start_time: u64,
    pub bundle: String,
    pub rootfs: String,
    pub created: String,
    pub owner: String,
    #[serde(default)]
    pub annotations: Map<String, Value>,
    #[serde(default)]
    hooks: Map<String, Value>,
    /// That of config.json.
    #[serde(default)]
    pub process: Map<String, Value>,
    /// A process as the VMM gets it, to start from.
    #[serde(default)]
    pub exec: Map<String, Value>,
}

pub struct Container {
    path: PathBuf,
    folder: OwnedFd,
    pub state: State,
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
    pub fn is_alive(&self) -> bool {
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
    pub fn ask(&self, request: Value) -> Option<Value> {
        self.send(request, &[])?;
        self.answer()
    }

    /// As [`Self::ask`]; None also when none comes in time.
    pub fn ask_within(&self, request: Value, time: Duration) -> Option<Value> {
        let waiting = |time| net::sockopt::set_socket_timeout(&self.socket, net::sockopt::Timeout::Recv, time).ok();
        waiting(Some(time))?;
        let answer = self.ask(request);
        waiting(None)?;
        answer
    }

    /// The container's status; None when the VMM does not answer at once.
    pub fn status(&self) -> Option<String> {
        let answer = self.ask_within(json!({"op": "state"}), Duration::from_secs(1))?;
        answer["status"].as_str().map(str::to_owned)
    }

    /// Sends a request with descriptors. None: nothing was sent.
    pub fn send(&self, mut request: Value, attached: &[BorrowedFd<'_>]) -> Option<()> {
        request["v"] = json!(1);
        request["id"] = json!(REQUEST_ID);
        let text = request.to_string();
        if text.len() > LONGEST_REQUEST {
            return None;
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !attached.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(attached)) {
            return None;
        }
        net::sendmsg(&self.socket, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL).ok()?;
        Some(())
    }

    pub fn answer(&self) -> Option<Value> {
        let mut answer = vec![0; LONGEST_ANSWER];
        let (_, bytes) = rustix::io::retry_on_intr(|| net::recv(&self.socket, &mut answer[..], RecvFlags::empty())).ok()?;
        serde_json::from_slice(answer.get(..bytes)?).ok()
    }

    /// Leaves a process that does as [`Self::follow`]: its process id.
    pub fn leave_proxy(self, pid: u32) -> std::io::Result<u32> {
        rustix::io::fcntl_setfd(&self.socket, rustix::io::FdFlags::empty())?;
        let mut proxy = std::process::Command::new(launcher::machine_directory().join("litebox-vmm"));
        let numbers = [self.socket.as_raw_fd().to_string(), REQUEST_ID.to_string(), pid.to_string()];
        proxy.args(["proxy", "--socket", &numbers[0], "--exec", &numbers[1], "--pid", &numbers[2]]).env_clear();
        proxy.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(|child| child.id())
    }

    /// Until the process that was just started by `exec` has ended: its exit status. It gets our signals meanwhile.
    pub fn follow(self, pid: u32) -> i32 {
        vmm::proxy::follow(self.socket, json!(REQUEST_ID), pid)
    }
}
