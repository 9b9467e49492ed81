"""What the planner wants to know about this machine. Reads /proc and /sys; cheap enough for every start."""

from __future__ import annotations

import os
import resource

from runtime.linux_tables import RLIMITS
from runtime.plan.model import HostFacts


def gather() -> HostFacts:
    """The facts, as of now."""
    return HostFacts(
        memory=total_memory(),
        cpus=len(os.sched_getaffinity(0)),
        cgroup_version=cgroup_version(),
        rlimits=own_rlimits(),
    )


def total_memory() -> int:
    """Bytes of RAM."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cgroup_version() -> int:
    """2 when the unified hierarchy has the controllers, else 1 (legacy and hybrid)."""
    return 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1


def own_rlimits() -> dict[str, tuple[int, int]]:
    """This process's limits, by RLIMIT_ name."""
    return {name: resource.getrlimit(number) for number, name in enumerate(RLIMITS)}
