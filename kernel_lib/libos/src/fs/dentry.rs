//! The dentry cache: names that were resolved, and names known to be absent.
//!
//! Invariants:
//! - a dentry's inode never changes; a new object under an old name is a new dentry;
//! - a name counts while its directory is in no more doubt ([`super::inode::InodeState::doubts`]) than when it was found: later, absent
//!   names are forgotten, and others have to be confirmed; except where something is mounted, or what only this cache has;
//! - a child holds its parent, a parent's map holds its children; nothing else keeps a dentry alive except its users, so an entry with
//!   exactly one reference (the map's) and no children may be forgotten at any time;
//! - changes of a directory, and lookups of names that are not in its map, happen under its `change` lock.
//!
//! Lock order: rename lock > parent's `change` > child's `change` > `children` or `place` (spin, leaves).

use super::inode::Inode;
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use hal::sync::SpinLock;

/// Absent names remembered per directory.
const MOST_NEGATIVE: usize = 4096;

/// Doubtful names that are asked for with another one, and entries that are looked through for them.
const CONFIRMED_AT_ONCE: usize = 31;
const MOST_DOUBTED: usize = 256;
/// Entries of a directory that is listed to find out whether it has got others.
const MOST_RELISTED: usize = 512;

pub struct Dentry {
    place: SpinLock<Place>,
    inode: Arc<dyn Inode>,
    children: SpinLock<Children>,
    /// Serialises changes of this directory.
    pub change: Mutex<()>,
    /// Mounts whose mount point this is (in any namespace).
    pub mounts: AtomicU32,
    /// Its name is gone: nothing can be created inside, getcwd(2) fails.
    dead: AtomicBool,
    used: AtomicBool,
    /// Its file system does not know of it.
    stands_in: AtomicBool,
    /// The parent's doubts when it was last found there.
    found_at: AtomicU32,
}

struct Place {
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
}

/// Entries by a keyed hash of their names: comparing numbers is what a lookup mostly does. Two names with one hash push each other out,
/// which costs a question to the file system and, with 64 secret bits, does not happen.
#[derive(Default)]
struct Children {
    map: BTreeMap<u64, (Box<[u8]>, Option<Arc<Dentry>>)>,
    negative: usize,
    /// Every name of the directory is in the map (one that was made here, and lost nothing since): others are absent without a question.
    complete: bool,
    /// Every name was, before it became doubtful.
    was_complete: bool,
    /// The directory's doubts to which absent names and `complete` belong.
    doubts: u32,
}

impl Children {
    /// Before use: forgets what has become doubtful.
    fn renew(&mut self, doubts: u32) {
        if self.doubts != doubts {
            self.doubts = doubts;
            self.was_complete |= self.complete;
            self.complete = false;
            self.forget_absent();
        }
    }
    fn forget_absent(&mut self) {
        self.map.retain(|_, (_, child)| child.is_some());
        self.negative = 0;
    }
    fn get(&self, name: &[u8]) -> Option<&Option<Arc<Dentry>>> {
        self.map.get(&hash(name)).filter(|(known, _)| **known == *name).map(|(_, entry)| entry)
    }
    fn insert(&mut self, name: &[u8], entry: Option<Arc<Dentry>>) -> Option<Option<Arc<Dentry>>> {
        let (old_name, old) = self.map.insert(hash(name), (name.into(), entry))?;
        self.complete &= *old_name == *name;
        Some(old)
    }
    fn remove(&mut self, name: &[u8]) -> Option<Option<Arc<Dentry>>> {
        self.get(name)?;
        self.map.remove(&hash(name)).map(|(_, entry)| entry)
    }
}

static KEY: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);

/// Eight bytes at a time, folded by a wide multiplication.
fn hash(name: &[u8]) -> u64 {
    let mut state = KEY.load(Ordering::Relaxed) ^ name.len() as u64;
    let mut mix = |word: u64| {
        let product = u128::from(state ^ word) * 0xa076_1d64_78bd_642f_u128;
        state = product as u64 ^ (product >> 64) as u64;
    };
    let mut parts = name.chunks_exact(8);
    for part in &mut parts {
        mix(part.try_into().map_or(0, u64::from_le_bytes));
    }
    let rest = parts.remainder().iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    mix(rest);
    state
}

/// Makes the hash one that nobody outside knows. Once, before the first entry.
pub fn set_key(key: u64) {
    KEY.store(key | 1, Ordering::Relaxed);
}

/// What the cache knows of a name.
pub enum Cached {
    Present(Arc<Dentry>),
    /// It was there before somebody else changed the directory.
    Doubtful(Arc<Dentry>),
    Absent,
    Unknown,
}

impl core::fmt::Debug for Dentry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Dentry")
    }
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(16384);
static AGE: SpinLock<VecDeque<Weak<Dentry>>> = SpinLock::new(VecDeque::new());

/// How many entries are kept before old ones are forgotten.
pub fn set_limit(entries: usize) {
    MOST.store(entries, Ordering::Relaxed);
}

/// Entries alive, for /proc/sys/fs/dentry-state.
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

impl Dentry {
    /// The root of a file system (or a nameless file).
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Self> {
        Self::build(None, b"", inode)
    }

    /// A nameless file, shown as `name` in /proc (memfd, O_TMPFILE).
    pub fn nameless(name: &[u8], inode: Arc<dyn Inode>) -> Arc<Self> {
        let dentry = Self::build(None, name, inode);
        dentry.dead.store(true, Ordering::Relaxed);
        dentry
    }

    fn build(parent: Option<Arc<Dentry>>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Self> {
        COUNT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            place: SpinLock::new(Place { parent, name: name.into() }),
            inode,
            children: SpinLock::default(),
            change: Mutex::new(()),
            mounts: AtomicU32::new(0),
            dead: AtomicBool::new(false),
            used: AtomicBool::new(true),
            stands_in: AtomicBool::new(false),
            found_at: AtomicU32::new(0),
        })
    }

    #[inline]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.lock().parent.clone()
    }

    pub fn name(&self) -> Arc<[u8]> {
        self.place.lock().name.clone()
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// What is cached under a name.
    pub fn cached(&self, name: &[u8]) -> Cached {
        let mut children = self.children.lock();
        children.renew(self.inode.state().doubts());
        match children.get(name) {
            Some(Some(child)) => {
                if !child.used.load(Ordering::Relaxed) {
                    child.used.store(true, Ordering::Relaxed);
                }
                if child.found_at.load(Ordering::Relaxed) == children.doubts || child.stays() {
                    Cached::Present(child.clone())
                } else {
                    Cached::Doubtful(child.clone())
                }
            }
            Some(None) => Cached::Absent,
            None if children.complete => Cached::Absent,
            None => Cached::Unknown,
        }
    }

    /// Names of children that have to be confirmed, as `name` has, from it on.
    pub fn doubtful(&self, name: &[u8]) -> Vec<Vec<u8>> {
        let mut children = self.children.lock();
        children.renew(self.inode.state().doubts());
        let from = hash(name);
        let others = children.map.range(from..).chain(children.map.range(..from)).take(MOST_DOUBTED);
        let doubtful = others.filter_map(|(_, (other, child))| {
            let child = child.as_ref()?;
            let waits = child.found_at.load(Ordering::Relaxed) != children.doubts && !child.stays() && **other != *name;
            waits.then(|| other.to_vec())
        });
        doubtful.take(CONFIRMED_AT_ONCE).collect()
    }

    /// A directory that was just made, on a file system that nobody else changes: it has no names but those that will be entered.
    pub fn is_new(&self) {
        self.children.lock().complete = true;
    }

    /// Whether it is worth listing: it had no names but those that are known, and there are not many.
    pub fn was_complete(&self) -> bool {
        let children = self.children.lock();
        children.was_complete && children.map.len() <= MOST_RELISTED
    }

    /// Somebody has listed it: whether it has, again, no names but those that are known. The caller holds `change`.
    pub fn listed<'n>(&self, mut names: impl Iterator<Item = &'n [u8]>) {
        let mut children = self.children.lock();
        children.renew(self.inode.state().doubts());
        children.was_complete = false;
        children.complete = names.all(|name| matches!(children.get(name), Some(Some(_))));
    }

    /// It is here although its file system does not know of it.
    pub fn stand_in(&self) {
        self.stands_in.store(true, Ordering::Relaxed);
    }

    fn stays(&self) -> bool {
        self.mounts.load(Ordering::Relaxed) > 0 || self.stands_in.load(Ordering::Relaxed)
    }

    /// What the file system has just found under a name: the child that is known, or a new one. The caller holds `change`.
    pub fn found(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        match self.cached(name) {
            Cached::Present(child) if Arc::ptr_eq(child.inode(), &inode) => child,
            Cached::Doubtful(child) if Arc::ptr_eq(child.inode(), &inode) => {
                child.found_at.store(self.inode.state().doubts(), Ordering::Relaxed);
                child
            }
            _ => self.attach(name, inode),
        }
    }

    /// Enters a child. The caller holds `change`.
    pub fn attach(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let child = Self::build(Some(self.clone()), name, inode);
        self.put(name, Some(child.clone()));
        AGE.lock().push_back(Arc::downgrade(&child));
        if COUNT.load(Ordering::Relaxed) > MOST.load(Ordering::Relaxed) {
            forget_some();
        }
        child
    }

    /// Remembers that there is nothing under a name. The caller holds `change`.
    pub fn attach_absent(&self, name: &[u8]) {
        self.put(name, None);
    }

    fn put(&self, name: &[u8], entry: Option<Arc<Dentry>>) {
        let mut dropped = Vec::new();
        let mut children = self.children.lock();
        children.renew(self.inode.state().doubts());
        match &entry {
            Some(child) => child.found_at.store(children.doubts, Ordering::Relaxed),
            None => {
                if children.negative >= MOST_NEGATIVE {
                    children.forget_absent();
                }
                children.negative += 1;
            }
        }
        match children.insert(name, entry) {
            Some(None) => children.negative -= 1,
            Some(old) => dropped.extend(old),
            None => {}
        }
        drop(children);
    }

    /// Forgets what is known of a name (it may have changed behind our back).
    pub fn forget(&self, name: &[u8]) {
        let mut children = self.children.lock();
        children.complete = false;
        let old = children.remove(name);
        if matches!(old, Some(None)) {
            children.negative -= 1;
        }
        drop(children);
        drop(old);
    }

    /// The name is gone for good (unlink, rmdir, replaced by rename). The caller holds the parent's `change`.
    pub fn mark_dead(&self) {
        self.dead.store(true, Ordering::Release);
        let children = core::mem::take(&mut *self.children.lock());
        drop(children);
    }

    /// Moves a child to another name (rename(2)). The caller holds both directories' `change` and the rename lock.
    pub fn moved(self: &Arc<Self>, name: &[u8], new_parent: &Arc<Dentry>, new_name: &[u8]) {
        self.take_out(name);
        let old = {
            let mut place = self.place.lock();
            place.name = new_name.into();
            place.parent.replace(new_parent.clone())
        };
        drop(old);
        new_parent.put(new_name, Some(self.clone()));
    }

    /// Replaces this dentry under its old name by the knowledge that there is nothing.
    fn take_out(self: &Arc<Self>, name: &[u8]) {
        if let Some(parent) = self.parent() {
            let present = matches!(parent.cached(name), Cached::Present(child) | Cached::Doubtful(child) if Arc::ptr_eq(&child, self));
            if present {
                parent.attach_absent(name);
            }
        }
    }

    /// Exchanges two dentries' places (RENAME_EXCHANGE). Locks as for [`Self::moved`].
    pub fn exchange(self: &Arc<Self>, other: &Arc<Dentry>) {
        let (parent, name) = self.position();
        let (other_parent, other_name) = other.position();
        let (Some(parent), Some(other_parent)) = (parent, other_parent) else { return };
        *self.place.lock() = Place { parent: Some(other_parent.clone()), name: other_name.clone() };
        *other.place.lock() = Place { parent: Some(parent.clone()), name: name.clone() };
        other_parent.put(&other_name, Some(self.clone()));
        parent.put(&name, Some(other.clone()));
    }

    /// Parent and name, read together.
    pub fn position(&self) -> (Option<Arc<Dentry>>, Arc<[u8]>) {
        let place = self.place.lock();
        (place.parent.clone(), place.name.clone())
    }

    /// Whether `self` is `ancestor` or lies below it.
    pub fn is_below(self: &Arc<Self>, ancestor: &Arc<Dentry>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, ancestor) {
                return true;
            }
            match at.parent() {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    /// Drops the cached tree below (the file system goes away).
    pub fn prune(&self) {
        let children = core::mem::take(&mut *self.children.lock());
        for child in children.map.values().filter_map(|(_, child)| child.as_ref()) {
            child.prune();
        }
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
        // A long chain of parents that only their children held must not recurse.
        let mut next = self.place.get_mut().parent.take();
        while let Some(mut parent) = next {
            next = Arc::get_mut(&mut parent).and_then(|only| only.place.get_mut().parent.take());
        }
    }
}

/// Second chance: forgets a few entries that nobody used since the last look.
fn forget_some() {
    for _ in 0..8 {
        let Some(weak) = AGE.lock().pop_front() else { return };
        let Some(dentry) = weak.upgrade() else { continue };
        let pinned = dentry.used.swap(false, Ordering::Relaxed) || dentry.stays();
        if pinned || !dentry.try_forget() {
            AGE.lock().push_back(weak);
        }
    }
}

impl Dentry {
    /// Takes an unused leaf out of its parent. False: somebody uses it.
    fn try_forget(self: &Arc<Self>) -> bool {
        let (Some(parent), name) = self.position() else { return true };
        let mut children = parent.children.lock();
        // Two references: the map's and ours. New ones can only come from the map, which is locked.
        let unused = Arc::strong_count(self) == 2
            && self.children.lock().map.values().all(|(_, child)| child.is_none())
            && matches!(children.get(&name), Some(Some(child)) if Arc::ptr_eq(child, self));
        let old = if unused { children.remove(&name) } else { None };
        children.complete &= !unused;
        drop(children);
        drop(old);
        unused || self.is_dead()
    }
}
