//! ioctl: a handful of device controls, none of which holds a pointer.

use std::os::fd::AsFd;

use super::{fault, Answer, Errno, Host, Reply, Request};
use crate::handles::Kind;
use crate::memory_sys::{self, Bytes};

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
const INTERFACE_QUERIES: [u64; 12] = [0x8910, 0x8913, 0x8915, 0x8917, 0x8919, 0x891b, 0x891d, 0x8921, 0x8927, 0x8933, 0x8942, 0x8970];
const MAX_LIST: u64 = 4096;

impl Host {
    pub(super) fn ioctl(&self, request: &Request) -> Answer {
        let [command, buffer, bytes, ..] = request.args;
        let handle = self.handles.get(request.handle)?;
        let allowed = match handle.kind {
            Kind::Stream => {
                matches!(command, TCGETS | TCSETS | TCSETSW | TCSETSF | TIOCGPGRP | TIOCOUTQ | TIOCGWINSZ | TIOCSWINSZ | FIONREAD)
            }
            Kind::Socket => matches!(command, FIONREAD | TIOCOUTQ | SIOCGIFCONF) || INTERFACE_QUERIES.contains(&command),
            Kind::File => matches!(command, FIONREAD | FICLONE),
            _ => false,
        };
        if !allowed {
            return Err(Errno::NOTTY);
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
            _ => {
                let mut argument = Bytes::<128>::sized(bytes)?;
                self.memory.read_into(buffer, argument.as_mut_slice()).map_err(fault)?;
                let result = memory_sys::ioctl(handle.as_fd(), command, &mut argument)?;
                self.memory.write_bytes(buffer, argument.as_slice()).map_err(fault)?;
                Ok(Reply::of(result))
            }
        }
    }
}
