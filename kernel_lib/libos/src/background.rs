//! Threads of the library OS itself: they have a kernel stack and nothing of a program.

use crate::errno::{Errno, ENOMEM};
use crate::process::{Credentials, Inherit, Process, Session, Task};
use crate::sched;
use crate::signal::{ProcessSignals, TaskSignals};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::sync::{Once, SpinLock};
use hal::thread::Thread;

type Work = Box<dyn FnOnce() + Send>;

/// Work on its way to the thread that was made for it.
static WORK: SpinLock<BTreeMap<usize, Work>> = SpinLock::new(BTreeMap::new());
static PROCESS: Once<Arc<Process>> = Once::new();

/// The process that these threads belong to: number 0, which no program sees.
fn process() -> Arc<Process> {
    let make = || Arc::new(Process::new(0, Weak::new(), 0, Session::new(0), ProcessSignals::default()));
    PROCESS.get_or_init(make).clone()
}

/// Runs `work` on a thread of its own. It may sleep, but touches no program's memory.
pub fn spawn(name: &str, work: Work) -> Result<(), Errno> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let thread = Thread::kernel(run, number).ok_or(ENOMEM)?;
    let mut comm = [0; 16];
    let length = name.len().min(15);
    comm[..length].copy_from_slice(&name.as_bytes()[..length]);
    let inherit = Inherit {
        files: None,
        fs: None,
        memory: None,
        credentials: Arc::new(Credentials::default()),
        name: comm,
        signals: TaskSignals::default(),
    };
    WORK.lock().insert(number, work);
    sched::start(&Arc::new(Task::new(0, process(), thread, inherit)));
    Ok(())
}

fn run(number: usize) -> ! {
    let work = WORK.lock().remove(&number);
    if let Some(work) = work {
        work();
    }
    sched::exit()
}
