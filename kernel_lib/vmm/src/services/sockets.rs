//! socket, accept, send, receive, watch. Sockets are the host's, in the container's network namespace, and never block.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use abi::request::{NETWORK_TABLES, SOCKET_TABLE};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, Protocol, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType};

use super::{fault, netlink, Answer, Errno, Host, Reply, Request};
use crate::handles::{Handle, Kind};
use crate::jail::privileges;
use crate::memory::Reach;
use crate::memory_sys::{self, Address, ControlData};

const NETLINK_ROUTE: u32 = 0;
const MAX_TABLE: u64 = 4 << 20;
/// Most bytes of netlink messages that are sent together.
const MAX_BATCH: u64 = 256 << 10;
/// What a guest may say; the rest is either the library OS's business or would hand kernel objects around (zero copy, descriptors).
const SEND_FLAGS: i32 = libc::MSG_OOB | libc::MSG_DONTROUTE | libc::MSG_EOR | libc::MSG_MORE | libc::MSG_CONFIRM;
const RECEIVE_FLAGS: i32 = libc::MSG_OOB | libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_ERRQUEUE;

/// Every control message has to be of a level that carries no descriptors or credentials.
fn control_is_allowed(mut data: &[u8]) -> bool {
    const HEADER: usize = 16;
    while data.len() >= HEADER {
        let Some(Ok(length)) = data.get(..8).map(|part| part.try_into().map(u64::from_ne_bytes)) else { return false };
        let Some(Ok(level)) = data.get(8..12).map(|part| part.try_into().map(i32::from_ne_bytes)) else { return false };
        if length < HEADER as u64 || length > data.len() as u64 || !matches!(level, libc::IPPROTO_IP | libc::IPPROTO_IPV6 | libc::SOL_UDP) {
            return false;
        }
        data = data.get((length as usize).next_multiple_of(8)..).unwrap_or_default();
    }
    true
}

/// What a file of proc says, as far as there is room.
pub(super) fn read_text(file: &OwnedFd, room: u64) -> Result<Vec<u8>, Errno> {
    let mut text = vec![0; room as usize];
    let mut done = 0;
    while let Some(rest) = text.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(file, rest)? {
            0 => break,
            more => done += more,
        }
    }
    text.truncate(done);
    Ok(text)
}

impl Host {
    pub(super) fn socket_handle(&self, number: u32) -> Result<Arc<Handle>, Errno> {
        let handle = self.handles.get(number)?;
        if matches!(handle.kind, Kind::Socket | Kind::Netlink) {
            Ok(handle)
        } else {
            Err(Errno::NOTSOCK)
        }
    }

    /// The text of a table of the network namespace.
    fn network_table(&self, request: &Request) -> Answer {
        let [table, buffer, room, ..] = request.args;
        let name = *NETWORK_TABLES.get(table as usize).ok_or(Errno::INVAL)?;
        let directory = self.network.tables.as_ref().ok_or(Errno::NOENT)?;
        let file = rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let text = read_text(&file, room.min(MAX_TABLE))?;
        self.memory.write_bytes(buffer, &text).map_err(fault)?;
        Ok(Reply::of(text.len() as u64))
    }

    pub(super) fn socket(&self, request: &Request) -> Answer {
        match request.flags() {
            0 => {}
            SOCKET_TABLE => return self.network_table(request),
            verb => return self.setting(request, verb),
        }
        let (domain, kind, protocol) = (request.small(0)?, request.small(1)?, request.small(2)?);
        let family = match domain as i32 {
            libc::AF_INET => AddressFamily::INET,
            libc::AF_INET6 => AddressFamily::INET6,
            libc::AF_NETLINK if protocol == NETLINK_ROUTE => AddressFamily::NETLINK,
            libc::AF_NETLINK => return Err(Errno::PROTONOSUPPORT),
            _ => return Err(Errno::AFNOSUPPORT),
        };
        let kind = match kind as i32 & 0xf {
            libc::SOCK_STREAM => SocketType::STREAM,
            libc::SOCK_DGRAM => SocketType::DGRAM,
            libc::SOCK_RAW => SocketType::RAW,
            libc::SOCK_SEQPACKET => SocketType::SEQPACKET,
            _ => return Err(Errno::SOCKTNOSUPPORT),
        };
        let protocol = rustix::net::RawProtocol::new(protocol).map(Protocol::from_raw);
        let make = || rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, protocol);
        let handle = if family == AddressFamily::NETLINK {
            // The kernel asks for the capability of who made the socket, and of who sends: see `say`.
            Handle::new(self.administering(true, make)?, Kind::Netlink)
        } else {
            Handle::new(make()?, Kind::Socket)
        };
        Ok(Reply::of(u64::from(self.handles.open(handle)?)))
    }

    /// An address that the guest passes in.
    pub(super) fn address_in(&self, gpa: u64, bytes: u64) -> Result<Address, Errno> {
        let mut address = Address::sized(bytes)?;
        self.memory.read_into(gpa, address.as_mut_slice()).map_err(fault)?;
        Ok(address)
    }

    pub(super) fn accept(&self, request: &Request) -> Answer {
        let [to, room, ..] = request.args;
        let handle = self.socket_handle(request.handle)?;
        let mut address = Address::sized(128)?;
        let fd = memory_sys::accept(handle.as_fd(), &mut address)?;
        let length = address.as_slice().len();
        let part = address.as_slice().get(..length.min(room.min(128) as usize)).unwrap_or_default();
        self.memory.write_bytes(to, part).map_err(fault)?;
        Ok(Reply::with(u64::from(self.handles.open(Handle::new(fd, Kind::Socket))?), &[length as u64]))
    }

    pub(super) fn send(&self, request: &Request) -> Answer {
        let [name, name_bytes, control, control_bytes, ..] = request.args;
        let handle = self.socket_handle(request.handle)?;
        if handle.kind == Kind::Netlink {
            return self.say(&handle, request);
        }
        let vectors = self.memory.vectors(request.segments, request.segment_count, Reach::RamOrWindow).map_err(fault)?;
        let mut address = self.address_in(name, name_bytes)?;
        let mut data = ControlData::sized(control_bytes)?;
        self.memory.read_into(control, data.as_mut_slice()).map_err(fault)?;
        if !control_is_allowed(data.as_slice()) {
            return Err(Errno::INVAL);
        }
        let flags = i32::from(request.flags()) & SEND_FLAGS | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        memory_sys::send(handle.as_fd(), &vectors, &mut address, &mut data, flags).map(Reply::of)
    }

    /// Messages of rtnetlink, one by one as [`netlink::messages`] has them.
    fn say(&self, handle: &Handle, request: &Request) -> Answer {
        let [name, name_bytes, .., administers, _] = request.args;
        let address = self.address_in(name, name_bytes)?;
        match address.as_slice() {
            // struct sockaddr_nl: to the kernel only.
            [] => {}
            [low, high, _, _, to @ ..] if to.len() >= 8 && u16::from_ne_bytes([*low, *high]) == libc::AF_NETLINK as u16 => {
                if to.iter().take(8).any(|byte| *byte != 0) {
                    return Err(Errno::PERM);
                }
            }
            _ => return Err(Errno::INVAL),
        }
        let batch = self.memory.gather(request.segments, request.segment_count, MAX_BATCH).map_err(fault)?;
        for message in netlink::messages(&batch) {
            let send =
                || rustix::net::sendmsg(handle, &[IoSlice::new(&message.bytes)], &mut SendAncillaryBuffer::default(), SendFlags::DONTWAIT);
            self.administering(message.changes && administers == 1, send)?;
        }
        Ok(Reply::of(batch.len() as u64))
    }

    /// With CAP_NET_ADMIN, if it is `asked` for and the network namespace is the container's own.
    pub(super) fn administering<T>(&self, asked: bool, act: impl FnOnce() -> T) -> T {
        if asked && self.network.is_own {
            privileges::as_network_administrator(act)
        } else {
            act()
        }
    }

    pub(super) fn receive(&self, request: &Request) -> Answer {
        let [name, name_room, control, control_room, ..] = request.args;
        let handle = self.socket_handle(request.handle)?;
        let vectors = self.memory.vectors(request.segments, request.segment_count, Reach::Ram).map_err(fault)?;
        let mut address = if name_room == 0 { Address::empty() } else { Address::sized(128)? };
        let mut data = ControlData::sized(control_room.min(4096))?;
        let flags = i32::from(request.flags()) & RECEIVE_FLAGS | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let (bytes, message_flags) = memory_sys::receive(handle.as_fd(), &vectors, &mut address, &mut data, flags)?;
        let name_bytes = address.as_slice().len();
        let part = address.as_slice().get(..name_bytes.min(name_room.min(128) as usize)).unwrap_or_default();
        self.memory.write_bytes(name, part).map_err(fault)?;
        self.memory.write_bytes(control, data.as_slice()).map_err(fault)?;
        Ok(Reply::with(bytes, &[name_bytes as u64, data.as_slice().len() as u64, message_flags as u32 as u64]))
    }

    pub(super) fn watch(&self, request: &Request) -> Answer {
        let handle = self.handles.get(request.handle)?;
        match request.args[0] {
            0 => {
                self.watcher.forget(request.handle, &handle);
                return Ok(Reply::of(0));
            }
            1 => self.watcher.watch(request.handle, &handle, request.vcpu())?,
            2 => {}
            _ => return Err(Errno::INVAL),
        }
        // Behind the registration: what becomes ready in between is told twice, never lost.
        let readiness = super::data::readiness(&handle)?;
        Ok(Reply::with(readiness, &[super::data::is_private_pipe(&handle).into()]))
    }
}

#[cfg(test)]
mod tests {
    use super::control_is_allowed;

    fn message(length: u64, level: i32) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend([0; 12]);
        bytes
    }

    #[test]
    fn no_descriptors_by_control_messages() {
        assert!(control_is_allowed(&message(20, libc::IPPROTO_IP)));
        assert!(control_is_allowed(&[]));
        assert!(!control_is_allowed(&message(20, libc::SOL_SOCKET)));
        assert!(!control_is_allowed(&message(0, libc::IPPROTO_IP)));
        assert!(!control_is_allowed(&message(u64::MAX, libc::IPPROTO_IP)));
        assert!(!control_is_allowed(&[message(24, libc::IPPROTO_IP), message(20, libc::SOL_SOCKET)].concat()));
    }
}
