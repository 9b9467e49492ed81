//! Named pipes (fifo(7)). A FIFO's pipe lives as long as somebody has it open; the file system knows only the inode.
//!
//! Lock order: `OPEN` is a leaf.

use super::pipe::{restart, Pipe, PipeEnd};
use crate::errno::{Errno, ENXIO};
use crate::fs::file::{O_ACCMODE, O_NONBLOCK, O_RDWR, O_WRONLY};
use crate::wait::Interruptible;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;
use hal::sync::SpinLock;

/// (device, inode number).
pub type InodeKey = (u64, u64);

static OPEN: SpinLock<BTreeMap<InodeKey, Weak<Pipe>>> = SpinLock::new(BTreeMap::new());

fn pipe_of(key: InodeKey) -> Arc<Pipe> {
    let mut open = OPEN.lock();
    if let Some(pipe) = open.get(&key).and_then(Weak::upgrade) {
        return pipe;
    }
    open.retain(|_, pipe| pipe.strong_count() > 0);
    let pipe = Pipe::new();
    open.insert(key, Arc::downgrade(&pipe));
    pipe
}

/// open(2) of a FIFO: a reader waits for a writer and the other way round. O_NONBLOCK: a reader does not wait, a writer without a reader
/// gets ENXIO. O_RDWR never waits.
pub fn open(key: InodeKey, flags: u32) -> Result<Arc<PipeEnd>, Errno> {
    let pipe = pipe_of(key);
    let wait = flags & O_NONBLOCK == 0;
    match flags & O_ACCMODE {
        O_RDWR => Ok(pipe.end(true, true)),
        O_WRONLY => {
            if !wait && pipe.readers() == 0 {
                return Err(ENXIO);
            }
            let seen = pipe.reader_opens.load(Ordering::SeqCst);
            let end = pipe.end(false, true);
            if wait {
                let ready = || (pipe.readers() > 0 || pipe.reader_opens.load(Ordering::SeqCst) != seen).then_some(());
                pipe.writable.wait(Interruptible::Yes, None, ready).map_err(restart)?;
            }
            Ok(end)
        }
        _ => {
            let seen = pipe.writer_opens.load(Ordering::SeqCst);
            let end = pipe.end(true, false);
            if wait {
                let ready = || (pipe.writers() > 0 || pipe.writer_opens.load(Ordering::SeqCst) != seen).then_some(());
                pipe.readable.wait(Interruptible::Yes, None, ready).map_err(restart)?;
            }
            Ok(end)
        }
    }
}
