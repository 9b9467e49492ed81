//! The handle table: small numbers that the guest uses for host descriptors.
//!
//! A lookup clones an `Arc`, so a handle that is closed while another thread uses it lives until that is over.
//!
//! What the guest opens leaves the last descriptors of the process alone: the VMM accepts clients and serves requests with those. As Linux
//! gives the lowest free number, a descriptor's number tells how many there are, whoever holds them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::plan::PLANNED_HANDLES;
use crate::services::Errno;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Root of a mount (O_PATH).
    Tree,
    /// Opened below a tree with O_PATH.
    Path,
    File,
    Directory,
    /// Standard input or output; never made nonblocking, because others share the open file description.
    Stream,
    Socket,
    /// A socket of rtnetlink(7), which takes messages that were looked at only.
    Netlink,
    Inotify,
}

pub struct Handle {
    pub fd: OwnedFd,
    pub kind: Kind,
    /// Opened with write access (what `map` with write access needs).
    pub writable: bool,
    /// Others may change the file behind our back.
    pub shared: bool,
    /// Held by the services that use the descriptor's own position: appending writes, directory reading.
    pub position: Mutex<()>,
}

impl Handle {
    pub fn new(fd: OwnedFd, kind: Kind) -> Self {
        Self { fd, kind, writable: false, shared: false, position: Mutex::new(()) }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[derive(Default)]
struct Table {
    planned: Vec<Option<Arc<Handle>>>,
    opened: Vec<Option<Arc<Handle>>>,
    free: Vec<u32>,
}

pub struct Handles {
    table: RwLock<Table>,
    /// Numbers of descriptors from here on are not for the guest.
    guest_end: u64,
}

/// Descriptors that are the VMM's own, where the limit is not so low that this were most of them.
const RESERVED: u64 = 2048;

impl Handles {
    /// `limit`: descriptors that the process may have (RLIMIT_NOFILE).
    pub fn new(limit: u64) -> Self {
        Self { table: RwLock::default(), guest_end: limit - (limit / 4).min(RESERVED) }
    }

    /// Enters a handle whose number the plan chose.
    pub fn plan(&self, number: u32, handle: Handle) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let index = number.min(PLANNED_HANDLES - 1) as usize;
        if table.planned.len() <= index {
            table.planned.resize_with(index + 1, || None);
        }
        if let Some(place) = table.planned.get_mut(index) {
            *place = Some(Arc::new(handle));
        }
    }

    /// Enters what the guest has opened; ENFILE when there are too many.
    pub fn open(&self, handle: Handle) -> Result<u32, Errno> {
        if handle.fd.as_raw_fd() as u64 >= self.guest_end {
            return Err(Errno::NFILE);
        }
        Ok(self.insert(handle))
    }

    /// Enters what was passed in.
    pub fn insert(&self, handle: Handle) -> u32 {
        let handle = Some(Arc::new(handle));
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let index = match table.free.pop() {
            Some(index) => index,
            None => {
                table.opened.push(None);
                table.opened.len() as u32 - 1
            }
        };
        if let Some(place) = table.opened.get_mut(index as usize) {
            *place = handle;
        }
        PLANNED_HANDLES + index
    }

    pub fn get(&self, number: u32) -> Result<Arc<Handle>, Errno> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let place = match number.checked_sub(PLANNED_HANDLES) {
            None => table.planned.get(number as usize),
            Some(index) => table.opened.get(index as usize),
        };
        place.and_then(Clone::clone).ok_or(Errno::BADF)
    }

    pub fn remove(&self, number: u32) -> Result<Arc<Handle>, Errno> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let index = number.checked_sub(PLANNED_HANDLES);
        let place = match index {
            None => table.planned.get_mut(number as usize),
            Some(index) => table.opened.get_mut(index as usize),
        };
        let handle = place.and_then(Option::take).ok_or(Errno::BADF)?;
        if let Some(index) = index {
            table.free.push(index);
        }
        Ok(handle)
    }

    pub fn count(&self) -> usize {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.planned.iter().flatten().count() + table.opened.len() - table.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> Handle {
        let fd = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        Handle::new(fd, Kind::Stream)
    }

    #[test]
    fn numbers_are_reused_and_strangers_refused() {
        let handles = Handles::new(1024);
        handles.plan(3, null());
        let first = handles.insert(null());
        assert_eq!(first, PLANNED_HANDLES);
        assert!(handles.get(3).is_ok() && handles.get(first).is_ok());
        for stranger in [0, 4, first + 1, u32::MAX] {
            assert!(handles.get(stranger).is_err() && handles.remove(stranger).is_err());
        }
        handles.remove(first).unwrap();
        assert!(handles.remove(first).is_err());
        assert_eq!(handles.insert(null()), first);
        assert_eq!(handles.count(), 2);
    }

    #[test]
    fn the_guest_leaves_some_descriptors() {
        let handles = Handles::new(64);
        let copy = |lowest| rustix::io::fcntl_dupfd_cloexec(null(), lowest).unwrap();
        // The first free number from 48 on, which another test of this process may have taken.
        assert_eq!(handles.open(Handle::new(copy(48), Kind::File)), Err(Errno::NFILE));
        assert_eq!(handles.count(), 0);
        let passed = handles.insert(Handle::new(copy(48), Kind::Stream));
        assert!(handles.get(passed).is_ok());
    }
}
