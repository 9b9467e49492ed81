//! socket_control.

use super::{Answer, Errno, Host, Request};

impl Host {
    pub(super) fn socket_control(&self, _request: &Request) -> Answer {
        Err(Errno::NOSYS)
    }
}
