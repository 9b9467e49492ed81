"""Without root's rights: everything happens in a user namespace of our own, in which we are root."""

from __future__ import annotations

import os

from runtime.errors import Unsupported
from runtime.host import linux, namespaces


def needed(rootless: bool | None) -> bool:
    """Whether the mounts of a container have to be made in a user namespace."""
    return os.geteuid() != 0 and rootless is not False


def enter() -> None:
    """Become root of a new user and mount namespace. For this process and all it starts."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        linux.unshare(linux.CLONE_NEWUSER)
        namespaces.map_self(uid, gid)
        linux.unshare(linux.CLONE_NEWNS)
    except OSError as error:
        raise Unsupported(
            f"rootless: user namespaces are not available ({error.strerror}); "
            "see sysctl kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"
        ) from error
