//! unix(7) sockets: stream, datagram and seqpacket; pathname, abstract and unnamed.
//!
//! Invariants:
//! - a stream connection is two [`Channel`]s; datagram and seqpacket sockets have an [`Inbox`] each;
//! - connected ends hold each other; [`UnixSocket::close`], which every socket of a closed descriptor gets, breaks the circle;
//! - a connection waits in its listener's `pending` list already connected; the client may send before it is accepted.
//!
//! Lock order: `state` (spin) > a channel's and inbox's leaves; two sockets' `state` are never held together.

mod datagram;
mod flight;
mod name;
mod options;

pub use flight::InFlight;

use super::channel::Channel;
use super::message::{Ancillary, Incoming, Outgoing, Ucred, Wait, MSG_OOB};
use super::options::{Options, SO_PASSCRED};
use super::socket::{Socket, AF_UNIX, SOCK_DGRAM, SOCK_STREAM};
use crate::errno::{Errno, EAGAIN, ECONNREFUSED, ECONNRESET, EINVAL, EISCONN, ENOTCONN, EOPNOTSUPP, EPIPE, EPROTOTYPE, ETOOMANYREFS};
use crate::fs::{Events, OpenFile};
use crate::ipc::links::{capable, CAP_SYS_ADMIN, CAP_SYS_RESOURCE};
use crate::sched;
use crate::wait::WaitQueue;
use crate::SysResult;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use datagram::Inbox;
use hal::sync::SpinLock;
use name::Name;

/// Linux's SOMAXCONN.
const MAX_BACKLOG: usize = 4096;
const RLIMIT_NOFILE: usize = 7;
const READ: u8 = 1;
const WRITE: u8 = 2;
const FIONREAD: u32 = 0x541b;
const SIOCOUTQ: u32 = 0x5411;

#[derive(Default)]
enum State {
    #[default]
    Fresh,
    Listening {
        backlog: usize,
        pending: VecDeque<Arc<UnixSocket>>,
        credentials: Ucred,
    },
    Connected {
        peer: Arc<UnixSocket>,
        credentials: Ucred,
        /// (incoming, outgoing) of a stream.
        channels: Option<(Arc<Channel>, Arc<Channel>)>,
    },
    Closed,
}

pub struct UnixSocket {
    /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    kind: i32,
    myself: Weak<UnixSocket>,
    /// Readers, accepters, pollers, and streams' writers.
    queue: Arc<WaitQueue>,
    state: SpinLock<State>,
    name: SpinLock<Option<Arc<Name>>>,
    inbox: Inbox,
    options: Options,
    /// Directions that are shut down (datagram, seqpacket, and sockets without a connection).
    shut: AtomicU8,
    error: AtomicI32,
}

/// What goes along with a message: checked descriptors and credentials.
fn ancillary(message: &mut Outgoing<'_, '_>, passes: bool) -> Result<Ancillary, Errno> {
    let files = core::mem::take(&mut message.files);
    if !files.is_empty()
        && InFlight::count() as u64 > sched::current().limit(RLIMIT_NOFILE)
        && !capable(CAP_SYS_RESOURCE)
        && !capable(CAP_SYS_ADMIN)
    {
        return Err(ETOOMANYREFS);
    }
    let credentials = message.credentials.or_else(|| passes.then(Ucred::sender));
    Ok(Ancillary { files: InFlight::launch(files), credentials })
}

impl UnixSocket {
    pub fn new(kind: i32) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            kind,
            myself: myself.clone(),
            queue: Arc::new(WaitQueue::new()),
            state: SpinLock::default(),
            name: SpinLock::default(),
            inbox: Inbox::default(),
            options: Options::default(),
            shut: AtomicU8::new(0),
            error: AtomicI32::new(0),
        })
    }

    /// The unix socket behind an open file.
    pub fn of(file: &OpenFile) -> Option<&Self> {
        super::socket::of(file).and_then(|socket| socket.as_any().downcast_ref())
    }

    fn channels(&self) -> Option<(Arc<Channel>, Arc<Channel>)> {
        match &*self.state.lock() {
            State::Connected { channels, .. } => channels.clone(),
            _ => None,
        }
    }

    fn peer(&self) -> Option<Arc<Self>> {
        match &*self.state.lock() {
            State::Connected { peer, .. } => Some(peer.clone()),
            _ => None,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(&*self.state.lock(), State::Closed)
    }

    /// (reading, writing) ended.
    fn is_shut(&self) -> (bool, bool) {
        let shut = self.shut.load(Ordering::SeqCst);
        (shut & READ != 0, shut & WRITE != 0)
    }

    fn shut(&self, reading: bool, writing: bool) {
        self.shut.fetch_or(if reading { READ } else { 0 } | if writing { WRITE } else { 0 }, Ordering::SeqCst);
        self.queue.wake_all();
    }

    fn set_error(&self, error: Errno) {
        self.error.store(error.0, Ordering::SeqCst);
    }
    fn has_error(&self) -> bool {
        self.error.load(Ordering::SeqCst) != 0
    }

    /// SO_ERROR, and what a receive tells once.
    fn take_error(&self) -> i32 {
        match self.channels() {
            Some((incoming, _)) if incoming.has_error() => incoming.take_error(),
            _ => self.error.swap(0, Ordering::SeqCst),
        }
    }

    fn encoded_name(&self) -> Vec<u8> {
        name::encode(self.name.lock().clone().as_deref())
    }

    /// As recvfrom(2) tells it: nothing for a sender without a name.
    fn encoded_name_if_bound(&self) -> Vec<u8> {
        self.name.lock().clone().map_or_else(Vec::new, |name| name::encode(Some(&name)))
    }

    fn disconnect(&self) {
        let mut state = self.state.lock();
        if matches!(&*state, State::Connected { .. }) {
            let old = core::mem::take(&mut *state);
            drop(state);
            drop(old);
        }
    }

    /// Connects two sockets with each other. EISCONN when one of them is taken.
    fn join(first: &Arc<Self>, second: &Arc<Self>, first_sees: Ucred, second_sees: Ucred) {
        let channels = (first.kind == SOCK_STREAM).then(|| {
            let to_second = Channel::new(first.options.send_buffer(), &first.queue, &second.queue);
            let to_first = Channel::new(second.options.send_buffer(), &second.queue, &first.queue);
            (to_first, to_second)
        });
        let reversed = channels.clone().map(|(incoming, outgoing)| (outgoing, incoming));
        *second.state.lock() = State::Connected { peer: first.clone(), credentials: second_sees, channels: reversed };
        *first.state.lock() = State::Connected { peer: second.clone(), credentials: first_sees, channels };
    }

    fn connect_datagram(&self, address: &[u8]) -> Result<(), Errno> {
        if address.first_chunk().is_some_and(|family| u16::from_ne_bytes(*family) == 0) {
            self.disconnect();
            return Ok(());
        }
        let target = name::find(&name::parse(address)?)?;
        if target.kind != self.kind {
            return Err(EPROTOTYPE);
        }
        if target.peer().is_some_and(|peer| !core::ptr::eq(Arc::as_ptr(&peer), self)) {
            return Err(crate::errno::EPERM);
        }
        let old =
            core::mem::replace(&mut *self.state.lock(), State::Connected { peer: target, credentials: Ucred::NOBODY, channels: None });
        drop(old);
        self.queue.wake_all();
        Ok(())
    }

    fn connect_stream(self: &Arc<Self>, address: &[u8], nonblocking: bool) -> Result<(), Errno> {
        let wait = Wait { nonblocking, timeout: self.options.send_timeout() };
        let deadline = wait.deadline();
        let parsed = name::parse(address)?;
        let server = Self::new(self.kind);
        loop {
            match &*self.state.lock() {
                State::Fresh => {}
                State::Connected { .. } => return Err(EISCONN),
                _ => return Err(EINVAL),
            }
            let listener = name::find(&parsed)?;
            if listener.kind != self.kind {
                return Err(EPROTOTYPE);
            }
            if listener.is_shut().0 {
                return Err(ECONNREFUSED);
            }
            let mut state = listener.state.lock();
            let State::Listening { backlog, pending, credentials } = &mut *state else { return Err(ECONNREFUSED) };
            if pending.len() <= *backlog {
                let credentials = *credentials;
                server.options.inherit(&listener.options);
                server.name.lock().clone_from(&listener.name.lock());
                drop(state);
                // Nobody knows `server` yet, so it can be joined without the listener's lock.
                Self::join(self, &server, credentials, Ucred::peer());
                let mut state = listener.state.lock();
                let State::Listening { pending, .. } = &mut *state else {
                    drop(state);
                    self.disconnect();
                    server.disconnect();
                    return Err(ECONNREFUSED);
                };
                pending.push_back(server);
                drop(state);
                listener.queue.wake_for((Events::IN | Events::RDNORM).0);
                self.queue.wake_all();
                return Ok(());
            }
            drop(state);
            if nonblocking {
                return Err(EAGAIN);
            }
            let ready = || listener.backlog_has_room().then_some(());
            wait.sleep(&listener.queue, deadline, ready)?;
        }
    }

    fn backlog_has_room(&self) -> bool {
        match &*self.state.lock() {
            State::Listening { backlog, pending, .. } => pending.len() <= *backlog,
            _ => true,
        }
    }

    fn take_pending(&self) -> Result<Option<Arc<Self>>, Errno> {
        match &mut *self.state.lock() {
            State::Listening { pending, .. } => Ok(pending.pop_front()),
            _ => Err(EINVAL),
        }
    }

    /// Visits every file in this socket's queues (see [`flight`]).
    fn each_file(&self, visit: &mut dyn FnMut(&Arc<OpenFile>)) {
        self.inbox.each_file(visit);
        if let Some((incoming, _)) = self.channels() {
            incoming.each_file(&mut *visit);
        }
        let pending: Vec<_> = match &*self.state.lock() {
            State::Listening { pending, .. } => pending.iter().cloned().collect(),
            _ => Vec::new(),
        };
        for socket in pending {
            socket.each_file(visit);
        }
    }

    /// Empties this socket's queues: nobody can ever read them.
    fn clear(&self) {
        self.inbox.clear();
        if let Some((incoming, _)) = self.channels() {
            incoming.clear();
        }
        let pending = match &mut *self.state.lock() {
            State::Listening { pending, .. } => core::mem::take(pending),
            _ => VecDeque::new(),
        };
        for socket in pending {
            socket.close_as(true);
        }
    }

    /// `refused`: it was never accepted, so the peer is told of a reset.
    fn close_as(&self, refused: bool) {
        if self.kind != SOCK_STREAM {
            self.close_datagram();
        }
        self.shut(true, true);
        let state = core::mem::replace(&mut *self.state.lock(), State::Closed);
        match state {
            State::Connected { channels: Some((incoming, outgoing)), .. } => {
                let unread = incoming.used() > 0;
                outgoing.close_write((unread || refused).then_some(ECONNRESET));
                incoming.close_read();
                incoming.clear();
            }
            State::Listening { pending, .. } => {
                for socket in pending {
                    socket.close_as(true);
                }
            }
            _ => {}
        }
        let name = self.name.lock().take();
        if let Some(name) = name {
            name::release(&name, self);
        }
        self.queue.wake_all();
    }
}

impl Socket for UnixSocket {
    fn bind(&self, address: &[u8]) -> Result<(), Errno> {
        let parsed = name::parse(address)?;
        let Some(myself) = self.myself.upgrade() else { return Err(EINVAL) };
        if self.name.lock().is_some() {
            return if matches!(parsed, name::Address::Unnamed) { Ok(()) } else { Err(EINVAL) };
        }
        let name = Arc::new(name::claim(&myself, &parsed)?);
        let mut own = self.name.lock();
        if own.is_some() {
            drop(own);
            name::release(&name, self);
            return Err(EINVAL);
        }
        *own = Some(name);
        Ok(())
    }

    fn listen(&self, backlog: i32) -> Result<(), Errno> {
        if self.kind == SOCK_DGRAM {
            return Err(EOPNOTSUPP);
        }
        if self.name.lock().is_none() {
            return Err(EINVAL);
        }
        let size = (backlog as u32 as usize).min(MAX_BACKLOG);
        let mut state = self.state.lock();
        match &mut *state {
            State::Fresh => {
                *state = State::Listening { backlog: size, pending: VecDeque::new(), credentials: Ucred::NOBODY };
                drop(state);
                let own = Ucred::peer();
                if let State::Listening { credentials, .. } = &mut *self.state.lock() {
                    *credentials = own;
                }
            }
            State::Listening { backlog, .. } => {
                *backlog = size;
                drop(state);
                self.queue.wake_all();
            }
            _ => return Err(EINVAL),
        }
        Ok(())
    }

    fn connect(&self, address: &[u8], nonblocking: bool) -> Result<(), Errno> {
        if self.kind == SOCK_DGRAM {
            return self.connect_datagram(address);
        }
        let Some(myself) = self.myself.upgrade() else { return Err(EINVAL) };
        myself.connect_stream(address, nonblocking)
    }

    fn accept(&self, nonblocking: bool) -> Result<(Arc<dyn Socket>, Vec<u8>), Errno> {
        if self.kind == SOCK_DGRAM {
            return Err(EOPNOTSUPP);
        }
        let wait = Wait { nonblocking, timeout: self.options.receive_timeout() };
        let deadline = wait.deadline();
        loop {
            if let Some(socket) = self.take_pending()? {
                // Clients that wait for a place in the backlog.
                self.queue.wake_for(Events::OUT.0);
                let address = socket.peer().map_or_else(Vec::new, |peer| peer.encoded_name());
                return Ok((socket, address));
            }
            if self.is_shut().0 {
                return Err(EINVAL);
            }
            if nonblocking {
                return Err(EAGAIN);
            }
            let ready = || match &*self.state.lock() {
                State::Listening { pending, .. } if pending.is_empty() && !self.is_shut().0 => None,
                _ => Some(()),
            };
            wait.sleep(&self.queue, deadline, ready)?;
        }
    }

    fn local_address(&self) -> Result<Vec<u8>, Errno> {
        Ok(self.encoded_name())
    }

    fn peer_address(&self) -> Result<Vec<u8>, Errno> {
        self.peer().map(|peer| peer.encoded_name()).ok_or(ENOTCONN)
    }

    fn send(&self, message: &mut Outgoing<'_, '_>, nonblocking: bool) -> SysResult {
        if message.flags & MSG_OOB != 0 {
            return Err(EOPNOTSUPP);
        }
        let wait = Wait { nonblocking, timeout: self.options.send_timeout() };
        if self.kind != SOCK_STREAM {
            if self.kind != SOCK_DGRAM && self.peer().is_none() {
                return Err(ENOTCONN);
            }
            return self.send_datagram(message, &wait);
        }
        let Some((incoming, outgoing)) = self.channels() else {
            return Err(if message.address.is_some() {
                EOPNOTSUPP
            } else if self.is_shut().1 {
                EPIPE
            } else {
                ENOTCONN
            });
        };
        if message.address.is_some() {
            return Err(EISCONN);
        }
        drop(incoming);
        let passes = self.options.on(SO_PASSCRED) || self.peer().is_some_and(|peer| peer.options.on(SO_PASSCRED));
        let wanted = passes || message.credentials.is_some() || !message.files.is_empty();
        let extra = if wanted { Some(ancillary(message, passes)?) } else { None };
        outgoing.send(message.buffer, extra, &wait)
    }

    fn receive(&self, message: &mut Incoming<'_, '_>, nonblocking: bool) -> SysResult {
        if message.flags & MSG_OOB != 0 {
            return Err(EOPNOTSUPP);
        }
        let wait = Wait { nonblocking, timeout: self.options.receive_timeout() };
        message.pass_credentials = self.options.on(SO_PASSCRED);
        if self.kind != SOCK_STREAM {
            return self.receive_datagram(message, &wait);
        }
        let Some((incoming, _)) = self.channels() else { return Err(EINVAL) };
        let count = incoming.receive(message, &wait)?;
        if let Some(peer) = self.peer() {
            message.address = peer.encoded_name_if_bound();
        }
        Ok(count)
    }

    fn shutdown(&self, reading: bool, writing: bool) -> Result<(), Errno> {
        self.shut(reading, writing);
        if let Some((incoming, outgoing)) = self.channels() {
            if reading {
                incoming.close_read();
            }
            if writing {
                outgoing.close_write(None);
            }
        } else if self.kind != SOCK_DGRAM {
            if let Some(peer) = self.peer() {
                peer.shut(writing, reading);
            }
        }
        self.queue.wake_all();
        Ok(())
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        self.set_unix_option(level, name, value)
    }

    fn option(&self, level: i32, name: i32, _given: &[u8]) -> Result<Vec<u8>, Errno> {
        self.unix_option(level, name)
    }

    fn poll(&self, _nonblocking: bool) -> Events {
        let mut events = Events::default();
        let (mut read_ended, mut write_ended) = self.is_shut();
        let mut writable = true;
        let mut readable = !self.inbox.is_empty();
        let mut unconnected = false;
        match self.channels() {
            Some((incoming, outgoing)) => {
                read_ended |= incoming.is_write_closed() || incoming.is_read_closed();
                write_ended |= outgoing.is_write_closed() || outgoing.is_read_closed();
                readable |= incoming.used() > 0;
                writable = outgoing.can_write();
                if incoming.has_error() {
                    events |= Events::ERR;
                }
            }
            None => {
                match &*self.state.lock() {
                    State::Listening { pending, .. } => readable |= !pending.is_empty(),
                    State::Fresh => unconnected = self.kind != SOCK_DGRAM,
                    _ => {}
                }
                if self.kind != SOCK_STREAM {
                    writable = self.writable_datagram();
                }
            }
        }
        if self.has_error() {
            events |= Events::ERR;
        }
        if (read_ended && write_ended) || unconnected {
            events |= Events::HUP;
        }
        if read_ended {
            events |= Events::RDHUP | Events::IN | Events::RDNORM;
        }
        if readable {
            events |= Events::IN | Events::RDNORM;
        }
        if writable && !matches!(&*self.state.lock(), State::Listening { .. }) {
            events |= Events::OUT | Events::WRNORM | Events(0x200);
        }
        events
    }

    fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn ioctl(&self, request: u32, argument: u64) -> SysResult {
        let bytes = match request {
            FIONREAD => match self.channels() {
                Some((incoming, _)) => incoming.used(),
                None if matches!(&*self.state.lock(), State::Listening { .. }) => return Err(EINVAL),
                None => self.inbox.next_bytes(),
            },
            SIOCOUTQ => self.channels().map_or(0, |(_, outgoing)| outgoing.used()),
            _ => return super::host::interfaces::ioctl(request, argument),
        };
        hal::user::write(argument, &(bytes as i32)).map(|()| 0)
    }

    fn close(&self) {
        self.close_as(false);
        flight::collect();
    }

    fn breaks_pipes(&self) -> bool {
        self.kind == SOCK_STREAM
    }

    fn kind(&self) -> (i32, i32, i32) {
        (AF_UNIX, self.kind, 0)
    }

    fn pair_with(&self, other: &dyn Socket) -> Result<(), Errno> {
        let other = other.as_any().downcast_ref::<Self>().and_then(|other| other.myself.upgrade()).ok_or(EOPNOTSUPP)?;
        let first = self.myself.upgrade().ok_or(EOPNOTSUPP)?;
        Self::join(&first, &other, Ucred::peer(), Ucred::peer());
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
