//! What wait(2) tells a tracer: stops of its tracees, and their ends.

use crate::process::wait::{Change, Which};
use crate::process::{exit, Process, Task};
use alloc::sync::Arc;
use linux_abi::process::{WEXITED, WNOWAIT};
use linux_abi::signal::CLD_TRAPPED;

/// A tracee that has ended.
pub struct Ended {
    pub(super) tid: u32,
    pub(super) group: u32,
    pub(super) uid: u32,
    pub(super) status: u32,
    /// A whole process, whose parent, not being the tracer, hears of it when the tracer has.
    pub(super) held: Option<Arc<Process>>,
}

/// Whether there are tracees that `which` means, and a change of one; with a change, a process that is to be let go once the tree, which
/// is locked here, no longer is.
pub fn scan(tracer: &Arc<Process>, which: &Which, options: u32) -> (bool, Option<(Change, Option<Arc<Process>>)>) {
    let mut eligible = false;
    for task in tracer.tracer.tracees.lock().iter() {
        if !matches(which, task.tid(), task.process.group(), Some(&task.process)) {
            continue;
        }
        eligible = true;
        if let Some(change) = stopped(task, options) {
            return (true, Some((change, None)));
        }
    }
    let mut ended = tracer.tracer.ended.lock();
    for index in 0..ended.len() {
        let end = &ended[index];
        if !matches(which, end.tid, end.group, end.held.as_ref()) {
            continue;
        }
        eligible = true;
        if options & WEXITED == 0 {
            continue;
        }
        let (code, value) = exit::split_status(end.status);
        let usage = end.held.as_ref().map(|process| process.usage()).unwrap_or_default();
        let change = Change { pid: end.tid, uid: end.uid, status: end.status, code, value, usage };
        let held = if options & WNOWAIT == 0 { ended.remove(index).held } else { None };
        return (true, Some((change, held)));
    }
    (eligible, None)
}

fn matches(which: &Which, tid: u32, group: u32, process: Option<&Arc<Process>>) -> bool {
    match which {
        Which::Any => true,
        Which::Pid(pid) => tid == *pid,
        Which::Group(wanted) => group == *wanted,
        Which::Process(wanted) => process.is_some_and(|process| Arc::ptr_eq(process, wanted) && process.pid == tid),
    }
}

fn stopped(task: &Arc<Task>, options: u32) -> Option<Change> {
    let code = {
        let mut state = task.tracee.state.lock();
        let stop = state.stop.as_mut().filter(|stop| !stop.reported && stop.resumed.is_none())?;
        stop.reported = options & WNOWAIT == 0;
        stop.code
    };
    let uid = task.credentials().uid;
    Some(Change { pid: task.tid(), uid, status: code << 8 | 0x7f, code: CLD_TRAPPED, value: code as i32, usage: task.process.usage() })
}
