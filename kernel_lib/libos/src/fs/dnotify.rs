//! Directory notification (fcntl(2), F_NOTIFY): a signal when something happens to a directory or in it.

use super::file::OpenFile;
use super::inode::{is_directory, Inode};
use super::notify::Watcher;
use super::sigio::{Notifier, Reason};
use crate::errno::{Errno, ENOTDIR};
use crate::process::Task;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use hal::sync::SpinLock;
use linux_abi::fs::{IN_ACCESS, IN_ATTRIB, IN_CREATE, IN_DELETE, IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO};

const DN_ACCESS: u32 = 1;
const DN_MODIFY: u32 = 2;
const DN_CREATE: u32 = 4;
const DN_DELETE: u32 = 8;
const DN_RENAME: u32 = 0x10;
const DN_ATTRIB: u32 = 0x20;
const DN_MULTISHOT: u32 = 0x8000_0000;

/// What each bit asks for, in inotify's terms.
const EVENTS: [(u32, u32); 6] = [
    (DN_ACCESS, IN_ACCESS),
    (DN_MODIFY, IN_MODIFY),
    (DN_CREATE, IN_CREATE | IN_MOVED_TO),
    (DN_DELETE, IN_DELETE | IN_MOVED_FROM),
    (DN_RENAME, IN_MOVED_FROM),
    (DN_ATTRIB, IN_ATTRIB),
];

/// A directory and who asked about it: a descriptor table by means of an open file.
struct Mark {
    table: usize,
    /// Identifies the open file that the notifier belongs to.
    notifier: Arc<Notifier>,
    directory: Arc<dyn Inode>,
    descriptor: i32,
    asked: AtomicU32,
}

static MARKS: SpinLock<Vec<Arc<Mark>>> = SpinLock::new(Vec::new());
/// Whether there ever was a mark: closing files is free until then.
static USED: AtomicBool = AtomicBool::new(false);

impl Mark {
    fn is_of(&self, table: usize, notifier: &Arc<Notifier>) -> bool {
        self.table == table && Arc::ptr_eq(&self.notifier, notifier)
    }

    fn watch(self: &Arc<Self>) {
        let asked = self.asked.load(Ordering::Relaxed);
        let events = EVENTS.iter().filter(|(bit, _)| asked & bit != 0).fold(0, |all, (_, events)| all | events);
        let watcher: Arc<dyn Watcher> = self.clone();
        self.directory.state().watches.set(&watcher, 0, events);
    }

    fn unwatch(self: &Arc<Self>) {
        let watcher: Arc<dyn Watcher> = self.clone();
        self.directory.state().watches.remove(&watcher, 0);
    }
}

impl Watcher for Mark {
    fn event(&self, _watch: i32, mask: u32, _cookie: u32, _name: &[u8]) {
        let asked = self.asked.load(Ordering::Relaxed);
        if !EVENTS.iter().any(|&(bit, events)| asked & bit != 0 && mask & events != 0) {
            return;
        }
        if asked & DN_MULTISHOT == 0 && self.asked.swap(0, Ordering::Relaxed) == 0 {
            return;
        }
        self.notifier.tell(self.descriptor, Reason::MESSAGE);
    }
}

/// F_NOTIFY. What a descriptor asks for adds up, until it asks for nothing.
pub fn ask(file: &OpenFile, descriptor: i32, asked: u32, task: &Task) -> Result<(), Errno> {
    let table = task.files().identity();
    if asked & !DN_MULTISHOT == 0 {
        descriptor_closed(table, file);
        return Ok(());
    }
    let directory = file.inode().filter(|inode| is_directory(&***inode)).ok_or(ENOTDIR)?;
    let notifier = Notifier::of(file);
    notifier.set_default_owner(task.process.pid as i32, &task.credentials());
    USED.store(true, Ordering::Relaxed);
    let mut marks = MARKS.lock();
    let known = marks.iter().find(|mark| mark.is_of(table, notifier)).cloned();
    let mark = known.unwrap_or_else(|| {
        let (notifier, directory) = (notifier.clone(), directory.clone());
        let mark = Arc::new(Mark { table, notifier, directory, descriptor, asked: AtomicU32::new(0) });
        marks.push(mark.clone());
        mark
    });
    drop(marks);
    mark.asked.fetch_or(asked, Ordering::Relaxed);
    mark.watch();
    super::host::watch(directory);
    Ok(())
}

/// A descriptor of the file went out of a table: what was asked by means of it ends.
pub fn descriptor_closed(table: usize, file: &OpenFile) {
    if !USED.load(Ordering::Relaxed) {
        return;
    }
    let Some(notifier) = file.known_notifier() else { return };
    let mut marks = MARKS.lock();
    let found = marks.iter().position(|mark| mark.is_of(table, notifier)).map(|index| marks.swap_remove(index));
    drop(marks);
    if let Some(mark) = found {
        mark.unwatch();
    }
}
