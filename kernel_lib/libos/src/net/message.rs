//! What a send or a receive is made of, independent of the kind of socket.

use crate::errno::{Errno, EAGAIN, EINTR, ERESTARTSYS, ETIMEDOUT};
use crate::fs::OpenFile;
use crate::io::IoBuffer;
use crate::sched;
use crate::wait::{Interruptible, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const MSG_OOB: u32 = 0x1;
pub const MSG_PEEK: u32 = 0x2;
pub const MSG_CTRUNC: u32 = 0x8;
pub const MSG_TRUNC: u32 = 0x20;
pub const MSG_DONTWAIT: u32 = 0x40;
pub const MSG_EOR: u32 = 0x80;
pub const MSG_WAITALL: u32 = 0x100;
pub const MSG_ERRQUEUE: u32 = 0x2000;
pub const MSG_NOSIGNAL: u32 = 0x4000;
pub const MSG_WAITFORONE: u32 = 0x10000;
pub const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;

/// struct ucred.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Ucred {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Ucred {
    /// What SO_PEERCRED tells about an end that nobody is known for.
    pub const NOBODY: Self = Self { pid: 0, uid: u32::MAX, gid: u32::MAX };
    /// A sender whose credentials were not recorded.
    pub const OVERFLOW: Self = Self { pid: 0, uid: 65534, gid: 65534 };

    /// The current process by its real ids: what SCM_CREDENTIALS says unless told otherwise.
    pub fn sender() -> Self {
        let task = sched::current();
        let credentials = task.credentials();
        Self { pid: task.process.pid, uid: credentials.uid, gid: credentials.gid }
    }

    /// The current process by its effective ids: what SO_PEERCRED tells the other end.
    pub fn peer() -> Self {
        let task = sched::current();
        let credentials = task.credentials();
        Self { pid: task.process.pid, uid: credentials.euid, gid: credentials.egid }
    }
}

/// What travels beside the data of a unix socket.
#[derive(Default, Clone)]
pub struct Ancillary {
    pub files: super::unix::InFlight,
    pub credentials: Option<Ucred>,
}

impl Ancillary {
    /// Whether a following send belongs to the same mark.
    pub fn joins(&self, next: &Self) -> bool {
        self.files.is_empty() && self.credentials == next.credentials
    }

    /// The descriptors go with the first piece of a send only.
    pub fn take_once(&mut self) -> Self {
        Self { files: core::mem::take(&mut self.files), credentials: self.credentials }
    }
}

/// How long a socket call waits.
#[derive(Clone, Copy)]
pub struct Wait {
    pub nonblocking: bool,
    /// SO_RCVTIMEO or SO_SNDTIMEO in ns; 0: for ever.
    pub timeout: u64,
}

impl Wait {
    pub fn deadline(&self) -> Option<u64> {
        (self.timeout != 0 && !self.nonblocking).then(|| hal::time::monotonic().saturating_add(self.timeout))
    }

    /// Sleeps; EAGAIN past the time limit; an interrupted wait starts over only when it has no limit (signal(7)).
    pub fn sleep(&self, queue: &WaitQueue, deadline: Option<u64>, ready: impl FnMut() -> Option<()>) -> Result<(), Errno> {
        queue.wait(Interruptible::Yes, deadline, ready).map_err(|error| self.translate(error))
    }

    pub fn translate(&self, error: Errno) -> Errno {
        match error {
            ETIMEDOUT => EAGAIN,
            EINTR if self.timeout == 0 => ERESTARTSYS,
            other => other,
        }
    }
}

/// A message to be sent.
pub struct Outgoing<'a, 'b> {
    pub buffer: &'a mut IoBuffer<'b>,
    /// MSG_* flags.
    pub flags: u32,
    /// Where to; None: the connected peer.
    pub address: Option<&'a [u8]>,
    /// SCM_RIGHTS and SCM_CREDENTIALS.
    pub files: Vec<Arc<OpenFile>>,
    pub credentials: Option<Ucred>,
    /// Other control messages, as the program gave them.
    pub control: Vec<u8>,
}

impl<'a, 'b> Outgoing<'a, 'b> {
    pub fn plain(buffer: &'a mut IoBuffer<'b>, flags: u32) -> Self {
        Self { buffer, flags, address: None, files: Vec::new(), credentials: None, control: Vec::new() }
    }
}

/// A message to be received.
pub struct Incoming<'a, 'b> {
    pub buffer: &'a mut IoBuffer<'b>,
    /// MSG_* flags asked for.
    pub flags: u32,
    /// Room for control messages.
    pub control_room: usize,
    /// SO_PASSCRED.
    pub pass_credentials: bool,
    /// Where it came from.
    pub address: Vec<u8>,
    pub files: Vec<Arc<OpenFile>>,
    pub credentials: Option<Ucred>,
    /// Control messages of the host, as they are.
    pub control: Vec<u8>,
    /// MSG_* flags told.
    pub told: u32,
    /// Bytes looked at already (MSG_PEEK with MSG_WAITALL).
    pub peeked: usize,
    start: usize,
}

impl<'a, 'b> Incoming<'a, 'b> {
    pub fn new(buffer: &'a mut IoBuffer<'b>, flags: u32) -> Self {
        let start = buffer.done();
        Self {
            buffer,
            flags,
            control_room: 0,
            pass_credentials: false,
            address: Vec::new(),
            files: Vec::new(),
            credentials: None,
            control: Vec::new(),
            told: 0,
            peeked: 0,
            start,
        }
    }

    pub const fn peek(&self) -> bool {
        self.flags & MSG_PEEK != 0
    }
    pub const fn wait_all(&self) -> bool {
        self.flags & MSG_WAITALL != 0
    }
    /// Bytes received so far.
    pub fn copied(&self) -> usize {
        self.buffer.done() - self.start
    }
    pub fn same_writer(&self, ancillary: &Ancillary) -> bool {
        self.credentials == ancillary.credentials
    }

    /// Takes over (or copies, when peeking) what travels with the data.
    pub fn attach(&mut self, ancillary: &mut Ancillary, peek: bool) {
        if self.credentials.is_none() {
            self.credentials = ancillary.credentials;
        }
        if !ancillary.files.is_empty() {
            self.files.extend(if peek { ancillary.files.copies() } else { core::mem::take(&mut ancillary.files).land() });
        }
    }
}
