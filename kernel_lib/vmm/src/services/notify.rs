//! notify.

use super::{Answer, Errno, Host, Request};

impl Host {
    pub(super) fn notify(&self, _request: &Request) -> Answer {
        Err(Errno::NOSYS)
    }
}
