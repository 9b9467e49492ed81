//! Messages of datagram and seqpacket sockets: each socket has an inbox, senders put whole messages into it.
//!
//! Lock order: `Inbox::messages` and `Inbox::starving` are leaves; user memory is touched outside of both.

use super::{name, UnixSocket};
use crate::errno::{Errno, EAGAIN, ECONNREFUSED, ECONNRESET, EMSGSIZE, ENOTCONN, EPERM, EPIPE, EPROTOTYPE};
use crate::fs::{Events, OpenFile};
use crate::mm::reclaim;
use crate::net::message::{Ancillary, Incoming, Outgoing, Wait, MSG_TRUNC};
use crate::net::options::SO_PASSCRED;
use crate::net::socket::SOCK_DGRAM;
use crate::wait::{wait_on, Interruptible, WaitQueue};
use crate::SysResult;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::sync::SpinLock;

/// net.unix.max_dgram_qlen.
pub const MAX_QUEUED: usize = 10;
/// What a small message costs its sender's buffer beside its data, as in Linux.
const OVERHEAD: usize = 768;

struct Message {
    data: Vec<u8>,
    ancillary: SpinLock<Ancillary>,
    from: Vec<u8>,
}

#[derive(Default)]
pub struct Inbox {
    messages: SpinLock<VecDeque<Arc<Message>>>,
    /// Bytes, each message's overhead included.
    bytes: AtomicUsize,
    count: AtomicUsize,
    /// Senders that poll for room: woken by their own queues.
    starving: SpinLock<Vec<Weak<UnixSocket>>>,
    /// Senders that sleep for room.
    room: WaitQueue,
}

impl Inbox {
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// FIONREAD: bytes of the next message.
    pub fn next_bytes(&self) -> usize {
        self.messages.lock().front().map_or(0, |message| message.data.len())
    }

    pub fn clear(&self) {
        let messages = core::mem::take(&mut *self.messages.lock());
        self.bytes.store(0, Ordering::SeqCst);
        self.count.store(0, Ordering::SeqCst);
        drop(messages);
        self.made_room();
    }

    pub fn each_file(&self, visit: &mut dyn FnMut(&Arc<OpenFile>)) {
        for message in self.messages.lock().iter() {
            message.ancillary.lock().files.iter().for_each(&mut *visit);
        }
    }

    fn made_room(&self) {
        self.room.wake_all();
        let starving = core::mem::take(&mut *self.starving.lock());
        for sender in starving.iter().filter_map(Weak::upgrade) {
            sender.queue.wake_for((Events::OUT | Events::WRNORM).0);
        }
    }

    fn push(&self, message: Message) {
        self.bytes.fetch_add(message.data.len() + OVERHEAD, Ordering::SeqCst);
        self.count.fetch_add(1, Ordering::SeqCst);
        self.messages.lock().push_back(Arc::new(message));
    }

    fn pop(&self, peek: bool) -> Option<Arc<Message>> {
        let mut messages = self.messages.lock();
        if peek {
            return messages.front().cloned();
        }
        let message = messages.pop_front()?;
        drop(messages);
        self.bytes.fetch_sub(message.data.len() + OVERHEAD, Ordering::SeqCst);
        self.count.fetch_sub(1, Ordering::SeqCst);
        Some(message)
    }
}

impl UnixSocket {
    /// Whether `to` takes one more message of mine.
    fn has_room_for(&self, to: &Self) -> bool {
        let paired = to.peer().is_some_and(|peer| core::ptr::eq(Arc::as_ptr(&peer), self));
        to.inbox.bytes.load(Ordering::SeqCst) < self.options.send_buffer()
            && (paired || to.inbox.count.load(Ordering::SeqCst) <= MAX_QUEUED)
    }

    /// poll(2)'s idea of it, which leaves word to be woken.
    pub(super) fn writable_datagram(&self) -> bool {
        let Some(peer) = self.peer() else { return true };
        if peer.is_closed() || self.has_room_for(&peer) {
            return true;
        }
        peer.inbox.starving.lock().push(self.myself.clone());
        self.has_room_for(&peer)
    }

    fn target(&self, address: Option<&[u8]>) -> Result<Arc<Self>, Errno> {
        let Some(address) = address else {
            return self.peer().ok_or(ENOTCONN);
        };
        let target = name::find(&name::parse(address)?)?;
        if target.kind != self.kind {
            return Err(EPROTOTYPE);
        }
        Ok(target)
    }

    pub(super) fn send_datagram(&self, message: &mut Outgoing<'_, '_>, wait: &Wait) -> SysResult {
        let length = message.buffer.remaining();
        if length > self.options.send_buffer().saturating_sub(32) {
            return Err(EMSGSIZE);
        }
        let address = message.address.filter(|_| self.kind == SOCK_DGRAM);
        let target = self.target(address)?;
        if self.is_shut().1 {
            return Err(EPIPE);
        }
        let mut data = reclaim::items(0, length)?;
        let got = message.buffer.get(&mut data)?;
        if got < length {
            return Err(crate::errno::EFAULT);
        }
        let deadline = wait.deadline();
        loop {
            if target.is_closed() {
                if self.kind != SOCK_DGRAM {
                    return Err(EPIPE);
                }
                if address.is_none() {
                    self.disconnect();
                }
                return Err(ECONNREFUSED);
            }
            if self.kind == SOCK_DGRAM && target.peer().is_some_and(|peer| !core::ptr::eq(Arc::as_ptr(&peer), self)) {
                return Err(EPERM);
            }
            if target.is_shut().0 {
                return Err(EPIPE);
            }
            if self.has_room_for(&target) {
                break;
            }
            if wait.nonblocking {
                return Err(EAGAIN);
            }
            let ready = || (self.has_room_for(&target) || target.is_closed() || target.is_shut().0 || self.is_shut().1).then_some(());
            wait_on(&[&target.inbox.room, &self.queue], Interruptible::Yes, deadline, ready).map_err(|error| wait.translate(error))?;
        }
        let passes = self.options.on(SO_PASSCRED) || target.options.on(SO_PASSCRED);
        let ancillary = super::ancillary(message, passes)?;
        target.inbox.push(Message { data, ancillary: SpinLock::new(ancillary), from: self.encoded_name_if_bound() });
        target.queue.wake_for((Events::IN | Events::RDNORM).0);
        Ok(length)
    }

    pub(super) fn receive_datagram(&self, incoming: &mut Incoming<'_, '_>, wait: &Wait) -> SysResult {
        let deadline = wait.deadline();
        let message = loop {
            if let Some(message) = self.inbox.pop(incoming.peek()) {
                break message;
            }
            match self.take_error() {
                0 => {}
                error => return Err(Errno(error)),
            }
            if self.is_shut().0 {
                return Ok(0);
            }
            if self.kind != SOCK_DGRAM && self.peer().is_none() {
                return Err(ENOTCONN);
            }
            if wait.nonblocking {
                return Err(EAGAIN);
            }
            let ready = || (!self.inbox.is_empty() || self.is_shut().0 || self.has_error()).then_some(());
            wait.sleep(&self.queue, deadline, ready)?;
        };
        if !incoming.peek() {
            self.inbox.made_room();
        }
        let whole = message.data.len();
        let room = incoming.buffer.remaining();
        let copied = incoming.buffer.put(&message.data)?;
        if room < whole {
            incoming.told |= MSG_TRUNC;
        }
        incoming.address.clone_from(&message.from);
        let peek = incoming.peek();
        let mut ancillary = core::mem::take(&mut *message.ancillary.lock());
        incoming.attach(&mut ancillary, peek);
        if peek {
            *message.ancillary.lock() = ancillary;
        }
        Ok(if incoming.flags & MSG_TRUNC != 0 { whole } else { copied })
    }

    /// The other end went away: seqpacket peers see the end, and a reset when something was unread.
    pub(super) fn close_datagram(&self) {
        if let Some(peer) = self.peer() {
            if self.kind != SOCK_DGRAM {
                if !self.inbox.is_empty() {
                    peer.set_error(ECONNRESET);
                }
                peer.shut(true, true);
            }
            peer.queue.wake_all();
        }
        self.inbox.clear();
    }
}
