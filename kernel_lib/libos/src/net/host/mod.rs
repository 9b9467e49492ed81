//! AF_INET, AF_INET6 and AF_NETLINK sockets: sockets of the host, in the container's network namespace, reached by requests.
//!
//! Invariants:
//! - a TCP socket gets its host socket when it first needs one: a connection to a listener in this guest needs none ([`local`]);
//!   options set before are kept in `early` and replayed;
//! - the host's sockets never block; a call that has to wait sleeps on [`Readiness`], fed by the VMM's edges;
//! - `handle` is set once and closed by [`HostSocket::close`].
//!
//! Lock order: `making` (sleeping, held across the request that makes the host socket) > the spin locks, which are leaves.

mod address;
mod connect;
pub mod interfaces;
mod local;
mod options;
mod ready;
mod request;
pub mod settings;
mod transfer;

use super::message::{Incoming, Outgoing, Wait, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL};
use super::options::Options;
use super::socket::{Socket, AF_INET, AF_INET6, AF_NETLINK, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM};
use crate::errno::{Errno, EACCES, EAFNOSUPPORT, EAGAIN, EBADF, EINVAL, ENOTCONN, EPERM, EPROTONOSUPPORT, ESOCKTNOSUPPORT};
use crate::fs::Events;
use crate::host::{self, ReadyListener};
use crate::ipc::links::{capable, CAP_NET_RAW};
use crate::sync::Mutex;
use crate::wait::WaitQueue;
use crate::SysResult;
use address::Endpoint;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use hal::sync::SpinLock;
use linux_abi::capability::{CAP_NET_ADMIN, CAP_NET_BIND_SERVICE};
use local::LocalEnd;
use ready::Readiness;
use request::With;

const NETLINK_ROUTE: i32 = 0;
const IPPROTO_TCP: i32 = 6;
/// No host socket yet, or none any more.
const NO_HANDLE: u32 = u32::MAX;
const FIONREAD: u32 = 0x541b;
const SIOCOUTQ: u32 = 0x5411;
const SIOCATMARK: u32 = 0x8905;
const SIOCGIFCONF: u32 = 0x8912;
/// sizeof(struct ifreq).
const IFREQ: usize = 40;

/// An option that was set before there was a host socket.
struct Early {
    level: i32,
    name: i32,
    value: Vec<u8>,
}

pub struct HostSocket {
    myself: Weak<HostSocket>,
    domain: i32,
    kind: i32,
    protocol: i32,
    /// A netlink socket of a process that had CAP_NET_ADMIN.
    made_by_administrator: bool,
    handle: AtomicU32,
    making: Mutex<()>,
    closed: AtomicBool,
    early: SpinLock<Vec<Early>>,
    readiness: Arc<Readiness>,
    /// SO_RCVTIMEO and SO_SNDTIMEO are the library OS's business.
    options: Options,
    /// An error that getsockopt(SO_ERROR) or the next call tells once.
    error: AtomicI32,
    /// A nonblocking connect inside the guest was answered EINPROGRESS; the next one learns that it is done.
    announced: AtomicBool,
    listening: AtomicBool,
    backlog: AtomicU32,
    /// Connections from inside the guest that wait to be accepted.
    pending: SpinLock<VecDeque<Arc<HostSocket>>>,
    local: SpinLock<Option<Arc<LocalEnd>>>,
}

/// socket(2) of a family that the host serves.
pub fn open(domain: i32, kind: i32, protocol: i32) -> Result<Arc<dyn Socket>, Errno> {
    match domain {
        AF_INET | AF_INET6 => {
            if !matches!(kind, SOCK_STREAM | SOCK_DGRAM | SOCK_RAW | SOCK_SEQPACKET) {
                return Err(ESOCKTNOSUPPORT);
            }
            if kind == SOCK_RAW && !capable(CAP_NET_RAW) {
                return Err(EPERM);
            }
        }
        AF_NETLINK if !matches!(kind, SOCK_RAW | SOCK_DGRAM) => return Err(ESOCKTNOSUPPORT),
        AF_NETLINK if protocol != NETLINK_ROUTE => return Err(EPROTONOSUPPORT),
        AF_NETLINK => {}
        _ => return Err(EAFNOSUPPORT),
    }
    let socket = HostSocket::new(domain, kind, protocol, NO_HANDLE);
    if !socket.is_tcp() {
        // Made at once, so that socket(2) itself says what the host does not offer.
        socket.handle()?;
    }
    Ok(socket)
}

/// The first port that needs no capability.
fn first_free_port() -> u16 {
    const DEFAULT: u16 = 1024;
    let setting = settings::read("ipv4/ip_unprivileged_port_start").ok();
    setting.and_then(|value| core::str::from_utf8(&value).ok()?.trim().parse().ok()).unwrap_or(DEFAULT)
}

impl HostSocket {
    fn new(domain: i32, kind: i32, protocol: i32, handle: u32) -> Arc<Self> {
        let socket = Arc::new_cyclic(|myself| Self {
            myself: myself.clone(),
            domain,
            kind,
            protocol,
            made_by_administrator: domain == AF_NETLINK && capable(CAP_NET_ADMIN),
            handle: AtomicU32::new(NO_HANDLE),
            making: Mutex::new(()),
            closed: AtomicBool::new(false),
            early: SpinLock::default(),
            readiness: Arc::new(Readiness::default()),
            options: Options::default(),
            error: AtomicI32::new(0),
            announced: AtomicBool::new(false),
            listening: AtomicBool::new(false),
            backlog: AtomicU32::new(0),
            pending: SpinLock::default(),
            local: SpinLock::default(),
        });
        if handle != NO_HANDLE {
            socket.adopt(handle);
        }
        socket
    }

    /// A TCP socket, which may end up connected inside the guest.
    fn is_tcp(&self) -> bool {
        self.domain != AF_NETLINK && self.kind == SOCK_STREAM && matches!(self.protocol, 0 | IPPROTO_TCP)
    }

    /// Messages rather than bytes.
    fn is_message(&self) -> bool {
        self.kind != SOCK_STREAM
    }

    fn adopt(&self, handle: u32) {
        let listener: Arc<dyn ReadyListener> = self.readiness.clone();
        host::listen(handle, &listener);
        self.handle.store(handle, Ordering::Release);
    }

    /// The host socket, made when it is not there yet.
    fn handle(&self) -> Result<u32, Errno> {
        let handle = self.handle.load(Ordering::Acquire);
        if handle != NO_HANDLE {
            return Ok(handle);
        }
        let _making = self.making.lock();
        let handle = self.handle.load(Ordering::Acquire);
        if handle != NO_HANDLE {
            return Ok(handle);
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(EBADF);
        }
        let handle = request::socket(self.domain, self.kind, self.protocol)?;
        let early = core::mem::take(&mut *self.early.lock());
        for option in early {
            // It was valid for a socket of this kind when the program set it; what the host refuses stays as it is.
            let _ = request::set_option(false, handle, option.level, option.name, &option.value);
        }
        self.adopt(handle);
        Ok(handle)
    }

    fn known_handle(&self) -> Option<u32> {
        Some(self.handle.load(Ordering::Acquire)).filter(|&handle| handle != NO_HANDLE)
    }

    fn local(&self) -> Option<Arc<LocalEnd>> {
        self.local.lock().clone()
    }

    fn send_wait(&self, nonblocking: bool) -> Wait {
        Wait { nonblocking, timeout: self.options.send_timeout() }
    }
    fn receive_wait(&self, nonblocking: bool) -> Wait {
        Wait { nonblocking, timeout: self.options.receive_timeout() }
    }

    /// Present readiness by the host, with events from now on.
    fn watch(&self, handle: u32) -> u32 {
        self.readiness.watch(|| request::watch(handle))
    }

    /// Sleeps until one of the bits is set. The first wait looks again after asking for events.
    fn wait_for(&self, handle: u32, bits: Events, wait: &Wait, deadline: Option<u64>) -> Result<(), Errno> {
        let wanted = bits.0 | Events::ERR.0 | Events::HUP.0;
        if !self.readiness.is_watched() && self.watch(handle) & wanted != 0 {
            return Ok(());
        }
        let ready = || (self.readiness.bits() & wanted != 0 || self.closed.load(Ordering::Relaxed)).then_some(());
        wait.sleep(&self.readiness.queue, deadline, ready)
    }

    fn send_host(&self, message: &mut Outgoing<'_, '_>, wait: &Wait) -> SysResult {
        let handle = self.handle()?;
        let flags = message.flags & !(MSG_DONTWAIT | MSG_NOSIGNAL);
        // netlink(7): who made the socket needs the capability, and who sends.
        let administers = self.made_by_administrator && capable(CAP_NET_ADMIN);
        let with = With { flags, address: message.address, control: &message.control, administers };
        let start = message.buffer.done();
        let whole = self.is_message();
        let deadline = wait.deadline();
        loop {
            let offered = message.buffer.remaining();
            let done = message.buffer.done() - start;
            let mark = self.readiness.begin();
            match transfer::send(handle, message.buffer, whole, &with) {
                Ok(sent) if whole => return Ok(sent),
                Ok(sent) => {
                    if sent < offered {
                        self.readiness.filled(mark);
                    }
                    if message.buffer.remaining() == 0 {
                        return Ok(done + sent);
                    }
                    if wait.nonblocking {
                        // The rest would have to wait, unless the request itself was cut.
                        if sent == 0 || !self.known_writable() {
                            return Ok(done + sent);
                        }
                        continue;
                    }
                }
                Err(EAGAIN) => {
                    self.readiness.filled(mark);
                    if wait.nonblocking {
                        return if done > 0 { Ok(done) } else { Err(EAGAIN) };
                    }
                }
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
            if self.known_writable() {
                continue;
            }
            let done = message.buffer.done() - start;
            match self.wait_for(handle, Events::OUT, wait, deadline) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
        }
    }

    fn known_writable(&self) -> bool {
        self.readiness.is_watched() && self.readiness.bits() & Events::OUT.0 != 0
    }

    fn receive_host(&self, message: &mut Incoming<'_, '_>, wait: &Wait) -> SysResult {
        let handle = self.handle()?;
        let flags = message.flags & (MSG_OOB | MSG_PEEK | MSG_TRUNC | MSG_ERRQUEUE);
        let wait = Wait { nonblocking: wait.nonblocking || message.flags & (MSG_ERRQUEUE | MSG_OOB) != 0, ..*wait };
        let all = message.flags & MSG_WAITALL != 0 && !self.is_message() && message.flags & MSG_PEEK == 0;
        let start = message.buffer.done();
        let deadline = wait.deadline();
        loop {
            // Nothing is there for sure: a call that may block goes to sleep without asking.
            let idle = !wait.nonblocking && self.readiness.known(false).is_some_and(|bits| bits & Events::IN.0 == 0 && bits & 0x2018 == 0);
            if !idle {
                let offered = message.buffer.remaining();
                let mark = self.readiness.begin();
                match transfer::receive(handle, message.buffer, flags, self.is_message(), message.control_room) {
                    Ok((received, fits)) => {
                        if flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB) == 0 {
                            self.readiness.received(mark, !self.is_message() && received.bytes < offered);
                        }
                        message.told |= received.flags;
                        message.address = received.address;
                        message.control = received.control;
                        let done = message.buffer.done() - start;
                        if !all || received.bytes == 0 || message.buffer.remaining() == 0 {
                            return Ok(if flags & MSG_TRUNC != 0 { done - fits + received.bytes } else { done });
                        }
                        continue;
                    }
                    Err(EAGAIN) => self.readiness.received(mark, true),
                    Err(_) if message.buffer.done() > start => return Ok(message.buffer.done() - start),
                    Err(error) => return Err(error),
                }
            }
            let done = message.buffer.done() - start;
            if wait.nonblocking {
                return if done > 0 { Ok(done) } else { Err(EAGAIN) };
            }
            match self.wait_for(handle, Events::IN | Events::RDHUP, &wait, deadline) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
        }
    }

    /// FIONREAD and friends, and questions about interfaces (netdevice(7)).
    fn host_ioctl(&self, request: u32, argument: u64) -> SysResult {
        let handle = self.handle()?;
        match request {
            FIONREAD | SIOCOUTQ => {
                let mut value = alloc::vec![0; 4];
                request::ioctl(handle, request, &mut value)?;
                hal::user::write_bytes(argument, &value)?;
            }
            SIOCGIFCONF => {
                // struct ifconf: bytes, padding, address of the list.
                let [room, list]: [u64; 2] = hal::user::read(argument)?;
                let room = (room as u32 as usize).min(request::MAX_CONTROL);
                let mut interfaces = alloc::vec![0; if list == 0 { request::MAX_CONTROL } else { room }];
                request::ioctl(handle, request, &mut interfaces)?;
                if list != 0 {
                    hal::user::write_bytes(list, &interfaces)?;
                }
                hal::user::write(argument, &(interfaces.len() as u32))?;
            }
            _ => return interfaces::control(handle, self.domain, request, argument),
        }
        Ok(0)
    }

    fn take_error(&self) -> Option<Errno> {
        match self.error.swap(0, Ordering::AcqRel) {
            0 => None,
            error => Some(Errno(error)),
        }
    }
}

impl Socket for HostSocket {
    fn bind(&self, address: &[u8]) -> Result<(), Errno> {
        if self.local().is_some() {
            return Err(EINVAL);
        }
        // The host's process may bind any port: whether the guest's may is decided here (ip(7), ip_unprivileged_port_start).
        let port = Endpoint::parse(address).map_or(0, |endpoint| endpoint.port);
        if port != 0 && !capable(CAP_NET_BIND_SERVICE) && port < first_free_port() {
            return Err(EACCES);
        }
        request::bind(self.handle()?, address)
    }

    fn listen(&self, backlog: i32) -> Result<(), Errno> {
        self.start_listening(backlog)
    }

    fn connect(&self, address: &[u8], nonblocking: bool) -> Result<(), Errno> {
        self.connect_to(address, nonblocking)
    }

    fn accept(&self, nonblocking: bool) -> Result<(Arc<dyn Socket>, Vec<u8>), Errno> {
        self.accept_one(nonblocking)
    }

    fn local_address(&self) -> Result<Vec<u8>, Errno> {
        match self.local() {
            Some(end) => Ok(end.own.encode(self.domain)),
            None => request::name(self.handle()?, false),
        }
    }

    fn peer_address(&self) -> Result<Vec<u8>, Errno> {
        match self.local() {
            Some(end) if end.was_reset() => Err(ENOTCONN),
            Some(end) => Ok(end.peer.encode(self.domain)),
            None => request::name(self.handle()?, true),
        }
    }

    fn send(&self, message: &mut Outgoing<'_, '_>, nonblocking: bool) -> SysResult {
        let wait = self.send_wait(nonblocking);
        let Some(end) = self.local() else { return self.send_host(message, &wait) };
        if let Some(error) = self.take_error() {
            return Err(error);
        }
        end.send(message, &wait)
    }

    fn receive(&self, message: &mut Incoming<'_, '_>, nonblocking: bool) -> SysResult {
        let wait = self.receive_wait(nonblocking);
        let Some(end) = self.local() else { return self.receive_host(message, &wait) };
        end.receive(message, &wait)
    }

    fn shutdown(&self, reading: bool, writing: bool) -> Result<(), Errno> {
        self.shut_down(reading, writing)
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        self.set_host_option(level, name, value)
    }

    fn option(&self, level: i32, name: i32, given: &[u8]) -> Result<Vec<u8>, Errno> {
        self.host_option(level, name, given)
    }

    fn poll(&self, nonblocking: bool) -> Events {
        if let Some(end) = self.local() {
            return end.poll(self.error.load(Ordering::Acquire) != 0);
        }
        let Some(handle) = self.known_handle() else {
            // As the kernel tells of a TCP socket that is neither connected nor listening.
            return Events::OUT | Events::WRNORM | Events::HUP;
        };
        let mut events = match self.readiness.known(nonblocking) {
            Some(bits) => bits,
            None if self.readiness.is_watched() => self.readiness.watch(|| request::readiness(handle)),
            None => self.watch(handle),
        };
        if !self.pending.lock().is_empty() {
            events |= (Events::IN | Events::RDNORM).0;
        }
        Events(events)
    }

    fn refresh(&self) -> bool {
        match self.known_handle() {
            Some(handle) if self.readiness.is_watched() && self.local().is_none() => {
                self.readiness.watch(|| request::readiness(handle));
                true
            }
            _ => false,
        }
    }

    fn queue(&self) -> &WaitQueue {
        &self.readiness.queue
    }

    fn host_number(&self) -> Option<u64> {
        request::number(self.known_handle()?).ok()
    }

    fn ioctl(&self, request: u32, argument: u64) -> SysResult {
        let Some(end) = self.local() else { return self.host_ioctl(request, argument) };
        let value = match request {
            FIONREAD => end.incoming.used(),
            SIOCOUTQ => end.outgoing.used(),
            SIOCATMARK => 0,
            _ => return self.host_ioctl(request, argument),
        };
        hal::user::write(argument, &(value as i32)).map(|()| 0)
    }

    fn close(&self) {
        self.shut_for_good();
    }

    fn breaks_pipes(&self) -> bool {
        self.kind == SOCK_STREAM
    }

    fn kind(&self) -> (i32, i32, i32) {
        (self.domain, self.kind, self.protocol)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
