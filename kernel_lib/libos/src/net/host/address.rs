//! Internet addresses, as far as the library OS looks at them.

use crate::net::socket::{AF_INET, AF_INET6};
use alloc::vec::Vec;

/// Where a TCP end is: IPv4 addresses in their IPv4-mapped form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub address: [u8; 16],
    pub port: u16,
}

const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Endpoint {
    /// From a sockaddr_in or sockaddr_in6.
    pub fn parse(address: &[u8]) -> Option<Self> {
        let family = i32::from(u16::from_ne_bytes(*address.first_chunk()?));
        let port = u16::from_be_bytes(*address.get(2..)?.first_chunk()?);
        match family {
            AF_INET => {
                let mut all = [0; 16];
                all[..12].copy_from_slice(&MAPPED);
                all[12..].copy_from_slice(address.get(4..8)?);
                Some(Self { address: all, port })
            }
            AF_INET6 => Some(Self { address: *address.get(8..24)?.first_chunk()?, port }),
            _ => None,
        }
    }

    /// As a socket of this domain shows it.
    pub fn encode(&self, domain: i32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(28);
        bytes.extend_from_slice(&(domain as u16).to_ne_bytes());
        bytes.extend_from_slice(&self.port.to_be_bytes());
        if domain == AF_INET {
            bytes.extend_from_slice(&self.address[12..]);
            bytes.resize(16, 0);
        } else {
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&self.address);
            bytes.resize(28, 0);
        }
        bytes
    }

    pub fn is_v4(&self) -> bool {
        self.address[..12] == MAPPED
    }

    pub fn is_loopback(&self) -> bool {
        (self.is_v4() && self.address[12] == 127) || (self.address[..15] == [0; 15] && self.address[15] == 1)
    }

    /// 0.0.0.0 or ::.
    pub fn is_any(&self) -> bool {
        self.address == [0; 16] || (self.is_v4() && self.address[12..] == [0; 4])
    }

    /// Where a connection to "any" goes: the loopback address of the same family.
    pub fn or_loopback(mut self) -> Self {
        if self.is_any() {
            if self.is_v4() {
                self.address[12..].copy_from_slice(&[127, 0, 0, 1]);
            } else {
                self.address[15] = 1;
            }
        }
        self
    }
}
