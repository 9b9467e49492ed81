//! Waiting for children (wait4(2), waitid(2)).

use super::accounting::Usage;
use super::{exit, tree, Process};
use crate::errno::{Errno, ECHILD};
use crate::ptrace;
use crate::signal::StopEvent;
use crate::wait::Interruptible;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use linux_abi::process::{__WALL, __WCLONE, WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WSTOPPED};
use linux_abi::signal::{CLD_CONTINUED, CLD_STOPPED, SIGCHLD, SIGCONT};

/// Which children.
#[derive(Clone)]
pub enum Which {
    Any,
    Pid(u32),
    Group(u32),
    Process(Arc<Process>),
}

/// One change of a child.
pub struct Change {
    pub pid: u32,
    pub uid: u32,
    /// As wait4(2) stores it.
    pub status: u32,
    /// CLD_* and si_status of waitid(2).
    pub code: i32,
    pub value: i32,
    pub usage: Usage,
}

/// Waits for a change that `options` (W* of waitid(2)) ask for. None: WNOHANG and nothing to report.
pub fn wait(parent: &Arc<Process>, which: &Which, options: u32) -> Result<Option<Change>, Errno> {
    let condition = || match scan(parent, which, options) {
        Ok(Some(change)) => Some(Ok(Some(change))),
        Ok(None) if options & WNOHANG != 0 => Some(Ok(None)),
        Ok(None) => None,
        Err(errno) => Some(Err(errno)),
    };
    parent.children_changed.wait(Interruptible::Yes, None, condition)?
}

fn scan(parent: &Arc<Process>, which: &Which, options: u32) -> Result<Option<Change>, Errno> {
    let mut found = None;
    let mut released = None;
    let eligible = tree::with(|tree| {
        let children = parent.children.lock().clone();
        let mut eligible = false;
        for child in children.iter().filter(|child| matches(child, which, options)) {
            eligible = true;
            if let Some(change) = look(parent, child, options) {
                if child.is_zombie() && options & WNOWAIT == 0 {
                    if !exit::reap_in(tree, child) {
                        continue;
                    }
                    parent.child_reaped(child);
                }
                found = Some(change);
                break;
            }
        }
        if found.is_none() {
            let (tracees, change) = ptrace::scan(parent, which, options);
            eligible |= tracees;
            (found, released) = change.unzip();
        }
        eligible
    });
    if let Some(process) = released.flatten() {
        ptrace::let_go(&process);
    }
    if eligible {
        Ok(found)
    } else {
        Err(ECHILD)
    }
}

fn matches(child: &Arc<Process>, which: &Which, options: u32) -> bool {
    let chosen = match which {
        Which::Any => true,
        Which::Pid(pid) => child.pid == *pid,
        Which::Group(group) => child.group() == *group,
        Which::Process(process) => Arc::ptr_eq(child, process),
    };
    // A "clone" child reports its end by another signal than SIGCHLD, or by none (wait(2), __WCLONE).
    let is_clone = child.exit_signal.load(Ordering::Relaxed) != SIGCHLD as u32;
    chosen && !child.is_reaped() && (options & __WALL != 0 || is_clone == (options & __WCLONE != 0))
}

fn look(parent: &Arc<Process>, child: &Arc<Process>, options: u32) -> Option<Change> {
    let change = |status, code, value| {
        let uid = child.leader().map_or(child.exit_uid.load(Ordering::Relaxed), |leader| leader.credentials().uid);
        let mut usage = child.usage();
        usage.add(&child.children_usage());
        Change { pid: child.pid, uid, status, code, value, usage }
    };
    if child.is_zombie() {
        if options & WEXITED == 0 || child.held.load(Ordering::Relaxed) {
            return None;
        }
        let status = child.exit_status();
        let (code, value) = exit::split_status(status);
        return Some(change(status, code, value));
    }
    // Its tracer sees each of its threads stop.
    if child.leader().is_some_and(|leader| leader.tracee.is_traced_by(parent)) {
        return None;
    }
    let event = child.signals.stop_event(options & WSTOPPED != 0, options & WCONTINUED != 0, options & WNOWAIT == 0)?;
    Some(match event {
        StopEvent::Stopped(signal) => change((signal as u32) << 8 | 0x7f, CLD_STOPPED, signal),
        StopEvent::Continued => change(0xffff, CLD_CONTINUED, SIGCONT),
    })
}
