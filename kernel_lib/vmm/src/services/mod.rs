//! Host requests, one function each. A request is copied out of its slot once; what it names is checked; its answer is a number or an
//! errno. `abi::request::TABLE` says what each does.

mod attributes;
mod data;
mod directory;
mod extended;
pub mod guest_memory;
mod locks;
mod lookup;
mod names;
mod netlink;
pub mod notify;
mod report;
mod settings;
mod socket_control;
mod sockets;
mod terminals;
#[cfg(test)]
pub mod tests;
pub mod window;

use std::sync::atomic::Ordering;
use std::sync::Arc;

use abi::request::{Op, Slot, DONE, SUBMITTED_NOTIFY};

use crate::backends::Machine;
use crate::control::Control;
use crate::events::Events;
use crate::handles::Handles;
use crate::jail::Network;
use crate::memory::{Fault, GuestMemory};
use crate::server::Worker;
use crate::watch::Watcher;

/// What a guest did wrong, or what the host answered it: never more than the answer of one request.
pub use rustix::io::Errno;

/// A range that is not guest memory is EFAULT.
pub(crate) fn fault(_: Fault) -> Errno {
    Errno::FAULT
}

/// Everything that requests act on.
pub struct Host {
    pub memory: Arc<GuestMemory>,
    pub machine: Arc<dyn Machine>,
    pub events: Arc<Events>,
    pub handles: Handles,
    pub watcher: Watcher,
    pub window: window::Window,
    pub ram: guest_memory::Ram,
    pub control: Arc<Control>,
    pub notifications: notify::Notifications,
    /// Whether /proc/self/fd is the process's working directory (see `names`).
    pub has_proc: bool,
    pub network: Network,
}

/// A request, copied out of its slot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    pub op: u32,
    pub handle: u32,
    pub segment_count: u32,
    pub segments: u64,
    pub args: [u64; 6],
}

impl Request {
    pub fn copy(slot: &Slot) -> Self {
        let [a, b, c, d, e, f] = &slot.args;
        let word = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
        Self {
            op: slot.op.load(Ordering::Relaxed),
            handle: slot.handle.load(Ordering::Relaxed),
            segment_count: slot.segment_count.load(Ordering::Relaxed),
            segments: slot.segments.load(Ordering::Relaxed),
            args: [word(a), word(b), word(c), word(d), word(e), word(f)],
        }
    }

    pub fn vcpu(&self) -> u32 {
        self.op >> 8 & 0xff
    }

    pub fn flags(&self) -> u16 {
        (self.op >> 16) as u16
    }

    /// A 32-bit argument; what does not fit is EINVAL.
    pub fn small(&self, index: usize) -> Result<u32, Errno> {
        self.args.get(index).and_then(|value| u32::try_from(*value).ok()).ok_or(Errno::INVAL)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub result: u64,
    pub out: [u64; 5],
}

impl Reply {
    pub fn of(result: u64) -> Self {
        Self { result, ..Self::default() }
    }

    pub fn with(result: u64, out: &[u64]) -> Self {
        let mut reply = Self::of(result);
        for (place, value) in reply.out.iter_mut().zip(out) {
            *place = *value;
        }
        reply
    }
}

pub type Answer = Result<Reply, Errno>;

impl Host {
    /// Serves a request and writes the answer into its slot; true: the guest sleeps until it is told.
    pub fn serve_into(&self, slot: &Slot, request: &Request, worker: &Worker<'_>) -> bool {
        let (result, out) = match self.serve(request, worker) {
            Ok(reply) => (reply.result as i64, reply.out),
            Err(errno) => (-i64::from(errno.raw_os_error()), [0; 5]),
        };
        for (place, value) in slot.out.iter().zip(out) {
            place.store(value, Ordering::Relaxed);
        }
        slot.result.store(result, Ordering::Relaxed);
        slot.state.swap(DONE, Ordering::AcqRel) == SUBMITTED_NOTIFY
    }

    pub fn serve(&self, request: &Request, worker: &Worker<'_>) -> Answer {
        let Some(op) = Op::from_byte(request.op as u8) else {
            return Err(Errno::NOSYS);
        };
        match op {
            Op::Stat => self.stat(request),
            Op::Walk => self.walk(request),
            Op::Open => self.open(request, worker),
            Op::Close => self.close(request),
            Op::Read => self.read(request, worker),
            Op::Write => self.write(request, worker),
            Op::SetAttributes => self.set_attributes(request),
            Op::List => self.list(request, worker),
            Op::Make => self.make(request),
            Op::Unlink => self.unlink(request, worker),
            Op::Rename => self.rename(request),
            Op::Link => self.link(request),
            Op::ReadLink => self.read_link(request),
            Op::Xattr => self.xattr(request),
            Op::Sync => self.sync(request, worker),
            Op::Allocate => self.allocate(request, worker),
            Op::StatFs => self.statfs(request),
            Op::Map => self.map(request),
            Op::Unmap => self.unmap(request),
            Op::Lock => self.lock(request),
            Op::Copy => self.copy(request, worker),
            Op::Socket => self.socket(request),
            Op::SocketControl => self.socket_control(request),
            Op::Accept => self.accept(request),
            Op::Send => self.send(request),
            Op::Receive => self.receive(request),
            Op::Watch => self.watch(request),
            Op::Ioctl => self.ioctl(request),
            Op::Notify => self.notify(request),
            Op::Memory => self.change_memory(request),
            Op::Report => self.report(request, worker),
            Op::Random => self.random(request),
        }
    }
}
