"""containerd-shim-litebox-v1: the containerd shim of LiteBox."""
