//! Extended attributes. The path-based calls go through the object's O_PATH descriptor and its name in /proc, which works for links,
//! for handles and for names alike and follows nothing.

use rustix::fs::XattrFlags;

use super::names::descriptor_name;
use super::{fault, Answer, Errno, Host, Reply, Request};

const GET: u16 = 0;
const SET: u16 = 1;
const REMOVE: u16 = 2;
const LIST: u16 = 3;
const SET_CREATE: u16 = 4;
const SET_REPLACE: u16 = 5;
const MAX_NAME: u64 = 255;
const MAX_VALUE: u64 = 64 << 10;

fn allowed(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"trusted.") || name == b"security.capability" || name.starts_with(b"system.posix_acl_")
}

/// Puts a value or list into the guest's buffer; with a buffer of 0 bytes only its size is asked for.
fn deliver(host: &Host, to: u64, room: u64, bytes: &[u8]) -> Answer {
    if room > 0 {
        if bytes.len() as u64 > room {
            return Err(Errno::RANGE);
        }
        host.memory.write_bytes(to, bytes).map_err(fault)?;
    }
    Ok(Reply::of(bytes.len() as u64))
}

impl Host {
    pub(super) fn xattr(&self, request: &Request) -> Answer {
        let [path, bytes, name, name_bytes, value, value_bytes] = request.args;
        if !self.has_proc {
            return Err(Errno::OPNOTSUPP);
        }
        let place = self.place(request.handle, path, bytes)?;
        let fd = self.open_path(&place)?;
        let object = descriptor_name(&fd);
        if request.flags() == LIST {
            let mut list = vec![0; MAX_VALUE as usize];
            let length = rustix::fs::listxattr(&object, &mut list)?;
            let visible: Vec<u8> = list
                .get(..length)
                .unwrap_or_default()
                .split_inclusive(|byte| *byte == 0)
                .filter(|entry| allowed(entry.strip_suffix(b"\0").unwrap_or(entry)))
                .flatten()
                .copied()
                .collect();
            return deliver(self, value, value_bytes, &visible);
        }
        let name = self.text(name, name_bytes, MAX_NAME)?;
        if !allowed(name.as_bytes()) {
            return Err(Errno::OPNOTSUPP);
        }
        let set = |flags| {
            if value_bytes > MAX_VALUE {
                return Err(Errno::TOOBIG);
            }
            let mut content = vec![0; value_bytes as usize];
            self.memory.read_into(value, &mut content).map_err(fault)?;
            rustix::fs::setxattr(&object, &name, &content, flags)?;
            Ok(Reply::of(0))
        };
        match request.flags() {
            GET => {
                let mut content = vec![0; MAX_VALUE as usize];
                let length = rustix::fs::getxattr(&object, &name, &mut content)?;
                deliver(self, value, value_bytes, content.get(..length).unwrap_or_default())
            }
            SET => set(XattrFlags::empty()),
            SET_CREATE => set(XattrFlags::CREATE),
            SET_REPLACE => set(XattrFlags::REPLACE),
            REMOVE => {
                rustix::fs::removexattr(&object, &name)?;
                Ok(Reply::of(0))
            }
            _ => Err(Errno::INVAL),
        }
    }
}
