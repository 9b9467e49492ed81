//! The `ready` pipe of the launch plan: one JSON line, then it is closed.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use crate::error::HostError;
use crate::services::Errno;

pub struct Ready {
    pipe: Mutex<Option<OwnedFd>>,
}

/// Nobody reads the pipe: whoever started the container has died.
#[derive(Debug)]
pub struct Abandoned;

impl Ready {
    pub fn new(pipe: Option<OwnedFd>) -> Self {
        Self { pipe: Mutex::new(pipe) }
    }

    /// The guest waits for `start`.
    pub fn tell(&self) -> Result<(), Abandoned> {
        self.write("{\"ok\":true}\n").map(drop)
    }

    /// The guest will never be ready. The error comes back when nobody heard of it: it is too late for this pipe, or there is none.
    pub fn fail(&self, error: HostError) -> Result<(), HostError> {
        let line = serde_json::json!({ "error": error.message, "kind": error.kind.name() });
        match self.write(&format!("{line}\n")) {
            Ok(true) => Ok(()),
            _ => Err(error),
        }
    }

    /// Whether there was a pipe still.
    fn write(&self, line: &str) -> Result<bool, Abandoned> {
        let Some(pipe) = self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(false) };
        match rustix::io::write(&pipe, line.as_bytes()) {
            Err(Errno::PIPE) => Err(Abandoned),
            _ => Ok(true),
        }
    }
}
