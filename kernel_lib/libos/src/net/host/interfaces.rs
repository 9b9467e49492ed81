//! Interfaces of the container's network namespace (netdevice(7)), and the tables that the host shows of that namespace.

use super::{request, HostSocket, IFREQ, NO_HANDLE};
use crate::errno::{Errno, ENODEV, ENOTTY};
use crate::net::socket::{AF_INET, SOCK_DGRAM};
use crate::SysResult;
use abi::request::NETWORK_TABLES;
use alloc::string::String;
use alloc::vec::Vec;

const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;
const IFF_LOOPBACK: u16 = 0x8;
pub const IFF_RUNNING: u16 = 0x40;
/// Bytes of a name in struct ifreq, with the zero behind it.
const IFNAMSIZ: usize = 16;
/// Most bytes of a table.
const MOST: usize = 4 << 20;

/// Calls `ask` with a socket made for one question.
fn ask<T>(ask: impl FnOnce(&HostSocket) -> Result<T, Errno>) -> Result<T, Errno> {
    let socket = HostSocket::new(AF_INET, SOCK_DGRAM, 0, NO_HANDLE);
    let outcome = ask(&socket);
    socket.shut_for_good();
    outcome
}

/// Questions about interfaces may be asked of any socket.
pub fn ioctl(request: u32, argument: u64) -> SysResult {
    if !matches!(request, 0x8910..=0x8970) {
        return Err(ENOTTY);
    }
    ask(|socket| socket.host_ioctl(request, argument))
}

pub struct Interface {
    pub name: String,
}

impl Interface {
    /// What struct ifreq holds behind the name.
    fn query<const BYTES: usize>(&self, request: u32) -> Result<[u8; BYTES], Errno> {
        let mut interface = alloc::vec![0; IFREQ];
        let name = self.name.as_bytes();
        interface.get_mut(..name.len().min(IFNAMSIZ)).ok_or(ENODEV)?.copy_from_slice(name.get(..IFNAMSIZ).unwrap_or(name));
        ask(|socket| request::ioctl(socket.handle()?, request, &mut interface))?;
        interface.get(IFNAMSIZ..).and_then(<[u8]>::first_chunk).copied().ok_or(ENODEV)
    }

    /// The hardware's type and address.
    pub fn hardware(&self) -> Result<(u16, [u8; 6]), Errno> {
        let [low, high, address @ ..] = self.query::<8>(SIOCGIFHWADDR)?;
        Ok((u16::from_ne_bytes([low, high]), address))
    }
    pub fn flags(&self) -> Result<u16, Errno> {
        self.query(SIOCGIFFLAGS).map(u16::from_ne_bytes)
    }
    pub fn is_loopback(&self) -> Result<bool, Errno> {
        Ok(self.flags()? & IFF_LOOPBACK != 0)
    }
    pub fn is_running(&self) -> Result<bool, Errno> {
        Ok(self.flags()? & IFF_RUNNING != 0)
    }
    pub fn mtu(&self) -> Result<i32, Errno> {
        self.query(SIOCGIFMTU).map(i32::from_ne_bytes)
    }
    pub fn index(&self) -> Result<i32, Errno> {
        self.query(SIOCGIFINDEX).map(i32::from_ne_bytes)
    }
    pub fn queue_length(&self) -> Result<i32, Errno> {
        self.query(SIOCGIFTXQLEN).map(i32::from_ne_bytes)
    }
}

/// Each interface's name and counters, as /proc/net/dev has them.
pub fn counters() -> Vec<(String, Vec<u64>)> {
    let text = table("dev").unwrap_or_default();
    let lines = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, counts)| (String::from(name.trim()), counts.split_whitespace().filter_map(|word| word.parse().ok()).collect()))
        .collect()
}

/// A table of /proc/net. None: the host shows none of that name.
pub fn table(name: &str) -> Option<String> {
    let number = NETWORK_TABLES.iter().position(|known| *known == name)?;
    let mut room = 16 << 10;
    loop {
        let buffer = alloc::vec![0u8; room];
        let bytes = request::table(number, &buffer).ok()?;
        if bytes < room || room >= MOST {
            return Some(String::from_utf8_lossy(buffer.get(..bytes)?).into_owned());
        }
        room *= 4;
    }
}
