//! Namespaces: those of the plan, and a mount namespace.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use abi::config::ContainerSpec;
use rustix::io::Errno;
use rustix::thread::{move_into_link_name_space, LinkNameSpaceType, UnshareFlags};

use crate::error::{During, HostError, Kind};
use crate::plan::NamespaceKind;

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the file table stays shared (no FILES among the flags).
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// The calling thread's root and working directory are its own from now on, not the process's.
pub fn own_root_and_directory() -> Result<(), HostError> {
    unshare(UnshareFlags::FS).during(Kind::Jail, "cannot separate the thread's root")
}

/// A mount namespace of the calling thread, and of those that it starts.
pub fn own_mounts() -> Result<(), Errno> {
    unshare(UnshareFlags::NEWNS)
}

/// Nothing can be written below this mount. Numbers: include/uapi/linux/mount.h.
pub fn make_read_only(mount: &OwnedFd) -> std::io::Result<()> {
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let attributes: [u64; 4] = [MOUNT_ATTR_RDONLY, 0, 0, 0];
    // SAFETY: `attributes` has the layout of a struct mount_attr (attr_set, attr_clr, propagation, userns_fd), and lives during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

fn link_type(kind: NamespaceKind) -> LinkNameSpaceType {
    match kind {
        NamespaceKind::Network => LinkNameSpaceType::Network,
        NamespaceKind::Ipc => LinkNameSpaceType::InterProcessCommunication,
        NamespaceKind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        NamespaceKind::Mount => LinkNameSpaceType::Mount,
        NamespaceKind::Pid => LinkNameSpaceType::ProcessID,
        NamespaceKind::User => LinkNameSpaceType::User,
        NamespaceKind::Cgroup => LinkNameSpaceType::ControlGroup,
        NamespaceKind::Time => LinkNameSpaceType::Time,
    }
}

/// Which network namespace the process is in; None: there is no proc to say.
pub fn network() -> Option<(u64, u64)> {
    rustix::fs::stat("/proc/self/ns/net").ok().map(|found| (found.st_dev, found.st_ino))
}

/// What a new namespace of a kind is worth here. The VMM has no use for time and process-id namespaces: the guest keeps its own.
fn new_flag(kind: NamespaceKind) -> UnshareFlags {
    match kind {
        NamespaceKind::Network => UnshareFlags::NEWNET,
        NamespaceKind::Ipc => UnshareFlags::NEWIPC,
        NamespaceKind::Uts => UnshareFlags::NEWUTS,
        NamespaceKind::Cgroup => UnshareFlags::NEWCGROUP,
        NamespaceKind::Mount | NamespaceKind::Pid | NamespaceKind::User | NamespaceKind::Time => UnshareFlags::empty(),
    }
}

/// Joins and creates, a mount namespace too if there is none yet; false: there could be none (no privilege), the process keeps its root.
pub fn enter(
    namespaces: Vec<(NamespaceKind, Option<OwnedFd>)>,
    container: &ContainerSpec,
    has_own_mounts: bool,
) -> Result<bool, HostError> {
    let mut new = if has_own_mounts { UnshareFlags::empty() } else { UnshareFlags::NEWNS };
    // The user namespace first: the right to join the others may come from it.
    let (user, others): (Vec<_>, Vec<_>) = namespaces.into_iter().partition(|(kind, _)| *kind == NamespaceKind::User);
    for (kind, fd) in user.into_iter().chain(others) {
        match fd {
            // A mount namespace of others would be left again at once.
            Some(_) if matches!(kind, NamespaceKind::Mount | NamespaceKind::Pid | NamespaceKind::Time) => {}
            Some(fd) => join(kind, &fd)?,
            None => new |= new_flag(kind),
        }
    }
    match unshare(new) {
        Ok(()) => {}
        Err(Errno::PERM) if !has_own_mounts => {
            if !enter_user_namespace(new)? {
                return Ok(false);
            }
        }
        Err(error) => return Err(error).during(Kind::Jail, "cannot create namespaces"),
    }
    if new.contains(UnshareFlags::NEWNET) {
        loopback_up()?;
    }
    if new.contains(UnshareFlags::NEWUTS) {
        name(container)?;
    }
    Ok(true)
}

/// The guest keeps its own names; these are for hooks, and for whoever enters the namespace.
fn name(container: &ContainerSpec) -> Result<(), HostError> {
    if !container.hostname.is_empty() {
        rustix::system::sethostname(container.hostname.as_bytes()).during(Kind::Jail, "sethostname")?;
    }
    if !container.domainname.is_empty() {
        rustix::system::setdomainname(container.domainname.as_bytes()).during(Kind::Jail, "setdomainname")?;
    }
    Ok(())
}

/// Without a jail, sockets still belong into the container's network.
pub fn join_network_only(namespaces: Vec<(NamespaceKind, Option<OwnedFd>)>) -> Result<(), HostError> {
    for (kind, fd) in namespaces {
        match fd {
            Some(fd) if kind == NamespaceKind::Network => join(kind, &fd)?,
            None if kind == NamespaceKind::Network => {
                unshare(UnshareFlags::NEWNET).during(Kind::Jail, "cannot create a network namespace")?;
                loopback_up()?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn join(kind: NamespaceKind, fd: &OwnedFd) -> Result<(), HostError> {
    match move_into_link_name_space(fd.as_fd(), Some(link_type(kind))) {
        // Joining the user namespace that one is in is EINVAL.
        Err(Errno::INVAL) if kind == NamespaceKind::User => Ok(()),
        other => other.during(Kind::Jail, &format!("cannot join the {kind:?} namespace")),
    }
}

/// An ordinary user gets a user namespace in which only that user exists, and in it the right to the others.
fn enter_user_namespace(others: UnshareFlags) -> Result<bool, HostError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if let Err(error) = unshare(UnshareFlags::NEWUSER) {
        crate::log::warning(&format!("jail: no privilege for namespaces, and no user namespace: {error}; going on without"));
        return Ok(false);
    }
    // A refused setgroups file is an old kernel's, which does not need it.
    let _ = std::fs::write("/proc/self/setgroups", "deny");
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).during(Kind::Jail, "uid_map")?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).during(Kind::Jail, "gid_map")?;
    unshare(others).during(Kind::Jail, "cannot create namespaces")?;
    Ok(true)
}

/// Sets IFF_UP on lo of a new network namespace.
fn loopback_up() -> Result<(), HostError> {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).during(Kind::Jail, "socket")?;
    // SAFETY: a zeroed ifreq is a valid one, and lives during the call.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(HostError::new(Kind::Jail, format!("cannot bring the loopback interface up: {}", std::io::Error::last_os_error())))
    }
}
