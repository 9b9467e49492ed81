//! From the boot page to PID 1, and the control messages from the runtime.

/// A control message waits in the VMM. Called outside of any lock; must not sleep.
pub fn control_waits() {}
