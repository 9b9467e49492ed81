//! The handle table: small numbers that the guest uses for host descriptors.
//!
//! A lookup clones an `Arc`, so a handle that is closed while another thread uses it lives until that is over. The table's growth is
//! bounded by the process's own limit of descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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

#[derive(Default)]
pub struct Handles {
    table: RwLock<Table>,
}

impl Handles {
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
        let handles = Handles::default();
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
}
