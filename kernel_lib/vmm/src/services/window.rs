//! map and unmap: the DAX window, and what to do when a mapped file's pages vanish.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use abi::layout::PAGE_SIZE;

use super::{Answer, Errno, Host, Reply, Request};
use crate::handles::{Handle, Kind};
use crate::memory::Protection;

/// Pages of zeros that may stand in for vanished ones: they are memory beyond the guest's limit, so they are few.
const MAX_PATCHED: u64 = 4096;

struct Mapping {
    bytes: u64,
    file: Arc<Handle>,
    offset: u64,
}

#[derive(Default)]
struct State {
    /// By first window address. KVM does not always say which page it could not get, so every mapping's file is kept to ask for its size.
    mappings: BTreeMap<u64, Mapping>,
    patched: u64,
}

#[derive(Default)]
pub struct Window {
    state: Mutex<State>,
}

impl State {
    /// Forgets `start..end`, splitting what overlaps it.
    fn remove(&mut self, start: u64, end: u64) {
        let first = self.mappings.range(..start).next_back().map_or(start, |(gpa, _)| *gpa);
        let touched: Vec<u64> =
            self.mappings.range(first..end).filter(|(gpa, mapping)| *gpa + mapping.bytes > start).map(|(gpa, _)| *gpa).collect();
        for gpa in touched {
            let Some(mapping) = self.mappings.remove(&gpa) else {
                continue;
            };
            let mapping_end = gpa + mapping.bytes;
            if mapping_end > end {
                let rest = Mapping { bytes: mapping_end - end, file: mapping.file.clone(), offset: mapping.offset + (end - gpa) };
                self.mappings.insert(end, rest);
            }
            if gpa < start {
                self.mappings.insert(gpa, Mapping { bytes: start - gpa, ..mapping });
            }
        }
    }
}

impl Host {
    pub(super) fn map(&self, request: &Request) -> Answer {
        let [offset, bytes, gpa, ..] = request.args;
        let handle = self.handles.get(request.handle)?;
        if handle.kind != Kind::File || offset % PAGE_SIZE != 0 || offset.checked_add(bytes).is_none_or(|end| end > i64::MAX as u64) {
            return Err(Errno::INVAL);
        }
        let protection = match request.flags() {
            0 => Protection::Read,
            1 if handle.writable => Protection::ReadWrite,
            1 => return Err(Errno::ACCESS),
            _ => return Err(Errno::INVAL),
        };
        let mut state = self.window.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.memory.map_file(gpa, bytes, handle.as_fd(), offset, protection)?;
        state.remove(gpa, gpa + bytes);
        state.mappings.insert(gpa, Mapping { bytes, file: handle, offset });
        Ok(Reply::of(0))
    }

    pub(super) fn unmap(&self, request: &Request) -> Answer {
        let [gpa, bytes, ..] = request.args;
        let mut state = self.window.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.memory.unmap_file(gpa, bytes)?;
        state.remove(gpa, gpa + bytes);
        Ok(Reply::of(0))
    }

    /// A vCPU touched window memory that the host cannot provide. Puts zeros where mapped files have become shorter and says where the
    /// first such page is; None: nothing of the kind, or too much of it.
    pub fn replace_vanished(&self, hint: Option<u64>) -> Option<u64> {
        let mut state = self.window.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { mappings, patched } = &mut *state;
        let mut first = None;
        for (gpa, mapping) in mappings.iter() {
            let in_file = rustix::fs::fstat(mapping.file.as_fd()).map_or(0, |stat| stat.st_size.max(0) as u64).next_multiple_of(PAGE_SIZE);
            let kept = in_file.saturating_sub(mapping.offset).min(mapping.bytes);
            let mut page = gpa + kept;
            let mut end = gpa + mapping.bytes;
            if page == end {
                continue;
            }
            if let Some(hint) = hint {
                if !(page..end).contains(&hint) {
                    continue;
                }
                page = hint & !(PAGE_SIZE - 1);
                end = page + PAGE_SIZE;
            }
            *patched += (end - page) / PAGE_SIZE;
            if *patched > MAX_PATCHED || self.memory.patch_window(page, end - page).is_err() {
                return None;
            }
            first = first.or(Some(page));
        }
        first
    }
}
