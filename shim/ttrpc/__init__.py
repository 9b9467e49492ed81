"""ttrpc (github.com/containerd/ttrpc, PROTOCOL.md): framing and stream states without I/O, a server, a client."""
