//! Requests against a host without a hypervisor: guest memory, handles and services are the real ones.

mod files;
mod garbage;
mod streams;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};

use abi::layout::DAX_WINDOW;
use abi::request::{Op, Segment, Stat};

use super::*;
use crate::backends::{Features, Start, Vcpu};
use crate::error::HostError;
use crate::handles::{Handle, Kind};
use crate::machine::Notice;

/// A machine that only notes the interrupts sent to it.
#[derive(Default)]
pub struct NoMachine {
    pub interrupts: Mutex<Vec<(u32, u8)>>,
}

impl Machine for NoMachine {
    fn features(&self) -> Features {
        Features::default()
    }
    fn add_memory(&self, _gpa: u64, _bytes: u64) -> Result<(), HostError> {
        Ok(())
    }
    fn bind_doorbell(&self, _port: u16, _event: BorrowedFd<'_>) -> Result<(), HostError> {
        Ok(())
    }
    fn interrupt(&self, vcpu: u32, vector: u8) {
        self.interrupts.lock().unwrap().push((vcpu, vector));
    }
    fn create_vcpu(&self, _start: &Start) -> Result<Box<dyn Vcpu>, HostError> {
        Err(HostError::plan("no vCPU here"))
    }
}

/// A thread restricted like a server of the product, by seccomp and Landlock: a call that the lists lack ends the test.
fn jailed_server(host: Arc<Host>) -> Sender<(Request, Sender<Answer>)> {
    let (sender, inbox) = channel::<(Request, Sender<Answer>)>();
    std::thread::spawn(move || {
        let tree = host.handles.get(TREE).unwrap();
        rustix::thread::set_no_new_privs(true).unwrap();
        // This machine's network is to stay as it is.
        let mut rights = rustix::thread::capabilities(None).unwrap();
        rights.effective -= rustix::thread::CapabilitySet::NET_ADMIN;
        rights.permitted -= rustix::thread::CapabilitySet::NET_ADMIN;
        rustix::thread::set_capabilities(None, rights).unwrap();
        let tree = std::iter::once(std::os::fd::AsFd::as_fd(&*tree));
        crate::jail::landlock::restrict(&tree.chain(host.network.directories()).collect::<Vec<_>>());
        crate::jail::seccomp::Filter::new(crate::jail::seccomp::Thread::Server, false).unwrap().install().unwrap();
        while let Ok((request, answer)) = inbox.recv() {
            let _ = answer.send(host.serve(&request, &Worker::outside()));
        }
    });
    sender
}

pub const TREE: u32 = 16;
/// Scratch addresses of the guest.
pub const PATH: u64 = 0x10_0000;
pub const PATH_2: u64 = 0x10_2000;
pub const SEGMENTS: u64 = 0x10_4000;
pub const BUFFER: u64 = 0x11_0000;

pub struct Guest {
    pub host: Arc<Host>,
    server: Sender<(Request, Sender<Answer>)>,
    pub directory: PathBuf,
    pub machine: Arc<NoMachine>,
    pub _notices: Receiver<Notice>,
}

impl Guest {
    pub fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("litebox-vmm-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let open = |path: &std::path::Path| {
            rustix::fs::open(path, rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap()
        };
        rustix::process::fchdir(open(std::path::Path::new("/proc/self/fd"))).unwrap();
        rustix::process::umask(rustix::fs::Mode::empty());

        let memory = Arc::new(GuestMemory::reserve().unwrap());
        memory.back_ram(0, 32 << 20).unwrap();
        memory.publish_ram(32 << 20);
        memory.publish_window(DAX_WINDOW + (4 << 20)).unwrap();
        let machine = Arc::new(NoMachine::default());
        let events = Arc::new(Events::new(memory.clone(), machine.clone()));
        let handles = Handles::new(1 << 20);
        handles.plan(TREE, Handle::new(open(&directory), Kind::Tree));
        let (notices, inbox) = channel();
        let host = Arc::new(Host {
            ram: guest_memory::Ram::new(64 << 20, memory.ram_end(), memory.dax_end()),
            memory,
            machine: machine.clone(),
            watcher: Watcher::new(events.clone()).unwrap(),
            control: Arc::new(Control::new(events.clone(), notices, Arc::new(crate::ready::Ready::new(None)))),
            events,
            handles,
            window: window::Window::default(),
            notifications: notify::Notifications::default(),
            has_proc: true,
            network: Network {
                tables: Some(open(std::path::Path::new("/proc/self/net"))),
                settings: Some(open(std::path::Path::new("/proc/sys/net"))),
                is_own: false,
            },
        });
        let server = jailed_server(host.clone());
        Self { host, server, directory, machine, _notices: inbox }
    }

    /// Serves a request on the jailed thread.
    pub fn serve(&self, request: Request) -> Answer {
        let (sender, answer) = channel();
        self.server.send((request, sender)).unwrap();
        answer.recv().unwrap()
    }

    pub fn stream(&self, number: u32, fd: OwnedFd) {
        self.host.handles.plan(number, Handle::new(fd, Kind::Stream));
    }

    pub fn ask(&self, op: Op, flags: u16, handle: u32, args: &[u64]) -> Answer {
        let mut request = Request { op: op as u32 | u32::from(flags) << 16, handle, ..Request::default() };
        for (place, value) in request.args.iter_mut().zip(args) {
            *place = *value;
        }
        self.serve(request)
    }

    /// Puts a path into guest memory: its address and length.
    pub fn path(&self, at: u64, path: &str) -> [u64; 2] {
        self.host.memory.write_bytes(at, path.as_bytes()).unwrap();
        [at, path.len() as u64]
    }

    pub fn named(&self, op: Op, flags: u16, path: &str, more: &[u64]) -> Answer {
        let mut args = self.path(PATH, path).to_vec();
        args.extend(more);
        self.ask(op, flags, TREE, &args)
    }

    pub fn open(&self, path: &str, flags: i32, mode: u64) -> Result<u32, Errno> {
        self.named(Op::Open, 0, path, &[flags as u32 as u64, mode, own_ids(), 0]).map(|reply| reply.result as u32)
    }

    fn transfer(&self, op: Op, handle: u32, bytes: u64, args: [u64; 2]) -> Answer {
        // Two segments, the second one empty or half.
        let half = bytes / 2;
        self.host.memory.write(SEGMENTS, &Segment { gpa: BUFFER, bytes: bytes - half }).unwrap();
        self.host.memory.write(SEGMENTS + 16, &Segment { gpa: BUFFER + bytes - half, bytes: half }).unwrap();
        let request = Request { op: op as u32, handle, segment_count: 2, segments: SEGMENTS, args: [args[0], args[1], 0, 0, 0, 0] };
        self.serve(request)
    }

    pub fn write(&self, handle: u32, text: &[u8], offset: u64, append: bool) -> Answer {
        self.host.memory.write_bytes(BUFFER, text).unwrap();
        self.transfer(Op::Write, handle, text.len() as u64, [offset, u64::from(append)])
    }

    pub fn read(&self, handle: u32, bytes: u64, offset: u64) -> Result<Vec<u8>, Errno> {
        let reply = self.transfer(Op::Read, handle, bytes, [offset, 0])?;
        Ok(self.bytes(BUFFER, reply.result))
    }

    pub fn bytes(&self, at: u64, bytes: u64) -> Vec<u8> {
        let mut buffer = vec![0; bytes as usize];
        self.host.memory.read_into(at, &mut buffer).unwrap();
        buffer
    }

    pub fn stat(&self, path: &str) -> Result<Stat, Errno> {
        self.named(Op::Stat, 0, path, &[BUFFER])?;
        Ok(self.host.memory.read(BUFFER).unwrap())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub fn own_ids() -> u64 {
    u64::from(rustix::process::geteuid().as_raw()) | u64::from(rustix::process::getegid().as_raw()) << 32
}
