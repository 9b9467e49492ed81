//! Host streams: the standard input and output of PID 1 and of exec'd processes (pipes, FIFOs, terminals, sockets or files of the host).
//!
//! Readiness comes as edges from the VMM; `ready` holds what is believed to be true. A transfer that would block takes its bit back and
//! is tried once more before anybody sleeps, so that an edge that comes in between is not lost.

use super::behind::{self, Behind};
use super::file::{Events, FileOps, OpenFile};
use super::host::{request, Handle};
use super::inode::Stat;
use crate::errno::{Errno, EAGAIN, EINTR, ENOTTY, EPIPE, ERESTARTSYS};
use crate::host::{listen, unlisten, ReadyListener};
use crate::io::IoBuffer;
use crate::process::Task;
use crate::wait::{Interruptible, WaitQueue};
use crate::SysResult;
use abi::request::Op;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use linux_abi::fs::{O_RDWR, S_IFCHR, S_IFIFO, S_IFMT, S_IFSOCK};

pub struct StreamFile {
    handle: Arc<Handle>,
    stat: Stat,
    ready: AtomicU32,
    /// The VMM reports what becomes ready: from the first time that somebody wants to know.
    watched: AtomicBool,
    /// Something was read since IN was reported: whether there is more has to be asked.
    unsure: AtomicBool,
    /// It is a character device, and the host has not denied yet that it is a terminal: shells ask after every command.
    maybe_terminal: AtomicBool,
    pub(super) changed: WaitQueue,
    /// The process that was started with it.
    pub(super) owner: Option<u32>,
    pub(super) behind: Option<Behind>,
    own: Weak<Self>,
}

const READABLE: Events = Events(Events::IN.0 | Events::RDNORM.0);
const WRITABLE: Events = Events(Events::OUT.0 | Events::WRNORM.0);
const FIONREAD: u32 = 0x541b;
const TCGETS: u32 = 0x5401;
const TCSETSF: u32 = 0x5404;
const TIOCGPGRP: u32 = 0x540f;
const TIOCOUTQ: u32 = 0x5411;
const TIOCGWINSZ: u32 = 0x5413;
const TIOCSWINSZ: u32 = 0x5414;

impl ReadyListener for StreamFile {
    fn ready(&self, events: u32) {
        let mut bits = events;
        if events & Events::IN.0 != 0 {
            bits |= READABLE.0;
            self.unsure.store(false, Ordering::Relaxed);
        }
        if events & Events::OUT.0 != 0 {
            bits |= WRITABLE.0;
        }
        self.ready.fetch_or(bits, Ordering::SeqCst);
        self.changed.wake_for(bits);
    }
}

impl StreamFile {
    /// Takes over a handle of the VMM's.
    pub fn new(number: u32, owner: Option<u32>) -> Result<Arc<Self>, Errno> {
        let stat = request::stat_handle(number)?;
        let is_private = || request::plain(Op::Watch, 0, number, [2, 0, 0, 0, 0, 0]).is_ok_and(|answer| answer.out[0] == 1);
        let is_behind = owner.is_some() && stat.mode & S_IFMT == S_IFIFO && is_private();
        let file = Arc::new_cyclic(|own| Self {
            handle: Handle::own(number),
            stat,
            ready: AtomicU32::new(0),
            watched: AtomicBool::new(false),
            unsure: AtomicBool::new(false),
            maybe_terminal: AtomicBool::new(stat.mode & S_IFMT == S_IFCHR),
            changed: WaitQueue::new(),
            owner,
            behind: is_behind.then(Behind::default),
            own: own.clone(),
        });
        let listener: Arc<dyn ReadyListener> = file.clone();
        listen(number, &listener);
        Ok(file)
    }

    fn watch(&self) {
        if self.watched.swap(true, Ordering::SeqCst) {
            return;
        }
        // What cannot be watched never makes anybody wait.
        let ready = request::plain(Op::Watch, 0, self.handle.number(), [1, 0, 0, 0, 0, 0])
            .map_or(Events::IN.0 | Events::OUT.0, |answer| answer.value as u32);
        self.ready(ready);
    }

    /// Tries, and sleeps until the VMM says that it is worth another try.
    fn transfer(&self, nonblocking: bool, bits: Events, mut attempt: impl FnMut() -> SysResult) -> SysResult {
        loop {
            // An edge that comes after this question is not lost.
            let believed = !self.watched.load(Ordering::SeqCst) || self.ready.load(Ordering::SeqCst) & bits.0 != 0;
            match attempt() {
                Err(EAGAIN) => {}
                done => return done,
            }
            if believed {
                self.watch();
                self.ready.fetch_and(!bits.0, Ordering::SeqCst);
                continue;
            }
            if nonblocking {
                return Err(EAGAIN);
            }
            let bits = bits.0 | Events::HUP.0 | Events::ERR.0;
            let ready = || (self.ready.load(Ordering::SeqCst) & bits != 0).then_some(());
            self.changed.wait(Interruptible::Yes, None, ready).map_err(|errno| if errno == EINTR { ERESTARTSYS } else { errno })?;
        }
    }

    /// Whether both were handed to one process and are over one pipe.
    pub(super) fn is_over_the_pipe_of(&self, other: &Self) -> bool {
        (self.owner, self.stat.dev, self.stat.ino) == (other.owner, other.stat.dev, other.stat.ino)
    }

    /// Writes everything that is behind.
    pub(super) fn push_all(&self, behind: &Behind) -> Result<(), Errno> {
        while self.push(behind, false)? > 0 {}
        Ok(())
    }

    fn push(&self, behind: &Behind, nonblocking: bool) -> SysResult {
        let pushed = self.transfer(nonblocking, WRITABLE, || behind.push(self.handle.number()));
        if behind.is_empty() {
            // Nobody may hear of it otherwise: the host reports room only where there was none.
            self.ready.fetch_or(WRITABLE.0, Ordering::SeqCst);
        } else {
            // The host took a part: the next try comes after this, and is the only one before somebody sleeps.
            self.ready.fetch_and(!WRITABLE.0, Ordering::SeqCst);
        }
        self.changed.wake_for(WRITABLE.0);
        pushed
    }

    fn ask_unread(&self) -> Result<i32, Errno> {
        let mut count = [0u8; 4];
        request::plain(Op::Ioctl, 0, self.handle.number(), [u64::from(FIONREAD), request::gpa(&count), 4, 0, 0, 0])?;
        // The VMM has written to `count` by its address.
        let at = request::gpa(&count);
        let mut copy = [0u8; 4];
        hal::phys::read(at, &mut copy);
        count = copy;
        Ok(i32::from_le_bytes(count))
    }
}

/// Makes attempts until everything is written, or as far as it goes.
fn write_all(buffer: &mut IoBuffer<'_>, mut attempt: impl FnMut(&mut IoBuffer<'_>) -> SysResult) -> SysResult {
    let mut done = 0;
    while buffer.remaining() > 0 {
        match attempt(buffer) {
            Ok(0) => break,
            Ok(moved) => done += moved,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Bytes that a forwarded terminal request reads or writes at its argument; None: not forwarded.
const fn argument_bytes(command: u32) -> Option<usize> {
    match command {
        // struct termios of the kernel: 36 bytes.
        TCGETS..=TCSETSF => Some(36),
        TIOCGWINSZ | TIOCSWINSZ => Some(8),
        TIOCGPGRP | FIONREAD | TIOCOUTQ => Some(4),
        _ => None,
    }
}

impl FileOps for StreamFile {
    fn read(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        let done = self.transfer(file.nonblocking(), READABLE, || request::read_stream(self.handle.number(), buffer))?;
        self.unsure.store(true, Ordering::Relaxed);
        Ok(done)
    }

    fn write(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        let (handle, nonblocking) = (self.handle.number(), file.nonblocking());
        let done = match (&self.behind, self.own.upgrade()) {
            (Some(behind), Some(own)) => {
                let done = write_all(buffer, |buffer| loop {
                    match self.transfer(nonblocking, WRITABLE, || behind.take(&own, handle, buffer))? {
                        0 => self.push(behind, nonblocking)?,
                        moved => return Ok(moved),
                    };
                });
                behind.written_now();
                done
            }
            _ => write_all(buffer, |buffer| self.transfer(nonblocking, WRITABLE, || request::write_stream(handle, buffer))),
        };
        if done == Err(EPIPE) {
            crate::ipc::broken_pipe();
        }
        done
    }

    fn poll(&self, _file: &OpenFile) -> Events {
        self.watch();
        if self.unsure.swap(false, Ordering::Relaxed) {
            self.ready.fetch_and(!READABLE.0, Ordering::SeqCst);
            let may_have = match self.ask_unread() {
                Ok(count) => count > 0,
                Err(_) => true,
            };
            if may_have {
                self.ready.fetch_or(READABLE.0, Ordering::SeqCst);
            } else {
                // An edge between the question and now is asked for again.
                let _ = request::plain(Op::Watch, 0, self.handle.number(), [1, 0, 0, 0, 0, 0]);
            }
        }
        let ready = self.ready.load(Ordering::SeqCst);
        match &self.behind {
            Some(behind) if !behind.has_much_room() => {
                behind.hurry();
                Events(ready & !WRITABLE.0)
            }
            _ => Events(ready),
        }
    }

    fn release(&self, _file: &OpenFile) {
        if let Some(behind) = &self.behind {
            behind.finish();
        }
    }

    fn poll_queue(&self, _file: &OpenFile) -> Option<&WaitQueue> {
        Some(&self.changed)
    }

    fn default_owner(&self) -> Option<i32> {
        Some(0)
    }

    fn ioctl(&self, _file: &OpenFile, _task: &Arc<Task>, command: u32, argument: u64) -> SysResult {
        let bytes = argument_bytes(command).ok_or(ENOTTY)?;
        let of_terminals = !matches!(command, FIONREAD | TIOCOUTQ);
        if of_terminals && !self.maybe_terminal.load(Ordering::Relaxed) {
            return Err(ENOTTY);
        }
        let mut buffer = alloc::vec![0u8; bytes];
        if matches!(command, 0x5402..=TCSETSF | TIOCSWINSZ) {
            hal::user::read_bytes(argument, &mut buffer)?;
        }
        let args = [u64::from(command), request::gpa(&buffer), bytes as u64, 0, 0, 0];
        let answer = request::plain(Op::Ioctl, 0, self.handle.number(), args).inspect_err(|&errno| {
            if of_terminals && errno == ENOTTY {
                self.maybe_terminal.store(false, Ordering::Relaxed);
            }
        })?;
        if !matches!(command, 0x5402..=TCSETSF | TIOCSWINSZ) {
            hal::user::write_bytes(argument, &buffer)?;
        }
        Ok(answer.value as usize)
    }

    fn stat(&self, _file: &OpenFile) -> Result<Stat, Errno> {
        Ok(self.stat)
    }

    fn describe(&self, _file: &OpenFile) -> String {
        match self.stat.mode & S_IFMT {
            S_IFIFO => format!("pipe:[{}]", self.stat.ino),
            S_IFSOCK => format!("socket:[{}]", self.stat.ino),
            S_IFCHR if self.stat.rdev == linux_abi::fs::makedev(1, 3) => String::from("/dev/null"),
            S_IFCHR => String::from("/dev/console"),
            _ => String::from("/dev/stdio"),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for StreamFile {
    fn drop(&mut self) {
        unlisten(self.handle.number());
    }
}

/// An open file over a stream handle. Which directions work is the host's to say.
pub fn open(handle: u32, owner: Option<u32>) -> Result<Arc<OpenFile>, Errno> {
    let stream = StreamFile::new(handle, owner)?;
    let stream = if stream.behind.is_some() { behind::only(stream) } else { stream };
    Ok(OpenFile::new(stream, O_RDWR))
}
