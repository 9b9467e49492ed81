"""Generated message classes; see shim/proto."""
