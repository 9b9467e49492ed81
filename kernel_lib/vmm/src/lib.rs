//! The virtual-machine monitor.
