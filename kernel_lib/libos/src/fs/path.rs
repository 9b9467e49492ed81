//! Path resolution (path_resolution(7), openat2(2)).
//!
//! The walk uses the dentry cache and asks a file system only for what is not cached, for as many components at once as it can.

use super::dentry::{Cached, Dentry};
use super::inode::{is_directory, is_symlink, Caching};
use super::permission;
use super::Location;
use crate::errno::{Errno, EAGAIN, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EXDEV};
use crate::process::{Credentials, Task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_abi::fs::{
    MAX_SYMLINKS, NAME_MAX, PATH_MAX, RESOLVE_BENEATH, RESOLVE_CACHED, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
};

/// How a path ends, for calls that create, remove or rename: the directory is resolved, the last name is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Last {
    /// An ordinary name; `slash`: a slash follows it.
    Name { name: Vec<u8>, slash: bool },
    /// The path ends in ".".
    Dot,
    /// The path ends in "..".
    DotDot,
    /// Nothing but slashes.
    Root,
}

/// A resolution in progress.
pub struct Walk<'a> {
    task: &'a Arc<Task>,
    credentials: Arc<Credentials>,
    /// Taken from the task when the path first needs it.
    root: Option<Location>,
    /// RESOLVE_* of openat2(2).
    resolve: u64,
    links: u32,
    /// Components ahead that a file system of [`Caching::Ask`] has just confirmed.
    confirmed: usize,
    /// When it began, by the TSC; 0: not asked yet.
    now: u64,
}

enum Step {
    Found,
    Magic(Location),
    Link(Vec<u8>),
}

impl<'a> Walk<'a> {
    pub fn new(task: &'a Arc<Task>) -> Self {
        Self::as_user(task, task.credentials())
    }

    /// With other credentials (access(2)).
    pub fn as_user(task: &'a Arc<Task>, credentials: Arc<Credentials>) -> Self {
        Self { task, credentials, root: None, resolve: 0, links: 0, confirmed: 0, now: 0 }
    }

    /// With RESOLVE_* flags; `root` is what counts as the root directory.
    pub fn scoped(task: &'a Arc<Task>, root: Location, resolve: u64) -> Self {
        Self { task, credentials: task.credentials(), root: Some(root), resolve, links: 0, confirmed: 0, now: 0 }
    }

    fn root(&mut self) -> &Location {
        let task = self.task;
        self.root.get_or_insert_with(|| task.fs().root())
    }

    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The whole path; `follow`: also a symbolic link at its end.
    pub fn lookup(&mut self, start: Location, path: &[u8], follow: bool) -> Result<Location, Errno> {
        self.run(start, path, follow, false).map(|(location, _)| location)
    }

    /// The directory that the path's last component is in, and that component.
    pub fn parent(&mut self, start: Location, path: &[u8]) -> Result<(Location, Last), Errno> {
        self.run(start, path, false, true)
    }

    fn run(&mut self, start: Location, path: &[u8], follow: bool, stop_at_last: bool) -> Result<(Location, Last), Errno> {
        if path.is_empty() {
            return Err(ENOENT);
        }
        self.confirmed = 0;
        let mut at = start;
        // What is left to walk: `path`, or the text that a symbolic link put in its place, from `position` on.
        let mut linked: Option<Vec<u8>> = None;
        let mut position = 0;
        let mut last = Last::Root;
        if path[0] == b'/' && (self.resolve != 0 || !at.same(self.root())) {
            self.go_to_root(&mut at)?;
        }
        loop {
            let text = linked.as_deref().unwrap_or(path);
            let rest = skip_slashes(&text[position..]);
            if rest.is_empty() {
                return Ok((at, last));
            }
            let end = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            let slash = !after.is_empty();
            let is_last = skip_slashes(after).is_empty();
            position = text.len() - after.len();
            if !is_directory(&**at.inode()) {
                return Err(ENOTDIR);
            }
            permission::check(&self.credentials, &**at.inode(), permission::EXECUTE)?;
            match name {
                b"." if is_last && stop_at_last => return Ok((at, Last::Dot)),
                b".." if is_last && stop_at_last => return Ok((at, Last::DotDot)),
                b"." => {
                    last = Last::Dot;
                    continue;
                }
                b".." => {
                    last = Last::DotDot;
                    self.confirmed = 0;
                    self.up(&mut at)?;
                    continue;
                }
                _ if name.len() > NAME_MAX => return Err(ENAMETOOLONG),
                _ if is_last && stop_at_last => return Ok((at, Last::Name { name: name.to_vec(), slash })),
                _ => {}
            }
            last = Last::Root;
            match self.step(&mut at, name, after, !is_last || follow || slash)? {
                Step::Found if is_last && slash && !is_directory(&**at.inode()) => return Err(ENOTDIR),
                Step::Found => {}
                Step::Magic(to) => {
                    at = to;
                    self.confirmed = 0;
                }
                Step::Link(mut target) => {
                    if target[0] == b'/' {
                        self.go_to_root(&mut at)?;
                    }
                    target.extend_from_slice(after);
                    if target.len() >= PATH_MAX {
                        return Err(ENAMETOOLONG);
                    }
                    linked = Some(target);
                    position = 0;
                    self.confirmed = 0;
                }
            }
        }
    }

    /// One more symbolic link in this resolution. ELOOP: too many.
    pub fn count_link(&mut self) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_SYMLINKS {
            Err(ELOOP)
        } else {
            Ok(())
        }
    }

    fn go_to_root(&mut self, at: &mut Location) -> Result<(), Errno> {
        if self.resolve & RESOLVE_BENEATH != 0 {
            return Err(EXDEV);
        }
        if self.resolve & RESOLVE_NO_XDEV != 0 && !Arc::ptr_eq(&at.mount, &self.root().mount) {
            return Err(EXDEV);
        }
        *at = self.root().clone();
        Ok(())
    }

    /// "..": the root directory is its own parent; out of a mount to where it is mounted.
    fn up(&mut self, at: &mut Location) -> Result<(), Errno> {
        loop {
            if at.same(self.root()) {
                return if self.resolve & RESOLVE_BENEATH != 0 { Err(EXDEV) } else { Ok(()) };
            }
            if !Arc::ptr_eq(&at.dentry, &at.mount.root) {
                break;
            }
            match at.mount.mount_point() {
                Some(_) if self.resolve & RESOLVE_NO_XDEV != 0 => return Err(EXDEV),
                Some(point) => *at = point,
                None => return Ok(()),
            }
        }
        if let Some(parent) = at.dentry.parent() {
            at.dentry = parent;
        }
        at.cross_down();
        Ok(())
    }

    /// One ordinary component. `after`: the rest of the path behind it, to be looked up ahead.
    fn step(&mut self, at: &mut Location, name: &[u8], after: &[u8], follow: bool) -> Result<Step, Errno> {
        let dentry = self.child(at, name, after)?;
        if follow && is_symlink(&**dentry.inode()) {
            if self.resolve & RESOLVE_NO_SYMLINKS != 0 {
                return Err(ELOOP);
            }
            self.count_link()?;
            if let Some(to) = dentry.inode().follow(self.task) {
                if self.resolve & (RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH | RESOLVE_IN_ROOT) != 0 {
                    return Err(if self.resolve & RESOLVE_NO_MAGICLINKS != 0 { ELOOP } else { EXDEV });
                }
                return to.map(Step::Magic);
            }
            let target = dentry.inode().read_link()?;
            if target.is_empty() {
                return Err(ENOENT);
            }
            return Ok(Step::Link(target));
        }
        let crosses = dentry.mounts.load(core::sync::atomic::Ordering::Relaxed) > 0;
        at.dentry = dentry;
        if crosses {
            let before = at.mount.id;
            at.cross_down();
            if at.mount.id != before {
                self.confirmed = 0;
                if self.resolve & RESOLVE_NO_XDEV != 0 {
                    return Err(EXDEV);
                }
            }
        }
        Ok(Step::Found)
    }

    fn child(&mut self, at: &Location, name: &[u8], after: &[u8]) -> Result<Arc<Dentry>, Errno> {
        match at.mount.caching() {
            caching @ (Caching::Always | Caching::Confirm) => {
                let only_cached = self.resolve & RESOLVE_CACHED != 0;
                if caching == Caching::Confirm && !only_cached {
                    if self.now == 0 {
                        self.now = hal::time::tsc();
                    }
                    at.inode().confirm_names(self.now);
                }
                match at.dentry.cached(name) {
                    Cached::Present(child) => Ok(child),
                    Cached::Absent => Err(ENOENT),
                    _ if only_cached => Err(EAGAIN),
                    _ => fetch(&at.dentry, name, after),
                }
            }
            Caching::Ask => {
                if self.confirmed > 0 {
                    self.confirmed -= 1;
                    if let Cached::Present(child) = at.dentry.cached(name) {
                        return Ok(child);
                    }
                }
                let (child, ahead) = ask(&at.dentry, name, after)?;
                self.confirmed = ahead;
                Ok(child)
            }
            Caching::Never => look_again(&at.dentry, name),
        }
    }
}

fn skip_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|&b| b != b'/').unwrap_or(path.len());
    &path[start..]
}

/// `name` and the ordinary names that follow it.
fn names_ahead<'p>(name: &'p [u8], after: &'p [u8]) -> Vec<&'p [u8]> {
    let mut names = alloc::vec![name];
    for part in after.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
        if part == b"." || part == b".." || part.len() > NAME_MAX {
            break;
        }
        names.push(part);
    }
    names
}

/// A name that is not cached, or doubtful: asks the file system for it and for what follows, and enters what is found.
fn fetch(directory: &Arc<Dentry>, name: &[u8], after: &[u8]) -> Result<Arc<Dentry>, Errno> {
    let _change = directory.change.lock();
    let names = match directory.cached(name) {
        Cached::Present(child) => return Ok(child),
        Cached::Absent => return Err(ENOENT),
        // What lies deeper may be cached.
        Cached::Doubtful(_) => alloc::vec![name],
        Cached::Unknown => names_ahead(name, after),
    };
    if directory.is_dead() {
        return Err(ENOENT);
    }
    if names.len() == 1 {
        match cached_after_others(directory, name) {
            Cached::Present(child) => return Ok(child),
            Cached::Absent => return Err(ENOENT),
            _ => {}
        }
    }
    let (found, errno) = directory.inode().lookup_path(&names);
    let mut at = directory.clone();
    let mut first = None;
    for (inode, name) in found.into_iter().zip(&names) {
        // What lies deeper cannot be cached yet: a directory is reached through its one name only, and that was unknown.
        at = at.found(name, inode);
        first.get_or_insert_with(|| at.clone());
    }
    if errno == Some(ENOENT) && is_directory(&**at.inode()) {
        let depth = first.as_ref().map_or(0, |_| depth_between(directory, &at));
        if let Some(name) = names.get(depth) {
            at.attach_absent(name);
        }
    }
    first.ok_or_else(|| errno.unwrap_or(ENOENT))
}

/// Asks for a name together with others of its directory that may be wanted next, if that is to be had; what is cached of it then. The
/// directory's `change` is held.
fn cached_after_others(directory: &Arc<Dentry>, name: &[u8]) -> Cached {
    if matches!(directory.cached(name), Cached::Unknown) && directory.was_complete() {
        let mut names = Vec::new();
        let listed = directory.inode().list(0, &mut |entry| {
            names.push(entry.name.to_vec());
            true
        });
        if listed.is_ok() {
            directory.listed(names.iter().map(Vec::as_slice).filter(|name| !matches!(*name, b"." | b"..")));
        }
        if let cached @ Cached::Absent = directory.cached(name) {
            return cached;
        }
    }
    enter_ahead(directory, name, directory.doubtful(name));
    directory.cached(name)
}

fn enter_ahead(directory: &Arc<Dentry>, name: &[u8], others: Vec<Vec<u8>>) {
    for (name, inode) in directory.inode().lookup_ahead(name, others) {
        match inode {
            Some(inode) if !matches!(directory.cached(&name), Cached::Absent) => {
                directory.found(&name, inode);
            }
            Some(_) => {}
            None => directory.attach_absent(&name),
        }
    }
}

/// Asks at once for names of a directory that are going to be looked up one by one, if the file system can be asked so.
pub fn look_ahead(directory: &Location, mut names: Vec<Vec<u8>>) {
    let dentry = &directory.dentry;
    let Some(name) = names.pop().filter(|_| directory.mount.caching().remembers()) else { return };
    let _change = dentry.change.lock();
    dentry.inode().confirm_names(hal::time::tsc());
    enter_ahead(dentry, &name, names);
}

fn depth_between(top: &Arc<Dentry>, bottom: &Arc<Dentry>) -> usize {
    let mut depth = 0;
    let mut at = bottom.clone();
    while !Arc::ptr_eq(&at, top) {
        depth += 1;
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    depth
}

/// A tree that others change: asks for this name and for those ahead up to the next mount point, brings the cache up to date, and says
/// how many of those ahead are confirmed by this.
fn ask(directory: &Arc<Dentry>, name: &[u8], after: &[u8]) -> Result<(Arc<Dentry>, usize), Errno> {
    let names = names_ahead(name, after);
    let (found, errno) = directory.inode().lookup_path(&names);
    let mut at = directory.clone();
    let mut first = None;
    let mut count = 0;
    for (inode, name) in found.into_iter().zip(&names) {
        let _change = at.change.lock();
        let next = at.found(name, inode);
        drop(_change);
        let covered = next.mounts.load(core::sync::atomic::Ordering::Relaxed) > 0;
        at = next;
        first.get_or_insert_with(|| at.clone());
        count += 1;
        if covered {
            break;
        }
    }
    match first {
        Some(first) => Ok((first, count - 1)),
        None => {
            directory.forget(name);
            Err(errno.unwrap_or(ENOENT))
        }
    }
}

/// /proc: a cached entry counts while its inode says so.
fn look_again(directory: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>, Errno> {
    if let Cached::Present(child) = directory.cached(name) {
        if child.inode().valid() {
            return Ok(child);
        }
    }
    let _change = directory.change.lock();
    match directory.inode().lookup(name) {
        Ok(inode) => Ok(directory.attach(name, inode)),
        Err(errno) => {
            directory.forget(name);
            Err(errno)
        }
    }
}

/// A name in a directory for a caller that holds its `change` lock and is about to change it. None: there is nothing.
pub fn child_locked(directory: &Location, name: &[u8]) -> Result<Option<Arc<Dentry>>, Errno> {
    let dentry = &directory.dentry;
    if directory.mount.caching().remembers() {
        dentry.inode().confirm_names(hal::time::tsc());
        let mut cached = dentry.cached(name);
        if matches!(cached, Cached::Doubtful(_) | Cached::Unknown) && !dentry.is_dead() {
            cached = cached_after_others(dentry, name);
        }
        match cached {
            Cached::Present(child) => return Ok(Some(child)),
            Cached::Absent => return Ok(None),
            Cached::Doubtful(_) | Cached::Unknown => {}
        }
    }
    if dentry.is_dead() {
        return Err(ENOENT);
    }
    match dentry.inode().lookup(name) {
        Ok(inode) => match dentry.cached(name) {
            Cached::Present(child) if directory.mount.caching() == Caching::Never => Ok(Some(child)),
            _ => Ok(Some(dentry.found(name, inode))),
        },
        Err(ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
