//! Names of unix sockets (unix(7), "Address format"): paths, abstract names, and none.
//!
//! Lock order: the two registries are leaves.

use super::UnixSocket;
use crate::errno::{Errno, EADDRINUSE, ECONNREFUSED, EINVAL};
use crate::ipc::fifo::InodeKey;
use crate::ipc::links;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use hal::sync::SpinLock;

/// Bytes of `sun_path`.
const PATH_BYTES: usize = 108;
const FAMILY_BYTES: usize = 2;

static ABSTRACT: SpinLock<BTreeMap<Vec<u8>, Weak<UnixSocket>>> = SpinLock::new(BTreeMap::new());
static PATHS: SpinLock<BTreeMap<InodeKey, Weak<UnixSocket>>> = SpinLock::new(BTreeMap::new());

#[derive(Clone, PartialEq, Eq)]
pub enum Name {
    /// The path as bound, and the inode it made.
    Path(Vec<u8>, InodeKey),
    /// Without its leading NUL.
    Abstract(Vec<u8>),
}

/// An address as a program wrote it.
pub enum Address<'a> {
    /// Only the family: autobind, or no address.
    Unnamed,
    Path(&'a [u8]),
    Abstract(&'a [u8]),
}

/// Decodes sockaddr_un. EINVAL for another family or length.
pub fn parse(address: &[u8]) -> Result<Address<'_>, Errno> {
    let family = address.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    if family != Some(super::super::socket::AF_UNIX as u16) || address.len() > FAMILY_BYTES + PATH_BYTES {
        return Err(EINVAL);
    }
    match &address[FAMILY_BYTES..] {
        [] => Ok(Address::Unnamed),
        [0, name @ ..] => Ok(Address::Abstract(name)),
        path => Ok(Address::Path(path.split(|&byte| byte == 0).next().unwrap_or(path))),
    }
}

/// The sockaddr_un of a name, or of none.
pub fn encode(name: Option<&Name>) -> Vec<u8> {
    let mut bytes = (super::super::socket::AF_UNIX as u16).to_ne_bytes().to_vec();
    match name {
        None => {}
        Some(Name::Path(path, _)) => {
            bytes.extend_from_slice(path);
            // A path that fills all of sun_path has no NUL behind it, and Linux counts one all the same.
            bytes.push(0);
        }
        Some(Name::Abstract(name)) => {
            bytes.push(0);
            bytes.extend_from_slice(name);
        }
    }
    bytes
}

/// Gives the socket its name.
pub fn claim(socket: &Arc<UnixSocket>, address: &Address<'_>) -> Result<Name, Errno> {
    let weak = Arc::downgrade(socket);
    match address {
        Address::Unnamed => {
            static NEXT: AtomicU32 = AtomicU32::new(1);
            for _ in 0..1 << 20 {
                let number = NEXT.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
                let name = alloc::format!("{number:05x}").into_bytes();
                if insert(&ABSTRACT, name.clone(), &weak) {
                    return Ok(Name::Abstract(name));
                }
            }
            Err(EADDRINUSE)
        }
        Address::Abstract(name) => {
            if !insert(&ABSTRACT, name.to_vec(), &weak) {
                return Err(EADDRINUSE);
            }
            Ok(Name::Abstract(name.to_vec()))
        }
        Address::Path(path) => {
            let key = links::make_socket(path)?;
            PATHS.lock().insert(key, weak);
            Ok(Name::Path(path.to_vec(), key))
        }
    }
}

fn insert<K: Ord>(registry: &SpinLock<BTreeMap<K, Weak<UnixSocket>>>, key: K, socket: &Weak<UnixSocket>) -> bool {
    let mut registry = registry.lock();
    if registry.get(&key).is_some_and(|known| known.strong_count() > 0) {
        return false;
    }
    registry.insert(key, socket.clone());
    true
}

/// The socket is closed: an abstract name is free again; a path's inode stays without a socket behind it. An accepted socket shows its
/// listener's name, but the name stays the listener's.
pub fn release(name: &Name, owner: &UnixSocket) {
    match name {
        Name::Path(_, key) => remove(&PATHS, key, owner),
        Name::Abstract(name) => remove(&ABSTRACT, name, owner),
    }
}

fn remove<K: Ord>(registry: &SpinLock<BTreeMap<K, Weak<UnixSocket>>>, key: &K, owner: &UnixSocket) {
    let mut registry = registry.lock();
    if registry.get(key).is_some_and(|known| core::ptr::eq(known.as_ptr(), owner)) {
        registry.remove(key);
    }
}

/// The socket that has this name. ECONNREFUSED when there is none; errors of the path's resolution as they are.
pub fn find(address: &Address<'_>) -> Result<Arc<UnixSocket>, Errno> {
    let socket = match address {
        Address::Unnamed => return Err(EINVAL),
        Address::Abstract(name) => ABSTRACT.lock().get(*name).and_then(Weak::upgrade),
        Address::Path(path) => {
            let key = links::find_socket(path)?;
            PATHS.lock().get(&key).and_then(Weak::upgrade)
        }
    };
    socket.ok_or(ECONNREFUSED)
}
