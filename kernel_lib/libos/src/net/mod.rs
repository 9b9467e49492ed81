//! Sockets: unix sockets in the guest, internet sockets as sockets of the host.
