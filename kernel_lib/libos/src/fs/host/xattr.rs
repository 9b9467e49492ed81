//! Extended attributes of host files (xattr(7)); the VMM passes on user., trusted., security.capability and the ACLs.

use super::inode::{Base, HostInode};
use super::request;
use crate::errno::Errno;
use crate::fs::inode::XattrMode;
use abi::request::Op;
use alloc::vec::Vec;
use linux_abi::fs::{XATTR_LIST_MAX, XATTR_SIZE_MAX};

const GET: u16 = 0;
const SET: u16 = 1;
const REMOVE: u16 = 2;
const LIST: u16 = 3;
const CREATE: u16 = 4;
const REPLACE: u16 = 5;

impl HostInode {
    fn xattr(&self, verb: u16, name: &[u8], at: u64, bytes: usize) -> Result<usize, Errno> {
        let (base, path) = match self.known_handle() {
            Some(handle) if self.is_nameless() => (Base::Opened(handle), Vec::new()),
            _ => self.name()?,
        };
        let more = [request::gpa(name), name.len() as u64, at, bytes as u64];
        request::with_path(Op::Xattr, verb, base.number(), &path, more).map(|answer| answer.value as usize)
    }

    fn xattr_read(&self, verb: u16, name: &[u8], most: usize) -> Result<Vec<u8>, Errno> {
        let mut buffer = alloc::vec![0u8; most];
        let at = request::gpa(&buffer);
        let bytes = self.xattr(verb, name, at, most)?;
        buffer.truncate(bytes);
        Ok(buffer)
    }

    pub(super) fn xattr_get(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.xattr_read(GET, name, XATTR_SIZE_MAX)
    }

    pub(super) fn xattr_list(&self) -> Result<Vec<u8>, Errno> {
        self.xattr_read(LIST, b"", XATTR_LIST_MAX)
    }

    pub(super) fn xattr_set(&self, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno> {
        let verb = match mode {
            XattrMode::Either => SET,
            XattrMode::Create => CREATE,
            XattrMode::Replace => REPLACE,
        };
        self.xattr(verb, name, request::gpa(value), value.len())?;
        self.mark_stale();
        Ok(())
    }

    pub(super) fn xattr_remove(&self, name: &[u8]) -> Result<(), Errno> {
        self.xattr(REMOVE, name, 0, 0)?;
        self.mark_stale();
        Ok(())
    }
}
