//! The virtual-machine monitor: one process per container. It builds the VM, runs its vCPUs, serves the library OS's host requests
//! (`abi::request`) and speaks the control protocol (`docs/control-protocol.md`) with the runtime.
//!
//! Threads: one per vCPU ([`vcpu`]), 2..8 request servers ([`server`]), one for readiness ([`watch`]), one for control connections
//! ([`control`]), the main thread ([`machine`]) which starts the others, keeps the guest's clock and ends the VM, and the process's first,
//! which waits for that.
//!
//! What a guest writes is hostile: it is copied once out of guest memory, checked, and never read again. Three kinds of failure are
//! kept apart: [`services::Errno`] is an answer to the guest, [`error::HostError`] ends the VM with a message, a panic is our own bug.
//! Lock order: none is ever held while another is taken, except `watch` → `events`.

pub mod backends;
pub mod boot;
mod cgroup;
pub mod clock;
pub mod control;
pub mod error;
pub mod events;
pub mod handles;
pub mod jail;
mod launch;
pub mod log;
pub mod machine;
pub mod memory;
pub mod memory_sys;
pub mod plan;
pub mod proxy;
pub mod ready;
pub mod server;
pub mod services;
mod session;
pub mod vcpu;
pub mod watch;

pub use machine::{run, run_ahead};
