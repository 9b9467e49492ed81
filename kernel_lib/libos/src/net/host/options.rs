//! Options of internet and netlink sockets: kept here where the library OS itself acts on them, else passed to the host, which has its own
//! list of what it lets through.

use super::{request, Early, HostSocket};
use crate::errno::{Errno, EINVAL, EOPNOTSUPP, EPERM};
use crate::ipc::links::capable;
use crate::net::message::Ucred;
use crate::net::options::{
    int, SOL_SOCKET, SO_ACCEPTCONN, SO_DOMAIN, SO_ERROR, SO_LINGER, SO_MARK, SO_OOBINLINE, SO_PEERCRED, SO_PRIORITY, SO_PROTOCOL,
    SO_RCVBUF, SO_SNDBUF, SO_TYPE,
};
use crate::net::socket::{AF_INET, AF_NETLINK, SOCK_DGRAM, SOCK_STREAM};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_abi::capability::{CAP_NET_ADMIN, CAP_NET_RAW};
use zerocopy::IntoBytes;

const IPPROTO_IP: i32 = 0;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_UDP: i32 = 17;
const IPPROTO_IPV6: i32 = 41;
const IP_TRANSPARENT: i32 = 19;
const IPV6_TRANSPARENT: i32 = 75;
const SOL_RAW: i32 = 255;
const TCP_INFO: i32 = 11;
const TCP_ESTABLISHED: u8 = 1;
/// Options that are always settable, so that a socket without a host socket need not make one to find out: SO_REUSEADDR, SO_KEEPALIVE,
/// SO_OOBINLINE, SO_LINGER, SO_REUSEPORT, SO_SNDBUF, SO_RCVBUF; TCP_NODELAY, TCP_CORK, TCP_QUICKACK.
const EARLY_SOCKET: [i32; 7] = [2, SO_SNDBUF, SO_RCVBUF, 9, SO_OOBINLINE, SO_LINGER, 15];
/// Connections inside the guest act on these.
const ACTED_ON: [i32; 4] = [SO_SNDBUF, SO_RCVBUF, SO_OOBINLINE, SO_LINGER];
const EARLY_TCP: [i32; 3] = [1, 3, 12];

fn can_wait(level: i32, name: i32, value: &[u8]) -> bool {
    let least = if (level, name) == (SOL_SOCKET, SO_LINGER) { 8 } else { 4 };
    value.len() >= least && ((level == SOL_SOCKET && EARLY_SOCKET.contains(&name)) || (level == IPPROTO_TCP && EARLY_TCP.contains(&name)))
}

/// Options that are refused without CAP_NET_RAW or CAP_NET_ADMIN (socket(7), ip(7)). The VMM may have the one whoever asks; of what takes the
/// other alone, the host knows.
fn needs_capability(level: i32, name: i32, value: &[u8]) -> bool {
    let number = int(value).unwrap_or(0);
    match (level, name) {
        (SOL_SOCKET, SO_PRIORITY) => !(0..=6).contains(&number),
        (SOL_SOCKET, SO_MARK) => true,
        (IPPROTO_IP, IP_TRANSPARENT) | (IPPROTO_IPV6, IPV6_TRANSPARENT) => number != 0,
        _ => false,
    }
}

impl HostSocket {
    pub(super) fn set_host_option(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        if level == SOL_SOCKET {
            if self.options.set_timeout(name, value)? {
                return Ok(());
            }
            if ACTED_ON.contains(&name) && self.is_tcp() {
                // What is wrong with it, the host says.
                let _ = self.options.set(name, value);
                self.size_buffers();
            }
        }
        if self.known_handle().is_none() && can_wait(level, name, value) {
            let mut early = self.early.lock();
            early.retain(|option| (option.level, option.name) != (level, name));
            early.push(Early { level, name, value: value.to_vec() });
            return Ok(());
        }
        if needs_capability(level, name, value) && !capable(CAP_NET_RAW) && !capable(CAP_NET_ADMIN) {
            return Err(EPERM);
        }
        request::set_option(capable(CAP_NET_ADMIN), self.handle()?, level, name, value)
    }

    /// What an accepted connection takes over from its listener.
    pub(super) fn inherit_options(&self, listener: &Self) {
        self.options.inherit(&listener.options);
    }

    pub(super) fn host_option(&self, level: i32, name: i32, given: &[u8]) -> Result<Vec<u8>, Errno> {
        if level == SOL_SOCKET {
            if let Some(value) = self.options.timeout(name) {
                return Ok(value);
            }
            let number = match name {
                SO_TYPE => Some(self.kind),
                SO_DOMAIN => Some(self.domain),
                SO_PROTOCOL if self.protocol != 0 || self.domain == AF_NETLINK => Some(self.protocol),
                SO_PROTOCOL if self.is_tcp() => Some(IPPROTO_TCP),
                SO_ACCEPTCONN => Some(i32::from(self.listening.load(Ordering::Acquire))),
                SO_PEERCRED => return Ok(Ucred::NOBODY.as_bytes().to_vec()),
                SO_ERROR => self.own_error()?,
                _ => None,
            };
            if let Some(number) = number {
                return Ok(number.to_ne_bytes().to_vec());
            }
        }
        if let Some(value) = self.early_option(level, name) {
            return Ok(value);
        }
        if given.is_empty() {
            return Err(EINVAL);
        }
        if self.domain == AF_INET && ![SOL_SOCKET, IPPROTO_IP, self.own_level()].contains(&level) {
            return Err(EOPNOTSUPP);
        }
        let mut value = request::option(self.handle()?, level, name, given)?;
        if (level, name) == (IPPROTO_TCP, TCP_INFO) && self.local().is_some() {
            // The host's socket behind a connection inside the guest is not connected.
            if let Some(state) = value.first_mut() {
                *state = TCP_ESTABLISHED;
            }
        }
        Ok(value)
    }

    /// The level of the protocol's own options.
    fn own_level(&self) -> i32 {
        match self.kind {
            SOCK_STREAM => IPPROTO_TCP,
            SOCK_DGRAM => IPPROTO_UDP,
            _ => SOL_RAW,
        }
    }

    /// SO_ERROR, as far as the library OS knows it; None: the host does.
    fn own_error(&self) -> Result<Option<i32>, Errno> {
        if let Some(error) = self.take_error() {
            return Ok(Some(error.0));
        }
        Ok(match self.local() {
            Some(end) => Some(end.incoming.take_error()),
            None if self.known_handle().is_none() => Some(0),
            None => None,
        })
    }

    /// A switch that was set early is told as it was set; sizes are not, because the host changes them.
    fn early_option(&self, level: i32, name: i32) -> Option<Vec<u8>> {
        let early = self.early.lock();
        let option = early.iter().find(|option| (option.level, option.name) == (level, name))?;
        match (level, name) {
            (SOL_SOCKET, SO_SNDBUF | SO_RCVBUF) => None,
            (SOL_SOCKET, SO_LINGER) => Some(option.value.clone()),
            (SOL_SOCKET, _) | (IPPROTO_TCP, 1 | 3 | 12) => {
                int(&option.value).ok().map(|value| i32::from(value != 0).to_ne_bytes().to_vec())
            }
            _ => None,
        }
    }
}
