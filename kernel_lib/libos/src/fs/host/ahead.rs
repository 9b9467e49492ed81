//! Looking ahead. Programs that walk a tree (find, tar, du, ls -l, rm -r) look at a directory's names one after the other, in the order in
//! which they were listed: a name near the last one brings the names that follow it along, in one request.

use super::directory::entries;
use super::inode::HostInode;
use super::request;
use crate::fs::inode::Inode;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Names that are asked for at once, and their bytes together (a path's worth).
const NAMES: usize = 64;
const BYTES: usize = 3800;
/// How far behind the last name one may lie to be the next: what lies between was known already, or of no interest.
const NEAR: usize = 8;

/// Where in a directory's listing its names are being looked up.
#[derive(Default)]
pub struct Ahead {
    records: Arc<Vec<u8>>,
    /// Behind the record of the last name.
    at: usize,
}

impl Ahead {
    /// The directory was listed; it may have changed since the next time this is used.
    pub fn listed(&mut self, records: &Arc<Vec<u8>>) {
        *self = Self { records: records.clone(), at: 0 };
    }

    /// `name` and those to be asked for with it.
    fn from(&mut self, name: &[u8]) -> Vec<Vec<u8>> {
        let records = self.records.clone();
        let at = |from| entries(&records, from).filter(|(entry, _)| !matches!(entry.name, b"." | b".."));
        let Some(skipped) = at(self.at).take(NEAR).position(|(entry, _)| entry.name == name) else {
            if let Some((_, end)) = at(0).find(|(entry, _)| entry.name == name) {
                self.at = end;
            }
            return Vec::new();
        };
        let mut names = Vec::new();
        let mut bytes = 0;
        for (entry, end) in at(self.at).skip(skipped).take(NAMES) {
            bytes += entry.name.len() + 1;
            if bytes > BYTES {
                break;
            }
            names.push(entry.name.to_vec());
            self.at = end;
        }
        if self.at == records.len() {
            *self = Self::default();
        }
        names
    }
}

impl HostInode {
    pub(super) fn find_ahead(&self, name: &[u8]) -> Vec<(Vec<u8>, Arc<dyn Inode>)> {
        let Ok(parent) = self.arc() else { return Vec::new() };
        let names = self.ahead.lock().from(name);
        if names.len() < 2 {
            return Vec::new();
        }
        let asked: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let Ok(stats) = self.with_name(|handle, path| request::siblings(handle, path, &asked)) else { return Vec::new() };
        let mut found: Vec<(Vec<u8>, Arc<dyn Inode>)> = Vec::with_capacity(names.len());
        for (name, stat) in names.into_iter().zip(stats) {
            if let Some(stat) = stat {
                let inode = self.tree.inode(&parent, &name, &stat, None);
                found.push((name, inode));
            }
        }
        found
    }
}
