//! Socket requests to the VMM, typed. Buffers that the host reads or writes lie on the heap: it is physically contiguous per allocation.

use crate::errno::Errno;
use crate::host;
use abi::request::{socket, Op, Segment, SOCKET_TABLE};
use alloc::vec::Vec;
use hal::host::{Answer, Request};
use hal::phys::slice_address;

/// sizeof(struct sockaddr_storage).
pub const MAX_ADDRESS: usize = 128;
/// Most bytes of control messages or of an option's value.
pub const MAX_CONTROL: usize = 4096;
const SIOCGIFCONF: u32 = 0x8912;

fn plain(request: &Request) -> Result<Answer, Errno> {
    host::call(request, &[])
}

pub fn socket(domain: i32, kind: i32, protocol: i32) -> Result<u32, Errno> {
    let args = [domain as u64, kind as u64, protocol as u32 as u64, 0, 0, 0];
    plain(&Request::new(Op::Socket, 0, args)).map(|answer| answer.value as u32)
}

/// A table of the network namespace (`abi::request::NETWORK_TABLES`): the bytes of it that are in the buffer now.
pub fn table(number: usize, buffer: &[u8]) -> Result<usize, Errno> {
    let args = [number as u64, place(buffer), buffer.len() as u64, 0, 0, 0];
    plain(&Request::new(Op::Socket, 0, args).with_flags(SOCKET_TABLE)).map(|answer| answer.value as usize)
}

/// A request about a setting of the network namespace (`abi::request::setting`).
pub fn setting(verb: u16, path: &str, buffer: &[u8], administers: bool) -> Result<Answer, Errno> {
    let path = path.as_bytes().to_vec();
    let args = [place(&path), path.len() as u64, place(buffer), buffer.len() as u64, administers.into(), 0];
    plain(&Request::new(Op::Socket, 0, args).with_flags(verb))
}

/// The host's inode number of a socket.
pub fn number(handle: u32) -> Result<u64, Errno> {
    crate::fs::host::stat_handle(handle).map(|stat| stat.ino)
}

pub fn close(handle: u32) {
    // Nothing can be done about a failure, and the handle is gone either way.
    let _ = plain(&Request::new(Op::Close, handle, [0; 6]));
}

/// Where a buffer is; an empty one is nowhere.
fn place(buffer: &[u8]) -> u64 {
    if buffer.is_empty() {
        0
    } else {
        slice_address(buffer)
    }
}

fn control(handle: u32, verb: u16, first: u64, second: u64, buffer: &[u8]) -> Result<Answer, Errno> {
    control_as(false, handle, verb, [first, second], buffer)
}

fn control_as(administers: bool, handle: u32, verb: u16, [first, second]: [u64; 2], buffer: &[u8]) -> Result<Answer, Errno> {
    let args = [first, second, place(buffer), buffer.len() as u64, administers.into(), 0];
    plain(&Request::new(Op::SocketControl, handle, args).with_flags(verb))
}

pub fn bind(handle: u32, address: &[u8]) -> Result<(), Errno> {
    control(handle, socket::BIND, 0, 0, address).map(drop)
}

pub fn connect(handle: u32, address: &[u8]) -> Result<(), Errno> {
    control(handle, socket::CONNECT, 0, 0, address).map(drop)
}

pub fn listen(handle: u32, backlog: i32) -> Result<(), Errno> {
    control(handle, socket::LISTEN, u64::from(backlog as u32), 0, &[]).map(drop)
}

/// `how`: 0 reading, 1 writing, 2 both.
pub fn shutdown(handle: u32, how: u64) -> Result<(), Errno> {
    control(handle, socket::SHUTDOWN, how, 0, &[]).map(drop)
}

pub fn name(handle: u32, peer: bool) -> Result<Vec<u8>, Errno> {
    let mut buffer = alloc::vec![0; MAX_ADDRESS];
    let verb = if peer { socket::GETPEERNAME } else { socket::GETSOCKNAME };
    let answer = control(handle, verb, 0, 0, &buffer)?;
    buffer.truncate(answer.value as usize);
    Ok(buffer)
}

/// `administers`: who sets it has CAP_NET_ADMIN.
pub fn set_option(administers: bool, handle: u32, level: i32, option: i32, value: &[u8]) -> Result<(), Errno> {
    control_as(administers, handle, socket::SETSOCKOPT, [level as u64, option as u64], value).map(drop)
}

/// `given`: what the program's buffer holds, as long as the room in it.
pub fn option(handle: u32, level: i32, option: i32, given: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut buffer = given.to_vec();
    let answer = control(handle, socket::GETSOCKOPT, level as u64, option as u64, &buffer)?;
    buffer.truncate(answer.value as usize);
    Ok(buffer)
}

/// A new connection's handle and its peer's address.
pub fn accept(handle: u32) -> Result<(u32, Vec<u8>), Errno> {
    let mut buffer = alloc::vec![0; MAX_ADDRESS];
    let answer = plain(&Request::new(Op::Accept, handle, [slice_address(&buffer), MAX_ADDRESS as u64, 0, 0, 0, 0]))?;
    buffer.truncate(answer.out[0] as usize);
    Ok((answer.value as u32, buffer))
}

/// What goes with the data of a send.
pub struct With<'a> {
    pub flags: u32,
    pub address: Option<&'a [u8]>,
    pub control: &'a [u8],
    /// Changes of the network are made with CAP_NET_ADMIN.
    pub administers: bool,
}

pub fn send(handle: u32, segments: &[Segment], with: &With<'_>) -> Result<usize, Errno> {
    let &With { flags, address, control, administers } = with;
    let address = address.map(<[u8]>::to_vec).unwrap_or_default();
    let args = [place(&address), address.len() as u64, place(control), control.len() as u64, administers.into(), 0];
    host::call(&Request::new(Op::Send, handle, args).with_flags(flags as u16), segments).map(|answer| answer.value as usize)
}

#[derive(Default)]
pub struct Received {
    pub bytes: usize,
    pub address: Vec<u8>,
    pub control: Vec<u8>,
    pub flags: u32,
}

/// `wants_address`, `control_room`: what the program wants to know beside the data.
pub fn receive(handle: u32, segments: &[Segment], flags: u32, wants_address: bool, control_room: usize) -> Result<Received, Errno> {
    let mut received = Received::default();
    let mut args = [0; 6];
    if wants_address {
        received.address = alloc::vec![0; MAX_ADDRESS];
        (args[0], args[1]) = (slice_address(&received.address), MAX_ADDRESS as u64);
    }
    if control_room > 0 {
        received.control = alloc::vec![0; control_room.min(MAX_CONTROL)];
        (args[2], args[3]) = (slice_address(&received.control), received.control.len() as u64);
    }
    let answer = host::call(&Request::new(Op::Receive, handle, args).with_flags(flags as u16), segments)?;
    received.bytes = answer.value as usize;
    received.address.truncate(answer.out[0] as usize);
    received.control.truncate(answer.out[1] as usize);
    received.flags = answer.out[2] as u32;
    Ok(received)
}

/// Asks for READY events from now on; the present readiness.
pub fn watch(handle: u32) -> Result<u32, Errno> {
    plain(&Request::new(Op::Watch, handle, [1, 0, 0, 0, 0, 0])).map(|answer| answer.value as u32)
}

/// The present readiness, asked of the host.
pub fn readiness(handle: u32) -> Result<u32, Errno> {
    plain(&Request::new(Op::Watch, handle, [2, 0, 0, 0, 0, 0])).map(|answer| answer.value as u32)
}

/// `argument` goes in and comes back.
pub fn ioctl(handle: u32, request: u32, argument: &mut Vec<u8>) -> Result<usize, Errno> {
    ioctl_as(false, handle, request, argument)
}

/// `administers`: with CAP_NET_ADMIN.
pub fn ioctl_as(administers: bool, handle: u32, request: u32, argument: &mut Vec<u8>) -> Result<usize, Errno> {
    let args = [u64::from(request), place(argument), argument.len() as u64, administers.into(), 0, 0];
    let answer = plain(&Request::new(Op::Ioctl, handle, args))?;
    if request == SIOCGIFCONF {
        argument.truncate(answer.value as usize);
    }
    Ok(answer.value as usize)
}
