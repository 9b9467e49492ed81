//! TCP between two ends in this guest: a connection to a loopback address on which a socket of this guest listens never leaves it.
//! The listening socket exists on the host as well, so others in the network namespace reach it as ever.
//!
//! Lock order: `LISTENERS` is a leaf.

use super::address::Endpoint;
use super::HostSocket;
use crate::net::channel::Channel;
use crate::net::socket::AF_INET;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use hal::sync::SpinLock;

struct Listener {
    endpoint: Endpoint,
    /// AF_INET, or AF_INET6 that takes IPv4 as well.
    domain: i32,
    only_v6: bool,
    socket: Weak<HostSocket>,
}

static LISTENERS: SpinLock<Vec<Listener>> = SpinLock::new(Vec::new());

/// One end of a connection inside the guest.
pub struct LocalEnd {
    pub incoming: Arc<Channel>,
    pub outgoing: Arc<Channel>,
    pub own: Endpoint,
    pub peer: Endpoint,
    pub peer_socket: Weak<HostSocket>,
    /// Something was sent after the peer had closed: its kernel would have answered with a reset by now.
    pub reset: AtomicBool,
}

/// A socket began to listen at this address.
pub fn add(socket: &Arc<HostSocket>, endpoint: Endpoint, domain: i32, only_v6: bool) {
    let mut listeners = LISTENERS.lock();
    listeners.retain(|known| known.socket.strong_count() > 0 && !core::ptr::eq(known.socket.as_ptr(), Arc::as_ptr(socket)));
    listeners.push(Listener { endpoint, domain, only_v6, socket: Arc::downgrade(socket) });
}

pub fn remove(socket: &HostSocket) {
    LISTENERS.lock().retain(|known| !core::ptr::eq(known.socket.as_ptr(), socket));
}

/// The socket of this guest that a connection to `target` reaches; several (SO_REUSEPORT) take turns.
pub fn find(target: &Endpoint) -> Option<Arc<HostSocket>> {
    static TURN: AtomicU32 = AtomicU32::new(0);
    if !target.is_loopback() {
        return None;
    }
    let listeners = LISTENERS.lock();
    let matching: Vec<&Listener> = listeners
        .iter()
        .filter(|known| {
            let any = known.endpoint.is_any() && (known.domain == AF_INET) <= target.is_v4() && !(known.only_v6 && target.is_v4());
            known.endpoint.port == target.port && (any || known.endpoint.address == target.address)
        })
        .collect();
    // An exact address goes before "any", as in the kernel.
    let exact = matching.iter().any(|known| !known.endpoint.is_any());
    let candidates: Vec<_> = matching.iter().filter(|known| !exact || !known.endpoint.is_any()).collect();
    let turn = TURN.fetch_add(1, Ordering::Relaxed) as usize;
    candidates.get(turn.checked_rem(candidates.len())?)?.socket.upgrade()
}

/// A port for the connecting end. It is not taken on the host: it only has to differ among the connections inside.
pub fn ephemeral_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 32768;
    const COUNT: u32 = 28232;
    (FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) as u16
}
