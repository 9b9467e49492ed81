"""Statistics as runc's `events --stats` has them, of the VMM's cgroup and of the VMM's own counters."""

from __future__ import annotations

import os

from runtime.host.cgroups.manager import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.host.cgroups.manager import Cgroups

    Json = dict[str, Any]

_NO_LIMIT = 0xFFFF_FFFF_FFFF_FFFF
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def collect(groups: Cgroups, resources: Json, pid: int, counters: Json, processes: int) -> Json:
    """The `data` object."""
    limit = (resources.get("memory") or {}).get("limit") or 0
    pids_limit = (resources.get("pids") or {}).get("limit") or 0
    memory = _memory_v2(groups) if groups.unified else _memory_v1(groups)
    usage = memory["usage"] or _resident(pid)
    return {
        "cpu": _cpu(groups, pid),
        "cpuset": {},
        "memory": {
            "usage": {
                "limit": limit if limit > 0 else _NO_LIMIT,
                "usage": usage,
                "max": memory["max"],
                "failcnt": memory["failcnt"],
            },
            "swap": {"limit": 0, "failcnt": 0},
            "kernel": {"limit": 0, "failcnt": 0},
            "kernelTCP": {"limit": 0, "failcnt": 0},
            "cache": memory["raw"].get("cache", memory["raw"].get("file", 0)),
            "raw": memory["raw"],
        },
        "pids": {"current": processes, "limit": max(pids_limit, 0)},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": _interfaces(pid),
        "litebox": {key: value for key, value in counters.items() if key not in ("id", "ok")},
    }


def _number(directory: str | None, file: str) -> int:
    text = read_file(f"{directory}/{file}").strip() if directory else ""
    return int(text) if text.isdigit() else 0


def _table(text: str) -> dict[str, int]:
    rows = [line.split() for line in text.splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _memory_v1(groups: Cgroups) -> Json:
    directory = groups.path_of("memory")
    return {
        "usage": _number(directory, "memory.usage_in_bytes"),
        "max": _number(directory, "memory.max_usage_in_bytes"),
        "failcnt": _number(directory, "memory.failcnt"),
        "raw": _table(read_file(f"{directory}/memory.stat")) if directory else {},
    }


def _memory_v2(groups: Cgroups) -> Json:
    directory = groups.path_of("memory")
    return {
        "usage": _number(directory, "memory.current"),
        "max": _number(directory, "memory.peak"),
        "failcnt": _table(read_file(f"{directory}/memory.events")).get("max", 0),
        "raw": _table(read_file(f"{directory}/memory.stat")),
    }


def _cpu(groups: Cgroups, pid: int) -> Json:
    throttling = {"periods": 0, "throttledPeriods": 0, "throttledTime": 0}
    per_cpu: list[int] = []
    if groups.unified:
        table = _table(read_file(f"{groups.path_of('cpu')}/cpu.stat"))
        total = table.get("usage_usec", 0) * 1000
        user, kernel = table.get("user_usec", 0) * 1000, table.get("system_usec", 0) * 1000
        throttling = {
            "periods": table.get("nr_periods", 0),
            "throttledPeriods": table.get("nr_throttled", 0),
            "throttledTime": table.get("throttled_usec", 0) * 1000,
        }
    else:
        accounting, limits = groups.path_of("cpuacct"), groups.path_of("cpu")
        total = _number(accounting, "cpuacct.usage")
        split = _table(read_file(f"{accounting}/cpuacct.stat")) if accounting else {}
        user, kernel = split.get("user", 0) * _TICK_NS, split.get("system", 0) * _TICK_NS
        per_cpu = [int(text) for text in read_file(f"{accounting}/cpuacct.usage_percpu").split()] if accounting else []
        table = _table(read_file(f"{limits}/cpu.stat")) if limits else {}
        if table:
            throttling = {
                "periods": table.get("nr_periods", 0),
                "throttledPeriods": table.get("nr_throttled", 0),
                "throttledTime": table.get("throttled_time", 0),
            }
    if not total:
        fields = read_file(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(fields) > 12:
            user, kernel = int(fields[11]) * _TICK_NS, int(fields[12]) * _TICK_NS
            total = user + kernel
    usage: Json = {"total": total, "kernel": kernel, "user": user}
    if per_cpu:
        usage["percpu"] = per_cpu
    return {"usage": usage, "throttling": throttling}


def _resident(pid: int) -> int:
    fields = read_file(f"/proc/{pid}/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 0


def _interfaces(pid: int) -> list[Json]:
    """Of the container's network namespace, which the VMM lives in."""
    found = []
    for line in read_file(f"/proc/{pid}/net/dev").splitlines()[2:]:
        name, _, rest = line.partition(":")
        fields = [int(field) for field in rest.split()]
        if len(fields) >= 12 and name.strip() != "lo":
            found.append(
                {
                    "Name": name.strip(),
                    "RxBytes": fields[0],
                    "RxPackets": fields[1],
                    "RxErrors": fields[2],
                    "RxDropped": fields[3],
                    "TxBytes": fields[8],
                    "TxPackets": fields[9],
                    "TxErrors": fields[10],
                    "TxDropped": fields[11],
                }
            )
    return found
