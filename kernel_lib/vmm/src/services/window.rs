//! map and unmap: the DAX window, and files that become shorter under their mappings.
//!
//! KVM never reports a page that a truncated file lacks: with a local APIC in the kernel it takes the failure for one to be waited for, and
//! the vCPU tries again for ever. It does report an address that is not accessible. So the part of a mapping behind the end of its file
//! is taken out of the window as soon as the VMM knows that it is there: when it is mapped, when the guest truncates the file, and when
//! inotify tells of a change by others (files of volumes that the host shares). A touch of it is then a `Exit::NoPage`, and either the
//! file has grown meanwhile, or the program gets its SIGBUS.
//!
//! Invariant, under the lock: of each mapping the first `present` bytes are mapped, the rest is inaccessible.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use abi::layout::PAGE_SIZE;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::names::descriptor_name;
use super::{Answer, Errno, Host, Reply, Request};
use crate::handles::{Handle, Kind};
use crate::memory::{GuestMemory, Protection};

/// Pages of zeros that may stand in for missing ones: they are memory beyond the guest's limit, so they are few.
const MAX_PATCHED: u64 = 4096;

/// Each mapping takes two of the 65,530 that Linux gives a process (the other one is the gap behind it), and each patch one: the VMM keeps
/// enough for itself.
const MAX_MAPPINGS: usize = 28 << 10;

/// Device and inode number.
type Identity = (u64, u64);

#[derive(Clone)]
struct Mapping {
    bytes: u64,
    present: u64,
    file: Arc<Handle>,
    identity: Identity,
    offset: u64,
    protection: Protection,
}

/// A file with mappings.
#[derive(Default)]
struct File {
    mappings: usize,
    watch: Option<i32>,
}

#[derive(Default)]
struct State {
    /// By first window address.
    mappings: BTreeMap<u64, Mapping>,
    files: HashMap<Identity, File>,
    patched: u64,
}

#[derive(Default)]
pub struct Window {
    state: Mutex<State>,
    /// Tells of changes to mapped files that others can change; made with the first of them.
    changes: OnceLock<Arc<Handle>>,
}

/// What became of an access to an inaccessible page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The file has the page now.
    Again,
    /// The file is too short; the window address of (probably) that page.
    Missing(u64),
    /// No mapping explains it.
    Unknown,
}

fn identity_and_size(file: &Handle) -> Result<(Identity, u64), Errno> {
    let stat = rustix::fs::fstat(file)?;
    Ok(((stat.st_dev, stat.st_ino), stat.st_size.max(0) as u64))
}

impl Mapping {
    /// Bytes of the mapping that a file of `size` bytes has.
    fn within(&self, size: u64) -> u64 {
        size.next_multiple_of(PAGE_SIZE).saturating_sub(self.offset).min(self.bytes)
    }

    /// Follows the file's size; true: pages were added.
    fn follow(&mut self, memory: &GuestMemory, gpa: u64) -> bool {
        let kept = identity_and_size(&self.file).map_or(0, |(_, size)| self.within(size));
        let (from, to) = (kept.min(self.present), kept.max(self.present));
        if from == to {
            return false;
        }
        let grows = kept > self.present;
        let changed = if grows {
            memory.map_file(gpa + from, to - from, self.file.as_fd(), self.offset + from, self.protection)
        } else {
            memory.unmap_file(gpa + from, to - from)
        };
        if changed.is_ok() {
            self.present = kept;
        }
        grows && changed.is_ok()
    }
}

impl State {
    fn insert(&mut self, gpa: u64, mapping: Mapping) {
        self.files.entry(mapping.identity).or_default().mappings += 1;
        self.mappings.insert(gpa, mapping);
    }

    fn take(&mut self, gpa: u64) -> Option<Mapping> {
        let mapping = self.mappings.remove(&gpa)?;
        if let Some(file) = self.files.get_mut(&mapping.identity) {
            file.mappings -= 1;
        }
        Some(mapping)
    }

    /// Forgets `start..end`, splitting what overlaps it.
    fn remove(&mut self, start: u64, end: u64) {
        let first = self.mappings.range(..start).next_back().map_or(start, |(gpa, _)| *gpa);
        let overlapping = self.mappings.range(first..end).filter(|(gpa, mapping)| *gpa + mapping.bytes > start);
        let touched: Vec<u64> = overlapping.map(|(gpa, _)| *gpa).collect();
        for gpa in touched {
            let Some(mapping) = self.take(gpa) else { continue };
            if gpa + mapping.bytes > end {
                let cut = end - gpa;
                let (bytes, present, offset) = (mapping.bytes - cut, mapping.present.saturating_sub(cut), mapping.offset + cut);
                self.insert(end, Mapping { bytes, present, offset, ..mapping.clone() });
            }
            if gpa < start {
                let bytes = start - gpa;
                self.insert(gpa, Mapping { bytes, present: mapping.present.min(bytes), ..mapping });
            }
        }
    }

    /// Whether there may be one more mapping, and the rest of another behind it.
    fn has_room(&self) -> bool {
        self.mappings.len() + 2 <= MAX_MAPPINGS
    }

    /// Whether `start..end` lies in the middle of a mapping.
    fn splits(&self, start: u64, end: u64) -> bool {
        self.mappings.range(..start).next_back().is_some_and(|(gpa, mapping)| *gpa + mapping.bytes > end)
    }

    /// Follows the size of one file, or of all; true: pages were added.
    fn follow(&mut self, memory: &GuestMemory, only: Option<Identity>) -> bool {
        let chosen = self.mappings.iter_mut().filter(|(_, mapping)| only.is_none_or(|identity| identity == mapping.identity));
        chosen.fold(false, |grown, (gpa, mapping)| mapping.follow(memory, *gpa) | grown)
    }
}

impl Host {
    pub(super) fn map(&self, request: &Request) -> Answer {
        let [offset, bytes, gpa, ..] = request.args;
        let handle = self.handles.get(request.handle)?;
        if handle.kind != Kind::File
            || !offset.is_multiple_of(PAGE_SIZE)
            || offset.checked_add(bytes).is_none_or(|end| end > i64::MAX as u64)
        {
            return Err(Errno::INVAL);
        }
        let protection = match request.flags() {
            0 => Protection::Read,
            1 if handle.writable => Protection::ReadWrite,
            1 => return Err(Errno::ACCESS),
            _ => return Err(Errno::INVAL),
        };
        let (identity, _) = identity_and_size(&handle)?;
        let mut state = self.window.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.has_room() {
            return Err(Errno::NOMEM);
        }
        self.memory.map_file(gpa, bytes, handle.as_fd(), offset, protection)?;
        state.remove(gpa, gpa + bytes);
        if handle.shared {
            self.watch_file(&mut state, identity, &handle);
        }
        let mut mapping = Mapping { bytes, present: bytes, file: handle, identity, offset, protection };
        // Behind the watch, so that no change is missed between the two.
        mapping.follow(&self.memory, gpa);
        state.insert(gpa, mapping);
        self.forget_files(&mut state);
        Ok(Reply::of(0))
    }

    pub(super) fn unmap(&self, request: &Request) -> Answer {
        let [gpa, bytes, ..] = request.args;
        let mut state = self.window.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.splits(gpa, gpa.saturating_add(bytes)) && !state.has_room() {
            return Err(Errno::NOMEM);
        }
        self.memory.unmap_file(gpa, bytes)?;
        state.remove(gpa, gpa + bytes);
        self.forget_files(&mut state);
        Ok(Reply::of(0))
    }

    /// Asks to be told when a file changes. Best effort: without inotify the guest's own truncations are still seen.
    fn watch_file(&self, state: &mut State, identity: Identity, handle: &Handle) {
        let known = state.files.get(&identity).is_some_and(|file| file.watch.is_some());
        if known || !self.has_proc {
            return;
        }
        let Ok(changes) = self.changes() else { return };
        if let Ok(watch) = inotify::add_watch(&*changes, descriptor_name(handle), WatchFlags::MODIFY) {
            state.files.entry(identity).or_default().watch = Some(watch);
        }
    }

    fn changes(&self) -> Result<Arc<Handle>, Errno> {
        if let Some(changes) = self.window.changes.get() {
            return Ok(changes.clone());
        }
        let made = Arc::new(Handle::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?, Kind::Inotify));
        let changes = self.window.changes.get_or_init(|| made).clone();
        self.watcher.watch_window(&changes)?;
        Ok(changes)
    }

    fn forget_files(&self, state: &mut State) {
        state.files.retain(|_, file| {
            if file.mappings == 0 {
                if let (Some(watch), Some(changes)) = (file.watch, self.window.changes.get()) {
                    let _ = inotify::remove_watch(&**changes, watch);
                }
            }
            file.mappings > 0
        });
    }

    /// The guest itself has changed a file's size.
    pub(super) fn resized(&self, file: impl AsFd) {
        let mut state = self.window.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.files.is_empty() {
            return;
        }
        let Ok(stat) = rustix::fs::fstat(file) else { return };
        let identity = (stat.st_dev, stat.st_ino);
        if state.files.contains_key(&identity) {
            state.follow(&self.memory, Some(identity));
        }
    }

    /// Somebody else has changed mapped files (on the readiness thread).
    pub fn window_changed(&self) {
        let Some(changes) = self.window.changes.get() else { return };
        let mut records = [0; 4096];
        while let Ok(bytes) = rustix::io::read(&**changes, &mut records) {
            let mut state = self.window.state.lock().unwrap_or_else(PoisonError::into_inner);
            for watch in watches_in(records.get(..bytes).unwrap_or_default()) {
                let identity = state.files.iter().find(|(_, file)| file.watch == Some(watch)).map(|(identity, _)| *identity);
                if identity.is_some() || watch < 0 {
                    state.follow(&self.memory, identity);
                }
            }
        }
    }

    /// A vCPU touched an inaccessible page of the window (`hint`: which, if the hypervisor says so).
    pub fn inaccessible(&self, hint: Option<u64>) -> Access {
        let mut state = self.window.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.follow(&self.memory, None) {
            return Access::Again;
        }
        let mut missing = state.mappings.iter().filter(|(_, mapping)| mapping.present < mapping.bytes);
        match hint {
            None => missing.next().map_or(Access::Unknown, |(gpa, mapping)| Access::Missing(gpa + mapping.present)),
            Some(at) => {
                let found = missing.any(|(gpa, mapping)| (gpa + mapping.present..gpa + mapping.bytes).contains(&at));
                if found {
                    Access::Missing(at & !(PAGE_SIZE - 1))
                } else {
                    Access::Unknown
                }
            }
        }
    }

    /// The last resort against a guest that touches missing pages again and again: zeros. False: too many of them.
    pub fn patch_missing(&self) -> bool {
        let mut state = self.window.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { mappings, patched, .. } = &mut *state;
        for (gpa, mapping) in mappings.iter_mut().filter(|(_, mapping)| mapping.present < mapping.bytes) {
            let bytes = mapping.bytes - mapping.present;
            *patched += bytes / PAGE_SIZE;
            if *patched > MAX_PATCHED || self.memory.patch_window(gpa + mapping.present, bytes).is_err() {
                return false;
            }
            mapping.bytes = mapping.present;
        }
        mappings.retain(|_, mapping| mapping.bytes > 0);
        true
    }
}

/// Watch numbers of inotify records (-1: some were lost).
fn watches_in(mut records: &[u8]) -> Vec<i32> {
    const HEADER: usize = 16;
    let mut watches = Vec::new();
    while let (Some(watch), Some(length)) = (records.first_chunk::<4>(), records.get(12..HEADER).and_then(|part| part.first_chunk::<4>())) {
        let watch = i32::from_ne_bytes(*watch);
        if !watches.contains(&watch) {
            watches.push(watch);
        }
        records = records.get(HEADER + u32::from_ne_bytes(*length) as usize..).unwrap_or_default();
    }
    watches
}
