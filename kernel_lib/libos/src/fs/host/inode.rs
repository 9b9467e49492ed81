//! One file of the host.
//!
//! Lock order: `content` (sleeps, held while program memory is touched) > address space > everything else here (spin locks, leaves).
//! The fault path ([`super::mapping`]) therefore never takes `content`.
//!
//! Of an exclusive tree what is known counts without asking, but a directory is asked for its ctime before its names are believed when
//! that is more than [`TRUST_SECONDS`] ago, or was before an order from outside: if it is another, they are doubted.

use super::ahead::Ahead;
use super::handle::{Handle, Handles};
use super::readahead::Sequence;
use super::request;
use super::tree::HostTree;
use super::window::FileWindows;
use crate::errno::{Errno, ENAMETOOLONG, ENOENT, ESTALE};
use crate::fs::inode::InodeState;
use crate::sync::Mutex;
use abi::request::{Attributes, Stat, Time, ATTR_MTIME};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};
use hal::sync::SpinLock;
use linux_abi::fs::{PATH_MAX, S_IFDIR, S_IFMT};

/// How long a directory's names are believed.
const TRUST_SECONDS: u64 = 1;
/// How long names are believed that programs here keep changing, where somebody else's change may be hidden by theirs.
const LONGEST_TRUST: u64 = 10_000_000_000;
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
    pub(super) sequence: SpinLock<Sequence>,
    /// How often its contents were changed here.
    pub(super) contents: AtomicU64,
    /// The whole directory as LIST gave it.
    pub(super) listing: SpinLock<Option<Arc<Vec<u8>>>>,
    pub(super) ahead: SpinLock<Ahead>,
    /// Changes of the directory by programs here.
    pub(super) own_changes: AtomicU32,
    /// There may be copies of its pages (`mm::copies`).
    pub(super) copied: AtomicBool,
    /// A program has had it written to the disk: it will again.
    pub(super) synced: AtomicBool,
    /// A window is writable: programs may change the file without a system call.
    pub(super) writable_windows: AtomicBool,
    /// It came to be by a request of this container: its owner may do everything with it.
    pub(super) made_here: AtomicBool,
    /// The host has let the directory's names be changed.
    pub(super) changeable: AtomicBool,
    /// Posted writes that the host has not served yet, and the error of one that failed (0: none).
    pub(super) unwritten: AtomicU32,
    pub(super) lost: AtomicI32,
    /// Until when a directory's names are believed, by the TSC.
    trusted: AtomicU64,
}

/// Where a name begins: at the tree's root, or at a directory that is open.
pub(super) enum Base {
    Root(u32),
    Opened(Arc<Handle>),
}

impl Base {
    pub fn number(&self) -> u32 {
        match self {
            Self::Root(number) => *number,
            Self::Opened(handle) => handle.number(),
        }
    }
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
    /// Since when the directory may have other names than those that were confirmed, by `told`'s clock; 0: it has not.
    renamed: u64,
    /// The last change of the directory that was made here.
    own_change: u64,
}

impl Known {
    /// Whether `ctime` may stay as it is though the file changes.
    fn is_fresh(&self) -> bool {
        let tick = if self.stat.ctime.nsec == 0 { COARSE_TICK } else { TICK };
        self.ctime().saturating_add(tick) > self.told
    }

    fn ctime(&self) -> u64 {
        (self.stat.ctime.sec as u64).saturating_mul(1_000_000_000).saturating_add(u64::from(self.stat.ctime.nsec))
    }

    /// Whether names are to be doubted now that the host has told the attributes: not while programs here are changing the directory, and
    /// theirs was the last change; except for long, or when somebody outside is at work (`ordered`).
    fn must_doubt(&mut self, ordered: bool) -> bool {
        let ours = self.ctime() <= self.own_change && self.told < self.own_change.saturating_add(1_000_000_000 * TRUST_SECONDS);
        let doubt = self.renamed != 0 && (!ours || ordered || self.told > self.renamed.saturating_add(LONGEST_TRUST));
        if doubt {
            self.renamed = 0;
        }
        doubt
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
                renamed: 0,
                own_change: 0,
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
            sequence: SpinLock::default(),
            contents: AtomicU64::new(0),
            listing: SpinLock::new(None),
            ahead: SpinLock::default(),
            own_changes: AtomicU32::new(0),
            copied: AtomicBool::new(false),
            synced: AtomicBool::new(false),
            writable_windows: AtomicBool::new(false),
            made_here: AtomicBool::new(false),
            changeable: AtomicBool::new(false),
            unwritten: AtomicU32::new(0),
            lost: AtomicI32::new(0),
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

    /// What the VMM calls this: a directory above it and a path.
    pub(super) fn name(&self) -> Result<(Base, Vec<u8>), Errno> {
        self.name_of_child(b"")
    }

    /// What the VMM calls a child of this directory.
    pub(super) fn name_of_child(&self, child: &[u8]) -> Result<(Base, Vec<u8>), Errno> {
        let mut parts: Vec<Arc<[u8]>> = Vec::new();
        let mut length = child.len();
        let mut at: Option<Arc<HostInode>> = None;
        loop {
            let here = at.as_deref().unwrap_or(self);
            let is_above = here.kind == S_IFDIR && !(child.is_empty() && parts.is_empty());
            if let Some(handle) = here.known_handle().filter(|_| is_above) {
                return Ok((Base::Opened(handle), join(&parts, child)));
            }
            if here.is_root {
                return Ok((Base::Root(self.tree.handle), join(&parts, child)));
            }
            let link = here.links.lock().first().cloned();
            let (parent, name) = link.ok_or(ENOENT)?;
            length += name.len() + 1;
            if length >= PATH_MAX {
                return Err(ENAMETOOLONG);
            }
            parts.push(name);
            at = Some(parent);
        }
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
        let ordered = trusted < ORDERED.load(Ordering::Relaxed);
        if now < trusted && !ordered || !self.exclusive() {
            return;
        }
        let seen = {
            let mut known = self.attributes.lock();
            if known.renamed == 0 && known.is_fresh() {
                known.renamed = known.told;
            }
            known.changes
        };
        let Ok(stat) = self.with_name(request::stat) else { return };
        self.learn_since(Some(seen), &stat);
        if self.attributes.lock().must_doubt(ordered) {
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
        known.told = hal::time::realtime();
        if known.renamed == 0 && (known.stale || known.stat.ctime != stat.ctime) {
            known.renamed = known.told;
        }
        known.stat = *stat;
        known.stale = false;
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
        self.contents.fetch_add(1, Ordering::Release);
        self.drop_chunk();
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

    /// As [`Self::mark_stale`], of a directory whose names were changed.
    pub(super) fn mark_renamed(&self) {
        let mut known = self.attributes.lock();
        known.changes += 1;
        known.stale = true;
        known.own_change = hal::time::realtime();
    }

    /// A posted change of the directory's names has been made.
    pub(super) fn names_changed(&self, made: bool) {
        self.attributes.lock().own_change = hal::time::realtime();
        if !made {
            self.listing.lock().take();
            self.state.doubt();
        }
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
        let (base, path) = self.name()?;
        call(base.number(), &path)
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
pub(super) fn trust_from(now: u64) -> u64 {
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
