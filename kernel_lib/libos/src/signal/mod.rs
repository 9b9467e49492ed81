//! Signals.

use crate::process::Task;

/// The signal state of one thread.
#[derive(Default)]
pub struct TaskSignals {}

/// The signal state of a thread group.
#[derive(Default)]
pub struct ProcessSignals {}

impl TaskSignals {
    /// A signal waits that this thread would take now.
    pub fn deliverable(&self, _task: &Task) -> bool {
        false
    }
    /// A signal waits that ends the process.
    pub fn fatal(&self, _task: &Task) -> bool {
        false
    }
}
