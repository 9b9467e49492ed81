"""Of a process: PID 1, or one of `exec`."""

from __future__ import annotations

from runtime.errors import InvalidSpec
from runtime.linux_tables import RLIMITS, capability_mask
from runtime.plan.model import FIRST_FILE_HANDLE, STDIO_HANDLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Json = dict[str, Any]

_RLIM_INFINITY = 0xFFFF_FFFF_FFFF_FFFF


def plan_process(process: Json, warnings: list[str], *, files: int = 0) -> Json:
    """A ProcessSpec, its stdio handles those of PID 1, its limits those of config.json (see `inherit_rlimits`)."""
    user: Json = process.get("user") or {}
    console: Json = process.get("consoleSize") or {}
    args = process.get("args") or []
    if not args:
        raise InvalidSpec("process.args: found nothing to run; allowed: a list with at least one string")
    spec: Json = {
        "executable": None,
        "args": args,
        "env": process.get("env") or [],
        "cwd": process.get("cwd") or "/",
        "uid": user.get("uid", 0),
        "gid": user.get("gid", 0),
        "umask": user.get("umask"),
        "additional_gids": user.get("additionalGids") or [],
        "capabilities": _plan_capabilities(process.get("capabilities") or {}, warnings),
        "rlimits": _plan_rlimits(process.get("rlimits") or []),
        "no_new_privileges": bool(process.get("noNewPrivileges")),
        "oom_score_adj": process.get("oomScoreAdj"),
        "terminal": bool(process.get("terminal")),
        "rows": min(console.get("height", 0), 0xFFFF),
        "columns": min(console.get("width", 0), 0xFFFF),
        "stdio": list(STDIO_HANDLES),
        "extra_files": list(range(FIRST_FILE_HANDLE, FIRST_FILE_HANDLE + files)),
    }
    return spec


def _plan_capabilities(capabilities: Json, warnings: list[str]) -> Json:
    masks = {}
    for key in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        masks[key], unknown = capability_mask(capabilities.get(key) or [])
        warnings.extend(f"process.capabilities.{key}: ignoring unknown {name!r}" for name in unknown)
    return masks


def _plan_rlimits(rlimits: list[Json]) -> list[Json]:
    seen: dict[str, Json] = {}
    for index, rlimit in enumerate(rlimits):
        name = rlimit["type"]
        where = f"process.rlimits[{index}]"
        if name not in RLIMITS:
            raise InvalidSpec(f"{where}.type: found {name!r}; allowed: {', '.join(RLIMITS)}")
        if name in seen:
            raise InvalidSpec(f"{where}.type: found a second {name}; each may appear once")
        if rlimit["soft"] > rlimit["hard"]:
            raise InvalidSpec(f"{where}.soft: found {rlimit['soft']}; allowed: at most hard, {rlimit['hard']}")
        seen[name] = _rlimit(RLIMITS.index(name), rlimit["soft"], rlimit["hard"])
    return list(seen.values())


def _rlimit(number: int, soft: int, hard: int) -> Json:
    return {"resource": number, "soft": soft & _RLIM_INFINITY, "hard": hard & _RLIM_INFINITY}


def inherit_rlimits(spec: Json, own: Mapping[str, tuple[int, int]]) -> Json:
    """A process with the caller's own limits where config.json sets none."""
    given = {entry["resource"] for entry in spec["rlimits"]}
    inherited = [_rlimit(RLIMITS.index(name), *limit) for name, limit in own.items()]
    return {**spec, "rlimits": spec["rlimits"] + [entry for entry in inherited if entry["resource"] not in given]}
