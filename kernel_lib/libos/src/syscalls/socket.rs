//! socket(2), socketpair(2), bind(2), listen(2), accept(2), connect(2), getsockname(2), getpeername(2), send(2), recv(2), sendmmsg(2),
//! recvmmsg(2), shutdown(2), getsockopt(2), setsockopt(2).

use super::{full, Call, Entry};
use crate::errno::{Errno, EAFNOSUPPORT, EINVAL, EMSGSIZE, ENOBUFS, ENOTSOCK, EOPNOTSUPP, EPERM, EPROTONOSUPPORT, ESOCKTNOSUPPORT};
use crate::fs::file::{O_CLOEXEC, O_NONBLOCK};
use crate::fs::OpenFile;
use crate::io::IoBuffer;
use crate::ipc::links::{capable, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN};
use crate::net::message::{Incoming, Outgoing, Ucred, MSG_CMSG_CLOEXEC, MSG_CTRUNC, MSG_DONTWAIT, MSG_WAITFORONE};
use crate::net::options::SOL_SOCKET;
use crate::net::socket::{self, Socket, SocketFile, AF_UNIX, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM};
use crate::net::unix::UnixSocket;
use crate::SysResult;
use alloc::sync::Arc;
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const CALLS: &[Entry] = &[
    full(41, "socket", socket_),
    full(42, "connect", connect),
    full(43, "accept", accept),
    full(44, "sendto", sendto),
    full(45, "recvfrom", recvfrom),
    full(46, "sendmsg", sendmsg),
    full(47, "recvmsg", recvmsg),
    full(48, "shutdown", shutdown),
    full(49, "bind", bind),
    full(50, "listen", listen),
    full(51, "getsockname", getsockname),
    full(52, "getpeername", getpeername),
    full(53, "socketpair", socketpair),
    full(54, "setsockopt", setsockopt),
    full(55, "getsockopt", getsockopt),
    full(288, "accept4", accept4),
    full(299, "recvmmsg", recvmmsg),
    full(307, "sendmmsg", sendmmsg),
];

const RLIMIT_NOFILE: usize = 7;
/// sizeof(struct sockaddr_storage).
const MAX_ADDRESS: usize = 128;
/// UIO_MAXIOV.
const MAX_VECTORS: u64 = 1024;
/// SCM_MAX_FD.
const MAX_FILES: usize = 253;
/// net.core.optmem_max.
const MAX_CONTROL: u64 = 131_072;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
const HEADER: usize = 16;

/// struct msghdr.
#[derive(FromBytes, IntoBytes, Immutable, Clone, Copy)]
#[repr(C)]
struct Header {
    name: u64,
    name_bytes: u32,
    pad: u32,
    vectors: u64,
    vector_count: u64,
    control: u64,
    control_bytes: u64,
    flags: u32,
    pad_end: u32,
}

const NAME_BYTES_AT: u64 = 8;
const CONTROL_BYTES_AT: u64 = 40;
const FLAGS_AT: u64 = 48;

struct Handle {
    file: Arc<OpenFile>,
    socket: Arc<dyn Socket>,
}

impl Handle {
    fn nonblocking(&self, flags: u32) -> bool {
        flags & MSG_DONTWAIT != 0 || self.file.nonblocking()
    }
}

fn handle(call: &Call<'_>, fd: i32) -> Result<Handle, Errno> {
    let file = call.task.files().get(fd)?;
    let socket = socket::of(&file).cloned().ok_or(ENOTSOCK)?;
    Ok(Handle { file, socket })
}

fn install(call: &Call<'_>, socket: Arc<dyn Socket>, flags: u32) -> Result<i32, Errno> {
    let file = SocketFile::open(socket, flags & O_NONBLOCK);
    call.task.files().insert(file, flags & O_CLOEXEC != 0, 0, call.task.limit(RLIMIT_NOFILE))
}

/// An address given by the program.
fn address_at(address: u64, bytes: i32) -> Result<Vec<u8>, Errno> {
    let bytes = usize::try_from(bytes).ok().filter(|&bytes| bytes <= MAX_ADDRESS).ok_or(EINVAL)?;
    let mut value = alloc::vec![0; bytes];
    hal::user::read_bytes(address, &mut value)?;
    Ok(value)
}

/// Stores an address as far as it fits, and its whole length.
fn store_address(value: &[u8], address: u64, length: u64) -> Result<(), Errno> {
    let room: i32 = hal::user::read(length)?;
    let room = usize::try_from(room).map_err(|_| EINVAL)?;
    hal::user::write_bytes(address, &value[..room.min(value.len())])?;
    hal::user::write(length, &(value.len() as u32))
}

fn new_socket(domain: i32, kind: u32, protocol: i32) -> Result<(Arc<dyn Socket>, u32), Errno> {
    let flags = kind & !0xf;
    let kind = (kind & 0xf) as i32;
    if flags & !(O_NONBLOCK | O_CLOEXEC) != 0 || kind == 0 || kind > 10 {
        return Err(EINVAL);
    }
    if !(0..46).contains(&domain) {
        return Err(EAFNOSUPPORT);
    }
    if domain != AF_UNIX {
        return crate::net::host::open(domain, kind, protocol).map(|socket| (socket, flags));
    }
    if protocol != 0 && protocol != AF_UNIX {
        return Err(EPROTONOSUPPORT);
    }
    let kind = match kind {
        SOCK_RAW => SOCK_DGRAM,
        SOCK_STREAM | SOCK_DGRAM | SOCK_SEQPACKET => kind,
        _ => return Err(ESOCKTNOSUPPORT),
    };
    Ok((UnixSocket::new(kind), flags))
}

fn socket_(call: &mut Call<'_>) -> SysResult {
    let (socket, flags) = new_socket(call.int(0), call.uint(1), call.int(2))?;
    install(call, socket, flags).map(|fd| fd as usize)
}

fn socketpair(call: &mut Call<'_>) -> SysResult {
    let (first, flags) = new_socket(call.int(0), call.uint(1), call.int(2))?;
    if first.kind().0 != AF_UNIX {
        first.close();
        return Err(EOPNOTSUPP);
    }
    let (second, _) = new_socket(call.int(0), call.uint(1), call.int(2))?;
    first.pair_with(&*second)?;
    let table = call.task.files();
    // Two files from the beginning: whichever step fails, both sockets are closed.
    let files = [SocketFile::open(first, flags & O_NONBLOCK), SocketFile::open(second, flags & O_NONBLOCK)];
    let mut numbers = [0; 2];
    for (index, file) in files.into_iter().enumerate() {
        match table.insert(file, flags & O_CLOEXEC != 0, 0, call.task.limit(RLIMIT_NOFILE)) {
            Ok(fd) => numbers[index] = fd,
            Err(error) => {
                if index == 1 {
                    drop(table.remove(numbers[0]));
                }
                return Err(error);
            }
        }
    }
    hal::user::write(call.args[3], &numbers).inspect_err(|_| {
        for fd in numbers {
            drop(table.remove(fd));
        }
    })?;
    Ok(0)
}

fn bind(call: &mut Call<'_>) -> SysResult {
    let target = handle(call, call.int(0))?;
    let address = address_at(call.args[1], call.int(2))?;
    target.socket.bind(&address).map(|()| 0)
}

fn listen(call: &mut Call<'_>) -> SysResult {
    handle(call, call.int(0))?.socket.listen(call.int(1)).map(|()| 0)
}

fn connect(call: &mut Call<'_>) -> SysResult {
    let target = handle(call, call.int(0))?;
    let address = address_at(call.args[1], call.int(2))?;
    target.socket.connect(&address, target.nonblocking(0)).map(|()| 0)
}

fn accept_with(call: &Call<'_>, flags: u32) -> SysResult {
    let target = handle(call, call.int(0))?;
    if flags & !(O_NONBLOCK | O_CLOEXEC) != 0 {
        return Err(EINVAL);
    }
    let (socket, address) = target.socket.accept(target.nonblocking(0))?;
    let fd = install(call, socket, flags)?;
    if call.args[1] != 0 {
        store_address(&address, call.args[1], call.args[2]).inspect_err(|_| drop(call.task.files().remove(fd)))?;
    }
    Ok(fd as usize)
}

fn accept(call: &mut Call<'_>) -> SysResult {
    accept_with(call, 0)
}

fn accept4(call: &mut Call<'_>) -> SysResult {
    accept_with(call, call.uint(3))
}

fn getsockname(call: &mut Call<'_>) -> SysResult {
    let address = handle(call, call.int(0))?.socket.local_address()?;
    store_address(&address, call.args[1], call.args[2]).map(|()| 0)
}

fn getpeername(call: &mut Call<'_>) -> SysResult {
    let address = handle(call, call.int(0))?.socket.peer_address()?;
    store_address(&address, call.args[1], call.args[2]).map(|()| 0)
}

fn sendto(call: &mut Call<'_>) -> SysResult {
    let target = handle(call, call.int(0))?;
    let address = if call.args[4] == 0 { None } else { Some(address_at(call.args[4], call.int(5))?) };
    let flags = call.uint(3);
    let mut buffer = IoBuffer::user(call.args[1], call.size(2));
    let mut message = Outgoing { address: address.as_deref(), ..Outgoing::plain(&mut buffer, flags) };
    socket::send(&*target.socket, &mut message, target.nonblocking(flags))
}

fn recvfrom(call: &mut Call<'_>) -> SysResult {
    let target = handle(call, call.int(0))?;
    let flags = call.uint(3);
    let mut buffer = IoBuffer::user(call.args[1], call.size(2));
    let mut message = Incoming::new(&mut buffer, flags);
    let count = target.socket.receive(&mut message, target.nonblocking(flags))?;
    if call.args[4] != 0 {
        store_address(&message.address, call.args[4], call.args[5])?;
    }
    Ok(count)
}

fn vectors(header: &Header) -> Result<Vec<(u64, usize)>, Errno> {
    if header.vector_count > MAX_VECTORS {
        return Err(EMSGSIZE);
    }
    let pairs: Vec<[u64; 2]> = hal::user::read_array(header.vectors, header.vector_count as usize)?;
    Ok(pairs.into_iter().map(|[address, bytes]| (address, bytes as usize)).collect())
}

/// Takes the control messages of a send apart (cmsg(3)).
fn parse_control(call: &Call<'_>, bytes: &[u8], message: &mut Outgoing<'_, '_>) -> Result<(), Errno> {
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let length = u64::from_ne_bytes(*rest.first_chunk().ok_or(EINVAL)?) as usize;
        if length < HEADER || length > rest.len() {
            return Err(EINVAL);
        }
        let level = i32::from_ne_bytes(*rest[8..].first_chunk().ok_or(EINVAL)?);
        let kind = i32::from_ne_bytes(*rest[12..].first_chunk().ok_or(EINVAL)?);
        let data = &rest[HEADER..length];
        match (level, kind) {
            (SOL_SOCKET, SCM_RIGHTS) => {
                let table = call.task.files();
                for fd in data.chunks_exact(4) {
                    message.files.push(table.get_any(i32::from_ne_bytes(*fd.first_chunk().ok_or(EINVAL)?))?);
                }
                if message.files.len() > MAX_FILES {
                    return Err(EINVAL);
                }
            }
            (SOL_SOCKET, SCM_CREDENTIALS) => {
                let claimed = Ucred::read_from_bytes(data).map_err(|_| EINVAL)?;
                check_credentials(call, &claimed)?;
                message.credentials = Some(claimed);
            }
            (SOL_SOCKET, _) => return Err(EINVAL),
            _ => {
                message.control.extend_from_slice(&rest[..length]);
                message.control.resize(message.control.len().next_multiple_of(8), 0);
            }
        }
        rest = rest.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(())
}

/// unix(7): a process may only claim what it is, unless it has the capability.
fn check_credentials(call: &Call<'_>, claimed: &Ucred) -> Result<(), Errno> {
    let own = call.task.credentials();
    let pid = claimed.pid == call.task.process.pid || capable(CAP_SYS_ADMIN);
    let uid = [own.uid, own.euid, own.suid].contains(&claimed.uid) || capable(CAP_SETUID);
    let gid = [own.gid, own.egid, own.sgid].contains(&claimed.gid) || capable(CAP_SETGID);
    if pid && uid && gid {
        Ok(())
    } else {
        Err(EPERM)
    }
}

fn send_one(call: &Call<'_>, target: &Handle, at: u64, flags: u32) -> SysResult {
    let header: Header = hal::user::read(at)?;
    let address = match header.name {
        0 => None,
        _ if header.name_bytes == 0 => None,
        name => Some(address_at(name, header.name_bytes.min(MAX_ADDRESS as u32) as i32)?),
    };
    let mut buffer = IoBuffer::user_ranges(vectors(&header)?)?;
    let mut message = Outgoing { address: address.as_deref(), ..Outgoing::plain(&mut buffer, flags) };
    if header.control != 0 && header.control_bytes != 0 {
        if header.control_bytes > MAX_CONTROL {
            return Err(ENOBUFS);
        }
        let mut control = alloc::vec![0; header.control_bytes as usize];
        hal::user::read_bytes(header.control, &mut control)?;
        parse_control(call, &control, &mut message)?;
    }
    socket::send(&*target.socket, &mut message, target.nonblocking(flags))
}

fn sendmsg(call: &mut Call<'_>) -> SysResult {
    let target = handle(call, call.int(0))?;
    send_one(call, &target, call.args[1], call.uint(2))
}

/// Control messages on their way to the program.
struct Control {
    bytes: Vec<u8>,
    room: usize,
    cut: bool,
}

impl Control {
    fn put(&mut self, level: i32, kind: i32, data: &[u8]) {
        let left = self.room - self.bytes.len();
        if left < HEADER {
            self.cut = true;
            return;
        }
        let fits = data.len().min(left - HEADER);
        self.cut |= fits < data.len();
        self.bytes.extend_from_slice(&((HEADER + fits) as u64).to_ne_bytes());
        self.bytes.extend_from_slice(&level.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&data[..fits]);
        let padded = self.bytes.len().next_multiple_of(8).min(self.room);
        self.bytes.resize(padded, 0);
    }
}

/// Gives received descriptors numbers, as many as there is room for; the rest is closed.
fn land(call: &Call<'_>, files: Vec<Arc<OpenFile>>, control: &mut Control, close_on_exec: bool) {
    let room = control.room.saturating_sub(control.bytes.len() + HEADER) / 4;
    let (table, limit) = (call.task.files(), call.task.limit(RLIMIT_NOFILE));
    let mut numbers = Vec::new();
    for (index, file) in files.into_iter().enumerate() {
        let number = if index < room { table.insert(file, close_on_exec, 0, limit).ok() } else { None };
        match number {
            Some(fd) => numbers.extend_from_slice(&fd.to_ne_bytes()),
            None => {
                control.cut = true;
                break;
            }
        }
    }
    if !numbers.is_empty() {
        control.put(SOL_SOCKET, SCM_RIGHTS, &numbers);
    }
}

fn receive_one(call: &Call<'_>, target: &Handle, at: u64, flags: u32) -> SysResult {
    let header: Header = hal::user::read(at)?;
    if (header.name_bytes as i32) < 0 && header.name != 0 {
        return Err(EINVAL);
    }
    let mut buffer = IoBuffer::user_ranges(vectors(&header)?)?;
    let mut message = Incoming::new(&mut buffer, flags);
    message.control_room = if header.control == 0 { 0 } else { header.control_bytes.min(MAX_CONTROL) as usize };
    let count = target.socket.receive(&mut message, target.nonblocking(flags))?;
    let mut told = message.told | flags & MSG_CMSG_CLOEXEC;
    if header.name != 0 {
        let fits = (header.name_bytes as usize).min(message.address.len());
        hal::user::write_bytes(header.name, &message.address[..fits])?;
        hal::user::write(at + NAME_BYTES_AT, &(message.address.len() as u32))?;
    }
    let mut control = Control { bytes: Vec::new(), room: message.control_room, cut: false };
    control.bytes.extend_from_slice(&message.control[..message.control.len().min(control.room)]);
    if message.pass_credentials {
        control.put(SOL_SOCKET, SCM_CREDENTIALS, message.credentials.unwrap_or(Ucred::OVERFLOW).as_bytes());
    }
    let files = core::mem::take(&mut message.files);
    if !files.is_empty() {
        land(call, files, &mut control, flags & MSG_CMSG_CLOEXEC != 0);
    }
    if control.cut {
        told |= MSG_CTRUNC;
    }
    if !control.bytes.is_empty() {
        hal::user::write_bytes(header.control, &control.bytes)?;
    }
    hal::user::write(at + FLAGS_AT, &told)?;
    hal::user::write(at + CONTROL_BYTES_AT, &(control.bytes.len() as u64))?;
    Ok(count)
}

fn recvmsg(call: &mut Call<'_>) -> SysResult {
    let target = handle(call, call.int(0))?;
    receive_one(call, &target, call.args[1], call.uint(2))
}

/// sizeof(struct mmsghdr): a msghdr, its count of bytes, padding.
const MANY_BYTES: u64 = 64;
const MANY_COUNT_AT: u64 = 56;

fn sendmmsg(call: &mut Call<'_>) -> SysResult {
    let target = handle(call, call.int(0))?;
    let most = u64::from(call.uint(2)).min(MAX_VECTORS);
    for index in 0..most {
        let at = call.args[1] + index * MANY_BYTES;
        let sent = send_one(call, &target, at, call.uint(3)).and_then(|sent| hal::user::write(at + MANY_COUNT_AT, &(sent as u32)));
        match sent {
            Ok(()) => {}
            Err(error) if index == 0 => return Err(error),
            Err(_) => return Ok(index as usize),
        }
    }
    Ok(most as usize)
}

fn recvmmsg(call: &mut Call<'_>) -> SysResult {
    let target = handle(call, call.int(0))?;
    let most = u64::from(call.uint(2)).min(MAX_VECTORS);
    let mut flags = call.uint(3);
    let deadline = match call.args[4] {
        0 => None,
        address => {
            let [seconds, ns]: [i64; 2] = hal::user::read(address)?;
            if seconds < 0 || !(0..1_000_000_000).contains(&ns) {
                return Err(EINVAL);
            }
            Some(hal::time::monotonic().saturating_add((seconds as u64).saturating_mul(1_000_000_000)).saturating_add(ns as u64))
        }
    };
    let mut count = 0;
    while count < most {
        let at = call.args[1] + count * MANY_BYTES;
        let got =
            receive_one(call, &target, at, flags & !MSG_WAITFORONE).and_then(|got| hal::user::write(at + MANY_COUNT_AT, &(got as u32)));
        match got {
            Ok(()) => count += 1,
            Err(error) if count == 0 => return Err(error),
            Err(_) => break,
        }
        if flags & MSG_WAITFORONE != 0 {
            flags |= MSG_DONTWAIT;
        }
        // recvmmsg(2): the time limit is looked at after each message only.
        if deadline.is_some_and(|deadline| hal::time::monotonic() >= deadline) {
            break;
        }
    }
    if let Some(deadline) = deadline {
        let rest = deadline.saturating_sub(hal::time::monotonic());
        hal::user::write(call.args[4], &[rest / 1_000_000_000, rest % 1_000_000_000])?;
    }
    Ok(count as usize)
}

fn shutdown(call: &mut Call<'_>) -> SysResult {
    let target = handle(call, call.int(0))?;
    match call.int(1) {
        0 => target.socket.shutdown(true, false)?,
        1 => target.socket.shutdown(false, true)?,
        2 => target.socket.shutdown(true, true)?,
        _ => return Err(EINVAL),
    }
    Ok(0)
}

fn setsockopt(call: &mut Call<'_>) -> SysResult {
    let bytes = usize::try_from(call.int(4)).map_err(|_| EINVAL)?;
    let target = handle(call, call.int(0))?;
    let mut value = alloc::vec![0; bytes.min(4096)];
    hal::user::read_bytes(call.args[3], &mut value)?;
    target.socket.set_option(call.int(1), call.int(2), &value).map(|()| 0)
}

fn getsockopt(call: &mut Call<'_>) -> SysResult {
    let target = handle(call, call.int(0))?;
    let room: i32 = hal::user::read(call.args[4])?;
    let room = usize::try_from(room).map_err(|_| EINVAL)?;
    let mut given = alloc::vec![0; room.min(4096)];
    // Some options take a part of their question in the buffer; an unreadable buffer is found out when the answer is stored.
    let _ = hal::user::read_bytes(call.args[3], &mut given);
    let value = target.socket.option(call.int(1), call.int(2), &given)?;
    let fits = room.min(value.len());
    hal::user::write_bytes(call.args[3], &value[..fits])?;
    hal::user::write(call.args[4], &(fits as u32))?;
    Ok(0)
}
