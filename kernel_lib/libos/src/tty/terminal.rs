//! A pseudo-terminal (pty(7)): a master, a slave, and between them the line discipline.
//!
//! ```text
//! master write ─▶ pending ─▶ Line::typed ─▶ cells ─▶ slave read
//!                              │ echo
//! master read  ◀─ output ◀─────┴──────── Line::print ◀─ slave write
//! ```
//!
//! Invariants:
//! - `pending` is not empty only while the line discipline has no room;
//! - `output` exceeds [`OUTPUT_ROOM`] by one chunk's expansion and its echo at most;
//! - a hang-up counts `generation` on: slave files opened before it are dead (read: end of file, write: EIO).
//!
//! Lock order: `core` (spin) > nothing; wait queues are woken and signals sent after it is released.

use super::line::{Effects, Line, TerminalSignal};
use super::termios::{Termios, WindowSize, ICANON, IXON, VMIN, VSTART, VSTOP, VTIME};
use crate::errno::{EAGAIN, EIO};
use crate::fs::Events;
use crate::io::IoBuffer;
use crate::ipc::pipe::restart;
use crate::process::Session;
use crate::wait::{Interruptible, WaitQueue};
use crate::SysResult;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hal::sync::SpinLock;

const OUTPUT_ROOM: usize = 65536;
const PENDING_ROOM: usize = 65536;
/// The line discipline's buffer on the master's side, which a flush of the slave does not reach.
const MASTER_BUFFER: usize = 4096;
/// Bytes that are looked at under the lock at a time.
const CHUNK: usize = 1024;
const TENTH: u64 = 100_000_000;

// Packet mode's status bits (ioctl_tty(2), TIOCPKT).
pub const PACKET_FLUSH_READ: u8 = 1;
pub const PACKET_FLUSH_WRITE: u8 = 2;
pub const PACKET_STOP: u8 = 4;
pub const PACKET_START: u8 = 8;
pub const PACKET_NO_STOP: u8 = 16;
pub const PACKET_DO_STOP: u8 = 32;
pub const PACKET_IOCTL: u8 = 64;

#[derive(Default)]
pub(super) struct Core {
    pub settings: Termios,
    pub window: WindowSize,
    pub line: Line,
    output: VecDeque<u8>,
    pending: VecDeque<u8>,
    /// Output is held back (^S, TCOOFF).
    pub stopped: bool,
    pub packet: bool,
    packet_status: u8,
    /// TIOCSPTLCK: the slave cannot be opened yet.
    pub locked: bool,
    pub exclusive: bool,
    /// Open slave files, dead ones too: the master does not see a hang-up, only that the last of them is closed.
    pub slaves: u32,
    /// The last slave was closed: the master reads EIO until one is opened again.
    pub slave_left: bool,
    pub master_left: bool,
    pub generation: u32,
    /// The session it controls, and that session's foreground process group.
    pub session: Option<Weak<Session>>,
    pub session_id: u32,
    pub foreground: u32,
}

pub struct Terminal {
    pub index: u32,
    pub(super) myself: Weak<Terminal>,
    pub(super) core: SpinLock<Core>,
    /// Whoever waits at the slave's and at the master's side.
    pub(super) slave_queue: WaitQueue,
    pub(super) master_queue: WaitQueue,
}

/// What has to be done once `core` is released.
#[derive(Default)]
struct After {
    signals: Vec<TerminalSignal>,
    wake_slave: bool,
    wake_master: bool,
}

impl Core {
    fn report(&mut self, status: u8) {
        if self.packet {
            self.packet_status |= status;
        }
    }

    pub fn set_flow(&mut self, stop: bool) {
        if self.stopped != stop {
            self.stopped = stop;
            let (clear, set) = if stop { (PACKET_START, PACKET_STOP) } else { (PACKET_STOP, PACKET_START) };
            self.packet_status &= !clear;
            self.report(set);
        }
    }

    pub fn flush_input(&mut self) {
        self.line.flush_input();
        self.pending.clear();
        self.report(PACKET_FLUSH_READ);
    }

    pub fn flush_output(&mut self) {
        self.output.clear();
        self.report(PACKET_FLUSH_WRITE);
    }

    /// Types what is pending, as far as the line discipline has room.
    fn digest(&mut self, after: &mut After) {
        // Echo is kept back until a signal character or the end: a flush takes what is kept back.
        let (mut echo, mut committed) = (Vec::new(), Vec::new());
        while !self.pending.is_empty() && self.line.takes_input(&self.settings) {
            let Some(byte) = self.pending.pop_front() else { break };
            let settings = self.settings;
            let Effects { signal, flush, flow } = self.line.typed(byte, &settings, &mut echo);
            if signal.is_some() {
                committed.append(&mut echo);
            }
            if flush {
                // What the master's side of the line holds already is not taken back.
                self.output.truncate(MASTER_BUFFER);
                self.report(PACKET_FLUSH_READ | PACKET_FLUSH_WRITE);
            }
            if let Some(stop) = flow {
                after.wake_slave |= self.stopped && !stop;
                self.set_flow(stop);
            }
            after.signals.extend(signal);
        }
        committed.append(&mut echo);
        if !committed.is_empty() && self.output.len() < 2 * OUTPUT_ROOM {
            self.output.extend(committed);
            after.wake_master = true;
        }
        after.wake_slave |= self.line.readable(&self.settings);
        after.wake_master |= self.packet_status != 0;
    }

    pub fn set_settings(&mut self, settings: Termios) {
        let old = core::mem::replace(&mut self.settings, settings);
        if (old.lflag ^ settings.lflag) & ICANON != 0 {
            self.line.mode_changed(&settings);
        }
        if old.input(IXON) && !settings.input(IXON) {
            self.set_flow(false);
        }
        // As n_tty's set_termios tells a master in packet mode.
        let plain = |of: &Termios| of.input(IXON) && of.cc[VSTOP] == 0o23 && of.cc[VSTART] == 0o21;
        if plain(&old) != plain(&settings) {
            let (clear, set) = if plain(&settings) { (PACKET_NO_STOP, PACKET_DO_STOP) } else { (PACKET_DO_STOP, PACKET_NO_STOP) };
            self.packet_status &= !clear;
            self.report(set);
        }
        if settings.local(super::termios::EXTPROC) || old.local(super::termios::EXTPROC) {
            self.report(PACKET_IOCTL);
        }
    }

    pub fn pending_room(&self) -> usize {
        PENDING_ROOM.saturating_sub(self.pending.len())
    }

    /// A flow-control byte to the other side (tcflow(3)).
    pub fn print_control(&mut self, byte: u8) {
        if byte != super::termios::DISABLED {
            self.output.push_back(byte);
        }
    }

    pub fn input_count(&self) -> usize {
        self.line.count(&self.settings)
    }
    pub fn output_count(&self) -> usize {
        self.output.len()
    }
}

impl Terminal {
    pub fn new(index: u32) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            index,
            myself: myself.clone(),
            core: SpinLock::new(Core { locked: true, ..Core::default() }),
            slave_queue: WaitQueue::new(),
            master_queue: WaitQueue::new(),
        })
    }

    fn finish(&self, after: After) {
        if after.wake_slave {
            self.slave_queue.wake_for((Events::IN | Events::RDNORM | Events::OUT | Events::WRNORM).0);
        }
        if after.wake_master {
            self.master_queue.wake_for((Events::IN | Events::RDNORM | Events::PRI).0);
        }
        for signal in after.signals {
            self.signal_foreground(match signal {
                TerminalSignal::Interrupt => linux_abi::signal::SIGINT,
                TerminalSignal::Quit => linux_abi::signal::SIGQUIT,
                TerminalSignal::Suspend => linux_abi::signal::SIGTSTP,
            });
        }
    }

    /// Changes settings and the like; whoever waits looks again.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Core) -> T) -> T {
        let mut after = After { wake_slave: true, wake_master: true, ..After::default() };
        let mut core = self.core.lock();
        let result = change(&mut core);
        core.digest(&mut after);
        drop(core);
        self.finish(after);
        result
    }

    /// The master types bytes; how many were taken.
    pub fn type_bytes(&self, bytes: &[u8]) -> usize {
        let mut after = After::default();
        let mut core = self.core.lock();
        let taken = bytes.len().min(PENDING_ROOM.saturating_sub(core.pending.len()));
        core.pending.extend(&bytes[..taken]);
        core.digest(&mut after);
        drop(core);
        self.finish(after);
        taken
    }

    fn can_type(&self) -> bool {
        self.core.lock().pending.len() < PENDING_ROOM
    }

    /// Takes what the slave has printed. With packet mode's status byte in front. None: nothing there.
    pub fn take_output(&self, most: usize) -> Option<Vec<u8>> {
        let mut core = self.core.lock();
        if core.packet && core.packet_status != 0 && most > 0 {
            return Some(alloc::vec![core::mem::take(&mut core.packet_status)]);
        }
        if core.output.is_empty() {
            return None;
        }
        let packet = usize::from(core.packet);
        let count = core.output.len().min(most.saturating_sub(packet));
        let full = core.output.len() >= OUTPUT_ROOM;
        let mut bytes = Vec::with_capacity(count + packet);
        bytes.resize(packet, 0);
        bytes.extend(core.output.drain(..count));
        let wake = full && core.output.len() < OUTPUT_ROOM;
        drop(core);
        if wake {
            self.slave_queue.wake_for((Events::OUT | Events::WRNORM).0);
        }
        Some(bytes)
    }

    pub(super) fn master_read(&self, nonblocking: bool, buffer: &mut IoBuffer<'_>) -> SysResult {
        if buffer.remaining() == 0 {
            return Ok(0);
        }
        loop {
            if let Some(bytes) = self.take_output(buffer.remaining().min(4096)) {
                return buffer.put(&bytes);
            }
            let ended = || self.core.lock().slave_left;
            if ended() {
                return Err(EIO);
            }
            if nonblocking {
                return Err(EAGAIN);
            }
            let ready = || (self.has_output() || ended()).then_some(());
            self.master_queue.wait(Interruptible::Yes, None, ready).map_err(restart)?;
        }
    }

    pub(super) fn has_output(&self) -> bool {
        let core = self.core.lock();
        !core.output.is_empty() || (core.packet && core.packet_status != 0)
    }

    pub(super) fn master_write(&self, nonblocking: bool, buffer: &mut IoBuffer<'_>) -> SysResult {
        let start = buffer.done();
        let mut chunk = [0; CHUNK];
        while buffer.remaining() > 0 {
            let done = buffer.done() - start;
            let count = match buffer.get(&mut chunk) {
                Ok(count) => count,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            };
            let taken = self.type_bytes(&chunk[..count]);
            buffer.rewind(count - taken);
            if taken > 0 {
                continue;
            }
            if nonblocking {
                return if done > 0 { Ok(done) } else { Err(EAGAIN) };
            }
            match self.master_queue.wait(Interruptible::Yes, None, || self.can_type().then_some(())) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(restart(error)),
            }
        }
        Ok(buffer.done() - start)
    }

    fn is_dead(&self, generation: u32) -> bool {
        let core = self.core.lock();
        core.generation != generation || core.master_left
    }

    /// One look at the input: None: nothing yet; Some(None): end of file.
    fn take_input(&self, most: usize) -> Option<Option<Vec<u8>>> {
        let mut after = After::default();
        let mut core = self.core.lock();
        let settings = core.settings;
        if !core.line.readable(&settings) {
            return None;
        }
        let full = core.pending.len();
        let bytes = core.line.read(most, &settings);
        core.digest(&mut after);
        after.wake_slave = false;
        after.wake_master |= core.pending.len() < full;
        drop(core);
        self.finish(after);
        Some(bytes)
    }

    fn input_ready(&self) -> bool {
        let core = self.core.lock();
        core.line.readable(&core.settings)
    }

    /// read(2) of the slave: VMIN and VTIME as termios(3) says ("Canonical and noncanonical mode").
    pub(super) fn slave_read(&self, generation: u32, nonblocking: bool, buffer: &mut IoBuffer<'_>) -> SysResult {
        if buffer.remaining() == 0 {
            return Ok(0);
        }
        let start = buffer.done();
        loop {
            self.check_foreground_read()?;
            if self.is_dead(generation) {
                return Ok(0);
            }
            let settings = self.core.lock().settings;
            let (least, time) = (usize::from(settings.cc[VMIN]), u64::from(settings.cc[VTIME]) * TENTH);
            let done = buffer.done() - start;
            match self.take_input(buffer.remaining()) {
                Some(None) => return Ok(done),
                Some(Some(bytes)) => {
                    let moved = buffer.put(&bytes)?;
                    let done = buffer.done() - start;
                    if settings.local(ICANON) || done >= least || buffer.remaining() == 0 || moved < bytes.len() {
                        return Ok(done);
                    }
                    continue;
                }
                None => {}
            }
            let canonical = settings.local(ICANON);
            if nonblocking {
                return if done > 0 { Ok(done) } else { Err(EAGAIN) };
            }
            // VMIN 0: VTIME limits the wait for the first byte; else it limits the pause between bytes.
            if !canonical && least == 0 && time == 0 {
                return Ok(done);
            }
            let limited = !canonical && time > 0 && (least == 0 || done > 0);
            let deadline = limited.then(|| hal::time::monotonic() + time);
            let ready = || (self.input_ready() || self.is_dead(generation)).then_some(());
            match self.slave_queue.wait(Interruptible::Yes, deadline, ready) {
                Ok(()) => {}
                Err(crate::errno::ETIMEDOUT) => return Ok(done),
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(restart(error)),
            }
        }
    }

    fn can_print(&self) -> bool {
        let core = self.core.lock();
        !core.stopped && core.output.len() < OUTPUT_ROOM
    }

    fn print(&self, bytes: &[u8]) -> bool {
        let mut core = self.core.lock();
        if core.stopped || core.output.len() >= OUTPUT_ROOM {
            return false;
        }
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let settings = core.settings;
        core.line.print_all(bytes, &settings, &mut out);
        core.output.extend(out);
        drop(core);
        self.master_queue.wake_for((Events::IN | Events::RDNORM).0);
        true
    }

    pub(super) fn slave_write(&self, generation: u32, nonblocking: bool, buffer: &mut IoBuffer<'_>) -> SysResult {
        self.check_foreground_write()?;
        let start = buffer.done();
        let mut chunk = [0; CHUNK];
        while buffer.remaining() > 0 {
            let done = buffer.done() - start;
            if self.is_dead(generation) {
                return if done > 0 { Ok(done) } else { Err(EIO) };
            }
            let count = match buffer.get(&mut chunk) {
                Ok(count) => count,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            };
            if self.print(&chunk[..count]) {
                continue;
            }
            buffer.rewind(count);
            if nonblocking {
                return if done > 0 { Ok(done) } else { Err(EAGAIN) };
            }
            let ready = || (self.can_print() || self.is_dead(generation)).then_some(());
            match self.slave_queue.wait(Interruptible::Yes, None, ready) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(restart(error)),
            }
        }
        Ok(buffer.done() - start)
    }

    pub(super) fn poll_master(&self) -> Events {
        let core = self.core.lock();
        let mut events = Events::default();
        if core.packet && core.packet_status != 0 {
            events |= Events::PRI | Events::IN | Events::RDNORM;
        }
        if !core.output.is_empty() {
            events |= Events::IN | Events::RDNORM;
        }
        if core.slave_left {
            events |= Events::HUP;
        }
        if core.pending.len() < PENDING_ROOM {
            events |= Events::OUT | Events::WRNORM;
        }
        events
    }

    pub(super) fn poll_slave(&self, generation: u32) -> Events {
        let core = self.core.lock();
        if core.generation != generation || core.master_left {
            return Events::IN | Events::RDNORM | Events::OUT | Events::WRNORM | Events::ERR | Events::HUP;
        }
        let mut events = Events::default();
        let least = if core.settings.cc[VTIME] == 0 { usize::from(core.settings.cc[VMIN]).max(1) } else { 1 };
        let enough = core.settings.local(ICANON) || core.line.count(&core.settings) >= least;
        if core.line.readable(&core.settings) && enough {
            events |= Events::IN | Events::RDNORM;
        }
        if !core.stopped && core.output.len() < OUTPUT_ROOM {
            events |= Events::OUT | Events::WRNORM;
        }
        events
    }

    /// A new slave file: its generation.
    pub(super) fn slave_opened(&self) -> u32 {
        let mut core = self.core.lock();
        core.slaves += 1;
        core.slave_left = false;
        core.generation
    }

    pub(super) fn slave_closed(&self) {
        let mut core = self.core.lock();
        core.slaves = core.slaves.saturating_sub(1);
        if core.slaves == 0 {
            core.slave_left = true;
            drop(core);
            self.master_queue.wake_all();
        }
    }

    pub(super) fn master_closed(&self) {
        self.core.lock().master_left = true;
        self.slave_queue.wake_all();
        self.hang_up();
    }
}
