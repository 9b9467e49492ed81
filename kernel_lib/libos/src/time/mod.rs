//! Clocks and timers (time(7)).
//!
//! | file | what |
//! |---|---|
//! | `timers` | the queue of everything that expires, by monotonic deadline |
//! | `clocks` | what each clock shows, and when an absolute time on it will be |
//! | `interval` | setitimer, timer_create, RLIMIT_CPU: timers that send signals |
//! | `sleep` | nanosleep and calls that go on after a stop |

pub mod clocks;
pub mod interval;
mod sleep;
mod timers;

pub use clocks::Clock;
pub use interval::{timer_signal_taken, ProcessTimers};
pub use sleep::{nanosleep, Restart};
pub use timers::{arm, cancel, next_deadline, run_expired, Expire, TimerKey};
