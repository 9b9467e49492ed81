//! The container as the library OS sees it, and the control messages. JSON between runtime and VMM, postcard between VMM and guest.
//!
//! Field names are the JSON keys of the launch plan (docs/control-protocol.md). Unknown keys are errors on the host side.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What a guest is told before its first instruction.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainerSpec {
    pub id: String,
    pub hostname: String,
    pub domainname: String,
    /// In mount order; the first is "/".
    pub mounts: Vec<MountSpec>,
    /// PID 1. Absent in a plan that waits for it (never sent to the guest before `start`).
    pub process: ProcessSpec,
    /// Signals that it does not handle act on PID 1 as on any other process.
    pub ordinary_init: bool,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// Device nodes beyond the default set.
    pub devices: Vec<DeviceSpec>,
    /// (name with dots, value): those that the library OS owns.
    pub sysctl: Vec<(String, String)>,
    pub limits: Limits,
    pub seccomp: Option<SeccompSpec>,
    /// Print every system call to the control connection.
    pub trace: bool,
    /// Path of the container's cgroup as its processes see it in /proc/self/cgroup.
    pub cgroup: String,
    /// 1 or 2: which cgroup version /sys/fs/cgroup shows.
    pub cgroup_version: u32,
    pub personality: u32,
    /// The user namespace's mappings, for /proc/PID/uid_map and gid_map; empty: every id is itself.
    pub uid_map: Vec<IdMapping>,
    pub gid_map: Vec<IdMapping>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMapping {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes; 0: no limit of its own (the guest's RAM is the limit).
    pub memory: u64,
    /// Bytes of guest RAM there may be: the limit and what the library OS needs beside it. 0: as at the start.
    pub ram: u64,
    /// CPU time per period in microseconds; 0: none.
    pub cpu_quota: u64,
    pub cpu_period: u64,
    pub pids: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MountSpec {
    pub destination: String,
    /// "host", "overlay" (a guest-memory layer above a read-only host tree), "tmpfs", "proc", "sysfs", "devtmpfs", "devpts", "mqueue", "cgroup".
    pub kind: String,
    /// What /proc/mounts shows.
    pub source: String,
    pub fstype: String,
    /// For "host" and "overlay": the guest's handle of the tree's root (assigned by the VMM from the plan's descriptor).
    pub handle: u32,
    /// The tree is a single file (a bind mount of a file).
    pub is_file: bool,
    /// Of a bind mount: the path on the host, which /proc/PID/mountinfo shows as the mount's root.
    pub origin: String,
    /// Nobody else writes the tree: cache without asking. Always so below an overlay, as Linux demands of its lower trees.
    pub exclusive: bool,
    pub readonly: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub noatime: bool,
    /// File-system specific, as in mount(8): "size=65536k", "mode=755", "newinstance", "gid=5" ...
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceSpec {
    pub path: String,
    /// 'c', 'b', 'p'.
    pub kind: String,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSpec {
    /// What is executed, where that is not args[0].
    pub executable: Option<String>,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Vec<u32>,
    pub capabilities: Capabilities,
    pub rlimits: Vec<RlimitSpec>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    /// Give it a new pty of the guest as controlling terminal; its host side is the `stdio` handles.
    pub terminal: bool,
    pub rows: u16,
    pub columns: u16,
    /// Guest handles of stdin, stdout and stderr (assigned by the VMM); u32::MAX: /dev/null.
    pub stdio: [u32; 3],
    /// More inherited descriptors, numbers 3 and up, in order (`--preserve-fds`).
    pub extra_files: Vec<u32>,
}

/// Bit masks, bit n = capability n (capabilities(7)).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlimitSpec {
    /// RLIMIT_* number.
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// linux.seccomp, resolved: names to x86-64 numbers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeccompSpec {
    /// SECCOMP_RET_* with data.
    pub default_action: u32,
    pub flags: u32,
    pub rules: Vec<SeccompRule>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeccompRule {
    pub syscalls: Vec<u32>,
    pub action: u32,
    pub args: Vec<SeccompArg>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeccompArg {
    pub index: u32,
    /// "ne", "lt", "le", "eq", "ge", "gt", "masked_eq".
    pub op: String,
    pub value: u64,
    pub value_two: u64,
}

/// VMM to guest, fetched by REPORT NEXT.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToGuest {
    /// Run PID 1.
    Start,
    /// Run another process; `token` names it in answers.
    Exec {
        token: u32,
        process: Box<ProcessSpec>,
    },
    /// Signal: pid 0 = PID 1; `all`: every process. Answered by `KillDone`.
    Kill {
        token: u32,
        pid: u32,
        signal: u32,
        all: bool,
    },
    /// Window size of the terminal of exec `token` (0: PID 1).
    Resize {
        token: u32,
        rows: u16,
        columns: u16,
    },
    ListProcesses {
        token: u32,
    },
    UpdateLimits {
        token: u32,
        limits: Limits,
    },
    /// Close stdin of exec `token` (0: PID 1) from the host side.
    CloseStdin {
        token: u32,
    },
    Trace {
        on: bool,
    },
}

/// Guest to VMM, sent by REPORT SEND.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FromGuest {
    /// Booted: mounts are in place, waiting for `Start`.
    Ready,
    /// PID 1 runs its program (errno 0), or could not (the errno of execve, with a message).
    Started {
        errno: i32,
        message: String,
    },
    ExecStarted {
        token: u32,
        pid: u32,
        errno: i32,
        message: String,
    },
    /// wait(2) status of an exec'd process.
    ExecExited {
        token: u32,
        status: u32,
    },
    KillDone {
        token: u32,
        errno: i32,
    },
    Processes {
        token: u32,
        list: Vec<ProcessInfo>,
    },
    Updated {
        token: u32,
        errno: i32,
    },
    OomKill {
        pid: u32,
    },
    /// One line of the system-call trace.
    Trace {
        line: String,
    },
    /// PID 1 ended with this wait(2) status; the VM ends.
    Exited {
        status: u32,
    },
    /// A line for the container's log (a missing feature, a limit).
    Log {
        line: String,
    },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessInfo {
    pub pid: u32,
    pub ppid: u32,
    pub uid: u32,
    pub state: u8,
    pub threads: u32,
    pub rss_bytes: u64,
    pub cpu_ns: u64,
    pub start_ns: u64,
    pub tty: String,
    pub command: String,
}
