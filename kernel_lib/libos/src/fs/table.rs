//! Descriptor tables: numbers to open files. Shared by CLONE_FILES.

use super::file::{OpenFile, O_PATH};
use crate::errno::{Errno, EBADF, EMFILE, ENOMEM};
use crate::mm::{reclaim, PAGE_SIZE};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::sync::SpinLock;

#[derive(Clone)]
struct Entry {
    file: Arc<OpenFile>,
    close_on_exec: bool,
}

#[derive(Default)]
pub struct FdTable {
    entries: SpinLock<Vec<Option<Entry>>>,
}

/// Makes a table that long at least. RLIMIT_NOFILE may let programs ask for more than there is in one piece: ENOMEM.
fn extend(entries: &mut Vec<Option<Entry>>, length: usize) -> Result<(), Errno> {
    if length > entries.len() {
        entries.try_reserve(length - entries.len()).map_err(|_| ENOMEM)?;
        entries.resize(length, None);
    }
    Ok(())
}

impl FdTable {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A copy for fork(2): the same open files.
    pub fn duplicate(&self) -> Result<Arc<Self>, Errno> {
        let entries = self.entries.lock();
        let used = entries.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let mut copy = Vec::new();
        extend(&mut copy, used)?;
        copy.clone_from_slice(&entries[..used]);
        Ok(Arc::new(Self { entries: SpinLock::new(copy) }))
    }

    /// The open file. EBADF if it only names a place (O_PATH), which is not enough for most calls.
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        self.get_any(fd).and_then(|file| if file.flags() & O_PATH == 0 { Ok(file) } else { Err(EBADF) })
    }

    /// As [`Self::get`], an O_PATH descriptor too.
    pub fn get_any(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        self.with(fd, |entry| entry.file.clone())
    }

    fn with<T>(&self, fd: i32, f: impl FnOnce(&mut Entry) -> T) -> Result<T, Errno> {
        let mut entries = self.entries.lock();
        let entry = usize::try_from(fd).ok().and_then(|index| entries.get_mut(index)).and_then(Option::as_mut);
        entry.map(f).ok_or(EBADF)
    }

    /// The lowest free number from `from`, below `limit` (RLIMIT_NOFILE). EMFILE when there is none.
    pub fn insert(&self, file: Arc<OpenFile>, close_on_exec: bool, from: i32, limit: u64) -> Result<i32, Errno> {
        let mut entries = self.entries.lock();
        let from = usize::try_from(from).map_err(|_| EBADF)?;
        let index = (from..entries.len()).find(|&i| entries[i].is_none()).unwrap_or(entries.len().max(from));
        if index as u64 >= limit {
            return Err(EMFILE);
        }
        extend(&mut entries, index + 1)?;
        entries[index] = Some(Entry { file, close_on_exec });
        Ok(index as i32)
    }

    /// dup2: puts the file at exactly `fd`; what was there comes back (to be dropped outside of the lock).
    pub fn replace(&self, fd: i32, file: Arc<OpenFile>, close_on_exec: bool, limit: u64) -> Result<Option<Arc<OpenFile>>, Errno> {
        let index = usize::try_from(fd).map_err(|_| EBADF)?;
        if index as u64 >= limit {
            return Err(EBADF);
        }
        reclaim::prepare((index * core::mem::size_of::<Option<Entry>>()) as u64 / PAGE_SIZE);
        let mut entries = self.entries.lock();
        extend(&mut entries, index + 1)?;
        let old = entries[index].replace(Entry { file, close_on_exec }).map(|old| old.file);
        drop(entries);
        if let Some(old) = &old {
            self.closed(old);
        }
        Ok(old)
    }

    /// What POSIX record locks know this table by.
    pub fn identity(&self) -> usize {
        core::ptr::from_ref(self) as usize
    }

    /// A descriptor of the file went out of this table.
    fn closed(&self, file: &OpenFile) {
        file.ops.flush(file);
        super::locks::descriptor_closed(self.identity(), file);
        super::dnotify::descriptor_closed(self.identity(), file);
    }

    /// Takes a descriptor away; drop the file outside of any lock.
    pub fn remove(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        let mut entries = self.entries.lock();
        let entry = usize::try_from(fd).ok().and_then(|index| entries.get_mut(index)).and_then(Option::take);
        drop(entries);
        let file = entry.map(|entry| entry.file).ok_or(EBADF)?;
        self.closed(&file);
        Ok(file)
    }

    pub fn close_on_exec(&self, fd: i32) -> Result<bool, Errno> {
        self.with(fd, |entry| entry.close_on_exec)
    }

    pub fn set_close_on_exec(&self, fd: i32, on: bool) -> Result<(), Errno> {
        self.with(fd, |entry| entry.close_on_exec = on)
    }

    /// Takes every descriptor that `chosen(fd, close_on_exec)` names (execve, close_range, exit).
    pub fn remove_where(&self, mut chosen: impl FnMut(i32, bool) -> bool) -> Vec<Arc<OpenFile>> {
        let mut entries = self.entries.lock();
        let mut removed = Vec::new();
        for (index, slot) in entries.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|entry| chosen(index as i32, entry.close_on_exec)) {
                removed.extend(slot.take().map(|entry| entry.file));
            }
        }
        drop(entries);
        for file in &removed {
            self.closed(file);
        }
        removed
    }

    /// Open descriptors in order.
    pub fn list(&self) -> Vec<(i32, Arc<OpenFile>)> {
        let entries = self.entries.lock();
        entries.iter().enumerate().filter_map(|(index, slot)| slot.as_ref().map(|entry| (index as i32, entry.file.clone()))).collect()
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        drop(self.remove_where(|_, _| true));
    }
}
