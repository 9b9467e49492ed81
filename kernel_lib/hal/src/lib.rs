//! Hardware abstraction of the guest.
#![cfg_attr(not(test), no_std)]
