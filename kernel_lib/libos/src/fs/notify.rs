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
    IN_ACCESS, IN_ATTRIB, IN_CLOSE_NOWRITE, IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_EXCL_UNLINK, IN_ISDIR, IN_MODIFY,
    IN_MOVED_FROM, IN_MOVED_TO, IN_MOVE_SELF, IN_OPEN,
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
pub struct Watches {
    list: SpinLock<Vec<Watch>>,
    /// On a shared volume: the host's watch, which tells what [`ON_HOST`] has. 0: none.
    host_watch: AtomicU32,
}

/// What is done on the host, by us or by others.
pub const ON_HOST: u32 = IN_MODIFY | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_MOVE_SELF;

static ACTIVE: AtomicUsize = AtomicUsize::new(0);
static COOKIE: AtomicU32 = AtomicU32::new(1);

impl Watches {
    /// Adds a watch, or changes the mask of the watcher's watch with this number.
    pub fn set(&self, watcher: &Arc<dyn Watcher>, number: i32, mask: u32) {
        let mut watches = self.list.lock();
        match watches.iter_mut().find(|watch| watch.is(watcher, number)) {
            Some(watch) => watch.mask = mask,
            None => {
                watches.push(Watch { watcher: Arc::downgrade(watcher), number, mask });
                ACTIVE.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub fn remove(&self, watcher: &Arc<dyn Watcher>, number: i32) {
        let mut watches = self.list.lock();
        let before = watches.len();
        watches.retain(|watch| !watch.is(watcher, number) && watch.watcher.strong_count() > 0);
        ACTIVE.fetch_sub(before - watches.len(), Ordering::Relaxed);
        let unused = watches.is_empty();
        drop(watches);
        if unused {
            self.drop_host_watch();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.lock().is_empty()
    }

    pub fn host_watch(&self) -> u32 {
        self.host_watch.load(Ordering::Relaxed)
    }

    pub fn set_host_watch(&self, number: u32) {
        self.host_watch.store(number, Ordering::Relaxed);
    }

    fn drop_host_watch(&self) {
        match self.host_watch() {
            0 => {}
            number => super::host::unwatch(number),
        }
    }

    /// Something was done here. May sleep.
    fn done(&self, mask: u32, cookie: u32, name: &[u8]) {
        if mask & ON_HOST != 0 && self.host_watch() != 0 {
            super::host::collect_notices();
        } else {
            self.tell(mask, cookie, name);
        }
    }

    /// IN_EXCL_UNLINK in `mask`: the object has no name any more.
    pub fn tell(&self, mask: u32, cookie: u32, name: &[u8]) {
        // Told outside of the lock: a watcher may take its own.
        let interested: Vec<_> = {
            let watches = self.list.lock();
            let wanted = watches.iter().filter(|watch| watch.mask & mask & !IN_ISDIR != 0 && watch.mask & mask & IN_EXCL_UNLINK == 0);
            wanted.map(|watch| (watch.watcher.clone(), watch.number)).collect()
        };
        for (watcher, number) in interested {
            if let Some(watcher) = watcher.upgrade() {
                watcher.event(number, mask & !IN_EXCL_UNLINK, cookie, name);
            }
        }
    }

    /// The inode is gone: takes every watch (their IN_IGNORED is the watcher's to make).
    fn take(&self) -> Vec<(Weak<dyn Watcher>, i32)> {
        let watches = core::mem::take(&mut *self.list.lock());
        ACTIVE.fetch_sub(watches.len(), Ordering::Relaxed);
        watches.into_iter().map(|watch| (watch.watcher, watch.number)).collect()
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(self.list.get_mut().len(), Ordering::Relaxed);
        self.drop_host_watch();
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
        let unlinked = if dentry.is_dead() { IN_EXCL_UNLINK } else { 0 };
        parent.inode().state().watches.done(mask | unlinked, 0, &name);
    }
    dentry.inode().state().watches.done(mask, 0, b"");
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
        directory.inode().state().watches.done(with_kind(inode, IN_CREATE), 0, name);
    }
}

/// The number of names changed (link(2), unlink(2)): the object alone hears of it.
pub fn link_count_changed(inode: &dyn Inode) {
    if !nobody() {
        inode.state().watches.done(with_kind(inode, IN_ATTRIB), 0, b"");
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
    directory.inode().state().watches.done(with_kind(inode, IN_DELETE), 0, name);
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
    watches.done(IN_DELETE_SELF, 0, b"");
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
    from.inode().state().watches.done(with_kind(inode, IN_MOVED_FROM), cookie, name);
    to.inode().state().watches.done(with_kind(inode, IN_MOVED_TO), cookie, new_name);
    inode.state().watches.done(IN_MOVE_SELF, 0, b"");
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
