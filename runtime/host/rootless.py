"""Without root's rights: everything happens in a user namespace of our own, in which we are root."""

from __future__ import annotations

import os

from runtime.errors import HostError, Unsupported
from runtime.host import linux, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]


def needed(rootless: bool | None) -> bool:
    """Whether the mounts of a container have to be made in a user namespace still to be entered."""
    return os.geteuid() != 0 and rootless is not False


def lacks_rights() -> bool:
    """An ordinary user, or root of a user namespace: cgroups may not be ours to make."""
    if os.geteuid() != 0:
        return True
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def enter(mappings: tuple[list[Json], list[Json]] | None = None) -> None:
    """Become root of a new user and mount namespace, for this process and all it starts.

    `mappings` of config.json, if there are any; else root inside is the user outside.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        if mappings is None or (_only(mappings[0], uid) and _only(mappings[1], gid)):
            linux.unshare(linux.CLONE_NEWUSER)
            namespaces.map_self(uid, gid)
        else:
            _enter_mapped(*mappings)
        linux.unshare(linux.CLONE_NEWNS)
    except OSError as error:
        raise Unsupported(
            f"rootless: user namespaces are not available ({error.strerror}); "
            "see sysctl kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"
        ) from error


def _only(mappings: list[Json], own: int) -> bool:
    return len(mappings) == 1 and (mappings[0]["hostID"], mappings[0]["containerID"], mappings[0]["size"]) == (
        own,
        0,
        1,
    )


def _enter_mapped(uid_mappings: list[Json], gid_mappings: list[Json]) -> None:
    """newuidmap(1) has to be called from outside: by a child that was left there."""
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    done_read, done_write = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(go_write)
        try:
            if os.read(go_read, 1):
                namespaces.write_mappings(parent, uid_mappings, gid_mappings)
        except BaseException as error:  # noqa: BLE001 - a forked child must not return
            os.write(done_write, str(error).encode()[:4000])
        finally:
            os._exit(0)
    os.close(done_write)
    os.close(go_read)
    try:
        linux.unshare(linux.CLONE_NEWUSER)
        os.write(go_write, b"+")
    finally:
        os.close(go_write)
        failure = os.read(done_read, 4096)
        os.close(done_read)
        os.waitpid(child, 0)
    if failure:
        raise HostError(failure.decode("utf-8", "replace"))
    os.setgid(0)
    os.setuid(0)
