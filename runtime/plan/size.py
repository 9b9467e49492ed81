"""Of the VM: how many CPUs, how much memory, which limits."""

from __future__ import annotations

from runtime.errors import InvalidSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.plan.model import HostFacts, Plan

    Json = dict[str, Any]

#: Guest RAM beyond the container's memory limit: what the library OS itself needs must not eat into the limit.
GUEST_OVERHEAD = 64 << 20
_PAGE = 4096


def plan_limits(resources: Json, ram: int) -> Json:
    """The limits the guest sees and enforces, of linux.resources; `ram` see `guest_ram`."""
    memory = (resources.get("memory") or {}).get("limit") or 0
    cpu: Json = resources.get("cpu") or {}
    quota = cpu.get("quota") or 0
    pids = (resources.get("pids") or {}).get("limit") or 0
    return {
        "memory": max(memory, 0),
        "ram": ram,
        "cpu_quota": max(quota, 0),
        "cpu_period": (cpu.get("period") or 100_000) if quota > 0 else 0,
        "pids": max(pids, 0),
    }


def guest_ram(resources: Json, facts: HostFacts) -> int:
    """Bytes of RAM for a guest with these limits."""
    limit = (resources.get("memory") or {}).get("limit") or 0
    return _whole_pages(min(limit + GUEST_OVERHEAD, facts.memory) if limit > 0 else facts.memory)


def _whole_pages(size: int) -> int:
    return (size + _PAGE - 1) // _PAGE * _PAGE


def _annotation_number(annotations: Json, key: str) -> int:
    text = annotations.get(key)
    if text is None:
        return 0
    number = parse_size(text) if key.endswith("memory") else int(text) if str(text).isdigit() else None
    if not number:
        raise InvalidSpec(f"annotations[{key!r}]: found {text!r}; allowed: a positive number")
    return number


def parse_size(text: str) -> int | None:
    """512, 64k, 512m, 2g (also with b or ib behind): bytes, or None."""
    lowered = text.strip().lower()
    for ending in ("ib", "b"):
        if lowered.endswith(ending) and len(lowered) > len(ending):
            lowered = lowered[: -len(ending)]
            break
    shift = {"k": 10, "m": 20, "g": 30, "t": 40}.get(lowered[-1:], 0)
    digits = lowered[:-1] if shift else lowered
    return int(digits) << shift if digits.isascii() and digits.isdigit() else None


def plan_size(plan: Plan, annotations: Json, facts: HostFacts) -> None:
    chosen = _annotation_number(annotations, "dev.litebox.memory")
    plan.memory = _whole_pages(chosen) if chosen else guest_ram(plan.resources, facts)
    limits = plan_limits(plan.resources, plan.memory)
    vcpus = _annotation_number(annotations, "dev.litebox.vcpus")
    if not vcpus:
        vcpus = facts.cpus
        cpu: Json = plan.resources.get("cpu") or {}
        if cpu.get("cpus"):
            vcpus = min(vcpus, len(parse_cpu_list(cpu["cpus"], "linux.resources.cpu.cpus")) or 1)
        if limits["cpu_quota"]:
            vcpus = min(vcpus, -(-limits["cpu_quota"] // limits["cpu_period"]))
    plan.vcpus = max(1, min(vcpus, facts.cpus))


def parse_cpu_list(text: str, where: str) -> set[int]:
    """0-3,7: the set of numbers."""
    numbers: set[int] = set()
    for part in text.replace(" ", "").strip().split(","):
        if not part:
            continue
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) > 8191:
            raise InvalidSpec(f"{where}: found {text!r}; allowed: numbers and ranges like 0-3,7")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers
