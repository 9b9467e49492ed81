//! Signals about open files (fcntl(2), "Managing signals"): SIGIO for a file with O_ASYNC whenever it may have become ready, SIGURG for
//! urgent data, and what directory notification and leases have to say.
//!
//! A wake-up comes under the lock of the file's wait queue, and the signal is sent from there.
//! Lock order: a file's wait queue > `state` (released before anything else) > the process tree.

use super::file::{Events, OpenFile};
use crate::errno::{Errno, EINVAL, ESRCH};
use crate::process::{tree, Credentials, Process, Task};
use crate::signal::{self, Scope};
use crate::wait::Waiter;
use alloc::sync::Arc;
use hal::sync::SpinLock;
use linux_abi::signal::{SigInfo, SIGBUS, SIGCHLD, SIGFPE, SIGILL, SIGIO, SIGSEGV, SIGSYS, SIGTRAP, SIGURG, SI_KERNEL, SI_SIGIO};

/// What happened, as si_code and si_band say it.
#[derive(Clone, Copy)]
pub struct Reason {
    code: i32,
    band: u32,
}

impl Reason {
    const IN: Self = Self { code: 1, band: Events::IN.0 | Events::RDNORM.0 };
    const OUT: Self = Self { code: 2, band: Events::OUT.0 | Events::WRNORM.0 | POLLWRBAND };
    /// Directory notification, and a lease that has to be given up.
    pub const MESSAGE: Self = Self { code: 3, band: Events::IN.0 | Events::RDNORM.0 | POLLMSG };
    const URGENT: Self = Self { code: 5, band: Events::PRI.0 | POLLRDBAND };
    const HANGUP: Self = Self { code: 6, band: Events::HUP.0 | Events::ERR.0 };
}

const POLLRDBAND: u32 = 0x80;
const POLLWRBAND: u32 = 0x200;
const POLLMSG: u32 = 0x400;

/// Who is told: struct f_owner_ex. Id 0: nobody.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Owner {
    kind: i32,
    id: i32,
}

const THREAD: i32 = 0;
const PROCESS: i32 = 1;
const GROUP: i32 = 2;

impl Owner {
    /// As F_SETOWN_EX has it.
    pub fn new([kind, id]: [i32; 2]) -> Result<Self, Errno> {
        if !(THREAD..=GROUP).contains(&kind) {
            return Err(EINVAL);
        }
        let owner = Self { kind, id };
        let known = id == 0 || u32::try_from(id).is_ok_and(tree::in_use);
        if known {
            Ok(owner)
        } else {
            Err(ESRCH)
        }
    }

    /// As F_SETOWN has it: a negative id names a group.
    pub fn from_id(id: i32) -> Result<Self, Errno> {
        if id < 0 {
            Self::new([GROUP, id.checked_neg().ok_or(EINVAL)?])
        } else {
            Self::new([PROCESS, id])
        }
    }

    fn exists(self) -> bool {
        let id = self.id as u32;
        match self.kind {
            THREAD => tree::find_task(id).is_some(),
            PROCESS => tree::find_process(id).is_some(),
            _ => !tree::group(id).is_empty(),
        }
    }

    /// For F_GETOWN_EX; one that has ended is nobody.
    pub fn described(self) -> [i32; 2] {
        [self.kind, if self.exists() { self.id } else { 0 }]
    }

    /// For F_GETOWN.
    pub fn signed_id(self) -> i32 {
        match self.described() {
            [GROUP, id] => -id,
            [_, id] => id,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct State {
    owner: Owner,
    /// Of whoever named the owner: what decides whether it may be signalled.
    uid: u32,
    euid: u32,
    /// F_SETSIG. 0: SIGIO, without further information.
    signal: i32,
    /// O_ASYNC is set, by means of this descriptor.
    descriptor: Option<i32>,
}

/// The part of an open file description that sends signals; made when somebody first asks for one.
pub struct Notifier {
    state: SpinLock<State>,
    socket: bool,
    readable: bool,
}

impl Notifier {
    /// The file's notifier, made now if it has none.
    pub fn of(file: &OpenFile) -> &Arc<Self> {
        file.notifier.get_or_init(|| {
            let socket = file.ops_as::<crate::net::SocketFile>().is_some();
            let notifier = Arc::new(Self { state: SpinLock::default(), socket, readable: file.readable() });
            if let (true, Some(queue)) = (file.ops.default_owner().is_some(), file.ops.poll_queue(file)) {
                let waiter: Arc<dyn Waiter> = notifier.clone();
                queue.register(&waiter);
                // A stream of the host's tells what becomes ready once it has been asked.
                let _ = file.ops.poll(file);
            }
            notifier
        })
    }

    pub fn owner(&self) -> Owner {
        self.state.lock().owner
    }

    pub fn set_owner(&self, owner: Owner, by: &Credentials) {
        let mut state = self.state.lock();
        (state.owner, state.uid, state.euid) = (owner, by.uid, by.euid);
    }

    /// The caller becomes the owner of a file that has none (F_NOTIFY, F_SETLEASE, O_ASYNC of a terminal).
    pub fn set_default_owner(&self, id: i32, by: &Credentials) {
        if self.owner().id == 0 {
            let (kind, id) = if id < 0 { (GROUP, -id) } else { (PROCESS, id) };
            self.set_owner(Owner { kind, id }, by);
        }
    }

    pub fn signal(&self) -> i32 {
        self.state.lock().signal
    }

    pub fn set_signal(&self, signal: i32) {
        self.state.lock().signal = signal;
    }

    /// Tells the owner; `descriptor`: the number that it knows the file by.
    pub fn tell(&self, descriptor: i32, reason: Reason) {
        let state = *self.state.lock();
        let info = match state.signal {
            0 => SigInfo::new(SIGIO, SI_KERNEL),
            signal => {
                // These signals' own codes would be misread (fcntl(2), F_SETSIG).
                let taken = matches!(signal, SIGILL | SIGFPE | SIGSEGV | SIGBUS | SIGTRAP | SIGCHLD | SIGSYS);
                SigInfo::poll(signal, if taken { SI_SIGIO } else { reason.code }, u64::from(reason.band), descriptor)
            }
        };
        state.send(info);
    }
}

impl State {
    fn send(&self, info: SigInfo) {
        let id = self.owner.id as u32;
        match self.owner.kind {
            _ if id == 0 => {}
            THREAD => {
                if let Some(task) = tree::find_task(id).filter(|task| self.may_signal(&task.credentials())) {
                    queue(Scope::Thread(&task), info);
                }
            }
            PROCESS => tree::find_process(id).iter().for_each(|process| self.send_to(process, info)),
            _ => tree::group(id).iter().for_each(|process| self.send_to(process, info)),
        }
    }

    fn send_to(&self, process: &Arc<Process>, info: SigInfo) {
        if process.leader().is_some_and(|leader| self.may_signal(&leader.credentials())) {
            queue(Scope::Process(process), info);
        }
    }

    fn may_signal(&self, target: &Credentials) -> bool {
        self.euid == 0 || [target.suid, target.uid].iter().any(|&id| id == self.euid || id == self.uid)
    }
}

/// SIGIO alone when the queue of real-time signals is full (fcntl(2), F_SETSIG).
fn queue(scope: Scope<'_>, info: SigInfo) {
    if signal::queue(scope, info, false).is_err() {
        let _ = signal::queue(scope, SigInfo::new(SIGIO, SI_KERNEL), false);
    }
}

impl Waiter for Notifier {
    fn wake(&self) {
        self.wake_for(0);
    }

    fn wake_for(&self, events: u32) -> bool {
        let state = *self.state.lock();
        let has = |bits: Events| Events(events).intersects(bits);
        let urgent = self.socket && has(Events::PRI);
        if urgent {
            state.send(SigInfo::new(SIGURG, SI_KERNEL));
        }
        let Some(descriptor) = state.descriptor else { return urgent };
        let reason = match events {
            _ if urgent => Reason::URGENT,
            0 if self.readable => Reason::IN,
            0 => Reason::OUT,
            _ if has(Events::IN) => Reason::IN,
            _ if has(Events::OUT) => Reason::OUT,
            _ => Reason::HANGUP,
        };
        self.tell(descriptor, reason);
        true
    }
}

/// F_SETFL, FIOASYNC: whether the file sends signals from now on. False: it is of a kind that never does.
pub fn set_async(file: &OpenFile, descriptor: i32, on: bool, task: &Task) -> bool {
    let Some(default) = file.ops.default_owner() else { return false };
    let notifier = Notifier::of(file);
    if on && default != 0 {
        notifier.set_default_owner(default, &task.credentials());
    }
    notifier.state.lock().descriptor = on.then_some(descriptor);
    if on {
        // Some files watch for readiness only once somebody has looked.
        file.ops.poll(file);
    }
    true
}
