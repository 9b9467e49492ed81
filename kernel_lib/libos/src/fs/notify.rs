//! File-system events for inotify(7): who watches an inode, and what happened to it.
//!
//! A watcher (an inotify instance) registers a [`Watch`] on an inode; [`event`] and its like tell every watch of the inode, and those of
//! the directory with the entry's name. With no watch anywhere an event costs one load.

use super::dentry::Dentry;
use super::file::OpenFile;
use super::inode::{is_directory, Inode};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use hal::sync::SpinLock;
use linux_abi::fs::{
    IN_ACCESS, IN_ATTRIB, IN_CLOSE_NOWRITE, IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_ISDIR, IN_MODIFY, IN_MOVED_FROM,
    IN_MOVED_TO, IN_MOVE_SELF, IN_OPEN,
};

/// Receives events. Called with spin locks held: must not sleep.
pub trait Watcher: Send + Sync {
    /// `name`: of the entry, for events of a directory's children. `cookie` joins the two halves of a rename.
    fn event(&self, watch: i32, mask: u32, cookie: u32, name: &[u8]);
}

struct Watch {
    watcher: Weak<dyn Watcher>,
    number: i32,
    mask: u32,
}

/// The watches on one inode.
#[derive(Default)]
pub struct Watches(SpinLock<Vec<Watch>>);

static ACTIVE: AtomicUsize = AtomicUsize::new(0);
static COOKIE: AtomicU32 = AtomicU32::new(1);

impl Watches {
    /// Adds a watch, or changes the mask of the watcher's watch with this number.
    pub fn set(&self, watcher: &Arc<dyn Watcher>, number: i32, mask: u32) {
        let mut watches = self.0.lock();
        match watches.iter_mut().find(|watch| watch.is(watcher, number)) {
            Some(watch) => watch.mask = mask,
            None => {
                watches.push(Watch { watcher: Arc::downgrade(watcher), number, mask });
                ACTIVE.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub fn remove(&self, watcher: &Arc<dyn Watcher>, number: i32) {
        let mut watches = self.0.lock();
        let before = watches.len();
        watches.retain(|watch| !watch.is(watcher, number) && watch.watcher.strong_count() > 0);
        ACTIVE.fetch_sub(before - watches.len(), Ordering::Relaxed);
    }

    fn tell(&self, mask: u32, cookie: u32, name: &[u8]) {
        // Told outside of the lock: a watcher may take its own.
        let interested: Vec<_> = {
            let watches = self.0.lock();
            let wanted = watches.iter().filter(|watch| watch.mask & mask & !IN_ISDIR != 0);
            wanted.map(|watch| (watch.watcher.clone(), watch.number)).collect()
        };
        for (watcher, number) in interested {
            if let Some(watcher) = watcher.upgrade() {
                watcher.event(number, mask, cookie, name);
            }
        }
    }

    /// The inode is gone: takes every watch (their IN_IGNORED is the watcher's to make).
    fn take(&self) -> Vec<(Weak<dyn Watcher>, i32)> {
        let watches = core::mem::take(&mut *self.0.lock());
        ACTIVE.fetch_sub(watches.len(), Ordering::Relaxed);
        watches.into_iter().map(|watch| (watch.watcher, watch.number)).collect()
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(self.0.get_mut().len(), Ordering::Relaxed);
    }
}

impl Watch {
    fn is(&self, watcher: &Arc<dyn Watcher>, number: i32) -> bool {
        self.number == number && core::ptr::addr_eq(self.watcher.as_ptr(), Arc::as_ptr(watcher))
    }
}

#[inline]
fn nobody() -> bool {
    ACTIVE.load(Ordering::Relaxed) == 0
}

/// Something happened to the object itself: its own watches hear of it, and its directory's with its name.
pub fn event(dentry: &Dentry, mask: u32) {
    if nobody() {
        return;
    }
    let mask = with_kind(&**dentry.inode(), mask);
    let (parent, name) = dentry.position();
    if let Some(parent) = parent {
        parent.inode().state().watches.tell(mask, 0, &name);
    }
    dentry.inode().state().watches.tell(mask, 0, b"");
}

fn with_kind(inode: &dyn Inode, mask: u32) -> u32 {
    if is_directory(inode) {
        mask | IN_ISDIR
    } else {
        mask
    }
}

/// A name appeared in a directory.
pub fn created(directory: &Dentry, name: &[u8], inode: &dyn Inode) {
    if !nobody() {
        directory.inode().state().watches.tell(with_kind(inode, IN_CREATE), 0, name);
    }
}

/// The number of names changed (link(2), unlink(2)): the object alone hears of it.
pub fn link_count_changed(inode: &dyn Inode) {
    if !nobody() {
        inode.state().watches.tell(with_kind(inode, IN_ATTRIB), 0, b"");
    }
}

/// A name is gone; `last`: and with it the object, as soon as nobody has it open.
pub fn deleted(directory: &Dentry, name: &[u8], inode: &dyn Inode, last: bool) {
    if last {
        inode.state().mark_gone();
    }
    if nobody() {
        return;
    }
    if !is_directory(inode) {
        link_count_changed(inode);
    }
    directory.inode().state().watches.tell(with_kind(inode, IN_DELETE), 0, name);
    if last && inode.state().is_unused() {
        gone(inode);
    }
}

/// As [`deleted`], when another object took the name (rename(2)).
pub fn replaced(inode: &dyn Inode, last: bool) {
    if last {
        inode.state().mark_gone();
    }
    if !is_directory(inode) {
        link_count_changed(inode);
    }
    if last && inode.state().is_unused() {
        gone(inode);
    }
}

/// The object itself ends: its watches go with it.
pub fn gone(inode: &dyn Inode) {
    if nobody() {
        return;
    }
    let watches = &inode.state().watches;
    watches.tell(IN_DELETE_SELF, 0, b"");
    for (watcher, number) in watches.take() {
        if let Some(watcher) = watcher.upgrade() {
            watcher.event(number, linux_abi::fs::IN_IGNORED, 0, b"");
        }
    }
}

pub fn moved(from: &Dentry, name: &[u8], to: &Dentry, new_name: &[u8], inode: &dyn Inode) {
    if nobody() {
        return;
    }
    let cookie = COOKIE.fetch_add(1, Ordering::Relaxed);
    from.inode().state().watches.tell(with_kind(inode, IN_MOVED_FROM), cookie, name);
    to.inode().state().watches.tell(with_kind(inode, IN_MOVED_TO), cookie, new_name);
    inode.state().watches.tell(IN_MOVE_SELF, 0, b"");
}

fn file_event(file: &OpenFile, mask: u32) {
    if nobody() {
        return;
    }
    if let Some(location) = &file.location {
        event(&location.dentry, mask);
    }
}

pub fn opened(file: &OpenFile) {
    file_event(file, IN_OPEN);
}

pub fn accessed(file: &OpenFile) {
    file_event(file, IN_ACCESS);
}

pub fn modified(file: &OpenFile) {
    file_event(file, IN_MODIFY);
}

pub fn closed(file: &OpenFile) {
    file_event(file, if file.writable() { IN_CLOSE_WRITE } else { IN_CLOSE_NOWRITE });
}

pub fn attributes_changed(dentry: &Dentry) {
    event(dentry, IN_ATTRIB);
}
