"""Environment variables that a process gets though config.json does not name them."""

from __future__ import annotations

import os

from runtime.host import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]


def with_home(process: Json, rootfs: str) -> list[str]:
    """The environment of an OCI process, with HOME as runc sets it: what the container's /etc/passwd says."""
    environment: list[str] = process.get("env") or []
    if any(entry.startswith("HOME=") for entry in environment):
        return environment
    return [*environment, f"HOME={_home(rootfs, (process.get('user') or {}).get('uid', 0))}"]


def _home(rootfs: str, uid: int) -> str:
    try:
        root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return "/"
    try:
        text = mounts.read_file(root, "etc/passwd").decode("utf-8", "replace")
    finally:
        os.close(root)
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2] == str(uid):
            return fields[5] or "/"
    return "/"
