//! lock.

use super::{Answer, Errno, Host, Request};

impl Host {
    pub(super) fn lock(&self, _request: &Request) -> Answer {
        Err(Errno::NOSYS)
    }
}
