//! A host file as the VFS sees it: attributes, names, and the changes of a directory.

use super::inode::HostInode;
use super::request;
use crate::errno::{Errno, EINVAL, ENOENT, ENOTDIR, EXDEV};
use crate::fs::file::FileOps;
use crate::fs::inode::{Attributes, DirEntry, Inode, InodeState, NewNode, Rename, Stat, XattrMode};
use crate::host::posted;
use abi::request::{Op, ATTR_MTIME, ATTR_MTIME_NOW, ATTR_SIZE};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;
use linux_abi::fs::{
    O_RDWR, O_TMPFILE, PATH_MAX, RENAME_EXCHANGE, STATX_ATTR_APPEND, STATX_ATTR_IMMUTABLE, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISVTX,
};

/// Room for one LIST; a directory that fits is remembered as a whole.
const LIST_BYTES: usize = 32 << 10;

/// Changes after which a directory is one that is changed often.
const OFTEN: u32 = 12;
/// Links of one file that every file system lets have one more.
const SURE_LINKS: u32 = 1000;

fn host(inode: &Arc<dyn Inode>) -> Result<&HostInode, Errno> {
    inode.as_any().downcast_ref::<HostInode>().ok_or(EXDEV)
}

impl HostInode {
    /// The directory has other contents now.
    fn changed(&self) {
        self.listing.lock().take();
        self.mark_renamed();
        self.changeable.store(true, Ordering::Relaxed);
        // A directory that is changed often is opened: what is in it is named more shortly then.
        if self.own_changes.fetch_add(1, Ordering::Relaxed) % 64 == OFTEN {
            let _ = self.handle(false);
        }
    }

    fn same_tree(&self, other: &HostInode) -> Result<(), Errno> {
        if Arc::ptr_eq(&self.tree, &other.tree) {
            Ok(())
        } else {
            Err(EXDEV)
        }
    }

    /// Whether a name of this directory may be given or taken without waiting for the host: it cannot but do it.
    fn may_post_change(&self, child: &HostInode) -> bool {
        self.exclusive()
            && self.changeable.load(Ordering::Relaxed)
            && (child.made_here.load(Ordering::Relaxed) || self.known().mode & S_ISVTX == 0)
            && child.kind != S_IFDIR
            && u64::from(child.known().attributes) & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND) == 0
            && posted::has_room()
            && !self.tree.is_nearly_full(true)
    }

    /// Makes a directory, node or symbolic link.
    fn make(&self, name: &[u8], node: &NewNode, target: Option<&[u8]>) -> Result<Arc<dyn Inode>, Errno> {
        let (base, path) = self.name_of_child(name)?;
        let stat = request::make(base.number(), &path, node, target.unwrap_or_default())?;
        self.changed();
        let inode = self.tree.inode(&self.arc()?, name, &stat, target.map(Into::into));
        inode.made_here.store(true, Ordering::Relaxed);
        Ok(inode)
    }

    /// Bookkeeping for a name that is gone.
    fn lost(&self, directory: &HostInode, name: &[u8]) {
        let last = self.remove_link(directory, name);
        self.amend(|stat| stat.nlink = if self.kind == S_IFDIR { 0 } else { stat.nlink.saturating_sub(1) });
        self.mark_stale();
        if last {
            self.tree.forget(self.key, self);
            if self.opens.load(Ordering::Acquire) == 0 {
                self.drop_windows();
                self.drop_handles();
            }
        }
    }

    /// A file that is in use must stay reachable when its last name goes.
    fn before_losing_name(&self) -> Result<(), Errno> {
        if self.opens.load(Ordering::Acquire) > 0 && self.kind == S_IFREG {
            self.hold_handle()?;
        }
        Ok(())
    }

    /// The directory's records from a position on, as getdents64(2) gives them.
    fn records(&self, position: u64) -> Result<Arc<Vec<u8>>, Errno> {
        let whole = self.listing.lock().clone();
        if let Some(whole) = whole {
            return Ok(whole);
        }
        let mut buffer = alloc::vec![0u8; LIST_BYTES];
        let named = if position == 0 && self.known_handle().is_none() { self.name().ok() } else { None };
        let bytes = match named {
            // Most directories are listed by one request: no need to open them.
            Some((base, path)) if !path.is_empty() => request::list(base.number(), &path, position, &mut buffer)?,
            _ => request::list(self.handle(false)?.number(), b"", position, &mut buffer)?,
        };
        buffer.truncate(bytes);
        // Less than a record's greatest length short of full: there may be more.
        let whole = position == 0 && bytes + 280 < LIST_BYTES;
        buffer.shrink_to_fit();
        let records = Arc::new(buffer);
        if self.exclusive() {
            self.ahead.lock().listed(&records);
            if whole {
                *self.listing.lock() = Some(records.clone());
            }
        }
        Ok(records)
    }
}

/// struct linux_dirent64 records in a buffer from an offset on, each with the offset behind it.
pub(super) fn entries(records: &[u8], from: usize) -> impl Iterator<Item = (DirEntry<'_>, usize)> {
    let mut at = from;
    core::iter::from_fn(move || {
        let rest = records.get(at..)?;
        let header = rest.get(..19)?;
        let ino = u64::from_le_bytes(header[0..8].try_into().ok()?);
        let next = u64::from_le_bytes(header[8..16].try_into().ok()?);
        let length = usize::from(u16::from_le_bytes([header[16], header[17]]));
        let name = rest.get(19..length)?;
        let end = name.iter().position(|&b| b == 0)?;
        at += length;
        Some((DirEntry { ino, next, kind: header[18], name: &name[..end] }, at))
    })
}

impl Inode for HostInode {
    fn state(&self) -> &InodeState {
        &self.state
    }
    fn kind(&self) -> u32 {
        self.kind
    }
    fn stat(&self) -> Result<Stat, Errno> {
        if self.kind == S_IFDIR {
            self.confirm(hal::time::tsc());
        }
        let writable = self.writable_windows.load(Ordering::Relaxed) && self.mapped.load(Ordering::Relaxed) > 0;
        if writable {
            self.mark_stale();
        }
        self.fresh_stat()
    }
    fn is_gone(&self) -> bool {
        if self.exclusive() {
            self.known().nlink == 0
        } else {
            Inode::stat(self).map_or(true, |stat| stat.nlink == 0)
        }
    }
    fn owner(&self) -> Result<crate::fs::inode::Owner, Errno> {
        // As of the walk that led here, which asked the host if it is a shared tree.
        Ok(self.known_owner())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let (mut found, errno) = self.lookup_path(&[name]);
        found.pop().ok_or_else(|| errno.unwrap_or(ENOENT))
    }

    fn lookup_path(&self, names: &[&[u8]]) -> (Vec<Arc<dyn Inode>>, Option<Errno>) {
        let mut parent = match self.arc() {
            Ok(parent) => parent,
            Err(errno) => return (Vec::new(), Some(errno)),
        };
        let (base, mut path) = match self.name() {
            Ok(name) => name,
            Err(errno) => return (Vec::new(), Some(errno)),
        };
        let skipped = path.split(|&b| b == b'/').filter(|part| !part.is_empty()).count();
        // From the directory's own handle when it has one: fewer components to walk. Else the whole path, whose head is known.
        let handle = self.known_handle().filter(|_| self.kind == S_IFDIR);
        let (base, skipped) = match &handle {
            Some(handle) => {
                path.clear();
                (handle.number(), 0)
            }
            None => (base.number(), skipped),
        };
        let mut taken = 0;
        for name in names {
            if path.len() + name.len() + 1 >= PATH_MAX {
                break;
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            taken += 1;
        }
        let walked = match request::walk(base, &path, skipped + taken) {
            Ok(walked) => walked,
            Err(errno) => return (Vec::new(), Some(errno)),
        };
        if walked.stats.len() < skipped {
            return (Vec::new(), Some(walked.errno.unwrap_or(ENOENT)));
        }
        let count = walked.stats.len() - skipped;
        let mut target = walked.target;
        let mut found: Vec<Arc<dyn Inode>> = Vec::with_capacity(count);
        for (index, stat) in walked.stats[skipped..].iter().enumerate().take(taken) {
            let is_last = index + 1 == count;
            let text = if is_last && stat.mode & S_IFMT == S_IFLNK { target.take() } else { None };
            let inode = self.tree.inode(&parent, names[index], stat, text);
            found.push(inode.clone());
            parent = inode;
        }
        (found, walked.errno)
    }

    fn confirm_names(&self, now: u64) {
        self.confirm(now);
    }

    fn lookup_ahead(&self, name: &[u8], doubtful: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Option<Arc<dyn Inode>>)> {
        self.find_ahead(name, doubtful)
    }

    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        if node.mode & S_IFMT != S_IFREG {
            return self.make(name, node, None);
        }
        let (base, path) = self.name_of_child(name)?;
        let seen = self.changes();
        let (handle, stat, directory) = request::create(base.number(), &path, node)?;
        let alone = seen == self.changes();
        self.changed();
        if alone {
            self.learn(&directory);
        }
        let inode = self.tree.inode(&self.arc()?, name, &stat, None);
        inode.made_here.store(true, Ordering::Relaxed);
        inode.keep_handle(true, handle);
        Ok(inode)
    }

    fn symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        self.make(name, &NewNode { mode: S_IFLNK | 0o777, rdev: 0, ..*node }, Some(target))
    }

    fn link(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Result<(), Errno> {
        let inode = host(inode)?;
        self.same_tree(inode)?;
        let (base, path) = self.name_of_child(name)?;
        if inode.is_nameless() {
            let handle = inode.known_handle().ok_or(ENOENT)?;
            request::with_two(Op::Link, 0, handle.number(), b"", base.number(), &path)?;
        } else {
            let (old_base, old_path) = inode.name()?;
            let sure = inode.made_here.load(Ordering::Relaxed) && inode.key.0 == self.key.0 && inode.known().nlink < SURE_LINKS;
            if sure && self.may_post_change(inode) {
                request::post_link(self.arc()?, old_base.number(), old_path, base.number(), path);
            } else {
                request::with_two(Op::Link, 0, old_base.number(), &old_path, base.number(), &path)?;
            }
        }
        inode.add_link(&self.arc()?, name);
        inode.amend(|stat| stat.nlink += 1);
        inode.mark_stale();
        self.changed();
        Ok(())
    }

    fn unlink(&self, name: &[u8], child: &Arc<dyn Inode>) -> Result<(), Errno> {
        let child = host(child)?;
        child.before_losing_name()?;
        let (base, path) = self.name_of_child(name)?;
        if self.may_post_change(child) {
            request::post_unlink(self.arc()?, base.number(), path);
        } else {
            request::with_path(Op::Unlink, u16::from(child.kind == S_IFDIR), base.number(), &path, [0; 4])?;
        }
        child.lost(self, name);
        self.changed();
        match child.known_handle() {
            Some(handle) if !child.is_nameless() && posted::has_room() => {
                request::post_stat(child.arc()?, handle.number(), child.changes())
            }
            _ => {}
        }
        Ok(())
    }

    fn rename(&self, rename: &Rename<'_>) -> Result<(), Errno> {
        let (child, new_directory) = (host(rename.child)?, host(rename.new_directory)?);
        self.same_tree(new_directory)?;
        let replaced = rename.replaced.map(host).transpose()?;
        if let Some(replaced) = replaced.filter(|_| rename.flags & RENAME_EXCHANGE == 0) {
            replaced.before_losing_name()?;
        }
        let (base, path) = self.name_of_child(rename.name)?;
        let (new_base, new_path) = new_directory.name_of_child(rename.new_name)?;
        request::with_two(Op::Rename, rename.flags as u16, base.number(), &path, new_base.number(), &new_path)?;
        let (here, there) = (self.arc()?, new_directory.arc()?);
        child.remove_link(self, rename.name);
        match replaced {
            Some(other) if rename.flags & RENAME_EXCHANGE != 0 => {
                other.remove_link(new_directory, rename.new_name);
                other.add_link(&here, rename.name);
                other.mark_stale();
            }
            Some(other) => other.lost(new_directory, rename.new_name),
            None => {}
        }
        child.add_link(&there, rename.new_name);
        child.mark_stale();
        self.changed();
        new_directory.changed();
        Ok(())
    }

    fn temporary(&self, node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let (base, path) = self.name()?;
        let (handle, stat) = request::open(base.number(), &path, O_RDWR | O_TMPFILE, node.mode & 0o7777, (node.uid, node.gid))?;
        let inode = HostInode::nameless(&self.tree, &stat);
        inode.keep_handle(true, handle);
        Ok(inode)
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> Result<(), Errno> {
        if self.kind != S_IFDIR {
            return Err(ENOTDIR);
        }
        self.confirm(hal::time::tsc());
        let mut position = position;
        loop {
            let whole = self.listing.lock().is_some();
            let records = self.records(position)?;
            let whole = whole || self.listing.lock().is_some();
            let mut seen = !whole || position == 0;
            let mut any = false;
            for (entry, _) in entries(&records, 0) {
                if !seen {
                    // The whole directory is remembered: go on behind the entry whose position this is.
                    seen = entry.next == position;
                    continue;
                }
                any = true;
                if !emit(&entry) {
                    return Ok(());
                }
                position = entry.next;
            }
            if whole || !any {
                return Ok(());
            }
        }
    }

    fn read_link(&self) -> Result<Vec<u8>, Errno> {
        if self.kind != S_IFLNK {
            return Err(EINVAL);
        }
        if let Some(target) = self.target.lock().clone() {
            return Ok(target.to_vec());
        }
        let (base, path) = self.name()?;
        let mut buffer = alloc::vec![0u8; PATH_MAX];
        let at = request::gpa(&buffer);
        let answer = request::with_path(Op::ReadLink, 0, base.number(), &path, [at, buffer.len() as u64, 0, 0])?;
        buffer.truncate(answer.value as usize);
        *self.target.lock() = Some(buffer.as_slice().into());
        Ok(buffer)
    }

    fn set_attributes(&self, attributes: &Attributes) -> Result<(), Errno> {
        let resize = attributes.mask & ATTR_SIZE != 0;
        let guard = resize.then(|| self.content.lock());
        if resize || attributes.mask & (ATTR_MTIME | ATTR_MTIME_NOW) == 0 {
            self.settle_mtime()?;
        } else {
            self.forget_mtime();
        }
        let stat = if resize {
            // ftruncate(2) wants a handle that writes.
            request::set_attributes(self.handle(true)?.number(), b"", attributes)?
        } else {
            self.with_name(|handle, path| request::set_attributes(handle, path, attributes))?
        };
        self.changeable.store(false, Ordering::Relaxed);
        self.learn(&stat);
        if resize {
            self.shorten_windows(attributes.size);
            self.contents_changed();
        }
        drop(guard);
        if resize && self.mapped.load(Ordering::SeqCst) > 0 {
            crate::mm::invalidate(self.key, attributes.size.div_ceil(4096), u64::MAX);
        }
        Ok(())
    }

    fn open(self: Arc<Self>, _flags: u32) -> Result<Arc<dyn FileOps>, Errno> {
        self.opened();
        Ok(self)
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.xattr_get(name)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno> {
        self.xattr_set(name, value, mode)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        self.xattr_remove(name)
    }
    fn list_xattr(&self) -> Result<Vec<u8>, Errno> {
        self.xattr_list()
    }

    fn host_lock(&self, kind: i16, flock: bool, start: u64, bytes: u64) -> Option<Result<(), Errno>> {
        if self.exclusive() || self.kind != S_IFREG && self.kind != S_IFDIR {
            return None;
        }
        let flags = if flock { 0 } else { 2 };
        // A record lock needs what it locks for; flock(2) takes any descriptor.
        let write = !flock && self.kind == S_IFREG && kind == linux_abi::fs::F_WRLCK;
        let answer = self.handle(write).and_then(|handle| {
            let args = [kind as u64, start, bytes, 0, 0, 0];
            request::plain(Op::Lock, flags, handle.number(), args)
        });
        Some(answer.map(|_| ()))
    }
}
