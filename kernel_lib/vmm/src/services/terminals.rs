//! ioctl.

use super::{Answer, Errno, Host, Request};

impl Host {
    pub(super) fn ioctl(&self, _request: &Request) -> Answer {
        Err(Errno::NOSYS)
    }
}
