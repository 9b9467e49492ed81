//! Socket-level options (socket(7)) that the library OS keeps itself.

use crate::errno::{Errno, EDOM, EINVAL, ENOPROTOOPT, EPERM};
use crate::ipc::links::{capable, CAP_SYS_ADMIN};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

pub const SOL_SOCKET: i32 = 1;
pub const SO_TYPE: i32 = 3;
pub const SO_ERROR: i32 = 4;
pub const SO_SNDBUF: i32 = 7;
pub const SO_RCVBUF: i32 = 8;
pub const SO_PRIORITY: i32 = 12;
pub const SO_OOBINLINE: i32 = 10;
pub const SO_LINGER: i32 = 13;
pub const SO_PASSCRED: i32 = 16;
pub const SO_PEERCRED: i32 = 17;
pub const SO_RCVLOWAT: i32 = 18;
pub const SO_SNDLOWAT: i32 = 19;
pub const SO_RCVTIMEO_OLD: i32 = 20;
pub const SO_SNDTIMEO_OLD: i32 = 21;
pub const SO_ACCEPTCONN: i32 = 30;
pub const SO_PEERSEC: i32 = 31;
pub const SO_SNDBUFFORCE: i32 = 32;
pub const SO_RCVBUFFORCE: i32 = 33;
pub const SO_MARK: i32 = 36;
pub const SO_PROTOCOL: i32 = 38;
pub const SO_DOMAIN: i32 = 39;
pub const SO_PEERGROUPS: i32 = 59;
pub const SO_RCVTIMEO_NEW: i32 = 66;
pub const SO_SNDTIMEO_NEW: i32 = 67;

/// net.core.wmem_default, and twice net.core.wmem_max.
pub const DEFAULT_BUFFER: u32 = 212_992;
const MOST_BUFFER: u32 = 425_984;
const LEAST_SEND: u32 = 4608;
const LEAST_RECEIVE: u32 = 2304;

/// On-off options: number of the option is the number of the bit.
const SWITCHES: [i32; 15] = [1, 2, 5, 6, 9, 10, 11, 15, 16, 29, 34, 35, 40, 44, 60];

pub struct Options {
    switches: AtomicU64,
    receive_timeout: AtomicU64,
    send_timeout: AtomicU64,
    send_buffer: AtomicU32,
    receive_buffer: AtomicU32,
    low_water: AtomicI32,
    priority: AtomicI32,
    /// On in bit 32, seconds below.
    linger: AtomicU64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            switches: AtomicU64::new(0),
            receive_timeout: AtomicU64::new(0),
            send_timeout: AtomicU64::new(0),
            send_buffer: AtomicU32::new(DEFAULT_BUFFER),
            receive_buffer: AtomicU32::new(DEFAULT_BUFFER),
            low_water: AtomicI32::new(1),
            priority: AtomicI32::new(0),
            linger: AtomicU64::new(0),
        }
    }
}

/// The leading int of an option's value. EINVAL when there is none.
pub fn int(value: &[u8]) -> Result<i32, Errno> {
    value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(EINVAL)
}

/// struct timeval to ns; 0 stays "no limit".
fn timeout(value: &[u8]) -> Result<u64, Errno> {
    let (seconds, rest) = value.split_first_chunk::<8>().ok_or(EINVAL)?;
    let micros = rest.first_chunk::<8>().ok_or(EINVAL)?;
    let (seconds, micros) = (i64::from_ne_bytes(*seconds), i64::from_ne_bytes(*micros));
    if !(0..1_000_000).contains(&micros) {
        return Err(EDOM);
    }
    // socket(7): a negative time means not to wait at all; the shortest wait stands for it.
    let Ok(seconds) = u64::try_from(seconds) else { return Ok(1) };
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(micros as u64 * 1000))
}

impl Options {
    pub fn on(&self, option: i32) -> bool {
        self.switches.load(Ordering::Relaxed) >> option & 1 == 1
    }
    pub fn receive_timeout(&self) -> u64 {
        self.receive_timeout.load(Ordering::Relaxed)
    }
    pub fn send_timeout(&self) -> u64 {
        self.send_timeout.load(Ordering::Relaxed)
    }
    pub fn send_buffer(&self) -> usize {
        self.send_buffer.load(Ordering::Relaxed) as usize
    }
    pub fn receive_buffer(&self) -> usize {
        self.receive_buffer.load(Ordering::Relaxed) as usize
    }
    /// SO_LINGER with no time: a close resets the connection (socket(7)).
    pub fn resets_at_close(&self) -> bool {
        self.linger.load(Ordering::Relaxed) == 1 << 32
    }
    pub fn set_switch(&self, option: i32, on: bool) {
        if on {
            self.switches.fetch_or(1 << option, Ordering::Relaxed);
        } else {
            self.switches.fetch_and(!(1 << option), Ordering::Relaxed);
        }
    }

    /// What an accepted socket takes over from its listener.
    pub fn inherit(&self, from: &Self) {
        self.switches.store(from.switches.load(Ordering::Relaxed), Ordering::Relaxed);
        for (to, from) in [(&self.send_buffer, &from.send_buffer), (&self.receive_buffer, &from.receive_buffer)] {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.linger.store(from.linger.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// SO_RCVTIMEO or SO_SNDTIMEO: true when `name` is one of them.
    pub fn set_timeout(&self, name: i32, value: &[u8]) -> Result<bool, Errno> {
        let field = match name {
            SO_RCVTIMEO_OLD | SO_RCVTIMEO_NEW => &self.receive_timeout,
            SO_SNDTIMEO_OLD | SO_SNDTIMEO_NEW => &self.send_timeout,
            _ => return Ok(false),
        };
        field.store(timeout(value)?, Ordering::Relaxed);
        Ok(true)
    }

    pub fn timeout(&self, name: i32) -> Option<Vec<u8>> {
        let ns = match name {
            SO_RCVTIMEO_OLD | SO_RCVTIMEO_NEW => self.receive_timeout(),
            SO_SNDTIMEO_OLD | SO_SNDTIMEO_NEW => self.send_timeout(),
            _ => return None,
        };
        let mut bytes = Vec::with_capacity(16);
        bytes.extend_from_slice(&(ns / 1_000_000_000).to_ne_bytes());
        bytes.extend_from_slice(&(ns % 1_000_000_000 / 1000).to_ne_bytes());
        Some(bytes)
    }

    pub fn set(&self, name: i32, value: &[u8]) -> Result<(), Errno> {
        if self.set_timeout(name, value)? {
            return Ok(());
        }
        if name == SO_LINGER {
            let seconds = value.get(4..8).ok_or(EINVAL).and_then(int)?;
            let on = u64::from(int(value)? != 0);
            self.linger.store(on << 32 | u64::from(seconds as u32), Ordering::Relaxed);
            return Ok(());
        }
        let number = int(value)?;
        match name {
            SO_SNDBUF => self.send_buffer.store(doubled(number).clamp(LEAST_SEND, MOST_BUFFER), Ordering::Relaxed),
            SO_RCVBUF => self.receive_buffer.store(doubled(number).clamp(LEAST_RECEIVE, MOST_BUFFER), Ordering::Relaxed),
            SO_SNDBUFFORCE | SO_RCVBUFFORCE => {
                if !capable(CAP_SYS_ADMIN) {
                    return Err(EPERM);
                }
                let (field, least) =
                    if name == SO_SNDBUFFORCE { (&self.send_buffer, LEAST_SEND) } else { (&self.receive_buffer, LEAST_RECEIVE) };
                field.store(doubled(number).max(least), Ordering::Relaxed);
            }
            SO_RCVLOWAT => self.low_water.store(if number == 0 { 1 } else { number.max(1) }, Ordering::Relaxed),
            SO_PRIORITY => self.priority.store(number, Ordering::Relaxed),
            _ if SWITCHES.contains(&name) => self.set_switch(name, number != 0),
            _ => return Err(ENOPROTOOPT),
        }
        Ok(())
    }

    pub fn get(&self, name: i32) -> Result<Vec<u8>, Errno> {
        if let Some(bytes) = self.timeout(name) {
            return Ok(bytes);
        }
        let number = match name {
            SO_SNDBUF => self.send_buffer.load(Ordering::Relaxed) as i32,
            SO_RCVBUF => self.receive_buffer.load(Ordering::Relaxed) as i32,
            SO_RCVLOWAT => self.low_water.load(Ordering::Relaxed),
            SO_SNDLOWAT => 1,
            SO_PRIORITY => self.priority.load(Ordering::Relaxed),
            SO_LINGER => {
                let linger = self.linger.load(Ordering::Relaxed);
                let mut bytes = ((linger >> 32) as u32).to_ne_bytes().to_vec();
                bytes.extend_from_slice(&(linger as u32).to_ne_bytes());
                return Ok(bytes);
            }
            _ if SWITCHES.contains(&name) => i32::from(self.on(name)),
            _ => return Err(ENOPROTOOPT),
        };
        Ok(number.to_ne_bytes().to_vec())
    }
}

/// Linux doubles what the program asks for, for its own bookkeeping.
fn doubled(bytes: i32) -> u32 {
    (bytes as u32).min(MOST_BUFFER / 2).saturating_mul(2)
}
