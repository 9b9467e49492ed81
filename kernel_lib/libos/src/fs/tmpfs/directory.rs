//! The names in a tmpfs directory. Positions are numbers that never repeat, so that reading goes on rightly while names come and go.

use super::TmpInode;
use crate::errno::Errno;
use crate::fs::directory::END;
use crate::fs::inode::{entry_type, DirEntry, Inode};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use linux_abi::fs::DT_DIR;

/// Positions 0, 1 and 2: before ".", before "..", before the first name.
const FIRST: u64 = 2;

#[derive(Default)]
pub struct Names {
    by_name: BTreeMap<Arc<[u8]>, (u64, Arc<TmpInode>)>,
    by_position: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
}

impl Names {
    pub fn get(&self, name: &[u8]) -> Option<Arc<TmpInode>> {
        self.by_name.get(name).map(|(_, inode)| inode.clone())
    }

    pub fn insert(&mut self, name: &[u8], inode: Arc<TmpInode>) {
        let name: Arc<[u8]> = name.into();
        let position = FIRST + self.next;
        self.next += 1;
        self.by_position.insert(position, name.clone());
        if let Some((old, _)) = self.by_name.insert(name, (position, inode)) {
            self.by_position.remove(&old);
        }
    }

    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let (position, inode) = self.by_name.remove(name)?;
        self.by_position.remove(&position);
        Some(inode)
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub fn all(&self) -> Vec<(Arc<[u8]>, Arc<TmpInode>)> {
        self.by_name.iter().map(|(name, (_, inode))| (name.clone(), inode.clone())).collect()
    }

    pub fn drain(&mut self) -> Vec<Arc<TmpInode>> {
        self.by_position.clear();
        core::mem::take(&mut self.by_name).into_values().map(|(_, inode)| inode).collect()
    }

    /// The first name at or behind a position.
    fn at(&self, position: u64) -> Option<(u64, Arc<[u8]>, Arc<TmpInode>)> {
        let (&position, name) = self.by_position.range(position..).next()?;
        let (_, inode) = self.by_name.get(name)?;
        Some((position, name.clone(), inode.clone()))
    }
}

pub fn list(names: &SpinLock<Names>, own: u64, position: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<(), Errno> {
    let mut at = position;
    if at == 0 {
        if !emit(&DirEntry { ino: own, next: 1, kind: DT_DIR, name: b"." }) {
            return Ok(());
        }
        at = 1;
    }
    if at == 1 {
        if !emit(&DirEntry { ino: own, next: FIRST, kind: DT_DIR, name: b".." }) {
            return Ok(());
        }
        at = FIRST;
    }
    if at == END {
        return Ok(());
    }
    loop {
        let Some((position, name, inode)) = names.lock().at(at) else { return Ok(()) };
        let ino = inode.attributes.lock().ino;
        if !emit(&DirEntry { ino, next: position + 1, kind: entry_type(inode.kind()), name: &name }) {
            return Ok(());
        }
        at = position + 1;
    }
}
