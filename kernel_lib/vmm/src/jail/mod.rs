//! What the process gives up before guest code runs, in this order (each step needs rights that a later one takes away):
//!
//! 1. namespaces of the plan joined or created, always a mount namespace of its own ([`namespaces`]);
//! 2. an empty, read-only root; the working directory is /proc/self/fd of a proc that shows nothing else ([`root`]);
//! 3. AppArmor or SELinux label, user and group, resource limits, capabilities, no_new_privs ([`privileges`]);
//! 4. Landlock: files below the trees of the plan only ([`landlock`]);
//! 5. an allow-list of system calls for each kind of thread, installed by the thread itself ([`seccomp`]).
//!
//! The caller is the only thread. Without the privilege for a step (rootless without a user namespace of its own, an old kernel) the step
//! is left out and the log says so; what the plan asks for by name and cannot be had is an error.
//!
//! No user namespace is made for a privileged VMM: in one it could not bind ports below 1024 in a network namespace that it does not own.
//! No process-id namespace either: it would only hold children, and there are none (seccomp forbids them).

pub mod descriptors;
pub(crate) mod landlock;
mod namespaces;
mod privileges;
mod root;
pub mod seccomp;

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::error::HostError;
use crate::plan::{Jail, NamespaceKind};

/// Whether /proc/self/fd could be made the working directory (see `services::names`).
#[derive(Clone, Copy, Debug)]
pub struct Jailed {
    pub has_proc: bool,
}

/// `trees`: the roots of the container's mounts. `bounding`: the container's own capabilities.
pub fn enter(
    plan: &Jail,
    namespaces: Vec<(NamespaceKind, Option<OwnedFd>)>,
    trees: &[BorrowedFd<'_>],
    bounding: u64,
) -> Result<Jailed, HostError> {
    if !plan.enabled {
        namespaces::join_network_only(namespaces)?;
        return Ok(Jailed { has_proc: root::enter_descriptor_directory() });
    }
    privileges::set_label(plan)?;
    let own_root = namespaces::enter(namespaces)?;
    let has_proc = if own_root { root::leave()? } else { root::enter_descriptor_directory() };
    privileges::drop_all(plan, bounding)?;
    landlock::restrict(trees);
    Ok(Jailed { has_proc })
}
