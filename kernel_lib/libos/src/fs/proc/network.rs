//! /proc/net: the tables of the container's network namespace, which the host shows; and those of the guest's own protocols, empty.

use crate::fs::synthetic::{Directory, Node};
use abi::request::{Op, NETWORK_TABLES, SOCKET_TABLE};
use alloc::string::String;
use alloc::sync::Arc;
use hal::sync::Once;

/// Most bytes of a table.
const MOST: usize = 4 << 20;

static DIRECTORY: Once<Arc<Directory>> = Once::new();

/// Where the host has no such table, or shows none.
const TABLES: &[(&str, &str)] = &[
    ("tcp", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"),
    ("tcp6", "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"),
    ("udp", "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"),
    ("udp6", "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"),
    ("raw", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"),
    ("unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"),
    ("packet", "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"),
    ("netlink", "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"),
    ("dev", "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n"),
    ("arp", "IP address       HW type     Flags       HW address            Mask     Device\n"),
    ("route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n"),
    ("if_inet6", "00000000000000000000000000000001 01 80 10 80       lo\n"),
    ("ipv6_route", ""),
    ("igmp", "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"),
    ("dev_mcast", ""),
    ("sockstat", "sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\nUDP: inuse 0 mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"),
    ("sockstat6", "TCP6: inuse 0\nUDP6: inuse 0\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n"),
    ("protocols", "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em\n"),
    ("snmp", "Ip: Forwarding DefaultTTL\nIp: 1 64\n"),
    ("netstat", "TcpExt: SyncookiesSent\nTcpExt: 0\n"),
    ("wireless", "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n"),
];

pub fn directory() -> Arc<dyn Node> {
    let made = DIRECTORY.get_or_init(|| {
        let directory = Directory::new();
        for (name, text) in TABLES.iter().filter(|(name, _)| !NETWORK_TABLES.contains(name)) {
            directory.constant(name, text);
        }
        for (number, name) in NETWORK_TABLES.iter().enumerate() {
            let absent = TABLES.iter().find(|(known, _)| known == name).map_or("", |(_, text)| text);
            directory.file(name, move |_| Ok(of_host(number).unwrap_or_else(|| String::from(absent))));
        }
        directory
    });
    made.clone()
}

/// The host's text of a table. None: it shows none.
fn of_host(table: usize) -> Option<String> {
    let mut room = 16 << 10;
    loop {
        let buffer = alloc::vec![0u8; room];
        let arguments = [table as u64, hal::phys::slice_address(&buffer), room as u64, 0, 0, 0];
        let request = hal::host::Request::new(Op::Socket, 0, arguments).with_flags(SOCKET_TABLE);
        let bytes = crate::host::call(&request, &[]).ok()?.value as usize;
        if bytes < room || room >= MOST {
            return Some(String::from_utf8_lossy(buffer.get(..bytes)?).into_owned());
        }
        room *= 4;
    }
}
