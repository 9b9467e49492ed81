"""Pods without a pause container: containerd's sandbox API (`sandboxer = "shim"`)."""
