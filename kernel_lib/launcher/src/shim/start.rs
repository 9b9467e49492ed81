//! `start`: find or make the shim process of a pod and tell containerd its socket.
//!
//! Three rules, each of which hangs or breaks containerd when violated:
//! - containerd reads stdout and stderr of this process together, until both are closed: nothing but the address may be written, and the shim
//!   must not keep them. Its stdin is the socket, its stderr the bundle's FIFO `log`, and its stdout a pipe of ours or nothing.
//! - The address must not exceed 106 bytes (`sockaddr_un`), so it holds a hash: `SOCKET_DIR/<sha256 of address/namespace/group>`.
//! - Containers with the same group share a shim: when the socket is already served, its address is the answer.
//!
//! The answer to a containerd that sends `BootstrapParams` (2.3 and newer) is JSON that says version 3: it then connects further containers
//! of a pod without calling `start` for each. Others get the bare address, which all of them take for "task API v2 over ttrpc": 1.7 refuses
//! version 3, and nothing in its call tells it from 2.0 to 2.2.
//!
//! gRPC (`dev.litebox.transport`) is for containerd 1.7: 2.0 to 2.4 take every shim that speaks it for gone as soon as they have dialled
//! (shim.go, `grpcDialContext`: `grpc.NewClient` begins idle, which it takes for the end of the connection).
//! Source: containerd core/runtime/v2/{README.md,binary.go,shim.go}, pkg/shim/util_unix.go, cmd/containerd-shim-runc-v2/manager.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::OFlags;
use serde_json::json;

use crate::flags::Call;
use crate::request::{self, Annotations, Config, Params};
use crate::{python, socket, Result, NAME};

/// The action with which this program makes itself the shim.
pub const SERVE: &str = "serve";
/// What it is told last when it is to start a VMM as well.
pub const AHEAD: &str = "ahead";
const TRANSPORT: &str = "dev.litebox.transport";
const TTRPC: &str = "ttrpc";
const GRPC: &str = "grpc";
const CONFIG: &str = "/etc/litebox/config.yaml";
const STDIN_LIMIT: u64 = 10 << 20;
/// What the shim says once it can be called.
const READY: &str = "+";

pub fn start(call: &Call) -> Result<()> {
    if call.namespace.is_empty() || call.id.is_empty() {
        return Err("-namespace and -id are required".into());
    }
    let mut message = Vec::new();
    io::stdin().take(STDIN_LIMIT).read_to_end(&mut message).map_err(|error| format!("stdin: {error}"))?;
    let params = Params::read(&message, &call.id, &call.namespace)?;
    let config = Config::read("config.json")?;
    let transport = transport(call, &config.annotations, &params)?;
    let or = |said: &str, flag: &str| if said.is_empty() { flag.to_owned() } else { said.to_owned() };
    let call = &Call {
        address: or(&params.grpc_address, &call.address),
        ttrpc_address: or(&params.ttrpc_address, &call.ttrpc_address),
        namespace: call.namespace.clone(),
        id: call.id.clone(),
        publish_binary: call.publish_binary.clone(),
        debug: call.debug,
        ..Call::default()
    };
    let directory = or(&params.socket_dir, socket::DIRECTORY);
    let path = socket::path(&directory, &call.address, &call.namespace, request::group(&config.annotations, &call.id))?;
    if let Some((listener, passing)) = socket::listen(&path)? {
        let vmm = if config.allows_ahead() { AHEAD } else { "" };
        spawn(call, listener.into(), [&path, &passing].map(|path| path.as_os_str()), &transport, vmm)
            .inspect_err(|_| socket::remove(&path))?;
    }
    // containerd 1.6 and 1.7 find running shims by this file after a restart.
    replace_file("address", &answer(&path, &transport, 2)).map_err(|error| format!("address: {error}"))?;
    let answer = answer(&path, &transport, if params.knows_version_3 { 3 } else { 2 });
    io::stdout().write_all(answer.as_bytes()).map_err(|error| format!("stdout: {error}"))
}

/// What the shim is to be called by: as the container says, else as the configuration file does, else ttrpc.
fn transport(call: &Call, annotations: &Annotations, params: &Params) -> Result<String> {
    if let Some(asked) = annotations.get(TRANSPORT) {
        let is_known = [TTRPC, GRPC].contains(&asked.as_str());
        return is_known
            .then(|| asked.clone())
            .ok_or_else(|| format!("annotations[{TRANSPORT:?}]: found {asked:?}; allowed: {TTRPC}, {GRPC}"));
    }
    let chosen = Some(params.config_path.clone()).filter(|path| !path.is_empty()).or_else(|| std::env::var("LITEBOX_CONFIG").ok());
    let path = chosen.filter(|path| !path.is_empty()).unwrap_or_else(|| CONFIG.to_owned());
    // The file is parsed by the first Create, and here only when it has to be.
    let text = fs::read(&path).unwrap_or_default();
    if !text.windows(TRANSPORT.len()).any(|part| part.ends_with(b"transport")) {
        return Ok(TTRPC.into());
    }
    let done = python(call, &["transport", &path]).stdin(Stdio::null()).output().map_err(|error| format!("{path}: {error}"))?;
    let said = |data: Vec<u8>| String::from_utf8_lossy(&data).into_owned();
    if done.status.success() {
        Ok(said(done.stdout))
    } else {
        let message = said(done.stderr);
        Err(message.trim_start_matches(NAME).trim_start_matches(": ").to_owned())
    }
}

/// Makes the shim process. It is waited for only where the socket is not yet the one that it serves.
fn spawn(call: &Call, listener: OwnedFd, names: [&OsStr; 2], transport: &str, vmm: &str) -> Result<()> {
    let failed = |error: io::Error| format!("cannot start the shim process: {error}");
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(call.words()).arg(SERVE).args(names).args([transport, vmm]).env("TTRPC_ADDRESS", &call.ttrpc_address);
    // containerd reads this FIFO. Opened for both directions, it never blocks or breaks.
    let log = File::options().read(true).write(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open("log");
    command.stdin(listener).stdout(Stdio::null()).stderr(log.map_or_else(|_| Stdio::null(), Stdio::from));
    let mut ready = None;
    if transport == GRPC {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        command.stdout(writer);
        ready = Some(File::from(reader));
    }
    let child = command.spawn().map_err(failed)?;
    drop(command);
    adjust_oom_score(child.id());
    let Some(mut ready) = ready else { return Ok(()) };
    let mut said = String::new();
    ready.read_to_string(&mut said).map_err(failed)?;
    match said.as_str() {
        READY => Ok(()),
        "" => Err("the shim process ended while starting".into()),
        _ => Err(said),
    }
}

/// The shim is to be killed before containerd, so one above it. Without `CAP_SYS_RESOURCE` that may fail, and is not worth failing for.
fn adjust_oom_score(pid: u32) {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let score = fs::read_to_string(format!("/proc/{parent}/oom_score_adj")).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(score) = score {
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), (score + 1).min(1000).to_string());
    }
}

fn answer(path: &Path, transport: &str, version: u32) -> String {
    let path = path.display();
    match (transport, version) {
        (TTRPC, 2) => format!("unix://{path}"),
        // containerd dials what it is told, and puts the scheme in front by itself.
        (GRPC, _) => json!({"version": version, "address": path.to_string(), "protocol": transport}).to_string(),
        _ => json!({"version": version, "address": format!("unix://{path}"), "protocol": transport}).to_string(),
    }
}

fn replace_file(path: &str, text: &str) -> io::Result<()> {
    let passing = format!(".{path}.{}", std::process::id());
    fs::write(&passing, text)?;
    fs::rename(passing, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_containerds_get_the_bare_address() {
        let path = Path::new("/run/s");
        assert_eq!(answer(path, TTRPC, 2), "unix:///run/s");
        assert_eq!(answer(path, TTRPC, 3), r#"{"address":"unix:///run/s","protocol":"ttrpc","version":3}"#);
        assert_eq!(answer(path, GRPC, 2), r#"{"address":"/run/s","protocol":"grpc","version":2}"#);
    }
}
