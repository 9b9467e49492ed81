//! Interfaces of the container's network namespace (netdevice(7)), and the tables that the host shows of that namespace.

use super::{request, HostSocket, IFREQ, NO_HANDLE};
use crate::errno::{Errno, ENODEV, ENOTTY};
use crate::ipc::links::capable;
use crate::net::socket::{AF_INET, AF_INET6, SOCK_DGRAM};
use crate::SysResult;
use abi::request::NETWORK_TABLES;
use alloc::string::String;
use alloc::vec::Vec;
use linux_abi::capability::CAP_NET_ADMIN;

const SIOCADDRT: u32 = 0x890b;
const SIOCDELRT: u32 = 0x890c;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCSIFFLAGS: u32 = 0x8914;
const SIOCSIFADDR: u32 = 0x8916;
const SIOCSIFDSTADDR: u32 = 0x8918;
const SIOCSIFBRDADDR: u32 = 0x891a;
const SIOCSIFNETMASK: u32 = 0x891c;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCSIFMTU: u32 = 0x8922;
const SIOCSIFNAME: u32 = 0x8923;
const SIOCSIFHWADDR: u32 = 0x8924;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCADDMULTI: u32 = 0x8931;
const SIOCDELMULTI: u32 = 0x8932;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCDIFADDR: u32 = 0x8936;
const SIOCGIFTXQLEN: u32 = 0x8942;
const SIOCSIFTXQLEN: u32 = 0x8943;
const SIOCDARP: u32 = 0x8953;
const SIOCGARP: u32 = 0x8954;
const SIOCSARP: u32 = 0x8955;
const SIOCBRADDBR: u32 = 0x89a0;
const SIOCBRDELBR: u32 = 0x89a1;
const SIOCBRADDIF: u32 = 0x89a2;
const SIOCBRDELIF: u32 = 0x89a3;
/// Sizes of structures; where the pointer to the device's name is in struct rtentry.
const ARPREQ: usize = 68;
const IN6_IFREQ: usize = 24;
const IN6_RTMSG: usize = 80;
const RTENTRY: usize = 120;
const RT_DEV: usize = 88;
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

/// What an ioctl about the network takes.
enum Argument {
    /// So many bytes, which come back.
    Query(usize),
    /// So many bytes.
    Change(usize),
    /// struct rtentry, in which a pointer leads to the device's name.
    Route,
}

fn argument_of(domain: i32, request: u32) -> Option<Argument> {
    Some(match request {
        SIOCADDRT | SIOCDELRT if domain == AF_INET6 => Argument::Change(IN6_RTMSG),
        SIOCADDRT | SIOCDELRT => Argument::Route,
        SIOCSIFADDR | SIOCSIFDSTADDR | SIOCDIFADDR if domain == AF_INET6 => Argument::Change(IN6_IFREQ),
        SIOCGARP => Argument::Query(ARPREQ),
        SIOCDARP | SIOCSARP => Argument::Change(ARPREQ),
        SIOCBRADDBR | SIOCBRDELBR => Argument::Change(IFNAMSIZ),
        SIOCSIFFLAGS | SIOCSIFADDR | SIOCSIFDSTADDR | SIOCSIFBRDADDR | SIOCSIFNETMASK | SIOCSIFMTU | SIOCSIFNAME | SIOCSIFHWADDR
        | SIOCADDMULTI | SIOCDELMULTI | SIOCDIFADDR | SIOCSIFTXQLEN | SIOCBRADDIF | SIOCBRDELIF => Argument::Change(IFREQ),
        0x8910..=0x8970 => Argument::Query(IFREQ),
        _ => return None,
    })
}

/// Questions about interfaces, and changes of them, may be put to any socket.
pub fn ioctl(request: u32, argument: u64) -> SysResult {
    argument_of(AF_INET, request).ok_or(ENOTTY)?;
    ask(|socket| socket.host_ioctl(request, argument))
}

/// Of a socket on the host.
pub fn control(handle: u32, domain: i32, request: u32, argument: u64) -> SysResult {
    let form = argument_of(domain, request).ok_or(ENOTTY)?;
    let (Argument::Query(bytes) | Argument::Change(bytes)) = form else { return change_route(handle, request, argument) };
    let mut buffer = alloc::vec![0; bytes];
    hal::user::read_bytes(argument, &mut buffer)?;
    request::ioctl_as(capable(CAP_NET_ADMIN), handle, request, &mut buffer)?;
    if matches!(form, Argument::Query(_)) {
        hal::user::write_bytes(argument, &buffer)?;
    }
    Ok(0)
}

/// The name goes behind the structure.
fn change_route(handle: u32, request: u32, argument: u64) -> SysResult {
    let mut buffer = alloc::vec![0; RTENTRY];
    hal::user::read_bytes(argument, &mut buffer)?;
    let name = buffer.get(RT_DEV..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    if name != 0 {
        // Longer ones are cut, as the kernel does.
        let mut device = alloc::vec![0; IFNAMSIZ - 1];
        let got = hal::user::read_partial(name, &mut device);
        device.truncate(device.iter().take(got).position(|byte| *byte == 0).unwrap_or(got));
        buffer.extend(device);
    }
    request::ioctl_as(capable(CAP_NET_ADMIN), handle, request, &mut buffer)?;
    Ok(0)
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
