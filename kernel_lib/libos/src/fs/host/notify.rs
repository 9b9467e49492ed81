//! inotify(7) on shared volumes: whoever changes a watched file, on the host or here, the host's own watch on it tells of it.
//!
//! What a program here has done is asked for before its system call returns ([`collect`]): its own watches see it at once, in the order
//! in which the host saw it, and once. What others do the VMM announces, and a thread asks. Opens, reads and closes are told by the
//! library OS alone: on the host they come from handles that are kept and shared.

use super::inode::HostInode;
use super::request;
use crate::background;
use crate::fs::inode::Inode;
use crate::fs::notify;
use crate::sync::Mutex;
use crate::wait::{Interruptible, WaitQueue};
use abi::request::Op;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::sync::SpinLock;
use linux_abi::fs::{IN_ATTRIB, IN_CREATE, IN_DELETE_SELF, IN_IGNORED, IN_ISDIR};

const ADD: u16 = 0;
const REMOVE: u16 = 1;
const READ: u16 = 2;
const ROOM: usize = 4096;
/// struct inotify_event before the name, and with the longest name.
const HEADER: usize = 16;
const LONGEST: usize = HEADER + 256;

type Watched = BTreeMap<u32, Vec<Weak<HostInode>>>;

/// By the number of the host's watch. A directory that is mounted twice has one watch and two inodes.
static WATCHED: SpinLock<Watched> = SpinLock::new(BTreeMap::new());
/// Somebody speaks with the host about watches: records are told in their order, and a number is not given up while it is given again.
static TURN: Mutex<()> = Mutex::new(());
/// Watches that perhaps nobody needs any more. Their host requests cannot be made where an inode is dropped.
static DROPPED: SpinLock<Vec<u32>> = SpinLock::new(Vec::new());
static ANNOUNCED: AtomicBool = AtomicBool::new(false);
static WORK: WaitQueue = WaitQueue::new();
static STARTED: AtomicBool = AtomicBool::new(false);

/// This inode is watched since just now: if others can change it, by the host too. Best effort: what is done here is told in any case.
pub fn watch(inode: &Arc<dyn Inode>) {
    let Some(inode) = inode.as_any().downcast_ref::<HostInode>() else { return };
    if inode.exclusive() {
        return;
    }
    let _turn = TURN.lock();
    remove_dropped();
    if inode.state.watches.host_watch() != 0 {
        return;
    }
    let Ok((base, path)) = inode.name() else { return };
    let Ok(answer) = request::with_path(Op::Notify, ADD, base.number(), &path, [u64::from(notify::ON_HOST | IN_DELETE_SELF), 0, 0, 0])
    else {
        return;
    };
    let number = answer.value as u32;
    WATCHED.lock().entry(number).or_default().push(inode.me.clone());
    inode.state.watches.set_host_watch(number);
    if !STARTED.swap(true, Ordering::SeqCst) && background::spawn("inotify", Box::new(serve)).is_err() {
        STARTED.store(false, Ordering::SeqCst);
    }
}

/// The last watch of an inode that the host watches is gone. Must not sleep.
pub fn unwatch(number: u32) {
    DROPPED.lock().push(number);
    announced();
}

/// The VMM has records to read. Must not sleep.
pub fn announced() {
    ANNOUNCED.store(true, Ordering::SeqCst);
    WORK.wake_all();
}

fn serve() {
    loop {
        let _ = WORK.wait(Interruptible::No, None, || ANNOUNCED.swap(false, Ordering::SeqCst).then_some(()));
        collect();
    }
}

/// Tells the watches what the host has recorded so far.
pub fn collect() {
    let buffer = alloc::vec![0u8; ROOM];
    let _turn = TURN.lock();
    remove_dropped();
    while let Ok(answer) = request::plain(Op::Notify, READ, 0, [0, request::gpa(&buffer), ROOM as u64, 0, 0, 0]) {
        let bytes = (answer.value as usize).min(ROOM);
        tell(&buffer[..bytes]);
        if bytes + LONGEST <= ROOM {
            break;
        }
    }
}

fn remove_dropped() {
    let dropped = core::mem::take(&mut *DROPPED.lock());
    for number in dropped {
        let Some(mut inodes) = WATCHED.lock().remove(&number) else { continue };
        inodes.retain(|inode| {
            inode.upgrade().is_some_and(|inode| {
                let needed = !inode.state.watches.is_empty();
                if !needed {
                    inode.state.watches.set_host_watch(0);
                }
                needed
            })
        });
        if inodes.is_empty() {
            let _ = request::plain(Op::Notify, REMOVE, 0, [0, 0, 0, u64::from(number), 0, 0]);
        } else {
            WATCHED.lock().insert(number, inodes);
        }
    }
}

fn tell(mut records: &[u8]) {
    let mut created: Option<(u32, &[u8])> = None;
    while let Some((header, rest)) = records.split_at_checked(HEADER) {
        let word = |index: usize| u32::from_le_bytes([header[index], header[index + 1], header[index + 2], header[index + 3]]);
        let (number, mask, cookie) = (word(0), word(4), word(8));
        let Some((field, next)) = rest.split_at_checked(word(12) as usize) else { return };
        let name = field.split(|&byte| byte == 0).next().unwrap_or(field);
        // The VMM gives what it makes its owner, which is no event for those who see it made.
        let owned = mask & !IN_ISDIR == IN_ATTRIB && created == Some((number, name));
        created = (mask & IN_CREATE != 0).then_some((number, name));
        if !owned {
            tell_one(number, mask, cookie, name);
        }
        records = next;
    }
}

fn tell_one(number: u32, mask: u32, cookie: u32, name: &[u8]) {
    let inodes = if mask & IN_IGNORED == 0 { WATCHED.lock().get(&number).cloned() } else { WATCHED.lock().remove(&number) };
    for inode in inodes.unwrap_or_default().iter().filter_map(Weak::upgrade) {
        if mask & IN_IGNORED != 0 {
            inode.state.watches.set_host_watch(0);
        } else if mask & IN_DELETE_SELF != 0 {
            notify::gone(&*inode);
        } else {
            inode.state.watches.tell(mask, cookie, name);
            if mask & IN_ATTRIB != 0 && name.is_empty() && inode.opens.load(Ordering::Acquire) == 0 {
                // Perhaps its last name is gone: a handle must not keep it alive.
                inode.drop_handles();
            }
        }
    }
}
