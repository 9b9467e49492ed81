//! Host handles with an owner: the last reference closes. Idle ones are bounded: a handle of a file that still has a name can be made again.

use super::inode::HostInode;
use super::{deferred, request};
use crate::errno::{Errno, EACCES, EPERM, EROFS, ETXTBSY};
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicUsize, Ordering};
use hal::sync::SpinLock;
use linux_abi::fs::{O_DIRECTORY, O_RDONLY, O_RDWR, S_IFDIR};

/// Handles kept before idle ones are closed.
const MOST: usize = 1024;

pub struct Handle(u32);

static COUNT: AtomicUsize = AtomicUsize::new(0);
static AGE: SpinLock<VecDeque<Weak<HostInode>>> = SpinLock::new(VecDeque::new());

impl Handle {
    pub fn own(number: u32) -> Arc<Self> {
        COUNT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self(number))
    }

    pub fn number(&self) -> u32 {
        self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
        deferred::close(self.0);
    }
}

/// An inode's handles: one that reads, one that reads and writes.
#[derive(Default)]
pub struct Handles {
    read: Option<Arc<Handle>>,
    write: Option<Arc<Handle>>,
}

impl Handles {
    fn get(&self, write: bool) -> Option<Arc<Handle>> {
        if write {
            self.write.clone()
        } else {
            self.write.clone().or_else(|| self.read.clone())
        }
    }
    pub fn put(&mut self, write: bool, handle: Arc<Handle>) -> Option<Arc<Handle>> {
        if write {
            self.write.replace(handle)
        } else {
            self.read.replace(handle)
        }
    }
}

impl HostInode {
    /// A handle if there is one.
    pub(super) fn known_handle(&self) -> Option<Arc<Handle>> {
        self.handles.lock().get(false)
    }

    /// A handle to read (or also write) through, made when there is none.
    pub(super) fn handle(&self, write: bool) -> Result<Arc<Handle>, Errno> {
        if let Some(handle) = self.handles.lock().get(write) {
            return Ok(handle);
        }
        let flags = match (self.kind == S_IFDIR, write) {
            (true, _) => O_RDONLY | O_DIRECTORY,
            (false, true) => O_RDWR,
            (false, false) => O_RDONLY,
        };
        let (base, path) = self.name()?;
        let (number, _) = request::open(base.number(), &path, flags, 0, (0, 0))?;
        Ok(self.keep_handle(write, number))
    }

    /// Enters a handle that was just made.
    pub(super) fn keep_handle(&self, write: bool, number: u32) -> Arc<Handle> {
        let handle = Handle::own(number);
        let old = self.handles.lock().put(write, handle.clone());
        drop(old);
        AGE.lock().push_back(self.me.clone());
        close_some();
        handle
    }

    /// Before the last name goes: an open file must be reachable without it.
    pub(super) fn hold_handle(&self) -> Result<(), Errno> {
        match self.handle(self.kind != S_IFDIR) {
            Err(EROFS | EACCES | EPERM | ETXTBSY) => self.handle(false).map(|_| ()),
            other => other.map(|_| ()),
        }
    }

    /// Closes what can be opened again.
    pub(super) fn drop_idle_handles(&self) -> bool {
        if self.is_nameless() {
            return self.handles.lock().get(false).is_none();
        }
        let old = core::mem::take(&mut *self.handles.lock());
        drop(old);
        true
    }

    pub(super) fn drop_handles(&self) {
        let old = core::mem::take(&mut *self.handles.lock());
        drop(old);
    }
}

fn close_some() {
    for _ in 0..4 {
        if COUNT.load(Ordering::Relaxed) <= MOST {
            return;
        }
        let Some(weak) = AGE.lock().pop_front() else { return };
        let closed = weak.upgrade().is_none_or(|inode| inode.drop_idle_handles());
        if !closed {
            AGE.lock().push_back(weak);
        }
    }
}
