//! One file of the host.
//!
//! Lock order: `content` (sleeps, held while program memory is touched) > address space > everything else here (spin locks, leaves).
//! The fault path ([`super::mapping`]) therefore never takes `content`.
//!
//! Of an exclusive tree what is known counts without asking, but a directory is asked for its ctime before its names are believed when
//! that is more than [`TRUST_SECONDS`] ago, or was before an order from outside. Whatever changed it then, its names are doubted: who it was cannot be told.

use super::ahead::Ahead;
use super::handle::Handles;
use super::request;
use super::tree::HostTree;
use super::window::FileWindows;
use crate::errno::{Errno, ENAMETOOLONG, ENOENT, ESTALE};
use crate::fs::inode::InodeState;
use crate::sync::Mutex;
use abi::request::{Attributes, Stat, Time, ATTR_MTIME};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use hal::sync::SpinLock;
use linux_abi::fs::{PATH_MAX, S_IFDIR, S_IFMT};

/// How long a directory's names are believed.
const TRUST_SECONDS: u64 = 1;
/// The end of the trust of what was asked for before somebody outside last gave an order ([`distrust`]).
static ORDERED: AtomicU64 = AtomicU64::new(0);

/// Somebody outside wants something of the container now: what they have changed before is to be seen.
pub fn distrust() {
    ORDERED.store(trust_from(hal::time::tsc()), Ordering::Relaxed);
}

/// How long after a change another one may leave the same ctime, ns: file systems count ticks of the host's clock, or seconds.
const TICK: u64 = 10_000_000;
const COARSE_TICK: u64 = 2_000_000_000;

pub struct HostInode {
    pub(super) tree: Arc<HostTree>,
    pub(super) me: Weak<HostInode>,
    pub(super) kind: u32,
    pub(super) key: (u64, u64),
    /// Names that lead here, the most recently seen first. Empty: the root, or a file whose names are gone.
    links: SpinLock<Vec<Link>>,
    is_root: bool,
    attributes: SpinLock<Known>,
    /// mode | uid << 32, and gid, as in `attributes`: for permission checks on every path.
    owner: [AtomicU64; 2],
    pub(super) state: InodeState,
    pub(super) target: SpinLock<Option<Arc<[u8]>>>,
    pub(super) handles: SpinLock<Handles>,
    /// Open files and mappings.
    pub(super) opens: AtomicU32,
    /// Pages of the windows are in programs' page tables while this is not 0.
    pub(super) mapped: AtomicI64,
    pub(super) windows: SpinLock<FileWindows>,
    /// Reads that went to the host: a file that is read again and again gets windows.
    pub(super) heat: AtomicU32,
    /// Size as reads and faults need it without a lock; authoritative for exclusive trees.
    pub(super) size: AtomicU64,
    /// Serialises writes and truncation.
    pub(super) content: Mutex<()>,
    /// The whole directory as LIST gave it.
    pub(super) listing: SpinLock<Option<Arc<Vec<u8>>>>,
    pub(super) ahead: SpinLock<Ahead>,
    /// There may be copies of its pages (`mm::copies`).
    pub(super) copied: AtomicBool,
    /// A program has had it written to the disk: it will again.
    pub(super) synced: AtomicBool,
    /// A window is writable: programs may change the file without a system call.
    pub(super) writable_windows: AtomicBool,
    /// Until when a directory's names are believed, by the TSC.
    trusted: AtomicU64,
}

pub(super) type Link = (Arc<HostInode>, Arc<[u8]>);

struct Known {
    stat: Stat,
    /// Something changed on the host by our doing: ask before answering.
    stale: bool,
    /// Bytes were changed through a window at this time: the host does not know.
    owed_mtime: Option<Time>,
    /// How often any of this was told or changed: what the host said before counts for nothing afterwards.
    changes: u64,
    /// The host's clock, ns, when it told `stat`.
    told: u64,
    /// The directory may have other names than when they were last confirmed.
    renamed: bool,
}

impl Known {
    /// Whether `ctime` may stay as it is though the file changes.
    fn is_fresh(&self) -> bool {
        let ctime = self.stat.ctime;
        let tick = if ctime.nsec == 0 { COARSE_TICK } else { TICK };
        (ctime.sec as u64).saturating_mul(1_000_000_000).saturating_add(u64::from(ctime.nsec)).saturating_add(tick) > self.told
    }
}

impl HostInode {
    pub(super) fn new(tree: &Arc<HostTree>, link: Option<Link>, stat: &Stat, target: Option<Vec<u8>>) -> Arc<Self> {
        let is_root = link.is_none();
        let links = link.into_iter().collect();
        Self::build(tree, stat, links, target, is_root)
    }

    fn build(tree: &Arc<HostTree>, stat: &Stat, links: Vec<Link>, target: Option<Vec<u8>>, is_root: bool) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            tree: tree.clone(),
            me: me.clone(),
            kind: stat.mode & S_IFMT,
            key: (stat.dev, stat.ino),
            is_root,
            links: SpinLock::new(links),
            attributes: SpinLock::new(Known {
                stat: *stat,
                stale: false,
                owed_mtime: None,
                changes: 0,
                told: hal::time::realtime(),
                renamed: false,
            }),
            owner: [AtomicU64::new(u64::from(stat.mode) | u64::from(stat.uid) << 32), AtomicU64::new(u64::from(stat.gid))],
            state: InodeState::default(),
            target: SpinLock::new(target.map(Into::into)),
            handles: SpinLock::default(),
            opens: AtomicU32::new(0),
            mapped: AtomicI64::new(0),
            windows: SpinLock::default(),
            heat: AtomicU32::new(0),
            size: AtomicU64::new(stat.size),
            content: Mutex::new(()),
            listing: SpinLock::new(None),
            ahead: SpinLock::default(),
            copied: AtomicBool::new(false),
            synced: AtomicBool::new(false),
            writable_windows: AtomicBool::new(false),
            trusted: AtomicU64::new(trust_from(hal::time::tsc())),
        })
    }

    /// A file without a name (O_TMPFILE).
    pub(super) fn nameless(tree: &Arc<HostTree>, stat: &Stat) -> Arc<Self> {
        Self::build(tree, stat, Vec::new(), None, false)
    }

    pub(super) fn arc(&self) -> Result<Arc<Self>, Errno> {
        self.me.upgrade().ok_or(ESTALE)
    }

    pub(super) fn exclusive(&self) -> bool {
        self.tree.exclusive
    }

    /// What the VMM calls this: the root's handle and a path.
    pub(super) fn name(&self) -> Result<(u32, Vec<u8>), Errno> {
        self.name_of_child(b"")
    }

    /// What the VMM calls a child of this directory.
    pub(super) fn name_of_child(&self, child: &[u8]) -> Result<(u32, Vec<u8>), Errno> {
        let mut parts: Vec<Arc<[u8]>> = Vec::new();
        let mut length = child.len();
        let mut at: Option<Arc<HostInode>> = None;
        loop {
            let here = at.as_deref().unwrap_or(self);
            if here.is_root {
                break;
            }
            let link = here.links.lock().first().cloned();
            let (parent, name) = link.ok_or(ENOENT)?;
            length += name.len() + 1;
            if length >= PATH_MAX {
                // Too deep to be named from the root: from the handle of a directory on the way.
                return self.name_by_handle(here, child, &parts);
            }
            parts.push(name);
            at = Some(parent);
        }
        Ok((self.tree.handle, join(&parts, child)))
    }

    fn name_by_handle(&self, directory: &HostInode, child: &[u8], parts: &[Arc<[u8]>]) -> Result<(u32, Vec<u8>), Errno> {
        if core::ptr::eq(directory, self) && !child.is_empty() && self.kind != S_IFDIR {
            return Err(ENAMETOOLONG);
        }
        let start = directory.known_handle().ok_or(ENAMETOOLONG)?;
        Ok((start.number(), join(parts, child)))
    }

    pub(super) fn is_nameless(&self) -> bool {
        !self.is_root && self.links.lock().is_empty()
    }

    /// Whether what the host shows under this inode's number is still this file. An overlay that copies a file up, or the directories
    /// above one, keeps their numbers but not the time of birth.
    pub(super) fn is_still(&self, stat: &Stat) -> bool {
        let known = self.attributes.lock();
        let changed_here = self.kind == S_IFDIR || self.exclusive() && (known.stale || self.opens.load(Ordering::Acquire) > 0);
        self.kind == stat.mode & S_IFMT && (known.stat.btime == stat.btime || changed_here)
    }

    /// Seen under a name: remembers it, and the attributes.
    pub(super) fn found_at(&self, parent: &Arc<HostInode>, name: &[u8], stat: &Stat) {
        if !self.is_root {
            let mut links = self.links.lock();
            let same = |link: &Link| Arc::ptr_eq(&link.0, parent) && *link.1 == *name;
            if !links.first().is_some_and(same) {
                let old: Vec<Link> = if self.kind == S_IFDIR || stat.nlink == 1 {
                    core::mem::take(&mut *links)
                } else {
                    links.extract_if(.., |link| same(link)).collect()
                };
                links.insert(0, (parent.clone(), name.into()));
                drop(links);
                drop(old);
            }
        }
        if !self.exclusive() {
            self.learn(stat);
        } else if self.settled().is_some_and(|known| known.ctime != stat.ctime) {
            self.look_again();
        }
    }

    /// A file of an exclusive tree is not as it was left, or was just being changed here: which of them, the host is asked.
    fn look_again(&self) {
        self.mark_stale();
        self.trusted.store(0, Ordering::Relaxed);
        if self.opens.load(Ordering::Acquire) == 0 {
            // An overlay shows another file once it is written: handles and windows would go on with the old one.
            self.drop_windows();
            self.drop_idle_handles();
        }
        if let Ok(stat) = self.fresh_stat() {
            self.shorten_windows(stat.size);
            self.contents_changed();
        }
    }

    /// Asks whether the directory has changed, if that is not known for `now`.
    pub(super) fn confirm(&self, now: u64) {
        let trusted = self.trusted.load(Ordering::Relaxed);
        if now < trusted && trusted >= ORDERED.load(Ordering::Relaxed) || !self.exclusive() {
            return;
        }
        let (seen, fresh) = {
            let known = self.attributes.lock();
            (known.changes, known.is_fresh())
        };
        let Ok(stat) = self.with_name(request::stat) else { return };
        self.learn_since(Some(seen), &stat);
        let renamed = core::mem::replace(&mut self.attributes.lock().renamed, false);
        if renamed || fresh {
            self.listing.lock().take();
            self.state.doubt();
        }
        self.trusted.store(trust_from(now), Ordering::Relaxed);
    }

    /// Attributes as the host has just told them.
    pub(super) fn learn(&self, stat: &Stat) {
        self.learn_since(None, stat);
    }

    /// How often the attributes have changed: for [`Self::learn_since`].
    pub(super) fn changes(&self) -> u64 {
        self.attributes.lock().changes
    }

    /// As [`Self::learn`], unless something has changed since `seen`. Whether it has not.
    pub(super) fn learn_since(&self, seen: Option<u64>, stat: &Stat) -> bool {
        let mut known = self.attributes.lock();
        if seen.is_some_and(|seen| seen != known.changes) {
            return false;
        }
        known.changes += 1;
        if known.stat.mtime != stat.mtime {
            self.listing.lock().take();
        }
        known.renamed |= known.stale || known.stat.ctime != stat.ctime;
        known.stat = *stat;
        known.stale = false;
        known.told = hal::time::realtime();
        self.owner[0].store(u64::from(stat.mode) | u64::from(stat.uid) << 32, Ordering::Relaxed);
        self.owner[1].store(u64::from(stat.gid), Ordering::Relaxed);
        self.size.store(stat.size, Ordering::Release);
        true
    }

    /// Attributes without asking: as of the last look.
    pub(super) fn known(&self) -> Stat {
        self.attributes.lock().stat
    }

    /// The same, None after a change by our own doing that the host has not been asked about.
    pub(super) fn settled(&self) -> Option<Stat> {
        let known = self.attributes.lock();
        (!known.stale).then_some(known.stat)
    }

    /// Its contents were changed by our own doing.
    pub(super) fn contents_changed(&self) {
        if self.copied.swap(false, Ordering::SeqCst) {
            crate::mm::forget_copies(self.key);
        }
    }

    /// Changes what is known of it by our own doing.
    pub(super) fn amend(&self, change: impl FnOnce(&mut Stat)) {
        let mut known = self.attributes.lock();
        known.changes += 1;
        change(&mut known.stat);
    }

    /// The host changed times, blocks or links by our doing: the next stat asks.
    pub(super) fn mark_stale(&self) {
        let mut known = self.attributes.lock();
        known.changes += 1;
        known.stale = true;
    }

    pub(super) fn owe_mtime(&self, time: Time) {
        let mut known = self.attributes.lock();
        known.owed_mtime = Some(time);
        known.changes += 1;
        known.stale = true;
    }

    /// Tells the host the time of writes that it did not see.
    pub(super) fn settle_mtime(&self) -> Result<(), Errno> {
        let Some(time) = self.attributes.lock().owed_mtime.take() else { return Ok(()) };
        let attributes = Attributes { mask: ATTR_MTIME, mtime: time, ..Attributes::default() };
        self.with_name(|handle, path| request::set_attributes(handle, path, &attributes)).map(|stat| self.learn(&stat))
    }

    /// The time is set to something else: what was owed does not count any more.
    pub(super) fn forget_mtime(&self) {
        self.attributes.lock().owed_mtime = None;
    }

    /// Calls with the open handle when there is one, else with the name.
    pub(super) fn with_name<T>(&self, call: impl FnOnce(u32, &[u8]) -> Result<T, Errno>) -> Result<T, Errno> {
        if let Some(handle) = self.known_handle() {
            return call(handle.number(), b"");
        }
        let (root, path) = self.name()?;
        call(root, &path)
    }

    /// Attributes, asked for when they may have changed.
    pub(super) fn fresh_stat(&self) -> Result<Stat, Errno> {
        let (stat, must_ask) = {
            let known = self.attributes.lock();
            (known.stat, known.stale || !self.exclusive())
        };
        if !must_ask {
            return Ok(stat);
        }
        let _ = self.settle_mtime();
        let seen = self.changes();
        match self.with_name(request::stat) {
            Ok(stat) => {
                self.learn_since(Some(seen), &stat);
                Ok(stat)
            }
            // Nameless and not open on the host: what was known last is all there is.
            Err(ENOENT) if self.is_nameless() => Ok(stat),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn add_link(&self, parent: &Arc<HostInode>, name: &[u8]) {
        self.links.lock().push((parent.clone(), name.into()));
    }

    /// A name is gone. True: it was the last.
    pub(super) fn remove_link(&self, parent: &HostInode, name: &[u8]) -> bool {
        let mut links = self.links.lock();
        let removed: Vec<Link> = links.extract_if(.., |link| core::ptr::eq(&*link.0, parent) && *link.1 == *name).collect();
        let last = links.is_empty();
        drop(links);
        drop(removed);
        last
    }
}

/// The end of the trust that begins at `now`.
fn trust_from(now: u64) -> u64 {
    now.saturating_add(hal::time::tsc_hz() * TRUST_SECONDS)
}

fn join(parts: &[Arc<[u8]>], child: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    for part in parts.iter().rev().map(|part| &**part).chain((!child.is_empty()).then_some(child)) {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    path
}

impl Drop for HostInode {
    fn drop(&mut self) {
        self.tree.forget(self.key, self);
        // A long chain of directories that only their children held must not recurse.
        let mut next: Vec<Link> = core::mem::take(self.links.get_mut());
        while let Some((parent, _)) = next.pop() {
            if let Some(mut parent) = Arc::into_inner(parent) {
                next.append(parent.links.get_mut());
            }
        }
    }
}

impl HostInode {
    pub(super) fn known_owner(&self) -> crate::fs::inode::Owner {
        let (first, gid) = (self.owner[0].load(Ordering::Relaxed), self.owner[1].load(Ordering::Relaxed) as u32);
        crate::fs::inode::Owner { mode: first as u32, uid: (first >> 32) as u32, gid }
    }
}
