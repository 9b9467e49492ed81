"""A container's resource use as containerd wants it: cgroup v1 or v2 `Metrics`."""

from __future__ import annotations

from shim.errors import NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.message import Message


def metrics(cgroup: list[tuple[str, str]]) -> Message:
    """Read the counters of a container's cgroup: (controllers, directory) pairs, one without controllers for v2."""
    if not cgroup:
        raise NotFoundError("cgroup does not exist")
    if len(cgroup) == 1 and not cgroup[0][0]:
        from shim.stats.cgroup2 import read

        return read(cgroup[0][1])
    from shim.stats.cgroup1 import read as read_v1

    return read_v1(dict(cgroup))
