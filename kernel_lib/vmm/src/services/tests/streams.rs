//! Streams and sockets never block, and readiness is told.

use abi::event::EventKind;
use abi::request::{setting, socket, Op, NETWORK_TABLES, SOCKET_TABLE, STREAM};
use rustix::fs::OFlags;

use super::*;

#[test]
fn pipes_do_not_block_and_stay_as_they_are() {
    let guest = Guest::new("pipe");
    let (read, write) = rustix::pipe::pipe().unwrap();
    guest.stream(1, rustix::io::dup(&read).unwrap());
    guest.stream(2, rustix::io::dup(&write).unwrap());
    assert_eq!(guest.read(1, 10, STREAM), Err(Errno::AGAIN));
    assert_eq!(guest.write(2, b"word", STREAM, false).unwrap().result, 4);
    assert_eq!(guest.read(1, 10, STREAM).unwrap(), b"word");
    let block = [1u8; 65536];
    let mut total = 0;
    while let Ok(reply) = guest.write(2, &block, STREAM, false) {
        total += reply.result;
    }
    assert!(total >= 65536, "{total}");
    assert!(!rustix::fs::fcntl_getfl(&write).unwrap().contains(OFlags::NONBLOCK));
    drop(read);
    guest.ask(Op::Close, 0, 1, &[]).unwrap();
    assert_eq!(guest.write(2, b"word", STREAM, false), Err(Errno::PIPE));
}

#[test]
fn fifos_take_large_pieces_from_those_who_own_them() {
    let guest = Guest::new("fifo-stream");
    let path = guest.directory.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let open = |flags| rustix::fs::open(&path, flags, 0o600.into()).unwrap();
    let _read = open(OFlags::RDONLY | OFlags::NONBLOCK);
    guest.stream(1, open(OFlags::WRONLY));
    guest.stream(2, open(OFlags::WRONLY | OFlags::NONBLOCK));
    let block = [1u8; 4096];
    assert!(guest.write(1, &block, STREAM, false).unwrap().result < 4096);
    assert_eq!(guest.write(2, &block, STREAM, false).unwrap().result, 4096);
    while guest.write(2, &block, STREAM, false).is_ok() {}
    assert_eq!(guest.write(1, &block, STREAM, false), Err(Errno::AGAIN));
}

#[test]
fn tcp_over_loopback() {
    let guest = Guest::new("tcp");
    let new = || guest.ask(Op::Socket, 0, 0, &[libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0]).unwrap().result as u32;
    let (server, client) = (new(), new());
    let control = |handle, verb, args: [u64; 2]| guest.ask(Op::SocketControl, verb, handle, &[args[0], args[1], BUFFER, 16]);
    let mut address = [0u8; 16];
    address[0] = libc::AF_INET as u8;
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    guest.host.memory.write_bytes(BUFFER, &address).unwrap();
    control(server, socket::BIND, [0, 0]).unwrap();
    control(server, socket::LISTEN, [8, 0]).unwrap();
    assert_eq!(guest.ask(Op::Accept, 0, server, &[BUFFER, 16]), Err(Errno::AGAIN));
    assert_eq!(control(server, socket::GETSOCKNAME, [0, 0]).unwrap().result, 16);
    assert_eq!(control(client, socket::CONNECT, [0, 0]), Err(Errno::INPROGRESS));
    let mut accepted = Err(Errno::AGAIN);
    while accepted == Err(Errno::AGAIN) {
        accepted = guest.ask(Op::Accept, 0, server, &[BUFFER, 16]);
    }
    let peer = accepted.unwrap().result as u32;
    guest.write(client, b"through", STREAM, false).unwrap();
    let mut got = Err(Errno::AGAIN);
    while got == Err(Errno::AGAIN) {
        let request = Request { op: Op::Receive as u32, handle: peer, segment_count: 1, segments: SEGMENTS, ..Request::default() };
        got = guest.serve(request);
    }
    assert_eq!(got.unwrap().result, 4, "the first segment has 4 bytes");
    guest.host.memory.write_bytes(BUFFER, &1u32.to_ne_bytes()).unwrap();
    let option = |handle, level: i32, option: i32| {
        guest.ask(Op::SocketControl, socket::SETSOCKOPT, handle, &[level as u64, option as u64, BUFFER, 4])
    };
    option(client, libc::IPPROTO_TCP, libc::TCP_NODELAY).unwrap();
    assert_eq!(option(client, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER), Err(Errno::NOPROTOOPT));
    assert_eq!(guest.ask(Op::Socket, 0, 0, &[libc::AF_UNIX as u64, 1, 0]), Err(Errno::AFNOSUPPORT));
    assert_eq!(guest.ask(Op::Socket, 0, 0, &[libc::AF_PACKET as u64, 3, 0]), Err(Errno::AFNOSUPPORT));
}

#[test]
fn tables_of_the_network_namespace() {
    let guest = Guest::new("tables");
    let number = |name: &str| NETWORK_TABLES.iter().position(|&known| known == name).unwrap() as u64;
    let ask = |table: u64, room: u64| guest.ask(Op::Socket, SOCKET_TABLE, 0, &[table, BUFFER, room]);
    let bytes = ask(number("dev"), 1 << 16).unwrap().result;
    assert!(String::from_utf8(guest.bytes(BUFFER, bytes)).unwrap().contains("lo:"));
    assert_eq!(ask(number("tcp"), 20).unwrap().result, 20);
    assert_eq!(ask(NETWORK_TABLES.len() as u64, 4096), Err(Errno::INVAL));
}

#[test]
fn readiness_is_posted_with_an_interrupt() {
    let guest = Guest::new("ready");
    let (read, write) = rustix::pipe::pipe().unwrap();
    guest.stream(1, read);
    let ring = guest.host.memory.event_ring().unwrap();
    ring.wanted.store(1, Ordering::SeqCst);
    guest.ask(Op::Watch, 0, 1, &[1]).unwrap();
    let tail = || ring.tail.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        let host = &guest.host;
        scope.spawn(move || host.watcher.serve_some(1, &|| ()));
        rustix::io::write(&write, b"x").unwrap();
        while tail() == 0 {
            std::thread::yield_now();
        }
    });
    assert_eq!(ring.entries[0].word.load(Ordering::SeqCst), EventKind::Ready as u64 | 1 << 32);
    assert_eq!(guest.machine.interrupts.lock().unwrap().as_slice(), [(0, abi::layout::vector::EVENT)]);
    // A regular file is ready at once.
    std::fs::write(guest.directory.join("f"), "x").unwrap();
    guest.stream(2, std::fs::File::open(guest.directory.join("f")).unwrap().into());
    guest.ask(Op::Watch, 0, 2, &[1]).unwrap();
    assert_eq!(tail(), 2);
    assert_eq!(guest.read(2, 10, STREAM).unwrap(), b"x");
    assert_eq!(guest.read(2, 10, STREAM).unwrap(), b"");
}

#[test]
fn a_nonblocking_pipe_is_nobody_elses() {
    let guest = Guest::new("private");
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    rustix::io::ioctl_fionbio(&socket, true).unwrap();
    guest.stream(1, writer.try_clone().unwrap());
    guest.stream(2, socket.into());
    let is_private = |handle| guest.ask(Op::Watch, 0, handle, &[2]).unwrap().out[0];
    assert_eq!((is_private(1), is_private(2)), (0, 0));
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    assert_eq!(is_private(1), 1);
}

#[test]
fn settings_of_the_network_namespace() {
    let guest = Guest::new("settings");
    let ask = |verb, path: &str, administers| {
        let [at, bytes] = guest.path(PATH, path);
        guest.ask(Op::Socket, verb, 0, &[at, bytes, BUFFER, 4096, administers])
    };
    let text = |verb, path| String::from_utf8(guest.bytes(BUFFER, ask(verb, path, 0).unwrap().result)).unwrap();
    let mode = |path| ask(setting::STAT, path, 0).map(|reply| reply.result);
    assert_eq!(mode("ipv4/conf"), Ok(0o40555));
    assert_eq!(mode("ipv4/ip_forward"), Ok(0o100_644));
    assert!(text(setting::LIST, "").lines().any(|line| line.ends_with(" ipv4/")));
    assert!(text(setting::LIST, "ipv4/conf").lines().any(|line| line.ends_with(" lo/")));
    let value = text(setting::READ, "ipv4/ip_forward");
    assert!(["0\n", "1\n"].contains(&value.as_str()));
    for stranger in ["netfilter", "../kernel", "ipv4/../core", "/proc", "ipv4/none"] {
        assert!(mode(stranger).is_err(), "{stranger}");
    }
    assert_eq!(ask(setting::WRITE, "ipv4/ip_forward", 1), Err(Errno::PERM), "a namespace of others");
}
