"""Whether the container's program is there, as far as can be told from outside.

runc says at `create` that a program is missing, and podman and docker exit 127 or 126 by what it says. The guest
decides at `start`; this looks ahead in the root file system, while the VM boots, and speaks up only when there is no
doubt.
"""

from __future__ import annotations

import errno as errno_module
import os
import stat

from runtime.errors import ExecFailed
from runtime.host import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan.model import Plan

_IN_ROOT = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check(plan: Plan) -> None:
    """ExecFailed when the program certainly cannot be executed."""
    process = plan.container["process"]
    name: str = process["args"][0]
    if not name:
        raise ExecFailed('exec: "": executable file not found in $PATH', errno_module.ENOENT)
    covered = [mount["destination"] for mount in plan.container["mounts"][1:]]
    if "/" in name:
        candidates = [os.path.normpath(os.path.join(plan.cwd, name))]
    else:
        path = next((entry[5:] for entry in process["env"] if entry.startswith("PATH=")), _DEFAULT_PATH)
        candidates = [os.path.normpath(os.path.join(plan.cwd, folder, name)) for folder in path.split(":")]
    try:
        root = os.open(plan.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    found_errno = errno_module.ENOENT
    try:
        for candidate in candidates:
            result = _judge(root, candidate, covered)
            if result is None or result == 0:
                return
            if result == errno_module.EACCES:
                found_errno = result
    finally:
        os.close(root)
    if found_errno == errno_module.EACCES:
        raise ExecFailed(f'exec: "{name}": permission denied', found_errno)
    if "/" in name:
        raise ExecFailed(f'exec: "{name}": no such file or directory', found_errno)
    raise ExecFailed(f'exec: "{name}": executable file not found in $PATH', found_errno)


def _judge(root: int, path: str, covered: list[str]) -> int | None:
    """0: can be executed; an errno: cannot; None: a mount may hold the answer."""
    if _under(path, covered):
        return None
    folder, _, name = path.rpartition("/")
    try:
        directory = linux.openat2(root, folder or "/", os.O_PATH | os.O_DIRECTORY, _IN_ROOT)
    except OSError as error:
        return error.errno if error.errno in (errno_module.ENOENT, errno_module.ENOTDIR) else None
    try:
        # Where symbolic links have led to, below the root.
        real = os.readlink(f"/proc/self/fd/{directory}")
        base = os.readlink(f"/proc/self/fd/{root}").rstrip("/")
        if not (real + "/").startswith(base + "/") or _under(f"{real[len(base) :]}/{name}", covered):
            return None
        found = linux.openat2(root, path, os.O_PATH, _IN_ROOT)
    except OSError as error:
        return error.errno if error.errno in (errno_module.ENOENT, errno_module.ENOTDIR) else None
    finally:
        os.close(directory)
    try:
        status = os.fstat(found)
        target = os.readlink(f"/proc/self/fd/{found}")
    finally:
        os.close(found)
    if _under(target[len(base) :], covered):
        return None
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return errno_module.EACCES
    return 0


def _under(path: str, covered: list[str]) -> bool:
    return any(path == mount or path.startswith(mount + "/") for mount in covered)
