//! Directories of the overlay: two lists of names shown as one, whiteouts, and the changes.

use super::inode::{below, overlay, OverlayInode};
use crate::errno::{Errno, ENOENT, ENOTEMPTY};
use crate::fs::inode::{entry_type, Inode, NewNode, Rename};
use crate::fs::tmpfs::TmpInode;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_abi::fs::{DT_DIR, RENAME_EXCHANGE, RENAME_WHITEOUT, S_IFCHR, S_IFDIR};

/// An entry as getdents64 shows it.
pub struct Entry {
    pub ino: u64,
    pub kind: u8,
    pub name: Vec<u8>,
}

fn is_whiteout(inode: &TmpInode) -> bool {
    inode.kind() == S_IFCHR && inode.stat().is_ok_and(|stat| stat.rdev == 0)
}

impl OverlayInode {
    pub(super) fn find(&self, name: &[u8]) -> Result<Arc<OverlayInode>, Errno> {
        if let Some(upper) = self.top() {
            match upper.child(name) {
                Ok(child) if is_whiteout(&child) => return Err(ENOENT),
                Ok(child) => return self.wrap_upper(name, child),
                Err(ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        let lower = below(self.lower.as_ref(), name)?.ok_or(ENOENT)?;
        self.wrap_lower(&self.arc()?, name, lower)
    }

    /// Where nothing has been copied up, everything below is the lower tree's: it is asked for all names at once.
    pub(super) fn find_path(&self, names: &[&[u8]]) -> (Vec<Arc<dyn Inode>>, Option<Errno>) {
        let first_in_upper = self.top().is_some_and(|upper| names.first().is_some_and(|name| upper.child(name).is_ok()));
        let (Some(lower), false, Ok(me)) = (&self.lower, first_in_upper, self.arc()) else {
            return match names.first().map(|name| self.find(name)) {
                Some(Ok(inode)) => (alloc::vec![inode], None),
                Some(Err(errno)) => (Vec::new(), Some(errno)),
                None => (Vec::new(), None),
            };
        };
        let (found, errno) = lower.lookup_path(names);
        let mut parent = me;
        let mut wrapped: Vec<Arc<dyn Inode>> = Vec::with_capacity(found.len());
        for (inode, name) in found.into_iter().zip(names) {
            match self.wrap_lower(&parent, name, inode) {
                // Known already, and perhaps with an upper side: what lies below it is its own to say.
                Ok(inode) if inode.top().is_some() => {
                    wrapped.push(inode);
                    return (wrapped, None);
                }
                Ok(inode) => {
                    wrapped.push(inode.clone());
                    parent = inode;
                }
                Err(errno) => return (wrapped, Some(errno)),
            }
        }
        (wrapped, errno)
    }

    /// Every name that shows, "." and ".." first.
    pub(super) fn merged(&self) -> Result<Vec<Entry>, Errno> {
        let own = self.stat()?.ino;
        let mut entries =
            alloc::vec![Entry { ino: own, kind: DT_DIR, name: b".".to_vec() }, Entry { ino: own, kind: DT_DIR, name: b"..".to_vec() }];
        let mut covered = BTreeSet::new();
        if let Some(upper) = self.top() {
            for (name, child) in upper.entries() {
                if !is_whiteout(&child) {
                    let shown = super::origin(&child).map_or_else(|| child.stat(), |lower| lower.stat())?;
                    entries.push(Entry { ino: shown.ino, kind: entry_type(shown.mode), name: name.to_vec() });
                }
                covered.insert(name);
            }
        }
        if let Some(lower) = &self.lower {
            lower.list(0, &mut |entry| {
                if !matches!(entry.name, b"." | b"..") && !covered.contains(entry.name) {
                    entries.push(Entry { ino: entry.ino, kind: entry.kind, name: entry.name.to_vec() });
                }
                true
            })?;
        }
        Ok(entries)
    }

    /// The upper directory, with nothing under the name any more that only covers it.
    fn prepared(&self, name: &[u8]) -> Result<Arc<TmpInode>, Errno> {
        let upper = self.copy_up(u64::MAX)?;
        if upper.child(name).is_ok_and(|child| is_whiteout(&child)) {
            upper.drop_entry(name)?;
        }
        Ok(upper)
    }

    pub(super) fn make(&self, name: &[u8], node: &NewNode, target: Option<&[u8]>) -> Result<Arc<dyn Inode>, Errno> {
        let upper = self.prepared(name)?;
        match target {
            Some(target) => upper.symlink(name, target, node)?,
            None => upper.create(name, node)?,
        };
        let inode = self.wrap_upper(name, upper.child(name)?)?;
        Ok(inode)
    }

    pub(super) fn add_link(&self, name: &[u8], inode: &Arc<OverlayInode>) -> Result<(), Errno> {
        let source = inode.copy_up(u64::MAX)?;
        let upper = self.prepared(name)?;
        upper.link(name, &(source as Arc<dyn Inode>))
    }

    /// Covers a lower name that must not show any more.
    fn cover(&self, upper: &TmpInode, name: &[u8]) -> Result<(), Errno> {
        if below(self.lower.as_ref(), name)?.is_some() {
            upper.create(name, &NewNode { mode: S_IFCHR, uid: 0, gid: 0, rdev: 0 })?;
        }
        Ok(())
    }

    /// A directory to be removed or replaced shows nothing; the whiteouts in it go with it.
    fn check_empty(&self) -> Result<(), Errno> {
        if self.kind() != S_IFDIR {
            return Ok(());
        }
        if self.merged()?.len() > 2 {
            return Err(ENOTEMPTY);
        }
        if let Some(upper) = self.top() {
            for (name, _) in upper.entries() {
                upper.drop_entry(&name)?;
            }
        }
        Ok(())
    }

    pub(super) fn take_away(&self, name: &[u8], child: &Arc<OverlayInode>) -> Result<(), Errno> {
        child.check_empty()?;
        let upper = self.copy_up(u64::MAX)?;
        if let Ok(own) = upper.child(name) {
            upper.unlink(name, &(own as Arc<dyn Inode>))?;
        }
        self.cover(&upper, name)
    }

    pub(super) fn move_entry(&self, rename: &Rename<'_>) -> Result<(), Errno> {
        let (child, target) = (overlay(rename.child)?, overlay(rename.new_directory)?);
        let exchange = rename.flags & RENAME_EXCHANGE != 0;
        let replaced = rename.replaced.map(overlay).transpose()?;
        if let Some(replaced) = replaced.as_ref().filter(|_| !exchange) {
            replaced.check_empty()?;
        }
        let moved = child.copy_up(u64::MAX)?;
        let (from, to) = (self.copy_up(u64::MAX)?, target.copy_up(u64::MAX)?);
        // Under a second name of a lower file the copy may not have an entry of its own yet.
        if from.child(rename.name).is_err() {
            from.link(rename.name, &(moved.clone() as Arc<dyn Inode>))?;
        }
        if exchange {
            let other = replaced.ok_or(ENOENT)?;
            let other_upper = other.copy_up(u64::MAX)?;
            if to.child(rename.new_name).is_err() {
                to.link(rename.new_name, &(other_upper as Arc<dyn Inode>))?;
            }
            self.rename_upper(rename, &from, &to, RENAME_EXCHANGE)?;
            *other.place.lock() = Some((self.arc()?, rename.name.into()));
        } else {
            // What has the new name in the upper layer, the replaced object or a whiteout, gives way.
            self.rename_upper(rename, &from, &to, rename.flags & RENAME_WHITEOUT)?;
            if rename.flags & RENAME_WHITEOUT == 0 {
                self.cover(&from, rename.name)?;
            }
        }
        let old = child.place.lock().replace((target, rename.new_name.into()));
        drop(old);
        Ok(())
    }

    fn rename_upper(&self, rename: &Rename<'_>, from: &Arc<TmpInode>, to: &Arc<TmpInode>, flags: u32) -> Result<(), Errno> {
        let child = from.child(rename.name)? as Arc<dyn Inode>;
        let replaced = to.child(rename.new_name).ok().map(|inode| inode as Arc<dyn Inode>);
        let new_directory = to.clone() as Arc<dyn Inode>;
        from.rename(&Rename {
            child: &child,
            name: rename.name,
            new_directory: &new_directory,
            new_name: rename.new_name,
            replaced: replaced.as_ref(),
            flags,
        })
    }
}
