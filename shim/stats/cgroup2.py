"""Counters of a cgroup v2 container. Source: Linux Documentation/admin-guide/cgroup-v2.rst."""

from __future__ import annotations

from shim.api.metrics_v2 import CPUStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PidsStat
from shim.stats.files import UNLIMITED, number, table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Filled = TypeVar("Filled", CPUStat, MemoryStat, MemoryEvents)


def read(directory: str) -> Metrics:
    return Metrics(
        pids=PidsStat(current=number(directory, "pids.current"), limit=_pids_limit(directory)),
        cpu=_fill(CPUStat(), table(directory, "cpu.stat")),
        memory=_memory(directory),
        memory_events=_fill(MemoryEvents(), table(directory, "memory.events")),
        io=IOStat(usage=_io(directory)),
    )


def _fill(message: Filled, values: dict[str, int]) -> Filled:
    """Set the fields that have the names of the file's rows."""
    known = {field.name for field in message.FIELDS}
    for name, value in values.items():
        if name in known:
            setattr(message, name, value)
    return message


def _pids_limit(directory: str) -> int:
    limit = number(directory, "pids.max")
    return 0 if limit == UNLIMITED else limit


def _memory(directory: str) -> MemoryStat:
    stat = _fill(MemoryStat(), table(directory, "memory.stat"))
    stat.usage = number(directory, "memory.current")
    stat.usage_limit = number(directory, "memory.max")
    stat.max_usage = number(directory, "memory.peak")
    stat.swap_usage = number(directory, "memory.swap.current")
    stat.swap_limit = number(directory, "memory.swap.max")
    return stat


def _io(directory: str) -> list[IOEntry]:
    """Lines of `major:minor rbytes=1 wbytes=2 rios=3 wios=4 …`."""
    entries = []
    for line in text(directory, "io.stat").splitlines():
        device, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        major, _, minor = device.partition(":")
        counts = {name: int(values.get(name, 0)) for name in ("rbytes", "wbytes", "rios", "wios")}
        entries.append(IOEntry(major=int(major), minor=int(minor), **counts))
    return entries
