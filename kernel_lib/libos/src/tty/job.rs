//! Sessions, process groups and the terminal that controls them (credentials(7), termios(3), ioctl_tty(2)).
//!
//! A session knows its terminal, a terminal knows its session: [`Terminal::attach`] and [`Terminal::detach`] are the only places that change both.

use super::terminal::Terminal;
use super::termios::TOSTOP;
use crate::errno::{Errno, EIO, ENOTTY, EPERM, ERESTARTSYS};
use crate::process::session::{group_in_session, group_is_orphaned, valid_group};
use crate::process::{ControllingTerminal, Process, Session};
use crate::sched;
use crate::signal;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use linux_abi::fs::makedev;
use linux_abi::signal::{SigInfo, SIGCONT, SIGHUP, SIGTTIN, SIGTTOU, SI_KERNEL};

pub const PTS_MAJOR: u32 = 136;

/// Whether the signal would not reach the current thread.
fn escapes(number: i32) -> bool {
    let task = sched::current();
    let action = task.process.signals.actions().get(number);
    task.signals.blocked().contains(number) || action.handler == linux_abi::signal::SIG_IGN
}

impl Terminal {
    /// Whether this is the controlling terminal of the current process.
    pub fn controls_current(&self) -> bool {
        controlling_of(&sched::current().process).is_some_and(|terminal| core::ptr::eq(Arc::as_ptr(&terminal), self))
    }

    /// A background process is stopped for what it is about to do. Ok: it may go on.
    fn check_background(&self, number: i32) -> Result<(), Errno> {
        let foreground = self.core.lock().foreground;
        let process = sched::current().process.clone();
        let group = process.group();
        if foreground == 0 || group == foreground || !self.controls_current() {
            return Ok(());
        }
        if escapes(number) {
            return if number == SIGTTIN { Err(EIO) } else { Ok(()) };
        }
        if group_is_orphaned(group) {
            return Err(EIO);
        }
        signal::send_to_group(group, SigInfo::new(number, SI_KERNEL));
        Err(ERESTARTSYS)
    }

    /// Whom O_ASYNC signals unless told otherwise: the foreground process group, or else the caller.
    pub(super) fn signalled(&self) -> i32 {
        match self.core.lock().foreground {
            0 => sched::current().process.pid as i32,
            group => -(group as i32),
        }
    }

    pub(super) fn check_foreground_read(&self) -> Result<(), Errno> {
        self.check_background(SIGTTIN)
    }

    pub(super) fn check_foreground_write(&self) -> Result<(), Errno> {
        if self.core.lock().settings.local(TOSTOP) {
            self.check_background(SIGTTOU)
        } else {
            Ok(())
        }
    }

    /// Before an ioctl that changes the terminal.
    pub(super) fn check_foreground_change(&self) -> Result<(), Errno> {
        self.check_background(SIGTTOU)
    }

    pub(super) fn signal_foreground(&self, number: i32) {
        let group = self.core.lock().foreground;
        if group != 0 {
            signal::send_to_group(group, SigInfo::new(number, SI_KERNEL));
        }
    }

    /// Makes this the controlling terminal of the leader's session.
    pub(super) fn attach(self: &Arc<Self>, leader: &Arc<Process>) {
        let session = leader.session();
        let mut core = self.core.lock();
        core.session = Some(Arc::downgrade(&session));
        core.session_id = session.id;
        core.foreground = leader.group();
        drop(core);
        *session.terminal.lock() = Some(self.clone());
    }

    /// The terminal controls nobody any more: the session it had.
    fn detach(&self) -> Option<Arc<Session>> {
        let mut core = self.core.lock();
        let session = core.session.take().and_then(|session| Weak::upgrade(&session));
        (core.session_id, core.foreground) = (0, 0);
        drop(core);
        if let Some(session) = &session {
            *session.terminal.lock() = None;
        }
        session
    }

    /// TIOCSCTTY. `steal`: from another session, for the superuser.
    pub(super) fn take_control(self: &Arc<Self>, steal: bool, privileged: bool) -> Result<(), Errno> {
        let process = sched::current().process.clone();
        let session = process.session();
        let present = self.core.lock().session_id;
        if process.is_session_leader() && present == session.id {
            return Ok(());
        }
        if !process.is_session_leader() || session.terminal().is_some() {
            return Err(EPERM);
        }
        if present != 0 {
            if !(steal && privileged) {
                return Err(EPERM);
            }
            drop(self.detach());
        }
        self.attach(&process);
        Ok(())
    }

    /// open(2) without O_NOCTTY by a session leader that has no terminal.
    pub(super) fn take_control_on_open(self: &Arc<Self>) {
        let process = sched::current().process.clone();
        if process.is_session_leader() && process.session().terminal().is_none() && self.core.lock().session_id == 0 {
            self.attach(&process);
        }
    }

    /// TIOCNOTTY.
    pub(super) fn give_up_control(&self) -> Result<(), Errno> {
        if !self.controls_current() {
            return Err(ENOTTY);
        }
        if sched::current().process.is_session_leader() {
            let foreground = self.core.lock().foreground;
            drop(self.detach());
            if foreground != 0 {
                signal::send_to_group(foreground, SigInfo::new(SIGHUP, SI_KERNEL));
                signal::send_to_group(foreground, SigInfo::new(SIGCONT, SI_KERNEL));
            }
        }
        Ok(())
    }

    /// TIOCGPGRP. From the master any process may ask.
    pub(super) fn foreground_group(&self, master: bool) -> Result<u32, Errno> {
        if !master && !self.controls_current() {
            return Err(ENOTTY);
        }
        Ok(self.core.lock().foreground)
    }

    /// TIOCSPGRP.
    pub(super) fn set_foreground_group(&self, master: bool, group: i32) -> Result<(), Errno> {
        if !master {
            self.check_foreground_change()?;
        }
        let session = sched::current().process.session();
        if !self.controls_current() || self.core.lock().session_id != session.id {
            return Err(ENOTTY);
        }
        let group = valid_group(group)?;
        group_in_session(group, session.id)?;
        self.core.lock().foreground = group;
        Ok(())
    }

    /// TIOCGSID.
    pub(super) fn session_number(&self, master: bool) -> Result<u32, Errno> {
        let session = self.core.lock().session_id;
        if session == 0 || (!master && !self.controls_current()) {
            return Err(ENOTTY);
        }
        Ok(session)
    }

    /// The line is gone: slave files are dead, the session loses its terminal and hears SIGHUP.
    pub fn hang_up(&self) {
        let mut core = self.core.lock();
        core.generation += 1;
        core.flush_input();
        let foreground = core.foreground;
        drop(core);
        let session = self.detach();
        self.slave_queue.wake_all();
        self.master_queue.wake_all();
        let leader = session.and_then(|session| crate::process::tree::find_process(session.id));
        if let Some(leader) = leader {
            signal::send_to_process(&leader, SigInfo::new(SIGHUP, SI_KERNEL));
            signal::send_to_process(&leader, SigInfo::new(SIGCONT, SI_KERNEL));
        }
        if foreground != 0 {
            signal::send_to_group(foreground, SigInfo::new(SIGHUP, SI_KERNEL));
        }
    }
}

impl ControllingTerminal for Terminal {
    fn device(&self) -> u32 {
        makedev(PTS_MAJOR, self.index) as u32
    }
    fn foreground(&self) -> u32 {
        self.core.lock().foreground
    }
    /// A pseudo-terminal stays open for the processes that have it (Linux's disassociate_ctty): the line is not hung up.
    fn leader_ended(&self) {
        let foreground = self.core.lock().foreground;
        drop(self.detach());
        if foreground != 0 {
            signal::send_to_group(foreground, SigInfo::new(SIGHUP, SI_KERNEL));
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The terminal that controls the process's session.
pub fn controlling_of(process: &Process) -> Option<Arc<Terminal>> {
    let terminal = process.session().terminal()?;
    terminal.as_any().downcast_ref::<Terminal>()?.myself.upgrade()
}
