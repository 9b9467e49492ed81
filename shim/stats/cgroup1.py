"""Counters of a cgroup v1 container, one directory per hierarchy. Source: Linux Documentation/admin-guide/cgroup-v1."""

from __future__ import annotations

from shim.api.metrics_v1 import (
    BlkIOEntry,
    BlkIOStat,
    CPUStat,
    CPUUsage,
    MemoryEntry,
    MemoryOomControl,
    MemoryStat,
    Metrics,
    PidsStat,
    Throttle,
)
from shim.stats.files import number, numbers, table, text

USER_HZ_NS = 10_000_000  # cpuacct.stat counts in USER_HZ, 100 per second on every Linux ABI

# memory.stat's names are the message's, but for these.
RENAMED = {
    "pgpgin": "pg_pg_in",
    "pgpgout": "pg_pg_out",
    "pgfault": "pg_fault",
    "pgmajfault": "pg_maj_fault",
    "hierarchical_memsw_limit": "hierarchical_swap_limit",
    "total_pgpgin": "total_pg_pg_in",
    "total_pgpgout": "total_pg_pg_out",
    "total_pgfault": "total_pg_fault",
    "total_pgmajfault": "total_pg_maj_fault",
}


def read(cgroup: dict[str, str]) -> Metrics:
    """`cgroup` maps controllers, as /proc/self/cgroup joins them by commas, to directories."""
    directories = {name: directory for names, directory in cgroup.items() for name in names.split(",")}
    pids, memory, blkio = directories.get("pids", ""), directories.get("memory", ""), directories.get("blkio", "")
    return Metrics(
        pids=PidsStat(current=number(pids, "pids.current"), limit=_limit(number(pids, "pids.max"))),
        cpu=_cpu(directories.get("cpuacct", ""), directories.get("cpu", "")),
        memory=_memory(memory),
        memory_oom_control=_oom(memory),
        blkio=BlkIOStat(
            io_service_bytes_recursive=_blkio(blkio, "blkio.throttle.io_service_bytes"),
            io_serviced_recursive=_blkio(blkio, "blkio.throttle.io_serviced"),
        ),
    )


def _limit(value: int) -> int:
    return 0 if value == (1 << 64) - 1 else value


def _cpu(cpuacct: str, cpu: str) -> CPUStat:
    ticks = table(cpuacct, "cpuacct.stat")
    throttled = table(cpu, "cpu.stat")
    return CPUStat(
        usage=CPUUsage(
            total=number(cpuacct, "cpuacct.usage"),
            kernel=ticks.get("system", 0) * USER_HZ_NS,
            user=ticks.get("user", 0) * USER_HZ_NS,
            per_cpu=numbers(cpuacct, "cpuacct.usage_percpu"),
        ),
        throttling=Throttle(
            periods=throttled.get("nr_periods", 0),
            throttled_periods=throttled.get("nr_throttled", 0),
            throttled_time=throttled.get("throttled_time", 0),
        ),
    )


def _memory(directory: str) -> MemoryStat:
    stat = MemoryStat()
    known = set(MemoryStat.__slots__)
    for name, value in table(directory, "memory.stat").items():
        field = RENAMED.get(name, name)
        if field in known:
            setattr(stat, field, value)
    stat.usage = _entry(directory, "memory")
    stat.swap = _entry(directory, "memory.memsw")
    stat.kernel = _entry(directory, "memory.kmem")
    stat.kernel_tcp = _entry(directory, "memory.kmem.tcp")
    return stat


def _entry(directory: str, prefix: str) -> MemoryEntry:
    return MemoryEntry(
        limit=number(directory, f"{prefix}.limit_in_bytes"),
        usage=number(directory, f"{prefix}.usage_in_bytes"),
        max=number(directory, f"{prefix}.max_usage_in_bytes"),
        failcnt=number(directory, f"{prefix}.failcnt"),
    )


def _oom(directory: str) -> MemoryOomControl:
    control = table(directory, "memory.oom_control")
    return MemoryOomControl(
        oom_kill_disable=control.get("oom_kill_disable", 0),
        under_oom=control.get("under_oom", 0),
        oom_kill=control.get("oom_kill", 0),
    )


def _blkio(directory: str, name: str) -> list[BlkIOEntry]:
    """Lines of `major:minor Operation bytes`."""
    entries = []
    for line in (text(directory, f"{name}_recursive") or text(directory, name)).splitlines():
        words = line.split()
        if len(words) == 3:
            major, _, minor = words[0].partition(":")
            entries.append(BlkIOEntry(op=words[1], major=int(major), minor=int(minor), value=int(words[2])))
    return entries
