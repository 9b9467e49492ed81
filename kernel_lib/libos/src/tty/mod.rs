//! Terminals: line discipline, ptys, job control.

use crate::errno::{Errno, ENODEV};
use crate::fs::OpenFile;
use crate::process::{Process, Task};
use alloc::sync::Arc;

/// A new terminal as controlling terminal of the task's session, its other side at the host's `streams`: to become descriptors 0, 1 and 2.
pub fn console(_task: &Arc<Task>, _streams: [u32; 3], _rows: u16, _columns: u16) -> Result<Arc<OpenFile>, Errno> {
    Err(ENODEV)
}

/// A new window size for the controlling terminal of a process that was started from outside.
pub fn resize(_process: &Arc<Process>, _rows: u16, _columns: u16) {}
