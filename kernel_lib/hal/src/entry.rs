//! Entry and exit.
