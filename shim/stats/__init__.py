"""A container's resource use as containerd wants it: cgroup v1 or v2 `Metrics`."""

from __future__ import annotations

from shim.errors import NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.message import Message


class Inside:
    """What the cgroup cannot tell: its tasks are the VMM's threads, and its limits have the VMM's own needs on top."""

    __slots__ = ("memory_limit", "pids_limit", "tasks")

    def __init__(self, tasks: int, memory_limit: int, pids_limit: int) -> None:
        self.tasks = tasks
        self.memory_limit = memory_limit  # 0: none
        self.pids_limit = pids_limit


def metrics(cgroup: list[tuple[str, str]], inside: Inside | None = None) -> Message:
    """Read the counters of a container's cgroup: (controllers, directory) pairs, one without controllers for v2."""
    if not cgroup:
        raise NotFoundError("cgroup does not exist")
    if len(cgroup) == 1 and not cgroup[0][0]:
        return _v2(cgroup[0][1], inside)
    return _v1(dict(cgroup), inside)


def _v2(directory: str, inside: Inside | None) -> Message:
    from shim.stats.cgroup2 import read

    answer = read(directory)
    if inside and answer.pids and answer.memory:
        answer.pids.current, answer.pids.limit = inside.tasks, inside.pids_limit
        if inside.memory_limit:
            answer.memory.usage_limit = inside.memory_limit
    return answer


def _v1(directories: dict[str, str], inside: Inside | None) -> Message:
    from shim.stats.cgroup1 import read

    answer = read(directories)
    if inside and answer.pids and answer.memory and answer.memory.usage:
        answer.pids.current, answer.pids.limit = inside.tasks, inside.pids_limit
        if inside.memory_limit:
            answer.memory.usage.limit = answer.memory.hierarchical_memory_limit = inside.memory_limit
    return answer
