//! /sys/class/net: the interfaces of the container's network namespace. They come and go while it runs (Docker configures them late), so each
//! question is put to the host.

use crate::errno::{Errno, ENOENT};
use crate::fs::synthetic::{link, next_ino, Directory, Name, Node};
use crate::net::host::interfaces::{self, Interface};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::sync::SpinLock;
use linux_abi::fs::S_IFDIR;

/// In the order of /proc/net/dev.
const COUNTERS: [&str; 16] = [
    "rx_bytes",
    "rx_packets",
    "rx_errors",
    "rx_dropped",
    "rx_fifo_errors",
    "rx_frame_errors",
    "rx_compressed",
    "multicast",
    "tx_bytes",
    "tx_packets",
    "tx_errors",
    "tx_dropped",
    "tx_fifo_errors",
    "collisions",
    "tx_carrier_errors",
    "tx_compressed",
];

/// An attribute's name and how its text is made.
type Attribute = (&'static str, fn(&Interface) -> Result<String, Errno>);

const ATTRIBUTES: [Attribute; 11] = [
    ("address", |of| Ok(hardware_address(of.hardware()?.1))),
    ("broadcast", |of| Ok(hardware_address([if of.is_loopback()? { 0 } else { 0xff }; 6]))),
    ("type", |of| Ok(format!("{}\n", of.hardware()?.0))),
    ("mtu", |of| Ok(format!("{}\n", of.mtu()?))),
    ("flags", |of| Ok(format!("{:#x}\n", of.flags()? & !interfaces::IFF_RUNNING))),
    ("ifindex", |of| Ok(format!("{}\n", of.index()?))),
    ("iflink", |of| Ok(format!("{}\n", of.index()?))),
    ("tx_queue_len", |of| Ok(format!("{}\n", of.queue_length()?))),
    ("carrier", |of| Ok(format!("{}\n", u8::from(of.is_running()?)))),
    ("operstate", |of| {
        let state = match (of.is_loopback()?, of.is_running()?) {
            (true, _) => "unknown\n",
            (false, true) => "up\n",
            (false, false) => "down\n",
        };
        Ok(String::from(state))
    }),
    ("uevent", |of| Ok(format!("INTERFACE={}\nIFINDEX={}\n", of.name, of.index()?))),
];

pub fn put(root: &Arc<Directory>) {
    root.put("devices/virtual/net", Interfaces::of(folder));
    root.put("class/net", Interfaces::of(|name| link(format!("../../devices/virtual/net/{name}"))));
}

/// A directory with an entry for each interface.
struct Interfaces {
    ino: u64,
    make: fn(&str) -> Arc<dyn Node>,
    /// Those made so far: their inodes keep their numbers.
    made: SpinLock<BTreeMap<String, Arc<dyn Node>>>,
}

impl Interfaces {
    fn of(make: fn(&str) -> Arc<dyn Node>) -> Arc<dyn Node> {
        Arc::new(Self { ino: next_ino(), make, made: SpinLock::default() })
    }

    fn entry(&self, name: String) -> Arc<dyn Node> {
        let known = self.made.lock().get(&name).cloned();
        known.unwrap_or_else(|| {
            let made = (self.make)(&name);
            self.made.lock().entry(name).or_insert(made).clone()
        })
    }
}

impl Node for Interfaces {
    fn mode(&self) -> u32 {
        S_IFDIR | 0o755
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Node>, Errno> {
        let found = interfaces::counters().into_iter().find(|(known, _)| known.as_bytes() == name);
        found.map(|(name, _)| self.entry(name)).ok_or(ENOENT)
    }
    fn names(&self) -> Result<Vec<Name>, Errno> {
        let named = |(name, position): ((String, Vec<u64>), u64)| {
            let node = self.entry(name.0.clone());
            Name { name: name.0.into_bytes(), mode: node.mode(), ino: node.ino(), position }
        };
        Ok(interfaces::counters().into_iter().zip(2..).map(named).collect())
    }
}

fn folder(name: &str) -> Arc<dyn Node> {
    let folder = Directory::new();
    for (attribute, read) in ATTRIBUTES {
        let interface = Interface { name: String::from(name) };
        folder.file(attribute, move |_| read(&interface));
    }
    for (column, counter) in COUNTERS.into_iter().enumerate() {
        let name = String::from(name);
        folder.file(&format!("statistics/{counter}"), move |_| {
            let (_, counters) = interfaces::counters().into_iter().find(|(known, _)| *known == name).ok_or(ENOENT)?;
            counters.get(column).map(|count| format!("{count}\n")).ok_or(ENOENT)
        });
    }
    folder
}

fn hardware_address(bytes: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = bytes;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}\n")
}
