"""linux.resources as files to write, for cgroup v1 and v2. Pure.

The container's limits hold in two places: the guest enforces and shows the exact ones; the VMM's cgroup is the host's
guard. The VMM's own needs (its threads, tables of the VM) come on top there, so that a guest at its limit meets its
own OOM killer and never the host's.
"""

from __future__ import annotations

from runtime.errors import InvalidSpec, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_UNLIMITED = -1
#: Threads of a VMM beyond the guest's processes, which are none of the host's.
VMM_THREADS = 128
_FIXED_OVERHEAD = 128 << 20


def memory_with_overhead(limit: int) -> int:
    """The host's limit for a guest that may use `limit` bytes: its library OS, the VMM, tables of 1/64th."""
    return limit + _FIXED_OVERHEAD + limit // 64


class Setting:
    """One value for one file."""

    __slots__ = ("controller", "file", "value", "where")

    def __init__(self, controller: str, file: str, value: str | int, where: str) -> None:
        self.controller = controller
        self.file = file
        self.value = str(value)
        #: The JSON path to blame.
        self.where = f"linux.resources.{where}"


def settings_v1(resources: Json) -> list[Setting]:
    """In the order they have to be written."""
    if resources.get("unified"):
        raise Unsupported("linux.resources.unified: this host has cgroup v1")
    out: list[Setting] = []
    cpu: Json = resources.get("cpu") or {}
    for key, file in (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("burst", "cpu.cfs_burst_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
        ("idle", "cpu.idle"),
    ):
        if cpu.get(key):
            out.append(Setting("cpu", file, cpu[key], f"cpu.{key}"))
    out += _cpuset(cpu)
    memory: Json = resources.get("memory") or {}
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        out.append(Setting("memory", "memory.limit_in_bytes", _plus(limit), "memory.limit"))
    if swap:
        _check_swap(limit, swap)
        out.append(Setting("memory", "memory.memsw.limit_in_bytes", _plus(swap), "memory.swap"))
    if memory.get("reservation"):
        out.append(Setting("memory", "memory.soft_limit_in_bytes", memory["reservation"], "memory.reservation"))
    if memory.get("swappiness") is not None:
        out.append(Setting("memory", "memory.swappiness", memory["swappiness"], "memory.swappiness"))
    if memory.get("disableOOMKiller"):
        out.append(Setting("memory", "memory.oom_control", 1, "memory.disableOOMKiller"))
    out += _pids(resources)
    out += _block_io_v1(resources.get("blockIO") or {})
    for entry in resources.get("hugepageLimits") or []:
        file = f"hugetlb.{entry['pageSize']}.limit_in_bytes"
        out.append(Setting("hugetlb", file, entry["limit"], "hugepageLimits"))
    network: Json = resources.get("network") or {}
    if network.get("classID"):
        out.append(Setting("net_cls", "net_cls.classid", network["classID"], "network.classID"))
    for entry in network.get("priorities") or []:
        value = f"{entry['name']} {entry['priority']}"
        out.append(Setting("net_prio", "net_prio.ifpriomap", value, "network.priorities"))
    return out


def settings_v2(resources: Json) -> list[Setting]:
    """In the order they have to be written."""
    out: list[Setting] = []
    cpu: Json = resources.get("cpu") or {}
    if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
        raise Unsupported("linux.resources.cpu.realtimeRuntime: cgroup v2 has no real-time budgets")
    if cpu.get("idle"):
        out.append(Setting("cpu", "cpu.idle", cpu["idle"], "cpu.idle"))
    if cpu.get("shares"):
        out.append(Setting("cpu", "cpu.weight", weight_of_shares(cpu["shares"]), "cpu.shares"))
    if cpu.get("quota") or cpu.get("period"):
        quota = cpu.get("quota") or 0
        value = f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100_000}"
        out.append(Setting("cpu", "cpu.max", value, "cpu.quota"))
    if cpu.get("burst") is not None:
        out.append(Setting("cpu", "cpu.max.burst", cpu["burst"], "cpu.burst"))
    out += _cpuset(cpu)
    memory: Json = resources.get("memory") or {}
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        out.append(Setting("memory", "memory.max", _maximum(_plus(limit)), "memory.limit"))
    if swap:
        _check_swap(limit, swap)
        value = _maximum(swap if swap < 0 else swap - max(limit, 0))
        out.append(Setting("memory", "memory.swap.max", value, "memory.swap"))
    if memory.get("reservation"):
        out.append(Setting("memory", "memory.low", _maximum(memory["reservation"]), "memory.reservation"))
    out += _pids(resources)
    out += _block_io_v2(resources.get("blockIO") or {})
    for entry in resources.get("hugepageLimits") or []:
        out.append(Setting("hugetlb", f"hugetlb.{entry['pageSize']}.max", entry["limit"], "hugepageLimits"))
    for name, value in (resources.get("unified") or {}).items():
        if "/" in name or "." not in name:
            raise InvalidSpec(f"linux.resources.unified: found the file {name!r}; allowed: names like memory.high")
        for line in value.split("\n"):
            out.append(Setting(name.partition(".")[0], name, line, f"unified[{name!r}]"))
    return out


def weight_of_shares(shares: int) -> int:
    """cpu.shares (2 to 262144) as cpu.weight (1 to 10000): runc's linear mapping."""
    return 0 if shares == 0 else 1 + (min(max(shares, 2), 262_144) - 2) * 9999 // 262_142


def _plus(limit: int) -> int:
    return memory_with_overhead(limit) if limit > 0 else _UNLIMITED


def _maximum(value: int) -> str:
    return "max" if value < 0 else str(value)


def _check_swap(limit: int, swap: int) -> None:
    if swap > 0 and limit <= 0:
        raise InvalidSpec("linux.resources.memory.swap: found a limit without memory.limit; allowed: both, or neither")
    if 0 < swap < limit:
        raise InvalidSpec(f"linux.resources.memory.swap: found {swap}; allowed: at least memory.limit, {limit}")


def _cpuset(cpu: Json) -> list[Setting]:
    return [Setting("cpuset", f"cpuset.{key}", cpu[key], f"cpu.{key}") for key in ("cpus", "mems") if cpu.get(key)]


def _pids(resources: Json) -> list[Setting]:
    limit = (resources.get("pids") or {}).get("limit") or 0
    if not limit:
        return []
    return [Setting("pids", "pids.max", limit + VMM_THREADS if limit > 0 else "max", "pids.limit")]


def _device(entry: Json) -> str:
    return f"{entry['major']}:{entry['minor']}"


_THROTTLES = (
    ("throttleReadBpsDevice", "read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "write_iops_device", "wiops"),
)


def _block_io_v1(block_io: Json) -> list[Setting]:
    out = []
    for key, file in (("weight", "blkio.weight"), ("leafWeight", "blkio.leaf_weight")):
        if block_io.get(key):
            out.append(Setting("blkio", file, block_io[key], f"blockIO.{key}"))
    for entry in block_io.get("weightDevice") or []:
        for key, file in (("weight", "blkio.weight_device"), ("leafWeight", "blkio.leaf_weight_device")):
            if entry.get(key):
                out.append(Setting("blkio", file, f"{_device(entry)} {entry[key]}", "blockIO.weightDevice"))
    for key, file, _ in _THROTTLES:
        for entry in block_io.get(key) or []:
            out.append(
                Setting("blkio", f"blkio.throttle.{file}", f"{_device(entry)} {entry['rate']}", f"blockIO.{key}")
            )
    return out


def _block_io_v2(block_io: Json) -> list[Setting]:
    out = []
    if block_io.get("leafWeight"):
        raise Unsupported("linux.resources.blockIO.leafWeight: cgroup v2 has no leaf weights")
    if block_io.get("weight"):
        # 10..1000 of v1 to 1..10000 of v2, as runc maps it when there is no io.bfq.weight.
        weight = 1 + (block_io["weight"] - 10) * 9999 // 990
        out.append(Setting("io", "io.weight", weight, "blockIO.weight"))
    for entry in block_io.get("weightDevice") or []:
        if entry.get("weight"):
            out.append(Setting("io", "io.bfq.weight", f"{_device(entry)} {entry['weight']}", "blockIO.weightDevice"))
    for key, _, name in _THROTTLES:
        for entry in block_io.get(key) or []:
            out.append(Setting("io", "io.max", f"{_device(entry)} {name}={entry['rate']}", f"blockIO.{key}"))
    return out
