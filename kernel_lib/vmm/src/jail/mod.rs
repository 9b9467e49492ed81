//! What the process gives up before guest code runs, in this order (each step needs rights that a later one takes away):
//!
//! 1. namespaces of the plan joined or created, always a mount namespace of its own ([`namespaces`]);
//! 2. the container's file system as the root, for the host to look at ([`root`]);
//! 3. AppArmor or SELinux label, user and group, resource limits, capabilities, no_new_privs ([`privileges`]);
//! 4. by the second thread, from which all others descend: an empty, read-only root, and as working directory /proc/self/fd of a proc that
//!    shows nothing else ([`root::Cell`]); Landlock: files below the trees of the plan only ([`landlock`]);
//! 5. an allow-list of system calls for each kind of thread, installed by the thread itself ([`seccomp`]).
//!
//! What of 1 and 2 needs no plan can be done ahead of it ([`prepare`]).
//!
//! Up to 3 the caller is the only thread. It waits from then on, and may do nothing else ([`Jailed::confine_first`]). Without the privilege
//! for a step (rootless without a user namespace of its own, an old kernel) the step is left out and the log says so; what the plan asks for
//! by name and cannot be had is an error.
//!
//! No user namespace is made for a privileged VMM: in one it could not bind ports below 1024 in a network namespace that it does not own.
//! No process-id namespace either: it would only hold children, and there are none (seccomp forbids them).

mod bpf;
pub mod descriptors;
pub(crate) mod landlock;
mod namespaces;
pub(crate) mod privileges;
mod root;
pub mod seccomp;

pub use root::Cell;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use abi::config::ContainerSpec;

use crate::error::HostError;
use crate::plan::{Jail, NamespaceKind};

/// The root of one of the container's mounts.
#[derive(Debug)]
pub struct Tree {
    pub handle: u32,
    pub fd: OwnedFd,
}

/// A process that has given up its rights, but for the one that [`Jailed::confine`] needs.
#[derive(Debug)]
pub struct Jailed {
    /// Whether /proc/self/fd is the working directory of the threads (see `services::names`).
    pub has_proc: bool,
    enabled: bool,
    cell: Option<Cell>,
    network: Network,
}

/// The container's network namespace.
#[derive(Debug)]
pub struct Network {
    /// Its /proc/net, where there is a proc.
    pub tables: Option<OwnedFd>,
    /// Its /proc/sys/net.
    pub settings: Option<OwnedFd>,
    /// It is the container's to change, for those of its processes that may.
    pub is_own: bool,
}

impl Network {
    fn new(is_own: bool) -> Self {
        Self { tables: root::open_host("/proc/self/net"), settings: root::open_host("/proc/sys/net"), is_own }
    }

    pub fn directories(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.tables, &self.settings].into_iter().flatten().map(AsFd::as_fd)
    }
}

/// Ahead of the plan: a mount namespace of our own, and what it takes to leave its root. None: that has to wait.
pub fn prepare() -> Option<Cell> {
    namespaces::own_mounts().ok()?;
    root::prepare().ok()
}

/// Steps 1 to 3; `cell` is what has been prepared of them.
pub fn enter(
    plan: &Jail,
    namespaces: Vec<(NamespaceKind, Option<OwnedFd>)>,
    trees: &mut [Tree],
    container: &ContainerSpec,
    cell: Option<Cell>,
) -> Result<Jailed, HostError> {
    if !plan.enabled {
        namespaces::join_network_only(namespaces)?;
        let network = Network::new(false);
        return Ok(Jailed { has_proc: root::enter_descriptor_directory(), enabled: false, cell: None, network });
    }
    privileges::set_label(plan)?;
    let of_runtime = namespaces::network();
    // Whoever enters a user namespace may do nothing in a mount namespace that was made before.
    let cell = cell.filter(|_| namespaces.iter().all(|(kind, _)| *kind != NamespaceKind::User));
    let own_mounts = namespaces::enter(namespaces, container, cell.is_some())?;
    // The one that the runtime is in is the host's, or that of many.
    let bounding = container.process.capabilities.bounding;
    let is_another = of_runtime.zip(namespaces::network()).is_some_and(|(before, now)| before != now);
    let network = Network::new(is_another && privileges::may_change_network(bounding));
    let cell = match cell {
        None if own_mounts => Some(root::prepare()?),
        prepared => prepared,
    };
    if let Some(cell) = &cell {
        cell.exchange(&container.mounts, trees)?;
    }
    let has_proc = cell.as_ref().map_or_else(root::enter_descriptor_directory, Cell::has_proc);
    privileges::drop_all(plan, bounding, network.is_own)?;
    Ok(Jailed { has_proc, enabled: true, cell, network })
}

impl Jailed {
    /// Step 4, for the calling thread and those that it starts. What is left: the container's network namespace.
    pub fn confine(self, trees: &[Tree]) -> Result<Network, HostError> {
        if !self.enabled {
            return Ok(self.network);
        }
        if let Some(cell) = &self.cell {
            cell.enter()?;
        }
        privileges::drop_chroot()?;
        let trees: Vec<_> = trees.iter().map(|tree| tree.fd.as_fd()).chain(self.network.directories()).collect();
        landlock::restrict(&trees);
        Ok(self.network)
    }

    /// Whether the container's network is its own to change.
    pub fn changes_network(&self) -> bool {
        self.network.is_own
    }

    /// The thread that keeps the container's root: it can wait and end the process.
    pub fn confine_first(enabled: bool, filter: &seccomp::Filter) -> Result<(), HostError> {
        if !enabled {
            return Ok(());
        }
        privileges::drop_chroot()?;
        filter.install()
    }
}
