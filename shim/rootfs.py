"""Mount what containerd hands over as a container's root (Create.rootfs), and take it down again.

mount(2) takes at most a page of options, which an overlay of many layers exceeds: then the common parent of the layers
becomes the working directory of a short-lived child, and the options name the layers relative to it, as containerd's
own code does (core/mount/mount_linux.go, `compactLowerdirOption`).
"""

from __future__ import annotations

import os

from shim import log
from shim.errors import InvalidArgumentError, RpcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shim.api.types import Mount

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC = 1, 32, 4096, 16384
UMOUNT_NOFOLLOW = 8

# Option → (clears, flag): mount(8), "filesystem-independent mount options".
FLAGS = {
    "async": (True, 16),
    "atime": (True, 1024),
    "bind": (False, MS_BIND),
    "defaults": (False, 0),
    "dev": (True, 4),
    "diratime": (True, 2048),
    "dirsync": (False, 128),
    "exec": (True, 8),
    "mand": (False, 64),
    "noatime": (False, 1024),
    "nodev": (False, 4),
    "nodiratime": (False, 2048),
    "noexec": (False, 8),
    "nomand": (True, 64),
    "norelatime": (True, 1 << 21),
    "nostrictatime": (True, 1 << 24),
    "nosuid": (False, 2),
    "rbind": (False, MS_BIND | MS_REC),
    "relatime": (False, 1 << 21),
    "remount": (False, MS_REMOUNT),
    "ro": (False, MS_RDONLY),
    "rw": (True, MS_RDONLY),
    "strictatime": (False, 1 << 24),
    "suid": (True, 2),
    "sync": (False, 16),
}
PAGE = 4096


def split_options(options: Sequence[str]) -> tuple[int, list[str]]:
    """Mount flags, and the options that are the file system's own."""
    flags, data = 0, []
    for option in options:
        if option in FLAGS:
            clears, flag = FLAGS[option]
            flags = flags & ~flag if clears else flags | flag
        elif option:
            data.append(option)
    return flags, data


def compact(data: Sequence[str]) -> tuple[str, list[str]]:
    """A directory, and the options with `lowerdir` relative to it.

    Without several layers to shorten: "" and the options as they are.
    """
    for index, option in enumerate(data):
        if option.startswith("lowerdir="):
            layers = option.removeprefix("lowerdir=").split(":")
            if len(layers) < 2 or not all(layer.startswith("/") for layer in layers):
                break
            parent = os.path.commonpath(layers)
            if parent == "/" or parent in layers:
                break
            short = "lowerdir=" + ":".join(layer[len(parent) + 1 :] for layer in layers)
            return parent, [*data[:index], short, *data[index + 1 :]]
    return "", list(data)


def mount_all(mounts: Sequence[Mount], target: str) -> None:
    """Mount them on `target`, in order. Raises RpcError, with nothing left mounted, when one fails."""
    os.makedirs(target, mode=0o711, exist_ok=True)
    done: list[str] = []
    try:
        for mount in mounts:
            where = f"{target}/{mount.target}" if mount.target else target
            mount_one(mount, where)
            done.append(where)
    except BaseException:
        for where in reversed(done):
            unmount(where)
        raise


def mount_one(mount: Mount, target: str) -> None:
    from runtime.host import linux  # not on the `delete` path of a container that is gone already

    flags, data = split_options(mount.options)
    directory = ""
    if len(",".join(data)) >= PAGE:
        directory, data = compact(data)
    options = ",".join(data)
    if len(options) >= PAGE:
        raise InvalidArgumentError(f"mount options of {target} exceed a page ({len(options)} bytes)")
    try:
        if directory:
            _in_child(lambda: linux.mount(mount.source, target, mount.type, flags, options), directory)
        else:
            linux.mount(mount.source, target, mount.type, flags, options)
        if flags & MS_BIND and flags & ~(
            MS_BIND | MS_REC
        ):  # a bind mount takes its flags only from a remount: mount(2)
            linux.mount("", target, "", flags & ~MS_REC | MS_REMOUNT, "")
    except OSError as error:
        raise RpcError(
            f"cannot mount {mount.type or 'bind'} {mount.source!r} on {target} ({options[:200]}): {error.strerror}"
        ) from error


def unmount(target: str) -> None:
    """Unmount everything that is mounted on `target`; failures are logged."""
    while is_mount(target):
        from runtime.host import linux

        try:
            linux.umount(target, linux.MNT_DETACH | UMOUNT_NOFOLLOW)
        except OSError as error:
            log.warning(f"cannot unmount {target}: {error.strerror}")
            return


def is_mount(path: str) -> bool:
    """Whether something is mounted on `path`, which a comparison of devices would not say of a bind mount (proc(5))."""
    name = os.fsencode(os.path.realpath(path)).replace(b"\\", b"\\134").replace(b" ", b"\\040")
    with open("/proc/self/mountinfo", "rb") as file:
        return b" " + name + b" " in file.read()


def _in_child(call: Callable[[], None], directory: str) -> None:
    """Make `call` with another working directory, which belongs to the whole process: so in a child."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            os.chdir(directory)
            call()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise OSError(code if code > 0 else 5, "mount")
