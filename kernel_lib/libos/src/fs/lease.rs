//! Leases (fcntl(2), F_SETLEASE): whoever holds one is told before somebody else opens the file in a way that conflicts, and has
//! [`BREAK_SECONDS`] to give it up. The other's open waits so long.
//!
//! Lock order: an inode's `leases` is a leaf; the holder is told after it is released.

use super::file::OpenFile;
use super::inode::{is_regular, Inode};
use super::permission;
use super::sigio::{Notifier, Reason};
use crate::errno::{Errno, EACCES, EAGAIN, EINTR, EINVAL, ERESTARTSYS, ETIMEDOUT};
use crate::process::Task;
use crate::wait::{Interruptible, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use linux_abi::capability::CAP_LEASE;
use linux_abi::fs::{F_RDLCK, F_UNLCK, F_WRLCK};

/// /proc/sys/fs/lease-break-time.
const BREAK_SECONDS: u64 = 45;

struct Lease {
    /// Identifies the open file that holds it.
    notifier: Arc<Notifier>,
    descriptor: i32,
    kind: i16,
    /// What it has to become, and when it does by itself.
    broken: Option<(i16, u64)>,
}

/// The leases on one inode.
#[derive(Default)]
pub struct Leases {
    held: SpinLock<Vec<Lease>>,
    changed: WaitQueue,
}

impl Lease {
    fn conflicts(&self, write: bool) -> bool {
        write || self.kind == F_WRLCK
    }
}

impl Leases {
    /// What the file holds, as it has to become if it is being broken (F_GETLEASE).
    fn of(&self, notifier: &Arc<Notifier>) -> i16 {
        let held = self.held.lock();
        let own = held.iter().find(|lease| Arc::ptr_eq(&lease.notifier, notifier));
        own.map_or(F_UNLCK, |lease| lease.broken.map_or(lease.kind, |(kind, _)| kind))
    }

    fn give_up(&self, notifier: &Arc<Notifier>) -> Result<(), Errno> {
        let mut held = self.held.lock();
        let index = held.iter().position(|lease| Arc::ptr_eq(&lease.notifier, notifier)).ok_or(EAGAIN)?;
        let gone = held.swap_remove(index);
        drop(held);
        drop(gone);
        self.changed.wake_all();
        Ok(())
    }

    fn take(&self, notifier: &Arc<Notifier>, descriptor: i32, kind: i16) -> Result<(), Errno> {
        let mut held = self.held.lock();
        let others = held.iter().filter(|lease| !Arc::ptr_eq(&lease.notifier, notifier));
        if others.into_iter().any(|lease| kind == F_WRLCK || lease.broken.is_some_and(|(to, _)| to == F_UNLCK)) {
            return Err(EAGAIN);
        }
        match held.iter_mut().find(|lease| Arc::ptr_eq(&lease.notifier, notifier)) {
            Some(own) => {
                own.kind = kind;
                own.broken = own.broken.filter(|&(to, _)| to != kind);
            }
            None => held.push(Lease { notifier: notifier.clone(), descriptor, kind, broken: None }),
        }
        drop(held);
        self.changed.wake_all();
        Ok(())
    }

    /// Marks what conflicts as broken, and drops what was not given up in time. Whom to tell, and until when to wait; None: no conflict.
    fn mark(&self, write: bool) -> Option<(Vec<(Arc<Notifier>, i32)>, u64)> {
        let now = hal::time::monotonic();
        let mut held = self.held.lock();
        for lease in held.iter_mut() {
            if let Some((kind, _)) = lease.broken.take_if(|(_, until)| *until <= now) {
                lease.kind = kind;
            }
        }
        held.retain(|lease| lease.kind != F_UNLCK);
        let (mut tell, mut wait) = (Vec::new(), None);
        let target = if write { F_UNLCK } else { F_RDLCK };
        for lease in held.iter_mut().filter(|lease| lease.conflicts(write)) {
            let until = match lease.broken {
                Some((kind, until)) if kind == target || !write => until,
                _ => {
                    let until = now + BREAK_SECONDS * 1_000_000_000;
                    lease.broken = Some((target, until));
                    tell.push((lease.notifier.clone(), lease.descriptor));
                    until
                }
            };
            wait = Some(wait.map_or(until, |other: u64| other.min(until)));
        }
        wait.map(|until| (tell, until))
    }

    fn has_conflict(&self, write: bool) -> bool {
        self.held.lock().iter().any(|lease| lease.conflicts(write))
    }
}

/// Somebody opens the file or cuts it: waits until no lease is in the way. EAGAIN if it must not wait.
pub fn break_for(inode: &dyn Inode, write: bool, wait: bool) -> Result<(), Errno> {
    let Some(leases) = inode.state().leases.get() else { return Ok(()) };
    while let Some((tell, until)) = leases.mark(write) {
        for (notifier, descriptor) in tell {
            notifier.tell(descriptor, Reason::MESSAGE);
        }
        if !wait {
            return Err(EAGAIN);
        }
        match leases.changed.wait(Interruptible::Yes, Some(until), || (!leases.has_conflict(write)).then_some(())) {
            Err(EINTR) => return Err(ERESTARTSYS),
            Ok(()) | Err(ETIMEDOUT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// F_SETLEASE.
pub fn set(file: &OpenFile, descriptor: i32, kind: i16, task: &Task) -> Result<(), Errno> {
    if !matches!(kind, F_RDLCK | F_WRLCK | F_UNLCK) {
        return Err(EINVAL);
    }
    let inode = file.inode().ok_or(EINVAL)?;
    let credentials = task.credentials();
    if credentials.fsuid != inode.owner()?.uid && !permission::capable(&credentials, CAP_LEASE) {
        return Err(EACCES);
    }
    if !is_regular(&**inode) {
        return Err(EINVAL);
    }
    let notifier = Notifier::of(file);
    let state = inode.state();
    if kind == F_UNLCK {
        return state.leases.get().ok_or(EAGAIN)?.give_up(notifier);
    }
    let contended = if kind == F_RDLCK { state.writers() > 0 } else { state.open_files() > 1 };
    if contended {
        return Err(EAGAIN);
    }
    state.leases.get_or_init(Default::default).take(notifier, descriptor, kind)?;
    notifier.set_default_owner(task.process.pid as i32, &credentials);
    Ok(())
}

/// F_GETLEASE.
pub fn get(file: &OpenFile) -> i16 {
    let leases = file.inode().and_then(|inode| inode.state().leases.get());
    match (leases, file.known_notifier()) {
        (Some(leases), Some(notifier)) => leases.of(notifier),
        _ => F_UNLCK,
    }
}

/// The last reference to an open file is gone.
pub fn released(file: &OpenFile) {
    let leases = file.inode().and_then(|inode| inode.state().leases.get());
    if let (Some(leases), Some(notifier)) = (leases, file.known_notifier()) {
        // Most hold none.
        let _ = leases.give_up(notifier);
    }
}
