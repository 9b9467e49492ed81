//! One client's connection: messages in with their descriptors, answers out. Sending never blocks: a client that does not read loses
//! what is sent to it, and its connection.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown};
use serde_json::Value;

use super::message::is_in_memfd;
use crate::services::Errno;

/// How long a client may leave its messages unread.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
pub const MAX_MESSAGE: usize = 128 << 10;
/// A message that travels as a file.
const MAX_FILE: u64 = 4 << 20;
/// SCM_MAX_FD of Linux.
const MAX_DESCRIPTORS: usize = 253;

pub struct Connection {
    fd: OwnedFd,
    closed: AtomicBool,
}

pub struct Incoming {
    pub text: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Connection {
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, closed: AtomicBool::new(false) }
    }

    /// The next message; None: the client has gone.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<Incoming>, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = rustix::net::recvmsg(&self.fd, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
        let mut descriptors = Vec::new();
        for entry in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = entry {
                descriptors.extend(rights);
            }
        }
        if message.bytes == 0 {
            return Ok(None);
        }
        let mut text = buffer.get(..message.bytes).unwrap_or_default().to_vec();
        if is_in_memfd(&text) {
            if descriptors.is_empty() {
                return Err(Errno::INVAL);
            }
            text = read_file(descriptors.remove(0).as_fd())?;
        }
        Ok(Some(Incoming { text, descriptors }))
    }

    pub fn send(&self, message: &Value) {
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        let text = message.to_string();
        let sent = if text.len() <= MAX_MESSAGE { self.send_text(text.as_bytes(), None) } else { self.send_as_file(text.as_bytes()) };
        if sent.is_err() {
            self.close();
        }
    }

    /// Waits a while for a client that is slow to read.
    pub fn send_patiently(&self, message: &Value) {
        let mut list = [PollFd::new(&self.fd, PollFlags::OUT)];
        // Nobody reads after the limit either: `send` finds the buffer full, and closes the connection.
        let _ = poll(&mut list, Some(&PATIENCE));
        self.send(message);
    }

    fn send_as_file(&self, text: &[u8]) -> Result<(), Errno> {
        let file = rustix::fs::memfd_create(c"litebox-message", MemfdFlags::CLOEXEC)?;
        if rustix::io::pwrite(&file, text, 0)? != text.len() {
            return Err(Errno::NOSPC);
        }
        self.send_text(br#"{"v":1,"memfd":true}"#, Some(file.as_fd()))
    }

    fn send_text(&self, text: &[u8], attached: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let list = attached.map(|fd| [fd]);
        if let Some(list) = &list {
            ancillary.push(SendAncillaryMessage::ScmRights(list));
        }
        rustix::net::sendmsg(&self.fd, &[IoSlice::new(text)], &mut ancillary, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The control thread sees the end of the connection and forgets it.
    pub fn close(&self) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn read_file(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let size = rustix::fs::fstat(file)?.st_size.max(0) as u64;
    if size > MAX_FILE {
        return Err(Errno::MSGSIZE);
    }
    let mut text = vec![0; size as usize];
    let bytes = rustix::io::pread(file, &mut text, 0)?;
    text.truncate(bytes);
    Ok(text)
}
