"""What containerd-shim-litebox-v1 (kernel_lib/launcher/src/shim) has Python do: be the shim, `-info`, and of `delete`
what frees. Each imports what it needs and no more.
"""

from __future__ import annotations

import os
import sys

from shim.invocation import Invocation

VERSION = "0.1.0"
NAME = "io.containerd.litebox.v1"


def main() -> int:
    invocation = Invocation(sys.argv[1:], os.environ)
    if invocation.action == "serve":
        from shim.daemon import live

        live(invocation)
    if invocation.action == "delete":
        from shim.cleanup import delete

        delete(invocation)
    elif invocation.action == "transport":
        return tell_transport(*invocation.rest)
    else:
        from shim.info import print_info

        print_info()
    return 0


def tell_transport(path: str) -> int:
    """By what the shims are to be called that have this configuration file: for `start`, which does not read YAML."""
    from runtime.errors import LiteboxError
    from runtime.settings import load_apart

    try:
        sys.stdout.write(load_apart(path).defaults.get("transport") or "ttrpc")
    except LiteboxError as error:
        sys.stderr.write(str(error))
        return 1
    return 0
