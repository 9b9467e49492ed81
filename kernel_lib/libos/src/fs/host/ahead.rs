//! Looking ahead. Programs that walk a tree (find, tar, du, ls -l, rm -r) look at a directory's names one after the other, in the order in
//! which they were listed: a name near the last one brings the names that follow it along, in one request. Others sort them first (git, ls):
//! after some names in no order, each one that is not known brings along names that nobody has asked for yet.

use super::directory::entries;
use super::inode::HostInode;
use super::request;
use crate::fs::inode::{DirEntry, Inode};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Names that are asked for at once, and their bytes together (a path's worth).
const NAMES: usize = 64;
const BYTES: usize = 3800;
/// How far behind the last name one may lie to be the next: what lies between was known already, or of no interest.
const NEAR: usize = 8;
/// Names out of order after which all are expected to be asked for.
const ORDERLY: usize = 4;

/// Where in a directory's listing its names are being looked up.
#[derive(Default)]
pub struct Ahead {
    records: Arc<Vec<u8>>,
    /// Behind the record of the last name.
    at: usize,
    /// Names that were not near the last one, and behind which record nobody has asked in their turn.
    jumps: usize,
    unasked: usize,
}

impl Ahead {
    /// The directory was listed; it may have changed since the next time this is used.
    pub fn listed(&mut self, records: &Arc<Vec<u8>>) {
        *self = Self { records: records.clone(), ..Self::default() };
    }

    /// `name` and those to be asked for with it.
    fn from(&mut self, name: &[u8]) -> Vec<Vec<u8>> {
        let records = self.records.clone();
        let at = |from| entries(&records, from).filter(|(entry, _)| !matches!(entry.name, b"." | b".."));
        let Some(skipped) = at(self.at).take(NEAR).position(|(entry, _)| entry.name == name) else {
            let Some((_, end)) = at(0).find(|(entry, _)| entry.name == name) else { return Vec::new() };
            self.at = end;
            self.jumps += 1;
            if self.jumps <= ORDERLY {
                return Vec::new();
            }
            let others = at(self.unasked).filter(|(entry, _)| entry.name != name).take(NAMES - 1);
            let mut names = alloc::vec![name.to_vec()];
            self.unasked = gather(others, &mut names).unwrap_or(records.len());
            return names;
        };
        let mut names = Vec::new();
        self.at = gather(at(self.at).skip(skipped).take(NAMES), &mut names).unwrap_or(self.at);
        if self.at == records.len() {
            *self = Self::default();
        }
        names
    }
}

/// Adds names to those that are asked for at once, as long as there is room; behind which record the last one ends.
fn gather<'r>(entries: impl Iterator<Item = (DirEntry<'r>, usize)>, names: &mut Vec<Vec<u8>>) -> Option<usize> {
    let mut bytes: usize = names.iter().map(|name| name.len() + 1).sum();
    let mut last = None;
    for (entry, end) in entries {
        bytes += entry.name.len() + 1;
        if bytes > BYTES {
            break;
        }
        names.push(entry.name.to_vec());
        last = Some(end);
    }
    last
}

impl HostInode {
    pub(super) fn find_ahead(&self, name: &[u8], doubtful: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Option<Arc<dyn Inode>>)> {
        let Ok(parent) = self.arc() else { return Vec::new() };
        let names = if doubtful.is_empty() {
            self.ahead.lock().from(name)
        } else {
            let mut bytes = name.len();
            let mut fits = |other: &Vec<u8>| {
                bytes += other.len() + 1;
                bytes <= BYTES
            };
            core::iter::once(name.to_vec()).chain(doubtful.into_iter().take_while(|other| fits(other))).collect()
        };
        if names.len() < 2 {
            return Vec::new();
        }
        let asked: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let Ok(stats) = self.with_name(|handle, path| request::siblings(handle, path, &asked)) else { return Vec::new() };
        let found = names.into_iter().zip(stats).map(|(name, stat)| {
            let inode = stat.map(|stat| self.tree.inode(&parent, &name, &stat, None) as Arc<dyn Inode>);
            (name, inode)
        });
        found.collect()
    }
}
