//! socket, accept, send, receive, watch.

use super::{Answer, Errno, Host, Reply, Request};

impl Host {
    pub(super) fn socket(&self, _request: &Request) -> Answer {
        Err(Errno::NOSYS)
    }

    pub(super) fn accept(&self, _request: &Request) -> Answer {
        Err(Errno::NOSYS)
    }

    pub(super) fn send(&self, _request: &Request) -> Answer {
        Err(Errno::NOSYS)
    }

    pub(super) fn receive(&self, _request: &Request) -> Answer {
        Err(Errno::NOSYS)
    }

    pub(super) fn watch(&self, request: &Request) -> Answer {
        let handle = self.handles.get(request.handle)?;
        match request.args[0] {
            0 => self.watcher.forget(request.handle, &handle),
            1 => self.watcher.watch(request.handle, &handle, request.vcpu())?,
            _ => return Err(Errno::INVAL),
        }
        Ok(Reply::of(0))
    }
}
