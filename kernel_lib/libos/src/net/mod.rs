//! Sockets: unix sockets in the guest, internet sockets as sockets of the host.

pub mod channel;
pub mod host;
pub mod message;
pub mod options;
pub mod socket;
pub mod unix;

pub use socket::{Socket, SocketFile};
