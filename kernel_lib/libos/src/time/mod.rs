//! Clocks and timers.

/// The earliest deadline of any timer (monotonic ns).
pub fn next_deadline() -> Option<u64> {
    None
}

/// Fires every timer that is due. Must not sleep.
pub fn run_expired(_now: u64) {}
