//! report: control messages between the library OS and the runtime.

use abi::config::FromGuest;
use abi::request::report;

use crate::server::Worker;

use super::{fault, Answer, Errno, Host, Reply, Request};

const MAX_MESSAGE: u64 = 1 << 20;

impl Host {
    pub(super) fn report(&self, request: &Request, worker: &Worker<'_>) -> Answer {
        let [buffer, bytes, ..] = request.args;
        match request.flags() {
            report::NEXT => {
                let message = self.control.next_for_guest(bytes)?;
                match self.memory.write_bytes(buffer, &message).map_err(fault) {
                    Ok(()) => Ok(Reply::of(message.len() as u64)),
                    Err(errno) => {
                        self.control.put_back(message);
                        Err(errno)
                    }
                }
            }
            report::SEND => {
                if bytes > MAX_MESSAGE {
                    return Err(Errno::TOOBIG);
                }
                let mut message = vec![0; bytes as usize];
                self.memory.read_into(buffer, &mut message).map_err(fault)?;
                let message: FromGuest = postcard::from_bytes(&message).map_err(|_| Errno::INVAL)?;
                if matches!(message, FromGuest::Trace { .. }) {
                    worker.may_block();
                }
                self.control.from_guest(message);
                Ok(Reply::of(0))
            }
            _ => Err(Errno::INVAL),
        }
    }
}
