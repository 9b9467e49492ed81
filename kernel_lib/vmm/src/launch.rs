//! How this process comes by its launch plan (`docs/control-protocol.md`): it inherits the plan and what it names (`run --plan`), or it was
//! started ahead of the plan and waits for it on a socket (`run --socket`).

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde::Deserialize;

use crate::error::{During, HostError, Kind};
use crate::jail::descriptors;
use crate::plan::{DescriptorKind, NamespaceKind, Plan, MAX_BYTES};

/// Longest message on the socket: the numbers of its descriptors.
const MAX_MESSAGE: usize = 4096;
/// SCM_MAX_FD of Linux.
const MAX_DESCRIPTORS: usize = 253;

/// One message of the runtime.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    /// What the plan calls the attached descriptors, in their order.
    descriptors: Vec<i32>,
    /// The one among all of them that holds the plan: nothing follows.
    #[serde(default)]
    plan: Option<i32>,
}

/// What a plan's descriptor numbers mean.
enum Source {
    Inherited,
    Received(BTreeMap<i32, OwnedFd>),
}

impl Source {
    fn take(&self, number: i32, what: &str) -> Result<OwnedFd, HostError> {
        match self {
            Self::Inherited => descriptors::adopt(number, what),
            Self::Received(known) => {
                let fd = known.get(&number).ok_or_else(|| HostError::plan(format!("{what}: descriptor {number} was not sent")))?;
                rustix::io::fcntl_dupfd_cloexec(fd, 3).during(Kind::Plan, what)
            }
        }
    }
}

/// A plan and what its descriptors became; nobody else's are open.
pub struct Launch {
    pub plan: Plan,
    pub kvm: Option<OwnedFd>,
    pub control: Option<OwnedFd>,
    pub ready: Option<OwnedFd>,
    pub terminal: Option<OwnedFd>,
    pub cgroups: Vec<OwnedFd>,
    pub handles: Vec<(u32, DescriptorKind, OwnedFd)>,
    pub namespaces: Vec<(NamespaceKind, Option<OwnedFd>)>,
}

impl Launch {
    /// Of `run --plan`.
    pub fn inherited(number: i32) -> Result<Self, HostError> {
        let file = descriptors::adopt(number, "--plan")?;
        let launch = Self::adopt(read(file)?, &Source::Inherited)?;
        descriptors::close_others(launch.all().map(AsRawFd::as_raw_fd).chain(crate::log::descriptor()))?;
        Ok(launch)
    }

    /// Of `run --socket`: waits for the plan. None: nobody is going to send one.
    pub fn received(socket: OwnedFd) -> Result<Option<Self>, HostError> {
        let mut known = BTreeMap::new();
        while let Some((message, attached)) = receive(&socket)? {
            if message.descriptors.len() != attached.len() {
                return Err(HostError::plan("a message's descriptors are not those that it names"));
            }
            known.extend(message.descriptors.into_iter().zip(attached));
            if let Some(number) = message.plan {
                let file = known.remove(&number).ok_or_else(|| HostError::plan("the launch plan was not sent"))?;
                return Self::adopt(read(file)?, &Source::Received(known)).map(Some);
            }
        }
        Ok(None)
    }

    fn adopt(plan: Plan, source: &Source) -> Result<Self, HostError> {
        crate::log::set_debug(plan.debug);
        if let Some(number) = plan.log {
            crate::log::open(source.take(number, "log")?);
        }
        let optional = |number: Option<i32>, what: &str| number.map(|number| source.take(number, what)).transpose();
        let mut handles = Vec::with_capacity(plan.descriptors.len());
        for descriptor in &plan.descriptors {
            let fd = source.take(descriptor.fd, &format!("handle {}", descriptor.handle))?;
            handles.push((descriptor.handle, descriptor.kind, fd));
        }
        let mut namespaces = Vec::new();
        for namespace in &plan.jail.namespaces {
            namespaces.push((namespace.kind, optional(namespace.fd, "namespace")?));
        }
        let cgroups = plan.session.iter().flat_map(|session| &session.cgroups);
        let cgroups = cgroups.map(|number| source.take(*number, "cgroup")).collect::<Result<_, _>>()?;
        Ok(Self {
            cgroups,
            kvm: optional(plan.kvm, "kvm")?,
            control: optional(plan.control, "control")?,
            ready: optional(plan.ready, "ready")?,
            terminal: optional(plan.session.as_ref().and_then(|session| session.terminal), "terminal")?,
            plan,
            handles,
            namespaces,
        })
    }

    fn all(&self) -> impl Iterator<Item = &OwnedFd> {
        let single = [&self.kvm, &self.control, &self.ready, &self.terminal].into_iter().filter_map(Option::as_ref);
        single
            .chain(&self.cgroups)
            .chain(self.handles.iter().map(|(_, _, fd)| fd))
            .chain(self.namespaces.iter().filter_map(|(_, fd)| fd.as_ref()))
    }
}

fn read(file: OwnedFd) -> Result<Plan, HostError> {
    let mut text = Vec::new();
    let mut file = std::io::Read::take(std::fs::File::from(file), MAX_BYTES + 1);
    std::io::Read::read_to_end(&mut file, &mut text).during(Kind::Plan, "cannot read the launch plan")?;
    Plan::parse(&text)
}

fn receive(socket: &OwnedFd) -> Result<Option<(Message, Vec<OwnedFd>)>, HostError> {
    let mut buffer = [0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let answer = rustix::io::retry_on_intr(|| rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC));
    let bytes = match answer {
        Ok(message) => message.bytes,
        Err(rustix::io::Errno::CONNRESET) => 0,
        Err(error) => return Err(error).during(Kind::Plan, "cannot receive the launch plan"),
    };
    let mut attached = Vec::new();
    for entry in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = entry {
            attached.extend(rights);
        }
    }
    if bytes == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(buffer.get(..bytes).unwrap_or_default()).during(Kind::Plan, "launch message")?;
    Ok(Some((message, attached)))
}
