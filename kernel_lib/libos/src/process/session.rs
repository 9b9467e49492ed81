//! Sessions, process groups and the controlling terminal (setsid(2), setpgid(2), credentials(7)).

use super::tree::{self, Tree};
use super::Process;
use crate::errno::{Errno, EACCES, EINVAL, EPERM, ESRCH};
use crate::signal;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;
use hal::sync::SpinLock;
use linux_abi::signal::{SigInfo, SIGCONT, SIGHUP, SI_KERNEL};

/// What a terminal has to offer to the session that it controls. Implemented by the terminal family.
pub trait ControllingTerminal: Any + Send + Sync {
    /// Device number, as st_rdev has it (/proc/PID/stat: tty_nr).
    fn device(&self) -> u32;
    /// Foreground process group; 0: none.
    fn foreground(&self) -> u32;
    /// The session leader has ended: the terminal belongs to nobody now. Called outside of any lock.
    fn leader_ended(&self);
    fn as_any(&self) -> &dyn Any;
}

/// A session. Its id is in use as long as it has members.
pub struct Session {
    pub id: u32,
    /// The terminal family sets and clears it.
    pub terminal: SpinLock<Option<Arc<dyn ControllingTerminal>>>,
}

impl Session {
    pub fn new(id: u32) -> Arc<Self> {
        Arc::new(Self { id, terminal: SpinLock::new(None) })
    }
    pub fn terminal(&self) -> Option<Arc<dyn ControllingTerminal>> {
        self.terminal.lock().clone()
    }
}

impl Process {
    pub fn session(&self) -> Arc<Session> {
        self.session.lock().clone()
    }
    pub fn is_session_leader(&self) -> bool {
        self.session.lock().id == self.pid
    }
}

/// setsid(2).
pub fn set_session(process: &Arc<Process>) -> Result<u32, Errno> {
    tree::with(|tree| {
        if tree.has_group(process.pid) {
            return Err(EPERM);
        }
        tree.leave_group(process);
        *process.session.lock() = Session::new(process.pid);
        tree.join_group(process, process.pid);
        Ok(process.pid)
    })
}

/// setpgid(2); `pid` and `group` 0 stand for the caller and the process itself.
pub fn set_group(caller: &Arc<Process>, pid: u32, group: u32) -> Result<(), Errno> {
    let stopped = tree::with(|tree| {
        let target = if pid == 0 { caller.clone() } else { tree.process(pid).ok_or(ESRCH)? };
        let child = target.parent.lock().upgrade().is_some_and(|parent| Arc::ptr_eq(&parent, caller));
        if child && !Arc::ptr_eq(&target, caller) {
            if target.session().id != caller.session().id {
                return Err(EPERM);
            }
            if target.executed.load(Ordering::Relaxed) {
                return Err(EACCES);
            }
        } else if !Arc::ptr_eq(&target, caller) {
            return Err(ESRCH);
        }
        if target.is_session_leader() {
            return Err(EPERM);
        }
        let group = if group == 0 { target.pid } else { group };
        if group != target.pid && !tree.members(group).iter().any(|member| member.session().id == caller.session().id) {
            return Err(EPERM);
        }
        let old = target.group();
        if old == group {
            return Ok(Vec::new());
        }
        let was_orphaned = is_orphaned(tree, old, None);
        tree.leave_group(&target);
        tree.join_group(&target, group);
        // POSIX asks for hang-up when the group that was left has become orphaned with stopped members: only exits do that on Linux.
        let _ = was_orphaned;
        Ok(Vec::new())
    })?;
    hang_up(stopped);
    Ok(())
}

/// getpgid(2), getsid(2).
pub fn of(caller: &Arc<Process>, pid: u32) -> Result<Arc<Process>, Errno> {
    if pid == 0 {
        return Ok(caller.clone());
    }
    if pid > i32::MAX as u32 {
        return Err(ESRCH);
    }
    tree::find_task(pid).map(|task| task.process.clone()).or_else(|| tree::find_process(pid)).ok_or(ESRCH)
}

/// Whether no member's parent is in another group of the same session (setpgid(2): "orphaned process group"). `leaving` counts as gone.
pub(super) fn is_orphaned(tree: &Tree, group: u32, leaving: Option<&Arc<Process>>) -> bool {
    tree.members(group).iter().all(|member| {
        if leaving.is_some_and(|gone| Arc::ptr_eq(gone, member)) || member.is_zombie() {
            return true;
        }
        let Some(parent) = member.parent.lock().upgrade() else { return true };
        parent.group() == group || parent.session().id != member.session().id
    })
}

/// Whether the group is orphaned: terminals do not stop its members (termios(3)).
pub fn group_is_orphaned(group: u32) -> bool {
    tree::with(|tree| is_orphaned(tree, group, None))
}

/// Groups that become orphaned with a stopped member when `leaving` ends: their members get SIGHUP and SIGCONT (_exit(2)).
pub(super) fn orphaned_by(tree: &Tree, leaving: &Arc<Process>) -> Vec<Arc<Process>> {
    let mut groups: Vec<u32> = leaving.children.lock().iter().map(|child| child.group()).collect();
    groups.push(leaving.group());
    groups.sort_unstable();
    groups.dedup();
    let mut found = Vec::new();
    for group in groups {
        // Only a group that `leaving` kept from being orphaned: one with a child of it, or its own group.
        let kept = group != leaving.group()
            || leaving.parent.lock().upgrade().is_some_and(|parent| parent.group() != group && parent.session().id == leaving.session().id);
        let members = tree.members(group);
        if kept && members.iter().any(|member| member.signals.is_stopped()) && is_orphaned_without(tree, group, leaving) {
            found.extend(members.iter().filter(|member| !Arc::ptr_eq(member, leaving)).cloned());
        }
    }
    found
}

/// As [`is_orphaned`], for when `leaving` is neither member nor parent any more.
fn is_orphaned_without(tree: &Tree, group: u32, leaving: &Arc<Process>) -> bool {
    tree.members(group).iter().all(|member| {
        if Arc::ptr_eq(member, leaving) || member.is_zombie() {
            return true;
        }
        let Some(parent) = member.parent.lock().upgrade() else { return true };
        Arc::ptr_eq(&parent, leaving) || parent.group() == group || parent.session().id != member.session().id
    })
}

pub(super) fn hang_up(members: Vec<Arc<Process>>) {
    for member in members {
        signal::send_to_process(&member, SigInfo::new(SIGHUP, SI_KERNEL));
        signal::send_to_process(&member, SigInfo::new(SIGCONT, SI_KERNEL));
    }
}

/// For tcsetpgrp(3): the group exists and belongs to the session.
pub fn group_in_session(group: u32, session: u32) -> Result<(), Errno> {
    tree::with(|tree| match tree.members(group).first() {
        None => Err(ESRCH),
        Some(member) if member.session().id != session => Err(EPERM),
        Some(_) => Ok(()),
    })
}

/// A process group id that a program named.
pub const fn valid_group(group: i32) -> Result<u32, Errno> {
    if group < 0 {
        return Err(EINVAL);
    }
    Ok(group as u32)
}
