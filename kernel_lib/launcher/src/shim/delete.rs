//! `delete`: containerd calls it for every container in the end, also after a clean Delete, and when the shim has died.
//!
//! After a clean Delete there is nothing to do. Otherwise Python does what the dead shim no longer can (`shim/cleanup.py`): it ends the
//! machine, unmounts the root and removes the state. The answer, a `DeleteResponse`, is binary on stdout.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::flags::Call;
use crate::{python, socket, wire, Result};

const EXIT_STATUS: u64 = 128 + 9;

pub fn delete(call: &Call) -> Result<()> {
    let bundle = bundle(call)?;
    let read = |name: &str| std::fs::read_to_string(bundle.join(name)).unwrap_or_default();
    let pid = read("init.pid").trim().parse().unwrap_or(0);
    if !is_clean(&bundle, call) {
        // What it cannot free it says on stderr, which containerd logs as a warning.
        let call =
            &Call { bundle: bundle.display().to_string(), namespace: call.namespace.clone(), id: call.id.clone(), ..Call::default() };
        let freed = python(call, &["delete"]).stdin(Stdio::null()).stdout(Stdio::null()).status();
        freed.map_err(|error| format!("cannot delete container {}: {error}", call.id))?;
    }
    // A shim that was killed leaves its socket behind; one that serves the rest of its pod is left alone.
    if let Some(path) = socket_of(&read("address")).filter(|path| !socket::connects(path)) {
        socket::remove(&path);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let answer = response(pid, now.as_secs(), now.subsec_nanos());
    io::stdout().write_all(&answer).map_err(|error| format!("stdout: {error}"))
}

fn bundle(call: &Call) -> Result<PathBuf> {
    let here = std::env::current_dir();
    let named = if call.bundle.is_empty() { here.map(|here| here.with_file_name(&call.id)) } else { std::path::absolute(&call.bundle) };
    named.map_err(|error| format!("bundle: {error}"))
}

/// Whether nothing is left to be freed: no state, no mount, and no files of a sandbox.
fn is_clean(bundle: &Path, call: &Call) -> bool {
    // As `shim/paths.py` has it, of STATE/io.containerd.runtime.v2.task/NAMESPACE/ID.
    let state = bundle.ancestors().nth(3).unwrap_or(Path::new("/")).join("litebox").join(&call.namespace).join(&call.id);
    !state.exists() && !bundle.join("shm").exists() && !is_mount(&bundle.join("rootfs"))
}

/// Whether something is mounted there, which a comparison of devices would not say of a bind mount (proc(5)).
fn is_mount(path: &Path) -> bool {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.display().to_string().replace('\\', "\\134").replace(' ', "\\040");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(&name))
}

/// The path in the file `address`, which holds what `start` answered.
fn socket_of(said: &str) -> Option<PathBuf> {
    let address = match serde_json::from_str::<serde_json::Value>(said) {
        Ok(answer) => answer["address"].as_str()?.to_owned(),
        Err(_) => said.to_owned(),
    };
    let path = PathBuf::from(address.strip_prefix("unix://").unwrap_or(&address));
    path.is_absolute().then_some(path)
}

/// A `containerd.task.v2.DeleteResponse {pid = 1, exit_status = 2, exited_at = 3}`.
fn response(pid: u64, seconds: u64, nanos: u32) -> Vec<u8> {
    let mut stamp = Vec::new();
    wire::put_number(&mut stamp, 1, seconds);
    wire::put_number(&mut stamp, 2, nanos.into());
    let mut out = Vec::new();
    wire::put_number(&mut out, 1, pid);
    wire::put_number(&mut out, 2, EXIT_STATUS);
    wire::put_message(&mut out, 3, &stamp);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_in_either_form() {
        let expected = Some(PathBuf::from("/run/s"));
        assert_eq!(socket_of("unix:///run/s"), expected);
        assert_eq!(socket_of(r#"{"version":2,"address":"/run/s","protocol":"grpc"}"#), expected);
        assert_eq!(socket_of(""), None);
    }

    #[test]
    fn a_mount_is_seen() {
        assert!(is_mount(Path::new("/proc")));
        assert!(!is_mount(Path::new("/proc/self")));
    }
}
