//! /proc/net: the tables of the container's network namespace, which the host shows; and those of the guest's own protocols, empty.

use crate::fs::synthetic::{Directory, Node};
use crate::net::host::interfaces;
use crate::net::socket;
use crate::process::tree;
use abi::request::NETWORK_TABLES;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use hal::sync::Once;

/// Tables of sockets, in which the column of this index has the inode number.
const OF_SOCKETS: [&str; 6] = ["raw", "raw6", "tcp", "tcp6", "udp", "udp6"];
const INODE: usize = 9;

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
        for name in NETWORK_TABLES {
            let translate = OF_SOCKETS.contains(&name);
            let absent = TABLES.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text);
            directory.file(name, move |_| {
                let text = interfaces::table(name).unwrap_or_else(|| String::from(absent));
                Ok(if translate { with_own_numbers(text) } else { text })
            });
        }
        directory
    });
    made.clone()
}

/// A table of the host's sockets with the numbers that /proc/PID/fd shows, by which ss(8) and netstat(8) find a socket's process. Sockets of the
/// namespace's other containers have none.
fn with_own_numbers(text: String) -> String {
    if text.lines().nth(1).is_none() {
        return text;
    }
    let tasks = tree::processes().into_iter().filter_map(|process| process.leader());
    let files = tasks.flat_map(|task| task.files().list());
    renumbered(&text, &files.filter_map(|(_, file)| socket::numbers(&file)).collect())
}

fn renumbered(text: &str, own: &BTreeMap<u64, u64>) -> String {
    let mut lines = text.split_inclusive('\n');
    let mut out = String::from(lines.next().unwrap_or_default());
    for line in lines {
        let mut column = 0;
        for piece in line.split_inclusive(' ') {
            let word = piece.trim_end();
            match word.parse::<u64>() {
                Ok(host) if column == INODE => {
                    let number = own.get(&host).copied().unwrap_or_default();
                    out += &format!("{number}{}", &piece[word.len()..]);
                }
                _ => out += piece,
            }
            column += usize::from(!word.is_empty());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::renumbered;
    use alloc::collections::BTreeMap;

    #[test]
    fn numbers_of_sockets_here() {
        let text = "  sl  local_address\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 618 1 00 100\n";
        assert_eq!(renumbered(text, &BTreeMap::from([(618, 4097)])), text.replace("618", "4097"));
        assert_eq!(renumbered(text, &BTreeMap::new()), text.replace("618", "0"));
        let last = "sl\n 0: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 9\n";
        assert_eq!(renumbered(last, &BTreeMap::from([(9, 1)])), last.replace(" 9\n", " 1\n"));
    }
}
