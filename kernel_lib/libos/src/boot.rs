//! From the boot page to PID 1, and the control messages from the runtime.
//!
//! ```text
//! start ──▶ control task: mounts, Ready ──Start──▶ PID 1 becomes its program: Started
//!                │ Exec, Kill, ListProcesses …              │ ends: Exited, then the VM
//!                ▼
//!           sleeps until `control_waits`, gives free memory back to the host
//! ```
//! The control task is the library OS's own: it has no program, no memory, and is in no process that anybody sees.

mod control;

use crate::errno::{ENOMEM, ENOSPC};
use crate::fs::FsContext;
use crate::host;
use crate::mm::reclaim;
use crate::process::{tree, Credentials, Inherit, Process, Session, Task};
use crate::sched;
use crate::signal::{ProcessSignals, TaskSignals};
use crate::wait::WaitQueue;
use abi::config::{ContainerSpec, FromGuest};
use abi::request::{report, Op};
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, Ordering};
use hal::host::Request;
use hal::sync::Once;
use hal::thread::Thread;

/// Exit status of a container that could not be set up.
const FAILED: u8 = 125;

/// What the whole container shares.
pub struct Container {
    pub spec: ContainerSpec,
    /// "/" of the container.
    pub fs: Arc<FsContext>,
}

static CONTAINER: Once<Container> = Once::new();
static WAITS: AtomicBool = AtomicBool::new(false);
static CONTROL: WaitQueue = WaitQueue::new();

/// The container; None before its mounts are there.
pub fn container() -> Option<&'static Container> {
    CONTAINER.get()
}

/// A control message waits in the VMM. Called outside of any lock; must not sleep.
pub fn control_waits() {
    WAITS.store(true, Ordering::SeqCst);
    CONTROL.wake_all();
}

/// Starts the first task of the library OS. On vCPU 0's boot stack: must not sleep.
pub fn start() {
    let Some(thread) = Thread::kernel(control_task, 0) else { panic!("no memory for the first task") };
    let process = Arc::new(Process::new(0, Weak::new(), 0, Session::new(0), ProcessSignals::default()));
    let inherit = Inherit {
        files: None,
        fs: None,
        memory: None,
        credentials: Arc::new(Credentials::default()),
        name: *b"litebox:control\0",
        signals: TaskSignals::default(),
    };
    sched::start(&Arc::new(Task::new(0, process, thread, inherit)));
}

fn control_task(_: usize) -> ! {
    if let Err(message) = set_up() {
        send(&FromGuest::Started { errno: crate::errno::EINVAL.0, message });
        hal::cpu::exit(FAILED);
    }
    send(&FromGuest::Ready);
    control_waits();
    let mut release_at = None;
    loop {
        let _ = CONTROL.wait(crate::wait::Interruptible::No, release_at, || WAITS.swap(false, Ordering::SeqCst).then_some(()));
        control::handle_all();
        crate::mm::heap::give_up(hal::time::monotonic());
        if release_at.is_none_or(|at| hal::time::monotonic() >= at) {
            release_at = reclaim::release();
        }
    }
}

fn set_up() -> Result<(), String> {
    let spec: ContainerSpec = postcard::from_bytes(hal::cpu::boot_config()).map_err(|error| format!("boot configuration: {error}"))?;
    tree::set_limit(spec.limits.pids);
    reclaim::set_limits(&spec.limits);
    crate::syscalls::trace::set(spec.trace);
    crate::tty::register();
    let fs = crate::fs::init(&spec).map_err(|failure| {
        let hint = match failure.errno {
            ENOMEM | ENOSPC => format!("; the memory limit, {} KiB, may be too small", spec.limits.memory >> 10),
            _ => String::new(),
        };
        format!("{}: {:?}{hint}", failure.what, failure.errno)
    })?;
    CONTAINER.get_or_init(|| Container { spec, fs });
    Ok(())
}

/// Sends a message to the VMM. May sleep.
pub fn send(message: &FromGuest) {
    let Ok(bytes) = postcard::to_allocvec(message) else { return };
    let request = Request::new(Op::Report, 0, [hal::phys::slice_address(&bytes), bytes.len() as u64, 0, 0, 0, 0]).with_flags(report::SEND);
    // Nobody to tell when the VMM does not listen.
    let _ = host::call(&request, &[]);
}

/// How the execve of a process from outside went. `token` 0: PID 1.
pub fn program_started(token: u32, pid: u32, errno: i32, message: String) {
    if token == 0 {
        send(&FromGuest::Started { errno, message });
    } else {
        send(&FromGuest::ExecStarted { token, pid, errno, message });
    }
}

/// A process that was started from outside has ended with this wait(2) status. May sleep.
pub fn exec_ended(token: u32, status: u32) {
    send(&FromGuest::ExecExited { token, status });
}

/// PID 1 has ended: so does the container, once what it printed is out. Those that were started from outside end with it, by SIGKILL.
pub fn init_ended(status: u32) -> ! {
    crate::tty::drain();
    crate::fs::behind::drain(None);
    for process in tree::processes() {
        let token = process.exec_token.swap(0, Ordering::Relaxed);
        if token != 0 && !process.is_init() {
            exec_ended(token, linux_abi::signal::SIGKILL as u32);
        }
    }
    send(&FromGuest::Exited { status });
    let code = if status & 0x7f == 0 { status >> 8 } else { 128 + (status & 0x7f) };
    hal::cpu::exit(code as u8)
}
