"""`linux.resources` of a running container: other limits, and what is used of them."""

from __future__ import annotations

from runtime.host import facts
from runtime.host.cgroups import manager
from runtime.plan.size import guest_ram, plan_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]


def change(state: Json, resources: Json, log: Callable[[str], None]) -> Json:
    """Apply them outside, in the cgroup; returns those of the guest, and changes the state accordingly."""
    merged = _merge(state["resources"], resources)
    memory = state["guest_memory"]
    if (resources.get("memory") or {}).get("limit"):
        memory = guest_ram(merged, facts.gather())
    limits = plan_limits(merged, memory)
    groups = manager.Cgroups(state["cgroups"])
    settings = manager.settings_for(groups, resources)
    manager.apply(groups, settings, may_lack=state["rootless"], log=log)
    if state.get("systemd_unit"):
        from runtime.host.cgroups import systemd

        systemd.update(state["systemd_unit"], settings)
    state["resources"], state["guest_memory"] = merged, memory
    return limits


def _merge(old: Json, new: Json) -> Json:
    """`new` over `old`, one level into each controller."""
    merged = dict(old)
    for key, value in new.items():
        merged[key] = {**old.get(key, {}), **value} if isinstance(value, dict) else value
    return merged
