//! Terminals: line discipline, ptys, job control.
