//! ioctl: a handful of device controls. None holds a pointer, but for the device's name in a route, which is set here.

use std::os::fd::AsFd;

use super::{fault, Answer, Errno, Host, Reply, Request};
use crate::handles::Kind;
use crate::memory_sys::{self, Bytes, Route};

const TCGETS: u64 = 0x5401;
const TCSETS: u64 = 0x5402;
const TCSETSW: u64 = 0x5403;
const TCSETSF: u64 = 0x5404;
const TIOCGPGRP: u64 = 0x540f;
const TIOCOUTQ: u64 = 0x5411; // SIOCOUTQ of a socket
const TIOCGWINSZ: u64 = 0x5413;
const TIOCSWINSZ: u64 = 0x5414;
const FIONREAD: u64 = 0x541b;
const FICLONE: u64 = 0x4004_9409;
const SIOCGIFCONF: u64 = 0x8912;
/// Queries by interface name or number: name, flags, addresses, metric, MTU, hardware address, index, queue length.
const INTERFACE_QUERIES: [u64; 13] =
    [0x8910, 0x8913, 0x8915, 0x8917, 0x8919, 0x891b, 0x891d, 0x8921, 0x8927, 0x8933, 0x8942, SIOCGARP, 0x8970];
const SIOCGARP: u64 = 0x8954;
const SIOCADDRT: u64 = 0x890b;
const SIOCDELRT: u64 = 0x890c;
/// Routes; flags, addresses, MTU, name, hardware and multicast addresses, queue length of an interface; neighbours; bridges and their ports.
const NETWORK_CHANGES: [u64; 20] = [
    SIOCADDRT, SIOCDELRT, 0x8914, 0x8916, 0x8918, 0x891a, 0x891c, 0x8922, 0x8923, 0x8924, 0x8931, 0x8932, 0x8936, 0x8943, 0x8953, 0x8955,
    0x89a0, 0x89a1, 0x89a2, 0x89a3,
];
const MAX_LIST: u64 = 4096;

impl Host {
    pub(super) fn ioctl(&self, request: &Request) -> Answer {
        let [command, buffer, bytes, administers, ..] = request.args;
        let handle = self.handles.get(request.handle)?;
        let allowed = match handle.kind {
            Kind::Stream => {
                matches!(command, TCGETS | TCSETS | TCSETSW | TCSETSF | TIOCGPGRP | TIOCOUTQ | TIOCGWINSZ | TIOCSWINSZ | FIONREAD)
            }
            Kind::Socket | Kind::Netlink => {
                matches!(command, FIONREAD | TIOCOUTQ | SIOCGIFCONF)
                    || INTERFACE_QUERIES.contains(&command)
                    || NETWORK_CHANGES.contains(&command)
            }
            Kind::File => matches!(command, FIONREAD | FICLONE),
            _ => false,
        };
        if !allowed {
            return Err(Errno::NOTTY);
        }
        // As the kernel would say; it is not asked (`jail::seccomp`).
        if NETWORK_CHANGES.contains(&command) && !self.network.is_own {
            return Err(Errno::PERM);
        }
        match command {
            FICLONE => {
                let source = self.handles.get(request.small(1)?)?;
                memory_sys::clone_file(handle.as_fd(), source.as_fd())?;
                Ok(Reply::of(0))
            }
            SIOCGIFCONF => {
                let mut list = Bytes::<{ MAX_LIST as usize }>::sized(bytes.min(MAX_LIST))?;
                memory_sys::interface_addresses(handle.as_fd(), &mut list)?;
                self.memory.write_bytes(buffer, list.as_slice()).map_err(fault)?;
                Ok(Reply::of(list.as_slice().len() as u64))
            }
            SIOCADDRT | SIOCDELRT => {
                let mut argument = Route::sized(bytes)?;
                self.memory.read_into(buffer, argument.as_mut_slice()).map_err(fault)?;
                self.administering(administers == 1, || memory_sys::change_route(handle.as_fd(), command, &mut argument))?;
                Ok(Reply::of(0))
            }
            _ => {
                let mut argument = Bytes::<128>::sized(bytes)?;
                self.memory.read_into(buffer, argument.as_mut_slice()).map_err(fault)?;
                let raised = administers == 1 && NETWORK_CHANGES.contains(&command);
                let result = self.administering(raised, || memory_sys::ioctl(handle.as_fd(), command, &mut argument))?;
                self.memory.write_bytes(buffer, argument.as_slice()).map_err(fault)?;
                Ok(Reply::of(result))
            }
        }
    }
}
