//! Who is killed when the container's memory is used up (proc(5), /proc/PID/oom_score_adj): the process that holds most, corrected by its
//! adjustment.

use super::{begin_group_exit, tree, Process};
use crate::boot;
use crate::mm::reclaim::{self, Victim};
use crate::sched;
use abi::config::FromGuest;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use linux_abi::signal::SIGKILL;

/// oom_score_adj of a process that is never chosen.
const NEVER: i32 = -1000;

/// Bytes that would come free, and what the adjustment adds, in thousandths of the limit. None: not to be chosen. May sleep.
fn badness(process: &Arc<Process>) -> Option<i64> {
    let adjustment = process.oom_score_adj.load(Ordering::Relaxed);
    if adjustment == NEVER || process.is_zombie() {
        return None;
    }
    let memory = process.leader()?.memory()?;
    let resident = memory.resident().0 as i64;
    Some(resident + i64::from(adjustment) * (reclaim::total() / 1000) as i64)
}

/// The out-of-memory killer. Called by a task that needs memory, under no lock; may sleep.
pub fn kill() -> Victim {
    let processes = tree::processes();
    // One that is ending already gives its memory back soon.
    if processes.iter().any(|process| process.is_exiting() && !process.is_zombie()) {
        return own_or_other(None);
    }
    let worst = processes.iter().filter_map(|process| badness(process).map(|points| (points, process))).max_by_key(|(points, _)| *points);
    let Some((_, victim)) = worst else { return Victim::Nobody };
    hal::cpu::counters().oom_kills.fetch_add(1, Ordering::Relaxed);
    begin_group_exit(victim, SIGKILL as u32);
    boot::send(&FromGuest::OomKill { pid: victim.pid });
    own_or_other(Some(victim))
}

fn own_or_other(victim: Option<&Arc<Process>>) -> Victim {
    let Some(task) = sched::try_current() else { return Victim::Other };
    let own = task.signals.must_exit() || victim.is_some_and(|victim| Arc::ptr_eq(victim, &task.process));
    if own {
        Victim::Current
    } else {
        Victim::Other
    }
}
