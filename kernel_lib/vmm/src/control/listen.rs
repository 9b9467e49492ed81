//! The control thread: accepts clients, reads their requests, and watches the terminal's size.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::SocketFlags;
use serde_json::json;

use super::connection::{Connection, MAX_MESSAGE};
use super::Control;
use crate::backends::signal;
use crate::error::{During, HostError, Kind};
use crate::services::Errno;

const LISTENER: u64 = 0;
const WINDOW_CHANGE: u64 = 1;
const FIRST_CLIENT: u64 = 2;
/// Clients at the same time; more have to wait in the socket's queue.
const MAX_CLIENTS: usize = 1024;

pub struct Listener {
    control: Arc<Control>,
    epoll: OwnedFd,
    socket: Option<OwnedFd>,
    /// The terminal whose size PID 1's follows, and the descriptor that tells of a change.
    terminal: Option<(OwnedFd, OwnedFd)>,
    clients: HashMap<u64, Arc<Connection>>,
    next_client: u64,
}

impl Listener {
    /// `terminal`: PID 1's standard input, when it is this process's controlling terminal. Before any other thread exists: the signal
    /// of a changed size must be blocked in all of them.
    pub fn new(control: Arc<Control>, socket: Option<OwnedFd>, terminal: Option<OwnedFd>) -> Result<Self, HostError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).during(Kind::Host, "epoll_create1")?;
        let interest =
            |fd: &OwnedFd, data| epoll::add(&epoll, fd, EventData::new_u64(data), EventFlags::IN).during(Kind::Host, "epoll_ctl");
        if let Some(socket) = &socket {
            rustix::io::ioctl_fionbio(socket, true).during(Kind::Host, "control socket")?;
            interest(socket, LISTENER)?;
        }
        let terminal = match terminal {
            Some(terminal) => {
                let changes = signal::receive(&[libc::SIGWINCH])?;
                interest(&changes, WINDOW_CHANGE)?;
                Some((terminal, changes))
            }
            None => None,
        };
        Ok(Self { control, epoll, socket, terminal, clients: HashMap::new(), next_client: FIRST_CLIENT })
    }

    /// Whether there is anything to listen to.
    pub fn is_needed(&self) -> bool {
        self.socket.is_some() || self.terminal.is_some()
    }

    /// The life of the control thread.
    pub fn serve(mut self) {
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut list = Vec::with_capacity(64);
        loop {
            list.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut list), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    crate::log::error(&format!("control: epoll_wait: {error}"));
                    return;
                }
            }
            for event in &list {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    WINDOW_CHANGE => self.take_size(),
                    client => self.read(client, &mut buffer),
                }
            }
        }
    }

    fn accept(&mut self) {
        let Some(socket) = &self.socket else { return };
        if self.clients.len() >= MAX_CLIENTS {
            // Its end of the connection is closed at once.
            let _ = rustix::net::accept(socket);
            return;
        }
        let Ok(fd) = rustix::net::accept_with(socket, SocketFlags::CLOEXEC) else { return };
        let number = self.next_client;
        self.next_client += 1;
        if epoll::add(&self.epoll, &fd, EventData::new_u64(number), EventFlags::IN).is_ok() {
            self.clients.insert(number, Arc::new(Connection::new(fd)));
        }
    }

    fn read(&mut self, number: u64, buffer: &mut [u8]) {
        let Some(client) = self.clients.get(&number).cloned() else { return };
        let outcome = match client.receive(buffer) {
            Ok(Some(incoming)) => self.control.serve(&client, incoming).map_err(|garbage| garbage.0),
            Ok(None) | Err(Errno::CONNRESET | Errno::PIPE) => Err(String::new()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(format!("cannot receive: {error}")),
        };
        if let Err(reason) = outcome {
            if !reason.is_empty() {
                client.send(&json!({ "error": reason, "errno": libc::EINVAL }));
            }
            let _ = epoll::delete(&self.epoll, &*client);
            self.control.forget(&client);
            client.close();
            self.clients.remove(&number);
        }
    }

    fn take_size(&self) {
        let Some((terminal, changes)) = &self.terminal else { return };
        signal::read(changes);
        if let Ok(size) = rustix::termios::tcgetwinsize(terminal) {
            self.control.resize_main(size.ws_row, size.ws_col);
        }
    }
}
