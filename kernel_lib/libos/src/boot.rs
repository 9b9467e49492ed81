//! From the boot page to PID 1, and the control messages from the runtime.

/// A control message waits in the VMM. Called outside of any lock; must not sleep.
pub fn control_waits() {}

/// Starts the first task of the library OS. On vCPU 0's boot stack: must not sleep.
pub fn start() {}
