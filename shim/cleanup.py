"""`delete`: containerd calls it for every container in the end, also after a clean Delete, and when the shim has died.

After a clean Delete there is nothing to do, which costs two small reads. Otherwise it does what the dead shim no longer
can: end the machine, unmount the root, remove the state and the socket. The answer, a DeleteResponse, is binary on
stdout.
"""

from __future__ import annotations

import os
import sys
import time

from runtime import fastjson
from shim import rootfs
from shim.bootstrap import connects, remove
from shim.paths import state_root
from shim.wire import VARINT, put_bytes, put_varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.invocation import Invocation

EXIT_STATUS = 128 + 9
PID_FILE = "init.pid"


def delete(invocation: Invocation) -> None:
    bundle = invocation.bundle or os.path.join(os.path.dirname(os.getcwd()), invocation.id)
    pid = _read_pid(f"{bundle}/{PID_FILE}")
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
    _remove_dead_socket(f"{bundle}/address")
    sys.stdout.buffer.write(response(pid, EXIT_STATUS, time.time_ns()))


def response(pid: int, exit_status: int, exited_at: int) -> bytes:
    """A containerd.task.v2.DeleteResponse {pid = 1, exit_status = 2, exited_at = 3}, without importing them all."""
    stamp = bytearray()
    for number, value in ((1, exited_at // 1_000_000_000), (2, exited_at % 1_000_000_000)):
        put_varint(stamp, number << 3 | VARINT)
        put_varint(stamp, value)
    out = bytearray()
    for number, value in ((1, pid), (2, exit_status)):
        if value:
            put_varint(out, number << 3 | VARINT)
            put_varint(out, value)
    put_bytes(out, 3, bytes(stamp))
    return bytes(out)


def _read_pid(path: str) -> int:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _remove_dead_socket(address_file: str) -> None:
    """A shim that was killed leaves its socket behind; one that serves the rest of its pod is left alone."""
    try:
        with open(address_file) as file:
            text = file.read()
        path = (fastjson.loads(text)["address"] if text.startswith("{") else text).removeprefix("unix://")
    except (OSError, ValueError, KeyError):
        return
    if os.path.exists(path) and not connects(path):
        remove(path)
