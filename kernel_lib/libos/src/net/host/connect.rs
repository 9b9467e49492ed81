//! How connections begin and end: on the host, or between two sockets of this guest.

use super::address::Endpoint;
use super::local::{self, LocalEnd};
use super::{request, HostSocket, NO_HANDLE};
use crate::errno::{Errno, EAGAIN, EALREADY, ECONNRESET, EINPROGRESS, EINVAL, EISCONN, ENOTCONN, EOPNOTSUPP, EPIPE};
use crate::fs::Events;
use crate::host;
use crate::io::IoBuffer;
use crate::mm::reclaim;
use crate::net::channel::Channel;
use crate::net::message::{Incoming, Outgoing, Wait, MSG_ERRQUEUE, MSG_OOB};
use crate::net::options::{Options, SOL_SOCKET, SO_ERROR, SO_OOBINLINE};
use crate::net::socket::{Socket, AF_INET6};
use crate::SysResult;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

/// What may be under way at most in each direction of a connection inside the guest.
const CAPACITY: usize = 256 << 10;
const MAX_BACKLOG: u32 = 4096;
const SHUT_READ: u64 = 0;
const SHUT_WRITE: u64 = 1;
const SHUT_BOTH: u64 = 2;

/// What may be under way in one direction: what the one may have unsent and the other unread.
fn capacity(sender: &Options, reader: &Options) -> usize {
    CAPACITY.min(sender.send_buffer() + reader.receive_buffer())
}

impl LocalEnd {
    pub fn poll(&self, error: bool) -> Events {
        let mut events = Events::default();
        let ended = self.incoming.is_write_closed() || self.incoming.is_read_closed();
        let shut = self.outgoing.is_write_closed();
        if self.incoming.used() > 0 || ended {
            events |= Events::IN | Events::RDNORM;
        }
        if ended {
            events |= Events::RDHUP;
        }
        if ended && shut {
            events |= Events::HUP;
        }
        if self.outgoing.can_write() || shut {
            events |= Events::OUT | Events::WRNORM;
        }
        if self.incoming.has_urgent() {
            events |= Events::PRI;
        }
        if self.incoming.was_reset() {
            events |= Events::HUP | Events::IN | Events::RDNORM | Events::RDHUP;
        }
        if error || self.incoming.has_error() {
            events |= Events::ERR | Events::HUP | Events::IN | Events::RDNORM | Events::RDHUP;
        }
        events
    }

    /// The connection is no more: the peer reset it, or would have.
    pub fn was_reset(&self) -> bool {
        self.incoming.was_reset() || self.reset.load(Ordering::Acquire)
    }

    pub fn send(&self, message: &mut Outgoing<'_, '_>, wait: &Wait) -> SysResult {
        let bytes = message.buffer.remaining();
        if message.flags & MSG_OOB != 0 && bytes > 0 && !self.peer_socket.upgrade().is_some_and(|peer| peer.options.on(SO_OOBINLINE)) {
            return self.send_urgent(message, wait);
        }
        match self.outgoing.send(message.buffer, None, wait) {
            // The reset is told once, to whoever asks first.
            Err(EPIPE) if self.incoming.has_error() => Err(Errno(self.incoming.take_error())),
            // The first send behind the peer's close goes out and is answered with a reset; only the next one fails.
            Err(EPIPE) if !self.outgoing.is_write_closed() && !self.incoming.was_reset() && !self.reset.swap(true, Ordering::AcqRel) => {
                message.buffer.advance(bytes);
                Ok(bytes)
            }
            outcome => outcome,
        }
    }

    /// The last byte is urgent and travels beside the stream (tcp(7)).
    fn send_urgent(&self, message: &mut Outgoing<'_, '_>, wait: &Wait) -> SysResult {
        let mut bytes = reclaim::items(0, message.buffer.remaining())?;
        let count = message.buffer.get(&mut bytes)?;
        let Some((&last, rest)) = bytes[..count].split_last() else { return Ok(0) };
        let mut buffer = IoBuffer::take(rest);
        let sent = if rest.is_empty() { 0 } else { self.outgoing.send(&mut buffer, None, wait)? };
        if sent < rest.len() {
            return Ok(sent);
        }
        self.outgoing.send_urgent(last);
        Ok(count)
    }

    pub fn receive(&self, message: &mut Incoming<'_, '_>, wait: &Wait) -> SysResult {
        if message.flags & MSG_OOB != 0 {
            let byte = self.incoming.take_urgent(message.peek()).ok_or(EINVAL)?;
            message.told |= MSG_OOB;
            return message.buffer.put(&[byte]);
        }
        if message.flags & MSG_ERRQUEUE != 0 {
            return Err(EAGAIN);
        }
        self.incoming.receive(message, wait)
    }
}

/// A sockaddr of AF_UNSPEC: connecting to it ends a connection.
const UNSPECIFIED: [u8; 16] = [0; 16];

impl HostSocket {
    pub(super) fn start_listening(&self, backlog: i32) -> Result<(), Errno> {
        if self.local().is_some() {
            return Err(EINVAL);
        }
        let handle = self.handle()?;
        request::listen(handle, backlog)?;
        self.backlog.store((backlog as u32).min(MAX_BACKLOG), Ordering::Relaxed);
        if self.listening.swap(true, Ordering::AcqRel) || !self.is_tcp() {
            return Ok(());
        }
        let endpoint = request::name(handle, false).ok().as_deref().and_then(Endpoint::parse);
        if let (Some(endpoint), Some(myself)) = (endpoint, self.myself.upgrade()) {
            local::add(&myself, endpoint, self.domain, self.domain == AF_INET6 && self.only_v6());
        }
        Ok(())
    }

    pub(super) fn connect_to(&self, address: &[u8], nonblocking: bool) -> Result<(), Errno> {
        if self.local().is_some() {
            return if self.announced.swap(false, Ordering::AcqRel) { Ok(()) } else { Err(EISCONN) };
        }
        if self.is_tcp() && self.connect_inside(address)? {
            self.announced.store(nonblocking, Ordering::Release);
            return if nonblocking { Err(EINPROGRESS) } else { Ok(()) };
        }
        let handle = self.handle()?;
        let wait = self.send_wait(nonblocking);
        let deadline = wait.deadline();
        match request::connect(handle, address) {
            Err(EINPROGRESS | EALREADY) if !nonblocking => {}
            // What was cached told of the socket before.
            outcome => {
                if self.readiness.is_watched() {
                    self.watch(handle);
                }
                return outcome;
            }
        }
        self.watch(handle);
        self.wait_for(handle, Events::OUT, &wait, deadline).map_err(|error| if error == EAGAIN { EINPROGRESS } else { error })?;
        let error = request::option(handle, SOL_SOCKET, SO_ERROR, &[0; 4])?;
        let error = crate::net::options::int(&error)?;
        if error == 0 {
            return Ok(());
        }
        // The host takes the attempt for one that is under way until it is told again: to a program that waited it is over.
        let _ = request::connect(handle, &UNSPECIFIED);
        Err(Errno(error))
    }

    /// Connects to a listener of this guest, if there is one at the address: whether it did.
    fn connect_inside(&self, address: &[u8]) -> Result<bool, Errno> {
        let family = address.first_chunk().map_or(0, |bytes| i32::from(u16::from_ne_bytes(*bytes)));
        if family != self.domain || self.listening.load(Ordering::Acquire) {
            return Ok(false);
        }
        let Some(target) = Endpoint::parse(address).map(Endpoint::or_loopback) else { return Ok(false) };
        let Some(listener) = local::find(&target) else { return Ok(false) };
        let Some(myself) = self.myself.upgrade() else { return Ok(false) };
        // A socket that is bound, or on its way to somewhere, has a host socket that says so.
        let own = match self.known_handle() {
            None => Endpoint { address: target.address, port: local::ephemeral_port() },
            Some(handle) => {
                if request::name(handle, true) != Err(ENOTCONN) {
                    return Ok(false);
                }
                let bound = request::name(handle, false).ok().as_deref().and_then(Endpoint::parse);
                match bound {
                    Some(bound) if bound.port != 0 && !bound.is_any() && !bound.is_loopback() => return Ok(false),
                    Some(bound) if bound.port != 0 => Endpoint { address: target.address, port: bound.port },
                    _ => Endpoint { address: target.address, port: local::ephemeral_port() },
                }
            }
        };
        let server = Self::new(listener.domain, listener.kind, listener.protocol, NO_HANDLE);
        server.inherit_options(&listener);
        let (mine, theirs) = (&self.readiness.queue, &server.readiness.queue);
        let there = Channel::new(capacity(&self.options, &server.options), mine, theirs);
        let back = Channel::new(capacity(&server.options, &self.options), theirs, mine);
        *server.local.lock() = Some(Arc::new(LocalEnd {
            incoming: there.clone(),
            outgoing: back.clone(),
            own: target,
            peer: own,
            peer_socket: self.myself.clone(),
            reset: AtomicBool::new(false),
        }));
        {
            let mut pending = listener.pending.lock();
            // A full backlog: the kernel would let the handshake wait; the host's own queue does that.
            if listener.closed.load(Ordering::Acquire) || pending.len() > listener.backlog.load(Ordering::Relaxed) as usize {
                return Ok(false);
            }
            *myself.local.lock() = Some(Arc::new(LocalEnd {
                incoming: back,
                outgoing: there,
                own,
                peer: target,
                peer_socket: server.myself.clone(),
                reset: AtomicBool::new(false),
            }));
            pending.push_back(server);
        }
        listener.readiness.queue.wake_for((Events::IN | Events::RDNORM).0);
        self.readiness.queue.wake_for((Events::OUT | Events::WRNORM).0);
        Ok(true)
    }

    /// The sizes of the buffers have changed.
    pub(super) fn size_buffers(&self) {
        let Some(end) = self.local() else { return };
        let Some(peer) = end.peer_socket.upgrade() else { return };
        end.outgoing.set_capacity(capacity(&self.options, &peer.options));
        end.incoming.set_capacity(capacity(&peer.options, &self.options));
    }

    fn take_pending(&self) -> Option<(Arc<dyn Socket>, Vec<u8>)> {
        let socket = self.pending.lock().pop_front()?;
        let address = socket.local().map_or_else(Vec::new, |end| end.peer.encode(self.domain));
        Some((socket, address))
    }

    pub(super) fn accept_one(&self, nonblocking: bool) -> Result<(Arc<dyn Socket>, Vec<u8>), Errno> {
        if self.is_message() {
            return Err(EOPNOTSUPP);
        }
        let wait = self.receive_wait(nonblocking);
        let deadline = wait.deadline();
        loop {
            if let Some(accepted) = self.take_pending() {
                return Ok(accepted);
            }
            let handle = self.handle()?;
            // Watched and nothing there: no need to ask the host before sleeping.
            let idle = !wait.nonblocking && self.readiness.known(false).is_some_and(|bits| bits & Events::IN.0 == 0);
            if !idle {
                let mark = self.readiness.begin();
                match request::accept(handle) {
                    Ok((new, address)) => {
                        self.readiness.received(mark, false);
                        let socket = Self::new(self.domain, self.kind, self.protocol, new);
                        socket.options.inherit(&self.options);
                        return Ok((socket, address));
                    }
                    Err(EAGAIN) => self.readiness.received(mark, true),
                    Err(error) => return Err(error),
                }
            }
            if wait.nonblocking {
                return Err(EAGAIN);
            }
            self.wait_accept(handle, &wait, deadline)?;
        }
    }

    fn wait_accept(&self, handle: u32, wait: &Wait, deadline: Option<u64>) -> Result<(), Errno> {
        let wanted = (Events::IN | Events::ERR | Events::HUP).0;
        if !self.readiness.is_watched() && self.watch(handle) & wanted != 0 {
            return Ok(());
        }
        let ready = || {
            let there = self.readiness.bits() & wanted != 0 || !self.pending.lock().is_empty();
            (there || self.closed.load(Ordering::Relaxed)).then_some(())
        };
        wait.sleep(&self.readiness.queue, deadline, ready)
    }

    pub(super) fn shut_down(&self, reading: bool, writing: bool) -> Result<(), Errno> {
        if let Some(end) = self.local() {
            if reading {
                end.incoming.close_read();
            }
            if writing {
                end.outgoing.close_write(None);
            }
            return Ok(());
        }
        let how = match (reading, writing) {
            (true, true) => SHUT_BOTH,
            (true, false) => SHUT_READ,
            _ => SHUT_WRITE,
        };
        let outcome = request::shutdown(self.handle()?, how);
        if self.listening.load(Ordering::Acquire) && reading && outcome.is_ok() {
            self.stop_listening();
        }
        if self.readiness.is_watched() {
            self.refresh();
        }
        self.readiness.queue.wake_all();
        outcome
    }

    /// Connections that wait here are refused: their other ends see a reset.
    fn stop_listening(&self) {
        self.listening.store(false, Ordering::Release);
        local::remove(self);
        let pending: VecDeque<_> = core::mem::take(&mut *self.pending.lock());
        for socket in pending {
            if let Some(end) = socket.local() {
                end.outgoing.close_write(Some(ECONNRESET));
                end.incoming.close_read();
            }
        }
    }

    pub(super) fn shut_for_good(&self) {
        self.closed.store(true, Ordering::Release);
        if self.listening.load(Ordering::Acquire) {
            self.stop_listening();
        }
        let end = self.local.lock().take();
        if let Some(end) = end {
            let resets = end.incoming.used() > 0 || self.options.resets_at_close();
            end.outgoing.close_write(resets.then_some(ECONNRESET));
            end.incoming.close_read();
            end.incoming.clear();
        }
        let handle = self.handle.swap(NO_HANDLE, Ordering::AcqRel);
        if handle != NO_HANDLE {
            host::unlisten(handle);
            request::close(handle);
        }
        self.readiness.queue.wake_all();
    }

    /// IPV6_V6ONLY.
    fn only_v6(&self) -> bool {
        const IPPROTO_IPV6: i32 = 41;
        const IPV6_V6ONLY: i32 = 26;
        self.option(IPPROTO_IPV6, IPV6_V6ONLY, &[0; 4]).is_ok_and(|value| value.first() != Some(&0))
    }
}
