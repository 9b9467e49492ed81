//! Terminals: line discipline, ptys, job control.

mod container;
mod ioctl;
pub mod job;
pub mod line;
pub mod pty;
pub mod terminal;
pub mod termios;

pub use container::{console, drain, drain_of, resize};
pub use job::controlling_of;
pub use pty::register;
