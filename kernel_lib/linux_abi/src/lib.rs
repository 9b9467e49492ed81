//! Linux's x86-64 user interface as data: numbers, flags and structure layouts. No behaviour.
#![no_std]

pub mod errno;

pub use errno::Errno;
