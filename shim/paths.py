"""Where the shim keeps what it must find again, derived from the bundle so that each containerd has its own."""

from __future__ import annotations

import os


def state_root(bundle: str, namespace: str) -> str:
    """The runtime's state directory for a bundle `STATE/io.containerd.runtime.v2.task/NAMESPACE/ID`:
    STATE/litebox/NAMESPACE.

    Like runc's shim (/run/containerd/runc/NAMESPACE), so that `litebox --root STATE/litebox/NAMESPACE list` shows them.
    """
    state = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(bundle))))
    return f"{state}/litebox/{namespace}"
