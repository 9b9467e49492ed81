//! socket_control: bind, listen, connect, shutdown, names and options.

use std::os::fd::AsFd;

use abi::request::socket;
use rustix::net::Shutdown;

use super::{fault, Answer, Errno, Host, Reply, Request};
use crate::memory_sys::{self, Address, ControlData};

const SOL_TCP: i32 = 6;
const SOL_UDP: i32 = 17;
const SOL_ICMPV6: i32 = 58;
const SOL_RAW: i32 = 255;
const SOL_NETLINK: i32 = 270;

/// Options that the kernel may see: none with a pointer or a descriptor inside (packet filters, zero-copy receive, netfilter tables),
/// none that changes what kind of socket it is (upper-layer protocols, repair mode).
fn allowed(level: i32, option: i32) -> bool {
    match level {
        libc::SOL_SOCKET => matches!(
            option,
            2..=10 | 12 | 13 | 15 | 18..=21 | 25 | 28..=30 | 32 | 33 | 35..=40 | 42 | 45..=49 | 55..=57 | 63..=67 | 69 | 73
        ),
        libc::IPPROTO_IP => matches!(option, 1..=15 | 18..=51),
        libc::IPPROTO_IPV6 => matches!(option, 1..=33 | 36..=63 | 66..=78),
        SOL_TCP => matches!(option, 1..=18 | 23..=30 | 32..=34 | 36 | 37 | 44),
        SOL_UDP => matches!(option, 1 | 100..=104),
        SOL_ICMPV6 => option == 1,
        // ICMP_FILTER; IPV6_CHECKSUM, which IPv6 takes at this level too.
        SOL_RAW => matches!(option, 1 | 7),
        SOL_NETLINK => matches!(option, 1..=5 | 8..=12),
        _ => false,
    }
}

/// Options that are set with CAP_NET_ADMIN, if who sets them has it: SO_PRIORITY, SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_MARK, SO_BUSY_POLL,
/// SO_PREFER_BUSY_POLL; IP_TRANSPARENT; IPV6_TRANSPARENT.
fn is_administrators(level: i32, option: i32) -> bool {
    match level {
        libc::SOL_SOCKET => matches!(option, 12 | 32 | 33 | 36 | 46 | 69),
        libc::IPPROTO_IP => option == 19,
        libc::IPPROTO_IPV6 => option == 75,
        _ => false,
    }
}

impl Host {
    pub(super) fn socket_control(&self, request: &Request) -> Answer {
        let [_, _, buffer, bytes, ..] = request.args;
        let handle = self.socket_handle(request.handle)?;
        let fd = handle.as_fd();
        match request.flags() {
            socket::BIND => memory_sys::bind(fd, &mut self.address_in(buffer, bytes)?)?,
            socket::CONNECT => memory_sys::connect(fd, &mut self.address_in(buffer, bytes)?)?,
            socket::LISTEN => rustix::net::listen(fd, request.args[0] as i32)?,
            socket::SHUTDOWN => {
                let how = match request.args[0] {
                    0 => Shutdown::Read,
                    1 => Shutdown::Write,
                    2 => Shutdown::Both,
                    _ => return Err(Errno::INVAL),
                };
                rustix::net::shutdown(fd, how)?;
            }
            verb @ (socket::GETSOCKNAME | socket::GETPEERNAME) => {
                let mut address = Address::sized(128)?;
                memory_sys::name(fd, verb == socket::GETPEERNAME, &mut address)?;
                let length = address.as_slice().len();
                let part = address.as_slice().get(..length.min(bytes.min(128) as usize)).unwrap_or_default();
                self.memory.write_bytes(buffer, part).map_err(fault)?;
                return Ok(Reply::of(length as u64));
            }
            verb @ (socket::SETSOCKOPT | socket::GETSOCKOPT) => return self.option(request, verb),
            _ => return Err(Errno::INVAL),
        }
        Ok(Reply::of(0))
    }

    fn option(&self, request: &Request, verb: u16) -> Answer {
        let [level, option, buffer, bytes, administers, _] = request.args;
        let handle = self.socket_handle(request.handle)?;
        let (level, option) = (level as i32, option as i32);
        if !allowed(level, option) {
            return Err(Errno::NOPROTOOPT);
        }
        if verb == socket::SETSOCKOPT {
            let mut value = ControlData::sized(bytes)?;
            self.memory.read_into(buffer, value.as_mut_slice()).map_err(fault)?;
            let set = || memory_sys::set_option(handle.as_fd(), level, option, &mut value);
            self.administering(administers == 1 && is_administrators(level, option), set)?;
            return Ok(Reply::of(0));
        }
        let mut value = ControlData::sized(bytes.min(4096))?;
        memory_sys::get_option(handle.as_fd(), level, option, &mut value)?;
        self.memory.write_bytes(buffer, value.as_slice()).map_err(fault)?;
        Ok(Reply::of(value.as_slice().len() as u64))
    }
}
