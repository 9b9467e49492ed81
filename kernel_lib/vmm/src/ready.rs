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
        self.write("{\"ok\":true}\n")
    }

    /// The guest will never be ready. Nothing happens when it has been told ready before.
    pub fn fail(&self, error: &HostError) {
        let line = serde_json::json!({ "error": error.message, "kind": error.kind.name() });
        let _ = self.write(&format!("{line}\n"));
    }

    fn write(&self, line: &str) -> Result<(), Abandoned> {
        let Some(pipe) = self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
        match rustix::io::write(&pipe, line.as_bytes()) {
            Err(Errno::PIPE) => Err(Abandoned),
            _ => Ok(()),
        }
    }
}
