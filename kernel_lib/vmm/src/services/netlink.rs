//! What a guest may say to rtnetlink(7). A batch of messages is taken apart, and each is written anew from what is known here: types of
//! messages, families, attributes with their sizes. Requests that change something are known by tables, down to each attribute; what is
//! in none of them is answered by the kernel as a type that it does not know (EOPNOTSUPP). Above all, nothing names a namespace or a
//! process: those numbers would be the VMM's and not the guest's. Queries change nothing and go to the kernel as they are.

/// sizeof(struct nlmsghdr).
const HEADER: usize = 16;
/// sizeof(struct rtattr).
const ATTRIBUTE: usize = 4;
/// A name of an interface, with the zero behind it.
const NAME: usize = 16;
/// An address of any protocol.
const ADDRESS: usize = 16;
/// MAX_ADDR_LEN: a hardware address.
const HARDWARE: usize = 32;

const NLM_F_REQUEST: u16 = 1;
/// REQUEST, ACK, ECHO, and what they ask for: DUMP, or REPLACE, EXCL, CREATE, APPEND.
const FLAGS: u16 = NLM_F_REQUEST | 4 | 8 | 0xf00;
/// Below, control messages, which ask for nothing.
const FIRST_TYPE: u16 = 16;
/// No type of rtnetlink.
const UNKNOWN: u16 = 0x7fff;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

/// What an attribute holds.
enum Shape {
    /// At most so many bytes, in which the kernel finds no references.
    Plain(usize),
    Nested(&'static [Rule]),
    /// IFLA_LINKINFO: IFLA_INFO_DATA means what IFLA_INFO_KIND says.
    LinkInfo,
    /// VETH_INFO_PEER: a struct ifinfomsg, with attributes.
    Peer,
    /// RTA_MULTIPATH: struct rtnexthop, each with attributes.
    Hops,
}

use Shape::{Hops, LinkInfo, Nested, Peer, Plain};

/// An attribute's type, and what it may hold.
type Rule = (u16, Shape);

/// A message that changes something: bytes of its own header, families, attributes.
struct Form {
    header: usize,
    families: &'static [u8],
    attributes: &'static [Rule],
}

const INTERNET: &[u8] = &[AF_INET, AF_INET6];

/// IFLA_*: address, broadcast, name, MTU, link, master, queue length, operational state, link mode, alias, group, what to tell, carrier.
const LINK: &[Rule] = &[
    (1, Plain(HARDWARE)),
    (2, Plain(HARDWARE)),
    (3, Plain(NAME)),
    (4, Plain(4)),
    (5, Plain(4)),
    (10, Plain(4)),
    (13, Plain(4)),
    (16, Plain(1)),
    (17, Plain(1)),
    (18, LinkInfo),
    (20, Plain(256)),
    (26, Nested(&[(AF_INET6 as u16, Nested(&[(7, Plain(16)), (8, Plain(1))]))])),
    (27, Plain(4)),
    (29, Plain(4)),
    (33, Plain(1)),
];

/// As [`LINK`], for the other end of a pair.
const PEER: &[Rule] =
    &[(1, Plain(HARDWARE)), (2, Plain(HARDWARE)), (3, Plain(NAME)), (4, Plain(4)), (13, Plain(4)), (20, Plain(256)), (27, Plain(4))];

/// Kinds of links, with the types of their IFLA_INFO_DATA.
const KINDS: &[(&[u8], &[Rule])] = &[
    // IFLA_BR_*: timers, STP, priority, VLANs, group address, multicast.
    (
        b"bridge",
        &[
            (1, Plain(4)),
            (2, Plain(4)),
            (3, Plain(4)),
            (4, Plain(4)),
            (5, Plain(4)),
            (6, Plain(2)),
            (7, Plain(1)),
            (8, Plain(2)),
            (9, Plain(2)),
            (20, Plain(6)),
            (21, Plain(0)),
            (22, Plain(1)),
            (23, Plain(1)),
            (24, Plain(1)),
            (25, Plain(1)),
            (39, Plain(2)),
        ],
    ),
    (b"dummy", &[]),
    (b"veth", &[(1, Peer)]),
    // IFLA_VLAN_*: number, flags, protocol.
    (b"vlan", &[(1, Plain(2)), (2, Plain(8)), (5, Plain(2))]),
];

/// RTA_* of one hop: outgoing interface, gateway, flow, gateway of another family.
const HOP: &[Rule] = &[(4, Plain(4)), (5, Plain(ADDRESS)), (11, Plain(4)), (18, Plain(2 + ADDRESS))];

/// RTAX_*: all numbers; not the name of an algorithm (16), which the kernel might load.
const METRICS: &[Rule] = &[
    (1, Plain(4)),
    (2, Plain(4)),
    (3, Plain(4)),
    (4, Plain(4)),
    (5, Plain(4)),
    (6, Plain(4)),
    (7, Plain(4)),
    (8, Plain(4)),
    (9, Plain(4)),
    (10, Plain(4)),
    (11, Plain(4)),
    (12, Plain(4)),
    (13, Plain(4)),
    (14, Plain(4)),
    (15, Plain(4)),
    (17, Plain(4)),
];

const LINK_FORM: Form = Form { header: 16, families: &[AF_UNSPEC, AF_INET, AF_INET6], attributes: LINK };

/// IFA_*: address, local, label, broadcast, anycast, lifetimes, flags, priority, protocol.
const ADDRESS_FORM: Form = Form {
    header: 8,
    families: INTERNET,
    attributes: &[
        (1, Plain(ADDRESS)),
        (2, Plain(ADDRESS)),
        (3, Plain(NAME)),
        (4, Plain(ADDRESS)),
        (5, Plain(ADDRESS)),
        (6, Plain(16)),
        (8, Plain(4)),
        (9, Plain(4)),
        (11, Plain(1)),
    ],
};

/// RTA_*: destination, source, interfaces, gateway, priority, preferred source, metrics, hops, flow, table, mark, gateway of another family,
/// preference.
const ROUTE_FORM: Form = Form {
    header: 12,
    families: INTERNET,
    attributes: &[
        (1, Plain(ADDRESS)),
        (2, Plain(ADDRESS)),
        (3, Plain(4)),
        (4, Plain(4)),
        (5, Plain(ADDRESS)),
        (6, Plain(4)),
        (7, Plain(ADDRESS)),
        (8, Nested(METRICS)),
        (9, Hops),
        (11, Plain(4)),
        (15, Plain(4)),
        (16, Plain(4)),
        (18, Plain(2 + ADDRESS)),
        (20, Plain(1)),
    ],
};

/// NDA_*: destination, hardware address, VLAN, interface, master, protocol, flags.
const NEIGHBOUR_FORM: Form = Form {
    header: 12,
    families: &[AF_INET, AF_INET6, AF_BRIDGE],
    attributes: &[(1, Plain(ADDRESS)), (2, Plain(HARDWARE)), (5, Plain(2)), (8, Plain(4)), (9, Plain(4)), (12, Plain(1)), (15, Plain(4))],
};

/// FRA_*: destination, source, interface, target, priority, mark, suppressions, table, mask, outgoing interface, users, protocols, ports.
const RULE_FORM: Form = Form {
    header: 12,
    families: INTERNET,
    attributes: &[
        (1, Plain(ADDRESS)),
        (2, Plain(ADDRESS)),
        (3, Plain(NAME)),
        (4, Plain(4)),
        (6, Plain(4)),
        (10, Plain(4)),
        (13, Plain(4)),
        (14, Plain(4)),
        (15, Plain(4)),
        (16, Plain(4)),
        (17, Plain(NAME)),
        (20, Plain(8)),
        (21, Plain(1)),
        (22, Plain(1)),
        (23, Plain(4)),
        (24, Plain(4)),
    ],
};

/// RTM_NEW*, RTM_DEL* and RTM_SETLINK.
fn form(kind: u16) -> Option<&'static Form> {
    Some(match kind {
        16 | 17 | 19 => &LINK_FORM,
        20 | 21 => &ADDRESS_FORM,
        24 | 25 => &ROUTE_FORM,
        28 | 29 => &NEIGHBOUR_FORM,
        32 | 33 => &RULE_FORM,
        _ => return None,
    })
}

/// RTM_GET*: the third of each group of four.
fn is_query(kind: u16) -> bool {
    (FIRST_TYPE..=122).contains(&kind) && kind % 4 == 2
}

/// A message for the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub bytes: Vec<u8>,
    /// Asks for a change, for which CAP_NET_ADMIN is needed.
    pub changes: bool,
}

/// The messages of a batch, as the kernel is to get them. As the kernel, it ends at the first whose length is wrong.
pub fn messages(batch: &[u8]) -> Vec<Message> {
    let mut list = Vec::new();
    let mut rest = batch;
    while let Some((length, message)) = rest.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes) as usize).and_then(|length| {
        let message = rest.get(..length).filter(|message| message.len() >= HEADER)?;
        Some((length, message))
    }) {
        list.push(rewritten(message));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    list
}

fn rewritten(message: &[u8]) -> Message {
    let (header, body) = message.split_at_checked(HEADER).unwrap_or((message, &[]));
    let (kind, flags) = (half(header, 4), half(header, 6));
    let mut bytes = header.to_vec();
    let (kind, changes) = if kind < FIRST_TYPE || flags & NLM_F_REQUEST == 0 {
        (kind, false)
    } else if is_query(kind) {
        bytes.extend_from_slice(body);
        (kind, false)
    } else if let Some(body) = form(kind).and_then(|form| form.rewritten(body)) {
        bytes.extend(body);
        (kind, true)
    } else {
        (UNKNOWN, false)
    };
    let length = bytes.len() as u32;
    patch(&mut bytes, 0, &length.to_ne_bytes());
    patch(&mut bytes, 4, &kind.to_ne_bytes());
    patch(&mut bytes, 6, &(flags & FLAGS).to_ne_bytes());
    Message { bytes, changes }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |part| u16::from_ne_bytes(*part))
}

fn patch(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

impl Form {
    fn rewritten(&self, body: &[u8]) -> Option<Vec<u8>> {
        let (header, list) = body.split_at_checked(self.header)?;
        header.first().filter(|family| self.families.contains(family))?;
        let mut bytes = header.to_vec();
        bytes.extend(attributes(list, self.attributes)?);
        Some(bytes)
    }
}

/// Type (with its flags) and contents of each attribute; None: lengths that make no sense.
fn split(mut list: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while !list.is_empty() {
        let length = usize::from(half(list, 0));
        let contents = list.get(ATTRIBUTE..length)?;
        found.push((half(list, 2), contents));
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

/// NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const TYPE_FLAGS: u16 = 0xc000;

/// The list written anew; None: something in it is in no rule.
fn attributes(list: &[u8], rules: &[Rule]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(list.len());
    for (kind, contents) in split(list)? {
        let (_, shape) = rules.iter().find(|(known, _)| *known == kind & !TYPE_FLAGS)?;
        append(&mut bytes, kind, &shape.rewritten(contents)?)?;
    }
    Some(bytes)
}

fn append(bytes: &mut Vec<u8>, kind: u16, contents: &[u8]) -> Option<()> {
    let length = u16::try_from(ATTRIBUTE + contents.len()).ok()?;
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(contents);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Some(())
}

impl Shape {
    fn rewritten(&self, contents: &[u8]) -> Option<Vec<u8>> {
        match self {
            Plain(most) => (contents.len() <= *most).then(|| contents.to_vec()),
            Nested(rules) => attributes(contents, rules),
            LinkInfo => link_info(contents),
            Peer => {
                let (header, list) = contents.split_at_checked(LINK_FORM.header)?;
                let mut bytes = header.to_vec();
                bytes.extend(attributes(list, PEER)?);
                Some(bytes)
            }
            Hops => hops(contents),
        }
    }
}

fn link_info(contents: &[u8]) -> Option<Vec<u8>> {
    const KIND: u16 = 1;
    const DATA: u16 = 2;
    let mut bytes = Vec::new();
    let mut rules = None;
    for (kind, contents) in split(contents)? {
        match kind & !TYPE_FLAGS {
            KIND => {
                let (name, data) = KINDS.iter().find(|(name, _)| *name == contents.strip_suffix(b"\0").unwrap_or(contents))?;
                rules = Some(*data);
                append(&mut bytes, kind, name)?;
            }
            // The kernel takes them in any order; every program says the kind first.
            DATA => append(&mut bytes, kind, &attributes(contents, rules?)?)?,
            _ => return None,
        }
    }
    Some(bytes)
}

fn hops(mut contents: &[u8]) -> Option<Vec<u8>> {
    /// sizeof(struct rtnexthop), which begins with its length.
    const HOP_HEADER: usize = 8;
    let mut bytes = Vec::new();
    while !contents.is_empty() {
        let length = usize::from(half(contents, 0));
        let (header, list) = contents.get(..length)?.split_at_checked(HOP_HEADER)?;
        let start = bytes.len();
        bytes.extend(header);
        bytes.extend(attributes(list, HOP)?);
        let length = u16::try_from(bytes.len() - start).ok()?;
        patch(&mut bytes, start, &length.to_ne_bytes());
        contents = contents.get(usize::from(half(contents, 0)).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWLINK: u16 = 16;
    const GETLINK: u16 = 18;
    const NEWROUTE: u16 = 24;

    fn attribute(kind: u16, contents: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        append(&mut bytes, kind, contents).unwrap();
        bytes
    }

    fn message(kind: u16, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | 4 | 0x600).to_ne_bytes());
        bytes.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(body);
        bytes
    }

    fn link(attributes: &[u8]) -> Vec<u8> {
        message(NEWLINK, &[&[0; 16], attributes])
    }

    fn info(kind: &[u8], data: &[u8]) -> Vec<u8> {
        attribute(18, &[attribute(1, kind), attribute(2, data)].concat())
    }

    fn taken(bytes: &[u8]) -> bool {
        let list = messages(bytes);
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].bytes.len(), u32::from_ne_bytes(*list[0].bytes.first_chunk().unwrap()) as usize);
        assert!(list[0].changes || half(&list[0].bytes, 4) == UNKNOWN);
        list[0].changes
    }

    #[test]
    fn what_is_known_passes_unchanged() {
        let peer = [vec![0; 16], attribute(3, b"b\0")].concat();
        let hop = [vec![16, 0, 0, 0, 3, 0, 0, 0], attribute(5, &[10, 0, 0, 1])].concat();
        let batch = [
            link(&[attribute(3, b"br0\0"), info(b"bridge", &attribute(5, &[1, 0, 0, 0]))].concat()),
            link(&[attribute(3, b"a\0"), info(b"veth", &attribute(1 | 0x8000, &peer))].concat()),
            message(NEWROUTE, &[&[AF_INET; 12], &attribute(9, &[hop.clone(), hop].concat())]),
            message(GETLINK, &[&[0; 16], &attribute(29, &[1, 0, 0, 0])]),
        ];
        let list = messages(&batch.concat());
        assert_eq!(list.iter().map(|message| message.changes).collect::<Vec<_>>(), [true, true, true, false]);
        for (message, given) in list.iter().zip(&batch) {
            assert_eq!(message.bytes, *given);
        }
    }

    #[test]
    fn nothing_names_a_namespace_or_a_process() {
        const IFLA_NET_NS_PID: u16 = 19;
        const IFLA_NET_NS_FD: u16 = 28;
        const IFLA_LINK_NETNSID: u16 = 37;
        const IFLA_TARGET_NETNSID: u16 = 46;
        for kind in [IFLA_NET_NS_PID, IFLA_NET_NS_FD, IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID] {
            let number = attribute(kind, &[1, 0, 0, 0]);
            assert!(!taken(&link(&number)));
            assert!(!taken(&link(&info(b"veth", &attribute(1, &[vec![0; 16], number].concat())))));
        }
        const RTM_NEWNSID: u16 = 88;
        assert!(!taken(&message(RTM_NEWNSID, &[&[0; 4]])));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(taken(&link(&info(b"dummy\0", &[]))));
        assert!(!taken(&link(&info(b"vxlan", &[]))), "a kind of link");
        assert!(!taken(&link(&attribute(18, &attribute(2, &[])))), "data of no kind");
        assert!(!taken(&link(&attribute(43, &[0; 8]))), "a program (IFLA_XDP)");
        assert!(!taken(&link(&attribute(4, &[0; 8]))), "an MTU of eight bytes");
        assert!(!taken(&message(NEWLINK, &[&[AF_BRIDGE], &[0; 15]])), "a family");
        assert!(!taken(&message(NEWLINK, &[&[0; 15]])), "a header that is cut");
        assert!(!taken(&message(36, &[&[0; 20]])), "a queueing discipline");
        assert!(!taken(&message(NEWROUTE, &[&[AF_INET; 12], &attribute(8, &attribute(16, b"bbr\0"))])), "an algorithm");
        assert!(!taken(&message(u16::MAX, &[])), "a type that there is not");
    }

    #[test]
    fn lengths_that_make_no_sense() {
        for length in [0u16, 3, 5, 9, u16::MAX] {
            assert!(!taken(&link(&[&length.to_ne_bytes()[..], &[3, 0, 0, 0, 0, 0]].concat()[..])) || length == 5);
        }
        let whole = message(GETLINK, &[&[0; 16]]);
        for cut in 0..whole.len() {
            assert!(messages(&whole[..cut]).is_empty());
            assert_eq!(messages(&[&whole[..], &whole[..cut]].concat()).len(), 1);
        }
    }

    /// Whatever comes in, what goes out is made of what is known: said again, it stays the same.
    #[test]
    fn random_messages() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
        };
        let seeds = [
            link(&[attribute(3, b"a\0"), info(b"veth", &attribute(1, &[vec![0; 16], attribute(3, b"b\0")].concat()))].concat()),
            message(NEWROUTE, &[&[AF_INET; 12], &attribute(9, &[vec![16, 0, 0, 0, 3, 0, 0, 0], attribute(5, &[10, 0, 0, 1])].concat())]),
        ];
        let mut changes = 0;
        for round in 0..50_000 {
            let mut batch = seeds[round % seeds.len()].clone();
            for _ in 0..next() % 4 {
                let at = next() as usize % batch.len();
                batch[at] = if next() % 2 == 0 { next() as u8 } else { next() as u8 & 31 };
            }
            for message in messages(&batch) {
                let again = messages(&message.bytes);
                assert_eq!(again.len(), 1);
                assert_eq!((&again[0].bytes, again[0].changes), (&message.bytes, message.changes));
                changes += usize::from(message.changes);
            }
        }
        assert!(changes > 5000, "{changes}");
    }
}
