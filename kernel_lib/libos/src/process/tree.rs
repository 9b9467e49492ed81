//! The process tree: which ids are in use, who is in which group. One spin lock guards all relations (parents, children, groups,
//! sessions, thread lists); it is the outermost spin lock, and nothing that sleeps or drops files happens under it.
//!
//! An id is in use as long as it names a thread, a process (a zombie too), a process group or a session.

use super::{Process, Task};
use crate::errno::{Errno, EAGAIN, EEXIST};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hal::sync::SpinLock;

/// pid_max: what a container of Linux shows, and what fits the futex word's TID field.
pub const PID_MAX: u32 = 4_194_304;
pub const INIT: u32 = 1;
/// Behind a wrap, low ids are left to daemons, as Linux does.
const RESERVED: u32 = 300;

pub struct Tree {
    last: u32,
    tasks: BTreeMap<u32, Arc<Task>>,
    processes: BTreeMap<u32, Arc<Process>>,
    groups: BTreeMap<u32, Vec<Arc<Process>>>,
    sessions: BTreeMap<u32, u32>,
}

/// Id 1 is PID 1's, though a startContainer hook may run before it.
static TREE: SpinLock<Tree> = SpinLock::new(Tree {
    last: INIT,
    tasks: BTreeMap::new(),
    processes: BTreeMap::new(),
    groups: BTreeMap::new(),
    sessions: BTreeMap::new(),
});
/// The container's limit of tasks (cgroup pids.max); 0: none.
static LIMIT: AtomicU64 = AtomicU64::new(0);
static TASKS: AtomicU32 = AtomicU32::new(0);

/// Works on the tree under its lock.
pub fn with<T>(work: impl FnOnce(&mut Tree) -> T) -> T {
    work(&mut TREE.lock())
}

pub fn set_limit(tasks: u64) {
    LIMIT.store(tasks, Ordering::Relaxed);
}

/// Tasks alive, for sysinfo(2) and /proc/loadavg.
pub fn count() -> u32 {
    TASKS.load(Ordering::Relaxed)
}

pub fn last_id() -> u32 {
    TREE.lock().last
}

pub fn find_task(tid: u32) -> Option<Arc<Task>> {
    TREE.lock().tasks.get(&tid).cloned()
}

/// Whether the number names a thread, a process, a group or a session.
pub fn in_use(id: u32) -> bool {
    TREE.lock().in_use(id)
}

/// A process, zombies included.
pub fn find_process(pid: u32) -> Option<Arc<Process>> {
    TREE.lock().processes.get(&pid).cloned()
}

/// Every process, zombies included, in order of ids.
pub fn processes() -> Vec<Arc<Process>> {
    TREE.lock().processes.values().cloned().collect()
}

/// Members of a process group, zombies included.
pub fn group(id: u32) -> Vec<Arc<Process>> {
    TREE.lock().members(id).to_vec()
}

impl Tree {
    const fn next_after(id: u32) -> u32 {
        if id + 1 >= PID_MAX {
            RESERVED
        } else {
            id + 1
        }
    }

    fn in_use(&self, id: u32) -> bool {
        self.tasks.contains_key(&id) || self.processes.contains_key(&id) || self.groups.contains_key(&id) || self.sessions.contains_key(&id)
    }

    /// An id that nothing uses. EAGAIN: none left, or the container's limit is reached.
    pub fn allocate(&mut self) -> Result<u32, Errno> {
        let limit = LIMIT.load(Ordering::Relaxed);
        if limit != 0 && u64::from(count()) >= limit {
            return Err(EAGAIN);
        }
        let mut id = self.last;
        for _ in 0..PID_MAX {
            id = Self::next_after(id);
            if !self.in_use(id) {
                self.last = id;
                return Ok(id);
            }
        }
        Err(EAGAIN)
    }

    /// clone3(2) set_tid.
    pub fn allocate_exact(&mut self, id: u32) -> Result<u32, Errno> {
        if self.in_use(id) {
            return Err(EEXIST);
        }
        Ok(id)
    }

    pub fn process(&self, pid: u32) -> Option<Arc<Process>> {
        self.processes.get(&pid).cloned()
    }

    pub fn add_task(&mut self, task: &Arc<Task>) {
        self.tasks.insert(task.tid(), task.clone());
        TASKS.fetch_add(1, Ordering::Relaxed);
        hal::cpu::counters().tasks.store(u64::from(count()), Ordering::Relaxed);
    }

    pub fn remove_task(&mut self, task: &Arc<Task>) {
        self.tasks.remove(&task.tid());
        TASKS.fetch_sub(1, Ordering::Relaxed);
        hal::cpu::counters().tasks.store(u64::from(count()), Ordering::Relaxed);
    }

    /// execve(2) by a thread that is not the leader: it takes the leader's id.
    pub fn rename_task(&mut self, task: &Arc<Task>, tid: u32) {
        self.tasks.remove(&task.tid());
        task.set_tid(tid);
        self.tasks.insert(tid, task.clone());
    }

    pub fn add_process(&mut self, process: &Arc<Process>) {
        self.processes.insert(process.pid, process.clone());
        self.join_group(process, process.group());
    }

    /// A process is reaped: its id may be used again once no group or session has it.
    pub fn remove_process(&mut self, process: &Arc<Process>) {
        self.processes.remove(&process.pid);
        self.leave_group(process);
    }

    pub fn has_group(&self, id: u32) -> bool {
        self.groups.contains_key(&id)
    }

    pub fn members(&self, group: u32) -> &[Arc<Process>] {
        self.groups.get(&group).map_or(&[], Vec::as_slice)
    }

    pub fn join_group(&mut self, process: &Arc<Process>, group: u32) {
        process.set_group(group);
        self.groups.entry(group).or_default().push(process.clone());
        *self.sessions.entry(process.session().id).or_default() += 1;
    }

    pub fn leave_group(&mut self, process: &Arc<Process>) {
        let group = process.group();
        if let Some(members) = self.groups.get_mut(&group) {
            members.retain(|member| !Arc::ptr_eq(member, process));
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
        let session = process.session().id;
        if let Some(members) = self.sessions.get_mut(&session) {
            *members -= 1;
            if *members == 0 {
                self.sessions.remove(&session);
            }
        }
    }

    /// Every process of a session, zombies included.
    pub fn of_session(&self, session: u32) -> Vec<Arc<Process>> {
        self.processes.values().filter(|process| process.session().id == session).cloned().collect()
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.processes.values()
    }
}
