"""Entry point of containerd-shim-litebox-v1: one of -v, -info, start, delete.

Each imports what it needs and no more.
"""

from __future__ import annotations

import os
import sys

from shim.invocation import Invocation, UsageError

VERSION = "0.1.0"
NAME = "io.containerd.litebox.v1"


def main() -> int:
    try:
        invocation = Invocation(sys.argv[1:], os.environ)
        if invocation.version:
            sys.stdout.write(
                f"containerd-shim-litebox-v1:\n  Version:  {VERSION}\n  Python version: {sys.version.split()[0]}\n\n"
            )
        elif invocation.info:
            from shim.info import print_info

            print_info()
        elif invocation.action == "start":
            from shim.bootstrap import StartError, start

            try:
                start(invocation)
            except StartError as error:
                raise UsageError(str(error)) from error
        elif invocation.action == "delete":
            from shim.cleanup import delete

            delete(invocation)
        else:
            raise UsageError(f"no such action: {invocation.action!r} (start or delete)")  # noqa: TRY301
    except (UsageError, OSError) as error:
        sys.stderr.write(f"{NAME}: {error}")
        return 1
    return 0
