//! Extended attributes in memory (xattr(7)).

use super::TmpInode;
use crate::errno::{Errno, EEXIST, ENODATA};
use crate::fs::inode::{now, XattrMode};
use alloc::vec::Vec;

impl TmpInode {
    pub(super) fn xattr_get(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.xattrs.lock().get(name).cloned().ok_or(ENODATA)
    }

    pub(super) fn xattr_set(&self, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno> {
        let mut xattrs = self.xattrs.lock();
        match (mode, xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(EEXIST),
            (XattrMode::Replace, false) => return Err(ENODATA),
            _ => {}
        }
        xattrs.insert(name.to_vec(), value.to_vec());
        drop(xattrs);
        self.attributes.lock().ctime = now();
        Ok(())
    }

    pub(super) fn xattr_remove(&self, name: &[u8]) -> Result<(), Errno> {
        self.xattrs.lock().remove(name).ok_or(ENODATA)?;
        self.attributes.lock().ctime = now();
        Ok(())
    }

    pub(super) fn xattr_list(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for name in self.xattrs.lock().keys() {
            list.extend_from_slice(name);
            list.push(0);
        }
        list
    }
}
