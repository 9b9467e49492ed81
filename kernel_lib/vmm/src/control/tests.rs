//! The control protocol against a library OS that the test plays.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{channel, Receiver};

use abi::config::{FromGuest, ProcessInfo};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::listen::Listener;
use super::*;
use crate::ready::Ready;
use crate::services::tests::Guest;

struct Test {
    _guest: Guest,
    control: Arc<Control>,
    ready: OwnedFd,
    address: SocketAddrUnix,
    notices: Receiver<Notice>,
}

impl Test {
    fn new(name: &str) -> Self {
        let guest = Guest::new(name);
        let (ready, pipe) = rustix::pipe::pipe().unwrap();
        let (sender, notices) = channel();
        let control = Arc::new(Control::new(guest.host.events.clone(), sender, Arc::new(Ready::new(Some(pipe)))));
        control.attach(Parts { host: Arc::downgrade(&guest.host), servers: Weak::new(), gate: Arc::default(), vcpus: Arc::default() });
        let address = SocketAddrUnix::new_abstract_name(format!("litebox-{}-{name}", std::process::id()).as_bytes()).unwrap();
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &address).unwrap();
        rustix::net::listen(&socket, 8).unwrap();
        let listener = Listener::new(control.clone(), Some(socket), None).unwrap();
        std::thread::spawn(move || listener.serve());
        Self { _guest: guest, control, ready, address, notices }
    }

    fn client(&self) -> Client {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::connect(&socket, &self.address).unwrap();
        Client(socket)
    }

    /// What the library OS would fetch next.
    fn next(&self) -> ToGuest {
        loop {
            if let Ok(bytes) = self.control.next_for_guest(1 << 20) {
                return postcard::from_bytes(&bytes).unwrap();
            }
            std::thread::yield_now();
        }
    }
}

struct Client(OwnedFd);

impl Client {
    fn send(&self, message: &Value) {
        rustix::net::send(&self.0, message.to_string().as_bytes(), SendFlags::empty()).unwrap();
    }

    fn receive(&self) -> Option<Value> {
        let mut buffer = vec![0; 1 << 17];
        let bytes = rustix::io::read(&self.0, &mut buffer).unwrap();
        serde_json::from_slice(&buffer[..bytes]).ok()
    }
}

#[test]
fn a_container_is_started_asked_and_ends() {
    let test = Test::new("life");
    test.control.from_guest(FromGuest::Ready);
    let mut line = [0; 64];
    let bytes = rustix::io::read(&test.ready, &mut line).unwrap();
    assert_eq!(&line[..bytes], b"{\"ok\":true}\n");
    assert_eq!(rustix::io::read(&test.ready, &mut line), Ok(0), "closed then");

    let (client, follower) = (test.client(), test.client());
    follower.send(&json!({"v":1,"id":1,"op":"events"}));
    assert_eq!(follower.receive(), Some(json!({"id":1,"ok":true})));
    client.send(&json!({"v":1,"id":1,"op":"start"}));
    assert!(matches!(test.next(), ToGuest::Start));
    test.control.from_guest(FromGuest::Started { errno: 0, message: String::new() });
    assert_eq!(client.receive(), Some(json!({"id":1,"ok":true})));
    client.send(&json!({"v":1,"id":2,"op":"start"}));
    assert_eq!(client.receive().unwrap()["errno"], libc::EALREADY);
    client.send(&json!({"v":1,"id":"s","op":"state"}));
    assert_eq!(client.receive(), Some(json!({"id":"s","ok":true,"status":"running"})));
    client.send(&json!({"v":1,"id":3,"op":"ps"}));
    let ToGuest::ListProcesses { token } = test.next() else { panic!() };
    test.control.from_guest(FromGuest::Processes { token, list: vec![ProcessInfo { pid: 1, ..ProcessInfo::default() }] });
    assert_eq!(client.receive().unwrap()["processes"][0]["pid"], 1);
    client.send(&json!({"v":1,"id":4,"op":"kill","signal":15,"pid":99}));
    let ToGuest::Kill { token, pid: 99, signal: 15, all: false } = test.next() else { panic!() };
    test.control.from_guest(FromGuest::KillDone { token, errno: libc::ESRCH });
    assert_eq!(client.receive().unwrap()["errno"], libc::ESRCH);
    test.control.from_guest(FromGuest::KillDone { token, errno: 0 });
    client.send(&json!({"v":1,"id":5,"op":"wait"}));
    client.send(&json!({"v":1,"id":6,"op":"state"}));
    assert_eq!(client.receive().unwrap()["id"], 6);
    test.control.from_guest(FromGuest::Exited { status: 0x300 });
    assert_eq!(client.receive(), Some(json!({"id":5,"ok":true,"status":0x300})));
    let event = follower.receive().unwrap();
    assert_eq!((&event["event"], &event["status"]), (&json!("exit"), &json!(0x300)));
    client.send(&json!({"v":1,"id":7,"op":"kill","signal":9}));
    assert_eq!(client.receive().unwrap()["errno"], libc::ESRCH);
}

#[test]
fn a_program_that_cannot_be_executed_ends_the_container() {
    let test = Test::new("noexec");
    let client = test.client();
    client.send(&json!({"v":1,"id":1,"op":"start"}));
    test.next();
    test.control.from_guest(FromGuest::Started { errno: libc::ENOENT, message: "exec: \"x\": not found".to_owned() });
    assert_eq!(client.receive(), Some(json!({"id":1,"error":"exec: \"x\": not found","errno":libc::ENOENT})));
    assert!(matches!(test.notices.recv(), Ok(Notice::Exit(127))));
}

#[test]
fn a_guest_that_cannot_be_made_ready_says_why() {
    let test = Test::new("unready");
    test.control.from_guest(FromGuest::Started { errno: libc::EINVAL, message: "mount /dev: ENOSPC".to_owned() });
    let mut line = [0; 128];
    let bytes = rustix::io::read(&test.ready, &mut line).unwrap();
    let answer: Value = serde_json::from_slice(&line[..bytes]).unwrap();
    assert_eq!(answer, json!({"error":"mount /dev: ENOSPC","kind":"guest"}));
    assert!(matches!(test.notices.recv(), Ok(Notice::Exit(126))));
}

#[test]
fn exec_passes_descriptors_and_tells_of_the_end() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};
    let test = Test::new("exec");
    let client = test.client();
    let (read, _write) = rustix::pipe::pipe().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let list = [read.as_fd(), read.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&list));
    let text = json!({"v":1,"id":8,"op":"exec","process":{"args":["sh"],"stdio":[0,-1,-1]}}).to_string();
    rustix::net::sendmsg(&client.0, &[std::io::IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::empty()).unwrap();
    let ToGuest::Exec { token, process } = test.next() else { panic!() };
    assert!(test._guest.host.handles.get(process.stdio[0]).is_ok());
    assert_eq!(process.stdio[1], u32::MAX);
    test.control.from_guest(FromGuest::ExecStarted { token, pid: 5, errno: 0, message: String::new() });
    assert_eq!(client.receive(), Some(json!({"id":8,"ok":true,"pid":5})));
    client.send(&json!({"v":1,"id":9,"op":"resize","exec":8,"rows":24,"columns":80}));
    assert!(matches!(test.next(), ToGuest::Resize { token: resized, rows: 24, columns: 80 } if resized == token));
    client.receive();
    test.control.from_guest(FromGuest::ExecExited { token: token + 1, status: 0 });
    test.control.from_guest(FromGuest::ExecExited { token, status: 9 });
    assert_eq!(client.receive(), Some(json!({"event":"exit","exec":8,"status":9})));
    client.send(&json!({"v":1,"id":9,"op":"resize","exec":8,"rows":24,"columns":80}));
    assert_eq!(client.receive().unwrap()["errno"], libc::ESRCH);
    assert_eq!(test._guest.host.handles.count(), 2, "the tree and the one descriptor that was used");
}

#[test]
fn garbage_costs_a_connection_and_no_other() {
    let test = Test::new("garbage");
    let (good, bad) = (test.client(), test.client());
    rustix::net::send(&bad.0, b"\xff\xfe{", SendFlags::empty()).unwrap();
    assert!(bad.receive().unwrap()["error"].is_string());
    assert_eq!(bad.receive(), None);
    good.send(&json!({"v":1,"id":1,"op":"state"}));
    assert_eq!(good.receive().unwrap()["status"], "created");
}

#[test]
fn nobody_reads_ready() {
    let test = Test::new("abandoned");
    let Test { control, ready, notices, .. } = test;
    drop(ready);
    control.from_guest(FromGuest::Ready);
    assert!(matches!(notices.recv(), Ok(Notice::Abandoned)));
}
