//! Host streams: the standard input and output of PID 1 and of exec'd processes (pipes, FIFOs, terminals, sockets or files of the host).
//!
//! Readiness comes as edges from the VMM; `ready` holds what is believed to be true. A transfer that would block takes its bit back and
//! is tried once more before anybody sleeps, so that an edge that comes in between is not lost.

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
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use linux_abi::fs::{O_RDWR, S_IFCHR, S_IFIFO, S_IFMT, S_IFSOCK};

pub struct StreamFile {
    handle: Arc<Handle>,
    stat: Stat,
    ready: AtomicU32,
    /// Something was read since IN was reported: whether there is more has to be asked.
    unsure: AtomicBool,
    /// It is a character device, and the host has not denied yet that it is a terminal: shells ask after every command.
    maybe_terminal: AtomicBool,
    changed: WaitQueue,
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
    pub fn new(number: u32) -> Result<Arc<Self>, Errno> {
        let stat = request::stat_handle(number)?;
        let file = Arc::new(Self {
            handle: Handle::own(number),
            stat,
            ready: AtomicU32::new(0),
            unsure: AtomicBool::new(false),
            maybe_terminal: AtomicBool::new(stat.mode & S_IFMT == S_IFCHR),
            changed: WaitQueue::new(),
        });
        let listener: Arc<dyn ReadyListener> = file.clone();
        listen(number, &listener);
        if request::plain(Op::Watch, 0, number, [1, 0, 0, 0, 0, 0]).is_err() {
            // What cannot be watched never makes anybody wait.
            file.ready.store(READABLE.0 | WRITABLE.0, Ordering::SeqCst);
        }
        Ok(file)
    }

    /// Tries, and sleeps until the VMM says that it is worth another try.
    fn transfer(&self, file: &OpenFile, bits: Events, mut attempt: impl FnMut() -> SysResult) -> SysResult {
        loop {
            match attempt() {
                Err(EAGAIN) => {}
                done => return done,
            }
            self.ready.fetch_and(!bits.0, Ordering::SeqCst);
            match attempt() {
                Err(EAGAIN) if file.nonblocking() => return Err(EAGAIN),
                Err(EAGAIN) => {}
                done => return done,
            }
            let bits = bits.0 | Events::HUP.0 | Events::ERR.0;
            let ready = || (self.ready.load(Ordering::SeqCst) & bits != 0).then_some(());
            self.changed.wait(Interruptible::Yes, None, ready).map_err(|errno| if errno == EINTR { ERESTARTSYS } else { errno })?;
        }
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
        let done = self.transfer(file, READABLE, || request::read_stream(self.handle.number(), buffer))?;
        self.unsure.store(true, Ordering::Relaxed);
        Ok(done)
    }

    fn write(&self, file: &OpenFile, buffer: &mut IoBuffer<'_>) -> SysResult {
        let mut done = 0;
        while buffer.remaining() > 0 {
            match self.transfer(file, WRITABLE, || request::write_stream(self.handle.number(), buffer)) {
                Ok(0) => break,
                Ok(moved) => done += moved,
                Err(_) if done > 0 => break,
                Err(EPIPE) => {
                    crate::ipc::broken_pipe();
                    return Err(EPIPE);
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    fn poll(&self, _file: &OpenFile) -> Events {
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
        Events(self.ready.load(Ordering::SeqCst))
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
pub fn open(handle: u32) -> Result<Arc<OpenFile>, Errno> {
    Ok(OpenFile::new(StreamFile::new(handle)?, O_RDWR))
}
