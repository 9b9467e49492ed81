//! Host requests: everything a guest can ask of its VMM. `docs/host-interface.md` is generated from [`TABLE`].
//!
//! A request is a [`Slot`]. The guest fills it, sets `state` to [`SUBMITTED`] and pushes the slot's number to the [`SubmissionRing`]; a
//! server thread of the VMM copies the slot, serves it, writes `result` and `out`, swaps `state` to [`DONE`] and, only if it was
//! [`SUBMITTED_NOTIFY`], posts [`crate::event::EventKind::Completion`]. `result` is a value >= 0 or a negated Linux errno.
//!
//! Requests that have to be served one after the other are a chain: each slot names the next, the first one's number is pushed, and one
//! thread serves them all, in this order, whatever the result of each.
//!
//! Memory is named by guest-physical address and length; RAM only, never the DAX window unless a table row says so. Names are
//! (handle of a mount's root or of an open file, relative path): no leading '/', no empty component, no `.` or `..`, at most 4095
//! bytes, never followed through a symbolic link (the library OS resolves those itself); the empty path is the handle itself.
//! The VMM opens them with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)`.
//! The VMM does not check permissions of the guest's users: the library OS does. Created objects get the `owner` given.

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

pub const SLOTS: usize = 1024;
pub const RING_ENTRIES: usize = 1024;
/// Most requests of one chain.
pub const MAX_CHAIN: usize = 128;
/// Most segments of one read or write.
pub const MAX_SEGMENTS: usize = 1024;
/// Offset argument that means "the stream's own position" (pipes, sockets, terminals; never the guest's files).
pub const STREAM: u64 = u64::MAX;

pub const FREE: u32 = 0;
pub const SUBMITTED: u32 = 1;
pub const DONE: u32 = 2;
/// Submitted, and the guest sleeps for it: it moves SUBMITTED to this by compare-and-swap when it gives up polling. The VMM ends a
/// request by swapping in [`DONE`] and posts the completion event only when it finds this.
pub const SUBMITTED_NOTIFY: u32 = 3;

/// 128 bytes, at guest-physical [`crate::layout::REQUEST_SLOTS`].
#[repr(C, align(64))]
pub struct Slot {
    pub state: AtomicU32,
    /// Low 8 bits: [`Op`]; bits 8..16: vCPU that wants the completion's interrupt; bits 16..32: op's flags.
    pub op: AtomicU32,
    pub handle: AtomicU32,
    pub segment_count: AtomicU32,
    /// Guest-physical address of `segment_count` [`Segment`]s.
    pub segments: AtomicU64,
    pub args: [AtomicU64; 6],
    pub result: AtomicI64,
    pub out: [AtomicU64; 5],
    /// Number of the slot that is served behind this one, plus 1; 0: none.
    pub next: AtomicU32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    pub gpa: u64,
    pub bytes: u64,
}

/// At guest-physical [`crate::layout::SUBMISSION_RING`]. Producers are serialised by the guest, consumers by compare-and-swap of `head`.
#[repr(C)]
pub struct SubmissionRing {
    pub head: AtomicU32,
    pad0: [u32; 15],
    pub tail: AtomicU32,
    pad1: [u32; 15],
    /// Number of server threads asleep on the doorbell; the guest rings only when it is not 0.
    pub sleepers: AtomicU32,
    pad2: [u32; 15],
    /// Slot numbers.
    pub entries: [AtomicU32; RING_ENTRIES],
}

/// What `statx` says, fixed layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub rdev: u64,
    pub size: u64,
    /// 512-byte blocks.
    pub blocks: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub blksize: u32,
    /// STATX_ATTR_* bits that the host reports (low 32).
    pub attributes: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub sec: i64,
    pub nsec: u32,
    pub pad: u32,
}

/// SETATTR's argument block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// ATTR_* bits: which fields count.
    pub mask: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub atime: Time,
    pub mtime: Time,
}
/// OPEN's flag: the attributes of the directory follow those of the file that was created.
pub const AND_DIRECTORY: u16 = 1;
/// WALK's flag: names side by side.
pub const WALK_SIBLINGS: u16 = 1;
/// SOCKET's flag: one of [`NETWORK_TABLES`].
pub const SOCKET_TABLE: u16 = 1;
/// SOCKET's flags for what /proc/sys/net has of the network namespace.
pub mod setting {
    /// Mode and number of a file or directory.
    pub const STAT: u16 = 2;
    /// A line for each entry of a directory: its number, a space, its name, and '/' behind that of a directory.
    pub const LIST: u16 = 3;
    pub const READ: u16 = 4;
    pub const WRITE: u16 = 5;
}
/// What the container's network namespace shows in /proc/net.
pub const NETWORK_TABLES: [&str; 24] = [
    "arp",
    "dev",
    "dev_mcast",
    "fib_trie",
    "fib_triestat",
    "icmp",
    "icmp6",
    "if_inet6",
    "igmp",
    "igmp6",
    "ipv6_route",
    "netstat",
    "raw",
    "raw6",
    "route",
    "rt6_stats",
    "snmp",
    "snmp6",
    "sockstat",
    "sockstat6",
    "tcp",
    "tcp6",
    "udp",
    "udp6",
];

pub const ATTR_MODE: u32 = 1;
pub const ATTR_UID: u32 = 2;
pub const ATTR_GID: u32 = 4;
pub const ATTR_SIZE: u32 = 8;
pub const ATTR_ATIME: u32 = 16;
pub const ATTR_MTIME: u32 = 32;
pub const ATTR_ATIME_NOW: u32 = 64;
pub const ATTR_MTIME_NOW: u32 = 128;

/// SOCKET_CONTROL's verbs (op flags).
pub mod socket {
    pub const BIND: u16 = 0;
    pub const LISTEN: u16 = 1;
    pub const CONNECT: u16 = 2;
    pub const SHUTDOWN: u16 = 3;
    pub const GETSOCKNAME: u16 = 4;
    pub const GETPEERNAME: u16 = 5;
    pub const SETSOCKOPT: u16 = 6;
    pub const GETSOCKOPT: u16 = 7;
}

/// REPORT's verbs (op flags).
pub mod report {
    /// Fetch the next control message (postcard [`crate::config::ToGuest`]) into the buffer; EAGAIN when there is none.
    pub const NEXT: u16 = 0;
    /// Send a postcard [`crate::config::FromGuest`].
    pub const SEND: u16 = 1;
}

/// MEMORY's verbs (op flags).
pub mod memory {
    /// Add `args[0]` bytes of RAM (a multiple of 2 MiB) behind the present end: result 0, out[0] = new end, out[1] = start of the new part.
    pub const GROW: u16 = 0;
    /// Give the listed segments back to the host: contents are lost, they read as zeros when touched again.
    pub const RELEASE: u16 = 1;
    /// Back `args[0]` more bytes of DAX window (a multiple of 2 MiB): out[0] = new end.
    pub const GROW_DAX: u16 = 2;
}

macro_rules! ops {
    ($( $number:literal $variant:ident $name:literal $args:literal $doc:literal; )*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Op { $( #[doc = $doc] $variant = $number, )* }
        impl Op {
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $( $number => Some(Self::$variant), )* _ => None }
            }
        }
        /// The whole interface, for the documentation, the counters and the trace.
        pub const TABLE: &[OpInfo] = &[ $( OpInfo { op: Op::$variant, name: $name, args: $args, doc: $doc }, )* ];
    };
}

pub struct OpInfo {
    pub op: Op,
    pub name: &'static str,
    pub args: &'static str,
    pub doc: &'static str,
}

ops! {
    1 Stat "stat" "handle; a0 path, a1 bytes; a2 -> Stat" "Attributes of a name (never following a symbolic link) or of the handle itself.";
    2 Walk "walk" "handle; a0 path, a1 bytes; a2 -> buffer, a3 bytes; a4 directory, a5 bytes; flags" "Stat of each component in turn, as an array of Stat at the buffer's start; stops behind the first that is not a directory. result: components found. out[0]: errno of the one that failed, or 0. When the last one found is a symbolic link its target follows the array; out[1]: target bytes. flags 1 = the components are names side by side in the directory of that name below the handle: an array of Stat, of mode 0 where there is nothing.";
    3 Open "open" "handle; a0 path, a1 bytes; a2 O_* flags; a3 mode; a4 owner uid | gid << 32; a5 -> Stat or 0; segments; flags" "Opens a file or directory: result: new handle. O_CREAT, O_EXCL, O_TRUNC, O_DIRECTORY, O_TMPFILE, O_PATH and access modes as in open(2); always O_NOFOLLOW, O_CLOEXEC, O_NONBLOCK. out[0]: 1 when this call created it; flags 1 = then its directory's Stat follows its own. Segments, if there are any, take what a regular file that was not to be created has from offset a3 on; out[1]: bytes. Opening anything but a regular file or directory without O_PATH is EPERM: device nodes, FIFOs and sockets belong to the guest.";
    4 Close "close" "handle; a0..a5 more handles, 0: none" "Drops handles.";
    5 Read "read" "handle; segments; a0 offset or STREAM" "preadv(2), or readv(2) that never blocks (EAGAIN) on a stream. Segments may lie in RAM only.";
    6 Write "write" "handle; segments; a0 offset or STREAM; a1 1 = append; a2 -> Stat or 0" "pwritev(2), or writev(2) that never blocks on a stream, and a file's Stat afterwards. With append, out[0]: the offset behind what was written. Segments may lie in the DAX window.";
    7 SetAttributes "set_attributes" "handle; a0 path, a1 bytes; a2 Attributes; a3 -> Stat or 0" "chmod, chown, truncate and utimes of a name or handle, in this order, and its Stat afterwards; symbolic links are not followed.";
    8 List "list" "handle; a0 cookie; a1 -> buffer, a2 bytes; a3 path, a4 bytes" "getdents64(2) of the handle, or of a directory by its name below it, from the cookie (0: the start) into the buffer, records as Linux has them; result: bytes, 0 at the end.";
    9 Make "make" "handle; a0 path, a1 bytes; a2 mode with file type | rdev << 32; a3 -> Stat or 0; a4 owner; a5 symlink target, flags its bytes" "Creates a directory, symbolic link, FIFO, socket or device node (the nodes as inert files), and its Stat.";
    10 Unlink "unlink" "handle; a0 path, a1 bytes; flags 1 = AT_REMOVEDIR" "unlinkat(2).";
    11 Rename "rename" "handle; a0 path, a1 bytes; a2 path, a3 bytes; flags RENAME_*; a4 second handle" "renameat2(2) from a name below the handle to one below the second handle.";
    12 Link "link" "handle; a0 path, a1 bytes; a2 path, a3 bytes; a4 second handle" "linkat(2); with an empty first path, gives the handle's O_TMPFILE a name.";
    13 ReadLink "read_link" "handle; a0 path, a1 bytes; a2 -> buffer, a3 bytes" "readlinkat(2): result: bytes.";
    14 Xattr "xattr" "handle; a0 path, a1 bytes; a2 name, a3 bytes; a4 value, a5 bytes; flags 0 get, 1 set, 2 remove, 3 list, 4 set XATTR_CREATE, 5 set XATTR_REPLACE" "Extended attributes, symbolic links not followed; user., security.capability, trusted. and system.posix_acl only.";
    15 Sync "sync" "handle; flags 0 fsync, 1 fdatasync, 2 syncfs, 3 sync_file_range; a0 offset, a1 bytes, a2 flags" "Waits until the data is on the disk.";
    16 Allocate "allocate" "handle; flags 0 allocate, 1 next data, 2 next hole; a0 mode, a1 offset, a2 bytes" "fallocate(2); or lseek(2) SEEK_DATA or SEEK_HOLE from the offset: result: where.";
    17 StatFs "statfs" "handle; a0 -> struct statfs" "statfs(2), 120 bytes as x86-64 Linux has them.";
    18 Map "map" "handle; a0 file offset, a1 bytes, a2 window address; flags 1 = writable" "Maps file pages into the DAX window (MAP_SHARED, the host's page cache). Page aligned; behind the file's end the window reads as BUS_ERROR.";
    19 Unmap "unmap" "a0 window address, a1 bytes" "Takes window pages back.";
    20 Lock "lock" "handle; flags 0 flock, 1 OFD get, 2 OFD set; a0 type, a1 start, a2 bytes" "Advisory locks against other users of a shared volume; never blocks (EAGAIN). out[0..3]: type, start, bytes of the conflict for get.";
    21 Copy "copy" "handle; a0 offset, a1 second handle, a2 its offset, a3 bytes" "copy_file_range(2), falling back to what the file systems can do.";
    22 Socket "socket" "a0 domain, a1 type, a2 protocol; flags 1: a0 table; a1 buffer, a2 bytes" "A nonblocking socket in the container's network namespace (AF_INET, AF_INET6, AF_NETLINK of NETLINK_ROUTE; AF_PACKET refused); result: handle. flags 1 = the text of one of that namespace's tables (arp, dev, route, tcp ...), as far as there is room; result: bytes. flags 2 to 5: a setting of that namespace, below /proc/sys/net: a0 path, a1 bytes; a2 buffer, a3 bytes; 2 result: mode, out[0]: inode number; 3 a list of names, 4 the text, as far as there is room; result: bytes; 5 sets it, as network administrator.";
    23 SocketControl "socket_control" "handle; flags verb; a0 level or backlog or how, a1 option; a2 buffer, a3 bytes; a4 1: with CAP_NET_ADMIN" "bind, listen, connect, shutdown, names and options; names and values are Linux's bytes. result: 0, or bytes written to the buffer.";
    24 Accept "accept" "handle; a0 -> address, a1 bytes" "accept4(2), nonblocking: result: new handle, out[0]: address bytes.";
    25 Send "send" "handle; segments; flags MSG_*; a0 address, a1 bytes; a2 control, a3 bytes; a4 1 = as network administrator" "sendmsg(2), never blocking; control messages of level IPPROTO_IP, IPPROTO_IPV6 and SOL_UDP only. To AF_NETLINK: messages of an allow-list, each attribute of those that change something checked; the others are answered EOPNOTSUPP by the kernel.";
    26 Receive "receive" "handle; segments; flags MSG_*; a0 -> address, a1 bytes; a2 -> control, a3 bytes" "recvmsg(2), never blocking: result: bytes, out[0]: address bytes, out[1]: control bytes, out[2]: msg_flags.";
    27 Watch "watch" "handle; a0 1 = on, 0 = off, 2 = ask" "READY events (edge triggered EPOLLIN, OUT, RDHUP, HUP, ERR, PRI) for a stream or socket from now on. result: the present readiness (on, ask), out[0]: 1 for a stream that nobody else writes to.";
    28 Ioctl "ioctl" "handle; a0 request; a1 <-> buffer, a2 bytes; a3 1 = as network administrator" "FIONREAD, SIOCOUTQ, TIOCOUTQ, TCGETS, TCSETS*, TIOCGWINSZ, TIOCSWINSZ, TIOCGPGRP on stdio, FICLONE (argument handle), SIOCGIF* queries; SIOCSIF*, SIOCADDRT, SIOCDELRT (the device's name behind the structure), SIOC[GSD]ARP, SIOCBR*.";
    29 Notify "notify" "handle; a0 path, a1 bytes; a2 inotify mask; flags 0 add, 1 remove (a3 watch), 2 read (a1.. buffer)" "inotify on a shared volume: result: watch number or bytes of records.";
    30 Memory "memory" "flags verb; a0 bytes or segments" "Grow the guest's RAM, give pages back, or grow the DAX window.";
    31 Report "report" "flags verb; a0 <-> buffer, a1 bytes" "Control messages between the library OS and the runtime: started, exited, process lists, statistics.";
    32 Random "random" "a0 -> buffer, a1 bytes" "getrandom(2) of the host, to seed the guest's generator.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_is_two_cache_lines() {
        assert_eq!(core::mem::size_of::<Slot>(), 128);
    }

    #[test]
    fn every_op_has_one_row_in_order() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.op as usize, index + 1);
            assert_eq!(Op::from_byte(row.op as u8), Some(row.op));
        }
        assert_eq!(TABLE.len(), 32);
    }
}
