//! Descriptors in flight (SCM_RIGHTS), and the search for sockets that only sockets in flight keep alive (unix(7): in Linux, unix_gc).
//!
//! Invariants:
//! - every open unix socket in flight is listed in `FLYING` once for each flight;
//! - files that land nowhere are closed through `FALLEN`, one after the other: a chain of sockets, each in the other's queue, is
//!   taken apart without recursion.
//!
//! Lock order: `FLYING` and `FALLEN` are leaves; files are dropped outside of both.

use super::UnixSocket;
use crate::fs::OpenFile;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use hal::sync::SpinLock;

static FLYING: SpinLock<Vec<Weak<OpenFile>>> = SpinLock::new(Vec::new());
static FALLEN: SpinLock<Vec<Arc<OpenFile>>> = SpinLock::new(Vec::new());
static BURYING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Files on their way to another process.
#[derive(Default)]
pub struct InFlight {
    files: Vec<Arc<OpenFile>>,
}

impl InFlight {
    pub fn launch(files: Vec<Arc<OpenFile>>) -> Self {
        if files.is_empty() {
            return Self::default();
        }
        COUNT.fetch_add(files.len(), Ordering::Relaxed);
        FLYING.lock().extend(files.iter().filter(|file| UnixSocket::of(file).is_some()).map(Arc::downgrade));
        Self { files }
    }

    /// Files in flight in all.
    pub fn count() -> usize {
        COUNT.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<OpenFile>> {
        self.files.iter()
    }

    pub fn copies(&self) -> Vec<Arc<OpenFile>> {
        self.files.clone()
    }

    /// The files have reached their receiver.
    pub fn land(mut self) -> Vec<Arc<OpenFile>> {
        self.leave();
        core::mem::take(&mut self.files)
    }

    fn leave(&self) {
        if self.files.is_empty() {
            return;
        }
        COUNT.fetch_sub(self.files.len(), Ordering::Relaxed);
        let mut flying = FLYING.lock();
        for file in &self.files {
            if let Some(at) = flying.iter().position(|known| core::ptr::eq(known.as_ptr(), Arc::as_ptr(file))) {
                flying.swap_remove(at);
            }
        }
    }
}

impl Clone for InFlight {
    fn clone(&self) -> Self {
        Self::launch(self.files.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.files.is_empty() {
            return;
        }
        self.leave();
        FALLEN.lock().append(&mut self.files);
        bury();
    }
}

/// Closes fallen files one by one; whoever is at it already does the rest too.
fn bury() {
    while !FALLEN.lock().is_empty() && !BURYING.swap(true, Ordering::AcqRel) {
        loop {
            let file = FALLEN.lock().pop();
            match file {
                Some(file) => drop(file),
                None => break,
            }
        }
        BURYING.store(false, Ordering::Release);
    }
}

struct Suspect {
    file: Arc<OpenFile>,
    flights: usize,
    /// Flights that are not in the queue of another suspect.
    outside: usize,
    children: Vec<usize>,
}

/// Finds unix sockets that are reachable only from each other's queues, and empties those queues. Called when a unix socket was closed.
pub fn collect() {
    if FLYING.lock().is_empty() {
        return;
    }
    let mut flights: BTreeMap<usize, (Arc<OpenFile>, usize)> = BTreeMap::new();
    let flying: Vec<_> = FLYING.lock().iter().filter_map(Weak::upgrade).collect();
    for file in flying {
        flights.entry(Arc::as_ptr(&file) as usize).or_insert((file, 0)).1 += 1;
    }
    // Suspect: nobody but flights (and this list) holds the file.
    let mut suspects: Vec<Suspect> = Vec::new();
    let mut places = BTreeMap::new();
    for (address, (file, flights)) in flights {
        if Arc::strong_count(&file) == flights + 1 {
            places.insert(address, suspects.len());
            suspects.push(Suspect { file, flights, outside: flights, children: Vec::new() });
        }
    }
    for index in 0..suspects.len() {
        let mut children = Vec::new();
        if let Some(socket) = UnixSocket::of(&suspects[index].file) {
            socket.each_file(&mut |file| children.extend(places.get(&(Arc::as_ptr(file) as usize)).copied()));
        }
        for &child in &children {
            suspects[child].outside = suspects[child].outside.saturating_sub(1);
        }
        suspects[index].children = children;
    }
    // What is in a queue outside of the suspects, and all that it leads to, is alive.
    let mut alive: Vec<usize> = (0..suspects.len()).filter(|&index| suspects[index].outside > 0).collect();
    let mut reached = alloc::vec![false; suspects.len()];
    while let Some(index) = alive.pop() {
        if !core::mem::replace(&mut reached[index], true) {
            alive.extend_from_slice(&suspects[index].children);
        }
    }
    let garbage: Vec<_> = suspects.into_iter().zip(reached).filter(|(suspect, reached)| !reached && suspect.flights > 0).collect();
    for (suspect, _) in &garbage {
        if let Some(socket) = UnixSocket::of(&suspect.file) {
            socket.clear();
        }
    }
}
