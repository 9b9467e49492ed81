//! Pages of program files as copies in RAM, shared by all processes. Only where touching a page of a file is dear (a paging-based KVM,
//! see docs/decisions/0009): there a touch of RAM brings its neighbours along, a touch of the host's page cache does not.
//!
//! A file gets copies when a second program maps it to be executed, or (if only the container can change it) to be read, or when a
//! process that does so forks for the second time: what runs once is shown from the page cache. They are made in chunks, of what is
//! touched, and belong to the file in a certain state: a changed file is another one. Nobody writes to them: while the cache holds a
//! frame, a private mapping copies it first.
//!
//! Lock order: address space > the list of files > a file's chunks. Host requests are made without a lock.

use super::reclaim;
use super::{Pages, PAGE_SIZE};
use abi::request::Segment;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hal::frame::{Frame, Page};
use hal::sync::SpinLock;

/// A chunk is 2^4 pages, which one request reads.
const ORDER: usize = 4;
const CHUNK: u64 = 1 << ORDER;
/// So many uses make a file worth copies.
const WORTH: u32 = 2;
const MOST_FILES: usize = 256;
/// Copies take up to this part of the memory, and never more than this.
const PART: u64 = 8;
const MOST_PAGES: u64 = (128 << 20) / PAGE_SIZE;

/// A file in a state: (device, inode, version).
type Key = (u64, u64, u64);

pub(super) struct File {
    version: u64,
    uses: AtomicU32,
    /// Who used it last: counted once.
    user: AtomicU64,
    chunks: SpinLock<BTreeMap<u64, Vec<Frame>>>,
}

static FILES: SpinLock<BTreeMap<Key, Arc<File>>> = SpinLock::new(BTreeMap::new());
static HELD: AtomicU64 = AtomicU64::new(0);

/// Bytes of copies.
pub fn bytes() -> u64 {
    HELD.load(Ordering::Relaxed) * PAGE_SIZE
}

fn key(pages: &dyn Pages) -> Option<Key> {
    let version = pages.copied_version()?;
    let (device, inode) = pages.identity();
    Some((device, inode, version))
}

/// The file's copies, if it is worth any.
pub(super) fn of(pages: &dyn Pages) -> Option<Arc<File>> {
    let key = key(pages)?;
    FILES.lock().get(&key).filter(|file| file.uses.load(Ordering::Relaxed) >= WORTH).cloned()
}

/// An address space uses the file (`again`: and is copied for a new process). True: from now on it is worth copies.
pub(super) fn used(pages: &dyn Pages, user: u64, again: bool) -> bool {
    let Some(key) = key(pages) else { return false };
    let mut files = FILES.lock();
    let mut gone = None;
    if files.len() >= MOST_FILES && !files.contains_key(&key) {
        gone = files.pop_first();
    }
    let make =
        || Arc::new(File { version: key.2, uses: AtomicU32::new(0), user: AtomicU64::new(0), chunks: SpinLock::new(BTreeMap::new()) });
    let file = files.entry(key).or_insert_with(make);
    let known = file.user.swap(user, Ordering::Relaxed) == user;
    let more = if again { WORTH } else { u32::from(!known) };
    let before = file.uses.fetch_add(more, Ordering::Relaxed);
    let after = file.uses.fetch_min(WORTH, Ordering::Relaxed);
    drop(files);
    drop(gone);
    before < WORTH && after >= WORTH
}

/// The file was changed: nobody gets its copies any more. What has been handed out is to be taken back by their means.
pub(super) fn take(identity: (u64, u64)) -> Vec<Arc<File>> {
    let (device, inode) = identity;
    let mut files = FILES.lock();
    let keys: Vec<Key> = files.range((device, inode, 0)..=(device, inode, u64::MAX)).map(|(key, _)| *key).collect();
    keys.iter().filter_map(|key| files.remove(key)).collect()
}

/// Gives up copies that no process uses, up to `most` pages; how many.
pub(super) fn shrink(most: u64) -> u64 {
    let files: Vec<Arc<File>> = FILES.lock().values().cloned().collect();
    let mut pages = 0;
    for file in files {
        if pages >= most {
            break;
        }
        pages += file.drop_idle(most - pages);
    }
    pages
}

/// Room for one more chunk.
fn has_room() -> bool {
    let most = (reclaim::total() / PAGE_SIZE / PART).min(MOST_PAGES);
    HELD.load(Ordering::Relaxed) + CHUNK <= most || shrink(CHUNK) >= CHUNK
}

impl File {
    /// The page at `wanted`, copied if it is not yet, and its neighbours within `[first, end)` that have copies: the first one's index.
    pub(super) fn around(&self, pages: &dyn Pages, first: u64, end: u64, wanted: u64) -> Option<(u64, Vec<Page>)> {
        self.load(pages, wanted / CHUNK)?;
        let chunks = self.chunks.lock();
        let mut low = wanted / CHUNK;
        while low * CHUNK > first && chunks.contains_key(&(low - 1)) {
            low -= 1;
        }
        let start = first.max(low * CHUNK);
        let found = run(&chunks, start, end);
        (wanted - start < found.len() as u64).then_some((start, found))
    }

    /// The next pages within `[first, end)` that have copies.
    pub(super) fn next(&self, first: u64, end: u64) -> Option<(u64, Vec<Page>)> {
        let chunks = self.chunks.lock();
        let (&chunk, _) = chunks.range(first / CHUNK..).next()?;
        let start = first.max(chunk * CHUNK);
        let found = run(&chunks, start, end);
        (!found.is_empty()).then_some((start, found))
    }

    /// Whether this frame is the copy of that page.
    pub(super) fn holds(&self, index: u64, address: u64) -> bool {
        let chunks = self.chunks.lock();
        chunks.get(&(index / CHUNK)).and_then(|chunk| chunk.get((index % CHUNK) as usize)).is_some_and(|frame| frame.address() == address)
    }

    fn load(&self, pages: &dyn Pages, chunk: u64) -> Option<()> {
        if self.chunks.lock().contains_key(&chunk) {
            return Some(());
        }
        let count = pages.size().div_ceil(PAGE_SIZE).checked_sub(chunk * CHUNK).filter(|&count| count > 0)?.min(CHUNK);
        if !has_room() {
            return None;
        }
        let frames = read(pages, chunk * CHUNK, count)?;
        // What was read belongs to the state that the file still has.
        if pages.copied_version() != Some(self.version) {
            return None;
        }
        let count = frames.len() as u64;
        if self.chunks.lock().insert(chunk, frames).is_none() {
            HELD.fetch_add(count, Ordering::Relaxed);
        }
        Some(())
    }

    fn drop_idle(&self, most: u64) -> u64 {
        let mut gone = Vec::new();
        let mut pages = 0;
        self.chunks.lock().retain(|_, frames| {
            let idle = pages < most && frames.iter().all(|frame| frame.references() == 1);
            if idle {
                pages += frames.len() as u64;
                gone.push(core::mem::take(frames));
            }
            !idle
        });
        HELD.fetch_sub(pages, Ordering::Relaxed);
        pages
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let pages: usize = self.chunks.get_mut().values().map(Vec::len).sum();
        HELD.fetch_sub(pages as u64, Ordering::Relaxed);
    }
}

/// The pages from `start` on that lie one after the other.
fn run(chunks: &BTreeMap<u64, Vec<Frame>>, start: u64, end: u64) -> Vec<Page> {
    let page = |index: u64| chunks.get(&(index / CHUNK))?.get((index % CHUNK) as usize).cloned().map(Page::Ram);
    (start..end).map_while(page).collect()
}

/// Fresh frames with `count` pages of the object from `first` on; zeros behind its end. None: no memory, or not all of it could be read.
pub(super) fn read(pages: &dyn Pages, first: u64, count: u64) -> Option<Vec<Frame>> {
    let mut frames = Vec::with_capacity(count as usize);
    let mut segments: Vec<Segment> = Vec::new();
    while frames.len() < count as usize {
        let left = count - frames.len() as u64;
        let order = left.next_power_of_two().ilog2().min(9) as usize;
        let run = reclaim::try_run(order, false).or_else(|| reclaim::try_run(0, false))?;
        let start = frames.len();
        frames.extend(run.take(left as usize));
        segments.push(Segment { gpa: frames[start].address(), bytes: (frames.len() - start) as u64 * PAGE_SIZE });
        if segments.len() == abi::request::MAX_SEGMENTS {
            return None;
        }
    }
    let bytes = (pages.size().checked_sub(first * PAGE_SIZE)?).min(count * PAGE_SIZE);
    if pages.read(first * PAGE_SIZE, &segments) != Ok(bytes) {
        return None;
    }
    let tail = (bytes % PAGE_SIZE) as usize;
    if tail != 0 {
        frames.last()?.fill_zero(tail, PAGE_SIZE as usize - tail);
    }
    (bytes.div_ceil(PAGE_SIZE) == count).then_some(frames)
}
