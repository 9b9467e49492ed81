//! Pipes, FIFOs, eventfd and other files that live in the library OS alone.

pub mod aio;
pub mod epoll;
pub mod eventfd;
pub mod fifo;
pub mod inotify;
pub mod links;
pub mod mqueue;
pub mod pipe;
pub mod ring;
pub mod signalfd;
pub mod sysv;
pub mod timerfd;

pub use links::broken_pipe;
