//! The file behind a socket descriptor, and what every kind of socket can do.

use super::message::{Incoming, Outgoing};
use crate::errno::{Errno, ENOTTY, EOPNOTSUPP};
use crate::fs::{Events, FileOps, OpenFile, Stat};
use crate::io::IoBuffer;
use crate::ipc::links::{anonymous_stat, next_number};
use crate::process::Task;
use crate::wait::WaitQueue;
use crate::SysResult;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use linux_abi::fs::S_IFSOCK;

pub const AF_UNIX: i32 = 1;
pub const AF_INET: i32 = 2;
pub const AF_INET6: i32 = 10;
pub const AF_NETLINK: i32 = 16;
pub const AF_PACKET: i32 = 17;
pub const SOCK_STREAM: i32 = 1;
pub const SOCK_DGRAM: i32 = 2;
pub const SOCK_RAW: i32 = 3;
pub const SOCK_SEQPACKET: i32 = 5;
const SOCKFS_MAGIC: u64 = 0x534f_434b;

/// A socket (socket(2)); addresses are the program's sockaddr bytes, family included.
pub trait Socket: Send + Sync + Any {
    fn bind(&self, address: &[u8]) -> Result<(), Errno>;
    fn listen(&self, backlog: i32) -> Result<(), Errno>;
    fn connect(&self, address: &[u8], nonblocking: bool) -> Result<(), Errno>;
    /// The new socket and the address of its peer.
    fn accept(&self, nonblocking: bool) -> Result<(Arc<dyn Socket>, Vec<u8>), Errno>;
    fn local_address(&self) -> Result<Vec<u8>, Errno>;
    fn peer_address(&self) -> Result<Vec<u8>, Errno>;
    /// Raises no SIGPIPE: the caller does on EPIPE, for [`Self::breaks_pipes`].
    fn send(&self, message: &mut Outgoing<'_, '_>, nonblocking: bool) -> SysResult;
    fn receive(&self, message: &mut Incoming<'_, '_>, nonblocking: bool) -> SysResult;
    /// `reading`, `writing`: which directions end.
    fn shutdown(&self, reading: bool, writing: bool) -> Result<(), Errno>;
    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno>;
    /// The option's value; `room`: how many bytes the program has for it, `given`: what is in them.
    fn option(&self, level: i32, name: i32, given: &[u8]) -> Result<Vec<u8>, Errno>;
    /// `nonblocking`: the file is, so that a readiness that proves wrong costs its program no more than a call.
    fn poll(&self, nonblocking: bool) -> Events;
    /// Brings cached readiness up to date (a poll that does not wait): whether there was anything to ask.
    fn refresh(&self) -> bool {
        false
    }
    fn queue(&self) -> &WaitQueue;
    /// Its number on the host, where the host has a socket for it.
    fn host_number(&self) -> Option<u64> {
        None
    }
    fn ioctl(&self, _request: u32, _argument: u64) -> SysResult {
        Err(ENOTTY)
    }
    /// The last descriptor is gone.
    fn close(&self);
    /// Whether EPIPE comes with SIGPIPE (streams).
    fn breaks_pipes(&self) -> bool {
        true
    }
    /// (domain, type, protocol).
    fn kind(&self) -> (i32, i32, i32);
    /// Makes a connected pair of two new sockets (socketpair(2)).
    fn pair_with(&self, _other: &dyn Socket) -> Result<(), Errno> {
        Err(EOPNOTSUPP)
    }
    fn as_any(&self) -> &dyn Any;
}

/// An open socket.
pub struct SocketFile {
    number: u64,
    pub socket: Arc<dyn Socket>,
}

impl SocketFile {
    pub fn open(socket: Arc<dyn Socket>, flags: u32) -> Arc<OpenFile> {
        OpenFile::new(Arc::new(Self { number: next_number(), socket }), crate::fs::file::O_RDWR | flags)
    }
}

/// The socket behind an open file.
pub fn of(file: &OpenFile) -> Option<&Arc<dyn Socket>> {
    file.ops_as::<SocketFile>().map(|file| &file.socket)
}

/// The numbers of an open socket on the host and here: what tables of the host call it, and what "socket:[N]" shows.
pub fn numbers(file: &OpenFile) -> Option<(u64, u64)> {
    let file = file.ops_as::<SocketFile>()?;
    Some((file.socket.host_number()?, file.number))
}

/// Sends, and raises SIGPIPE as send(2) says.
pub fn send(socket: &dyn Socket, message: &mut Outgoing<'_, '_>, nonblocking: bool) -> SysResult {
    let quiet = message.flags & super::message::MSG_NOSIGNAL != 0 || !socket.breaks_pipes();
    socket.send(message, nonblocking).inspect_err(|&error| {
        if error == crate::errno::EPIPE && !quiet {
            crate::ipc::broken_pipe();
        }
    })
}

impl FileOps for SocketFile {
    fn read(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        self.socket.receive(&mut Incoming::new(buffer, 0), file.nonblocking())
    }
    fn write(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        send(&*self.socket, &mut Outgoing::plain(buffer, 0), file.nonblocking())
    }
    fn poll(&self, file: &OpenFile) -> Events {
        self.socket.poll(file.nonblocking())
    }
    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        Some(self.socket.queue())
    }
    fn default_owner(&self) -> Option<i32> {
        Some(0)
    }
    fn ioctl(&self, _file: &OpenFile, _task: &Arc<Task>, request: u32, argument: u64) -> SysResult {
        self.socket.ioctl(request, argument)
    }
    fn release(&self, _file: &OpenFile) {
        self.socket.close();
    }
    fn stat(&self, _file: &OpenFile) -> Result<Stat, Errno> {
        Ok(anonymous_stat(S_IFSOCK | 0o777, self.number))
    }
    fn describe(&self, _file: &OpenFile) -> String {
        alloc::format!("socket:[{}]", self.number)
    }
    fn magic(&self) -> u64 {
        SOCKFS_MAGIC
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
