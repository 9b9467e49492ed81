"""A container's cgroup as a unit of systemd: a transient scope that the VMM is put into, with its limits as properties.

systemd owns the tree that the scope lies in, and sets it as its units say: a cgroup made behind its back loses its
controllers at the next reload. Delegate=yes leaves what is below the scope to us. The limits are written to its files
as well (`manager.apply`): systemd rounds, and knows only some of them.
"""

from __future__ import annotations

import os

from runtime.errors import HostError, Unsupported
from runtime.host.cgroups import dbus, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runtime.host.cgroups.resources import Setting

    Json = dict[str, Any]

_BOOTED = "/run/systemd/system"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_NO_LIMIT = 2**64 - 1
#: A job of a busy machine.
_TIMEOUT = 30.0
#: CPUQuotaPerSecUSec is taken in steps of 1 %.
_QUOTA_STEP = 10_000


def wanted(cgroups_path: str, *, asked: bool) -> bool:
    """Whether the cgroup is systemd's to make. Unsupported when it was asked for by flag, and systemd does not run."""
    booted = os.path.isdir(_BOOTED)
    if asked and not booted:
        raise Unsupported(
            f"--systemd-cgroup: systemd does not run on this host ({_BOOTED} is not there); leave the flag out"
        )
    return booted and (asked or paths.is_systemd_form(cgroups_path))


def unit_of(cgroups_path: str, container_id: str, *, user: bool) -> Json:
    """What the state remembers: the unit, the slice it is in, whose manager has it, and that manager's own cgroup."""
    default = f"{'user' if user else 'system'}.slice:litebox:{container_id}"
    slice_, prefix, name = paths.split_systemd(cgroups_path or default)
    unit = {"name": paths.unit_name(prefix, name), "slice": slice_, "user": user}
    with _Manager(user) as manager:
        unit["root"] = manager.cgroup()
    return unit


def start(unit: Json, pid: int, settings: Sequence[Setting]) -> None:
    """Make the unit with `pid` in it."""
    name = unit["name"]
    properties = [
        ("Description", ("s", f"litebox container {name}")),
        ("Delegate", ("b", True)),
        ("DefaultDependencies", ("b", False)),
        ("CPUAccounting", ("b", True)),
        ("MemoryAccounting", ("b", True)),
        ("TasksAccounting", ("b", True)),
        *limits(settings),
    ]
    if name.endswith(".slice"):
        properties.append(("Wants", ("as", [unit["slice"]])))
    else:
        properties += [("Slice", ("s", unit["slice"])), ("PIDs", ("au", [pid]))]
    with _Manager(unit["user"]) as manager:
        manager.start(name, properties)


def update(unit: Json, settings: Sequence[Setting]) -> None:
    """Other limits, until the unit ends."""
    properties = limits(settings)
    if properties:
        with _Manager(unit["user"]) as manager:
            manager.call("SetUnitProperties", "sba(sv)", unit["name"], True, properties)


def stop(unit: Json) -> None:
    """End the unit, if it has not ended with its last process."""
    with _Manager(unit["user"]) as manager:
        manager.stop(unit["name"])


def limits(settings: Sequence[Setting]) -> list[tuple[str, tuple[str, Any]]]:
    """Those of the settings that systemd has a name for."""
    values = {setting.file: setting.value for setting in settings}
    found: list[tuple[str, tuple[str, Any]]] = []
    for file, name in (
        ("memory.max", "MemoryMax"),
        ("memory.limit_in_bytes", "MemoryLimit"),
        ("memory.swap.max", "MemorySwapMax"),
        ("memory.low", "MemoryLow"),
        ("pids.max", "TasksMax"),
        ("cpu.weight", "CPUWeight"),
        ("cpu.shares", "CPUShares"),
    ):
        if file in values:
            text = values[file]
            found.append((name, ("t", _NO_LIMIT if text in ("max", "-1") else int(text))))
    quota, period = values.get("cpu.cfs_quota_us", ""), values.get("cpu.cfs_period_us", "")
    if "cpu.max" in values:
        quota, period = values["cpu.max"].split()
    if period:
        found.append(("CPUQuotaPeriodUSec", ("t", int(period))))
    if quota:
        share = _NO_LIMIT
        if quota not in ("max", "-1"):
            share = -(-int(quota) * 1_000_000 // int(period or 100_000))
            share = -(-share // _QUOTA_STEP) * _QUOTA_STEP
        found.append(("CPUQuotaPerSecUSec", ("t", share)))
    return found


class _Manager:
    """systemd's, or the user's own."""

    def __init__(self, user: bool) -> None:
        folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}" if user else "/run"
        self._connection = dbus.Connection(f"{folder}/systemd/private", _TIMEOUT)

    def __enter__(self) -> _Manager:  # noqa: PYI034 - Self lives in typing, whose import costs 7 ms
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, member: str, signature: str, *values: Any) -> list[Any]:
        return self._connection.call(_PATH, _MANAGER, member, signature, *values)

    def cgroup(self) -> str:
        """Where its units are: empty for PID 1 of a host."""
        (value,) = self._connection.call(
            _PATH, "org.freedesktop.DBus.Properties", "Get", "ss", _MANAGER, "ControlGroup"
        )
        return str(value).rstrip("/")

    def start(self, name: str, properties: list[tuple[str, tuple[str, Any]]]) -> None:
        arguments: tuple[Any, ...] = ("ssa(sv)a(sa(sv))", name, "replace", properties, [])
        try:
            (job,) = self.call("StartTransientUnit", *arguments)
        except dbus.CallError as error:
            if not error.name.endswith(".UnitExists"):
                raise
            # One that failed stays until somebody has seen it.
            self.call("ResetFailedUnit", "s", name)
            (job,) = self.call("StartTransientUnit", *arguments)
        self._wait(job, name)

    def stop(self, name: str) -> None:
        try:
            (job,) = self.call("StopUnit", "ss", name, "replace")
        except dbus.CallError as error:
            if error.name.endswith((".NoSuchUnit", ".UnitNotLoaded")):
                return
            raise
        self._wait(job, name)

    def _wait(self, job: str, name: str) -> None:
        while True:
            member, values = self._connection.signal()
            if member == "JobRemoved" and values[1] == job:
                if values[3] not in ("done", "skipped"):
                    raise HostError(f"systemd: the job of {name} ended as {values[3]!r}")
                return
