//! What crosses the boundary between a guest and its VMM, and nothing else: addresses ([`layout`]), the boot page ([`boot`]),
//! the container's description ([`config`]), the host-request table and its slots ([`request`]), events to the guest ([`event`])
//! and the counters that are readable live ([`counters`]).
//!
//! Every structure here that lives in guest memory may be scribbled over by a hostile guest at any time. The VMM therefore copies
//! a value out once, checks the copy, and never reads it again.
#![no_std]

extern crate alloc;

pub mod boot;
pub mod config;
pub mod counters;
pub mod event;
pub mod layout;
pub mod request;
