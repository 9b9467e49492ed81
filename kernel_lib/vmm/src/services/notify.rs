//! notify: inotify on shared volumes. One inotify instance serves the whole guest, which tells its users apart by watch numbers.

use std::sync::{Arc, OnceLock, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::names::descriptor_name;
use super::{fault, Answer, Errno, Host, Reply, Request};
use crate::handles::{Handle, Kind};

const ADD: u16 = 0;
const REMOVE: u16 = 1;
const READ: u16 = 2;
const MAX_READ: u64 = 64 << 10;

/// Made at the first watch.
#[derive(Default)]
pub struct Notifications {
    instance: OnceLock<Arc<Handle>>,
}

impl Host {
    fn inotify(&self, vcpu: u32) -> Result<Arc<Handle>, Errno> {
        if let Some(handle) = self.notifications.instance.get() {
            return Ok(handle.clone());
        }
        let handle = Arc::new(Handle::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?, Kind::Inotify));
        let handle = self.notifications.instance.get_or_init(|| handle).clone();
        self.watcher.watch(0, &handle, vcpu)?;
        Ok(handle)
    }

    pub(super) fn notify(&self, request: &Request) -> Answer {
        let [path, bytes, _, watch, ..] = request.args;
        match request.flags() {
            ADD => {
                if !self.has_proc {
                    return Err(Errno::OPNOTSUPP);
                }
                let mask = WatchFlags::from_bits_retain(request.small(2)?) - WatchFlags::DONT_FOLLOW;
                let place = self.place(request.handle, path, bytes)?;
                let object = self.open_path(&place)?;
                let handle = self.inotify(request.vcpu())?;
                let watch = inotify::add_watch(&*handle, descriptor_name(&object), mask)?;
                Ok(Reply::of(watch as u64))
            }
            REMOVE => {
                let handle = self.inotify(request.vcpu())?;
                inotify::remove_watch(&*handle, i32::try_from(watch).map_err(|_| Errno::INVAL)?)?;
                Ok(Reply::of(0))
            }
            READ => {
                let [_, buffer, room, ..] = request.args;
                let handle = self.inotify(request.vcpu())?;
                let mut records = vec![0; room.min(MAX_READ) as usize];
                // One reader at a time, so that records reach the guest in order.
                let _turn = handle.position.lock().unwrap_or_else(PoisonError::into_inner);
                let bytes = rustix::io::read(&*handle, &mut records)?;
                self.memory.write_bytes(buffer, records.get(..bytes).unwrap_or_default()).map_err(fault)?;
                Ok(Reply::of(bytes as u64))
            }
            _ => Err(Errno::INVAL),
        }
    }
}
