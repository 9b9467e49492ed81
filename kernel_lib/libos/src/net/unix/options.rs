//! Options of unix sockets (unix(7), socket(7)).

use super::{State, UnixSocket};
use crate::errno::{Errno, ENOPROTOOPT, EOPNOTSUPP};
use crate::net::message::Ucred;
use crate::net::options::{
    SOL_SOCKET, SO_ACCEPTCONN, SO_DOMAIN, SO_ERROR, SO_PASSCRED, SO_PEERCRED, SO_PEERGROUPS, SO_PROTOCOL, SO_SNDBUF, SO_SNDBUFFORCE,
    SO_TYPE,
};
use crate::net::socket::{Socket, AF_UNIX};
use alloc::vec::Vec;
use zerocopy::IntoBytes;

impl UnixSocket {
    pub(super) fn set_unix_option(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        if level != SOL_SOCKET {
            return Err(EOPNOTSUPP);
        }
        self.options.set(name, value)?;
        match name {
            SO_SNDBUF | SO_SNDBUFFORCE => {
                if let Some((_, outgoing)) = self.channels() {
                    outgoing.set_capacity(self.options.send_buffer());
                }
            }
            // unix(7): a socket without a name that asks for credentials gets one.
            SO_PASSCRED if self.options.on(SO_PASSCRED) && self.name.lock().is_none() && self.peer().is_none() => {
                self.bind(&(AF_UNIX as u16).to_ne_bytes())?;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn unix_option(&self, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
        if level != SOL_SOCKET {
            return Err(EOPNOTSUPP);
        }
        let number = match name {
            SO_TYPE => self.kind,
            SO_DOMAIN => AF_UNIX,
            SO_PROTOCOL => 0,
            SO_ERROR => self.take_error(),
            SO_ACCEPTCONN => i32::from(matches!(&*self.state.lock(), State::Listening { .. })),
            SO_PEERCRED => return Ok(self.peer_credentials().as_bytes().to_vec()),
            SO_PEERGROUPS => return Err(ENOPROTOOPT),
            _ => return self.options.get(name),
        };
        Ok(number.to_ne_bytes().to_vec())
    }

    fn peer_credentials(&self) -> Ucred {
        match &*self.state.lock() {
            State::Connected { credentials, .. } | State::Listening { credentials, .. } => *credentials,
            _ => Ucred::NOBODY,
        }
    }
}
