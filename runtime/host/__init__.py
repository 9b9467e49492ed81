"""The thin shell: what touches the host (system calls, mounts, cgroups, namespaces, hooks)."""
