//! Pipes, FIFOs, eventfd and other files that live in the library OS alone.

pub mod epoll;
pub mod eventfd;
pub mod fifo;
pub mod links;
pub mod pipe;
pub mod ring;

pub use links::broken_pipe;
