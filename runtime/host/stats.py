"""Statistics as runc's `events --stats` has them, of the VMM's cgroup and of the VMM's own counters."""

from __future__ import annotations

import os

from runtime.host.cgroups.manager import read_file
from runtime.plan.size import parse_cpu_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.host.cgroups.manager import Cgroups

    Json = dict[str, Any]

_NO_LIMIT = 0xFFFF_FFFF_FFFF_FFFF
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def collect(groups: Cgroups, resources: Json, pid: int, counters: Json) -> Json:
    """The `data` object."""
    limit = (resources.get("memory") or {}).get("limit") or 0
    pids_limit = (resources.get("pids") or {}).get("limit") or 0
    memory = _memory_v2(groups) if groups.unified else _memory_v1(groups)
    memory["usage"]["limit"] = limit if limit > 0 else _NO_LIMIT
    memory["usage"]["usage"] = memory["usage"]["usage"] or _resident(pid)
    return {
        "cpu": _cpu(groups, pid),
        "cpuset": _cpuset(groups),
        "memory": memory,
        "pids": {"current": int(counters["tasks"]), "limit": max(pids_limit, 0)},
        "blkio": _block_io_v2(groups) if groups.unified else _block_io_v1(groups),
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

    def pool(prefix: str) -> Json:
        files = ("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")
        return {
            key: _number(directory, prefix + file)
            for key, file in zip(("limit", "usage", "max", "failcnt"), files, strict=True)
        }

    raw = _table(read_file(f"{directory}/memory.stat")) if directory else {}
    return {
        "usage": pool("memory."),
        "swap": pool("memory.memsw."),
        "kernel": pool("memory.kmem."),
        "kernelTCP": pool("memory.kmem.tcp."),
        "cache": raw.get("cache", 0),
        "raw": raw,
    }


def _memory_v2(groups: Cgroups) -> Json:
    directory = groups.path_of("memory")

    def pool(prefix: str) -> Json:
        failures = _table(read_file(f"{directory}/{prefix}.events")).get("max", 0)
        numbers = {key: _number(directory, f"{prefix}.{file}") for key, file in (("usage", "current"), ("max", "peak"))}
        limit = read_file(f"{directory}/{prefix}.max").strip()
        return {
            "limit": _NO_LIMIT if limit == "max" else _number(directory, f"{prefix}.max"),
            **numbers,
            "failcnt": failures,
        }

    raw = _table(read_file(f"{directory}/memory.stat"))
    return {
        "usage": pool("memory"),
        "swap": pool("memory.swap"),
        "kernel": {"limit": 0, "failcnt": 0},
        "kernelTCP": {"limit": 0, "failcnt": 0},
        "cache": raw.get("file", 0),
        "raw": raw,
    }


def _cpuset(groups: Cgroups) -> Json:
    directory = groups.path_of("cpuset")
    if directory is None:
        return {}
    found: Json = {}
    for name in ("cpus", "mems"):
        text = (
            read_file(f"{directory}/cpuset.{name}").strip() or read_file(f"{directory}/cpuset.{name}.effective").strip()
        )
        found[name] = sorted(parse_cpu_list(text, f"cpuset.{name}"))
    if not groups.unified:
        switches = ("cpu_exclusive", "mem_exclusive", "mem_hardwall", "memory_migrate", "memory_pressure",
                    "memory_spread_page", "memory_spread_slab", "sched_load_balance")  # fmt: skip
        found |= {name: _number(directory, f"cpuset.{name}") for name in switches}
    return found


def _block_io_v1(groups: Cgroups) -> Json:
    directory = groups.path_of("blkio")

    def entries(file: str) -> list[Json]:
        rows = [line.split() for line in read_file(f"{directory}/{file}").splitlines()] if directory else []
        return [
            _transfer(device, operation, value) for device, operation, value in (row for row in rows if len(row) == 3)
        ]

    return {
        "ioServiceBytesRecursive": entries("blkio.throttle.io_service_bytes_recursive"),
        "ioServicedRecursive": entries("blkio.throttle.io_serviced_recursive"),
    }


def _block_io_v2(groups: Cgroups) -> Json:
    sizes: list[Json] = []
    counts: list[Json] = []
    for line in read_file(f"{groups.path_of('io')}/io.stat").splitlines():
        device, *pairs = line.split()
        values = dict(pair.split("=") for pair in pairs)
        for letter, operation in (("r", "Read"), ("w", "Write"), ("d", "Discard")):
            sizes.append(_transfer(device, operation, values.get(f"{letter}bytes", "0")))
            counts.append(_transfer(device, operation, values.get(f"{letter}ios", "0")))
    return {"ioServiceBytesRecursive": sizes, "ioServicedRecursive": counts}


def _transfer(device: str, operation: str, value: str) -> Json:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": operation, "value": int(value)}


def _cpu(groups: Cgroups, pid: int) -> Json:
    throttling = {"periods": 0, "throttledPeriods": 0, "throttledTime": 0}
    per_cpu: Json = {}
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
        if accounting:
            rows = [line.split() for line in read_file(f"{accounting}/cpuacct.usage_all").splitlines()[1:]]
            per_cpu = {
                "percpu": [int(text) for text in read_file(f"{accounting}/cpuacct.usage_percpu").split()],
                "percpu_kernel": [int(row[2]) for row in rows],
                "percpu_user": [int(row[1]) for row in rows],
            }
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
    return {"usage": {"total": total, "kernel": kernel, "user": user, **per_cpu}, "throttling": throttling}


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
