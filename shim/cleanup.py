"""`delete` of a container whose shim is gone: end its machine, unmount its root, remove its state and files.

The launcher calls this where something is left, and answers containerd itself (kernel_lib/launcher/src/shim/delete.rs).
"""

from __future__ import annotations

import os
import sys

from shim import rootfs
from shim.paths import state_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.invocation import Invocation

PID_FILE = "init.pid"  # the launcher reads it


def delete(invocation: Invocation) -> None:
    bundle = invocation.bundle
    root = state_root(bundle, invocation.namespace)
    if os.path.exists(f"{root}/{invocation.id}"):
        from shim.litebox import force_delete

        try:
            force_delete(root, invocation.id)
        except Exception as error:  # what can be freed is freed; containerd logs stderr as a warning
            sys.stderr.write(f"cannot delete container {invocation.id}: {error}\n")
    rootfs.unmount(f"{bundle}/rootfs")
    if os.path.exists(f"{bundle}/shm"):  # of a sandbox
        from shim.sandbox.pod import remove_files

        remove_files(bundle)
