//! Pipes, FIFOs, eventfd and other files that live in the library OS alone.
