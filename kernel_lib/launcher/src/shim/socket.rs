//! The shim's socket: one for all containers of a group, listening before containerd hears of it.
//!
//! Bound under a passing name and linked into place once it listens, so that a second container of the pod that starts at the same time never
//! finds a socket that refuses it. The passing name stays until the shim has lived for a while (`shim/daemon.py`): by it a later `start` finds
//! the socket of a shim that was killed before containerd had connected, and of which containerd tells nobody.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, DirEntryExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sha2::{Digest, Sha256};

use crate::Result;

pub const DIRECTORY: &str = "/run/containerd/s";
/// `sun_path` of unix(7), less the byte at its end, and one that containerd keeps.
const PATH_LIMIT: usize = 106;
/// No `start` takes that long from bind to listen, and no shim waits that long for containerd.
const SETTLED: Duration = Duration::from_secs(10);

/// The path of a group's socket (containerd pkg/shim/util_unix.go, `CreateSocketAddress`).
pub fn path(directory: &str, address: &str, namespace: &str, group: &str) -> Result<PathBuf> {
    let digest = Sha256::digest(format!("{address}/{namespace}/{group}"));
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = format!("{directory}/{name}");
    if path.len() > PATH_LIMIT {
        return Err(format!("{path:?}: unix socket path too long (> {PATH_LIMIT})"));
    }
    Ok(path.into())
}

/// Listens on `path`: the socket and its passing name, or None when a shim already does. A dead shim's socket is replaced.
pub fn listen(path: &Path) -> Result<Option<(UnixListener, PathBuf)>> {
    let said = |error: &io::Error| format!("cannot listen on {}: {error}", path.display());
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o711).create(directory).map_err(|error| said(&error))?;
    sweep(directory);
    // containerds may share the folder and not the process ids.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let passing = directory.join(format!(".{}-{}", std::process::id(), now.as_nanos()));
    let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = UnixListener::bind(&passing);
    rustix::process::umask(mask);
    let listener = bound.map_err(|error| said(&error))?;
    let linked = link(&passing, path);
    if !matches!(linked, Ok(true)) {
        let _ = fs::remove_file(&passing);
    }
    Ok(linked.map_err(|error| said(&error))?.then_some((listener, passing)))
}

/// False when there is a living socket already.
fn link(passing: &Path, path: &Path) -> io::Result<bool> {
    for _attempt in 0..3 {
        match fs::hard_link(passing, path) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Err(_) if connects(path) => return Ok(false),
            Err(_) => remove(path),
        }
    }
    Err(ErrorKind::AddrInUse.into())
}

/// Removes what shims left that were killed before containerd knew them.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_settled =
            || entry.metadata().and_then(|status| status.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > SETTLED));
        if entry.file_name().as_encoded_bytes().starts_with(b".") && is_settled() && !connects(&entry.path()) {
            remove(&entry.path());
        }
    }
}

/// Removes a socket, under all its names in the folder.
pub fn remove(path: &Path) {
    let Ok(inode) = fs::symlink_metadata(path).map(|status| status.ino()) else { return };
    for entry in path.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten() {
        if entry.ino() == inode {
            let _ = fs::remove_file(entry.path());
        }
    }
}

pub fn connects(path: &Path) -> bool {
    let client = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
    let (Ok(client), Ok(address)) = (client, SocketAddrUnix::new(path)) else { return false };
    // EAGAIN: its backlog is full; busy, but there.
    matches!(rustix::net::connect(&client, &address), Ok(()) | Err(Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("litebox-shim-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn paths_are_those_of_containerd() {
        // sha256 of "/run/containerd/containerd.sock/default/c1"
        let path = path(DIRECTORY, "/run/containerd/containerd.sock", "default", "c1").unwrap();
        assert_eq!(path.to_str(), Some("/run/containerd/s/d25aa4ef11a84e954e74a5bcff06557d0b6ea8d0c00243896f29826694bbd888"));
        assert!(super::path(&"/d".repeat(30), "a", "n", "i").unwrap_err().contains("too long"));
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_left() {
        let folder = folder("replace");
        let path = folder.join("s");
        let (listener, passing) = listen(&path).unwrap().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(listen(&path).unwrap().is_none());
        assert_eq!(names(&folder), 2, "{passing:?}");
        drop(listener);
        fs::remove_file(&passing).unwrap();
        let (_listener, passing) = listen(&path).unwrap().unwrap();
        assert!(connects(&path) && connects(&passing));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_a_killed_shim_leaves_is_swept_when_it_is_old() {
        let folder = folder("sweep");
        let path = folder.join("s");
        let (listener, passing) = listen(&path).unwrap().unwrap();
        drop((listener, passing));
        let (other, passing) = listen(&folder.join("o")).unwrap().unwrap();
        assert_eq!(names(&folder), 4);
        drop(other);
        fs::remove_file(passing).unwrap();
        let old = SystemTime::now() - 2 * SETTLED;
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
            last_modification: rustix::fs::Timespec { tv_sec: old.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64, tv_nsec: 0 },
        };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        let (_living, passing) = listen(&folder.join("n")).unwrap().unwrap();
        fs::remove_file(passing).unwrap();
        let mut left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["n", "o"]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
