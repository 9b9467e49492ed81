"""update: the limits of a running container."""

from __future__ import annotations

import sys

from runtime import fastjson
from runtime.cli.lifecycle import runtime_of
from runtime.errors import InvalidArgument, InvalidSpec
from runtime.plan.size import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.cli.flags import Parsed
    from runtime.cli.main import Context

    Json = dict[str, Any]

_NUMBERS = (
    ("cpu-period", "cpu", "period"),
    ("cpu-quota", "cpu", "quota"),
    ("cpu-share", "cpu", "shares"),
    ("cpu-burst", "cpu", "burst"),
    ("cpu-rt-period", "cpu", "realtimePeriod"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime"),
    ("cpu-idle", "cpu", "idle"),
    ("blkio-weight", "blockIO", "weight"),
    ("pids-limit", "pids", "limit"),
)
_SIZES = (
    ("memory", "memory", "limit"),
    ("memory-reservation", "memory", "reservation"),
    ("memory-swap", "memory", "swap"),
)
_TEXTS = (("cpuset-cpus", "cpu", "cpus"), ("cpuset-mems", "cpu", "mems"))
_IGNORED = ("kernel-memory", "kernel-memory-tcp")
_REFUSED = ("l3-cache-schema", "mem-bw-schema")


def update_command(context: Context, parsed: Parsed) -> int:
    """Apply the resources object of the flags."""
    for name in _REFUSED:
        if parsed.text(name):
            raise InvalidArgument(f"--{name}: Intel RDT is not supported")
    resources = _read(parsed.text("resources")) if parsed.text("resources") else _of_flags(parsed)
    container = runtime_of(context).load(parsed.args[0])
    container.update(resources)
    return 0


def _of_flags(parsed: Parsed) -> Json:
    resources: Json = {}
    for flag, group, key in _NUMBERS:
        if parsed.text(flag):
            resources.setdefault(group, {})[key] = parsed.integer(flag)
    for flag, group, key in _SIZES:
        text = parsed.text(flag)
        if text:
            size = -1 if text == "-1" else parse_size(text)
            if size is None:
                raise InvalidArgument(f"--{flag}: found {text!r}; allowed: bytes, a number with k, m or g, or -1")
            resources.setdefault(group, {})[key] = size
    for flag, group, key in _TEXTS:
        if parsed.text(flag):
            resources.setdefault(group, {})[key] = parsed.text(flag)
    return resources


def _read(path: str) -> Json:
    from oci_spec.validate import check_resources

    try:
        if path == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                data = file.read()
        resources = fastjson.loads(data)
    except OSError as error:
        raise InvalidArgument(f"--resources {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidSpec(f"--resources {path} is not JSON: {error}") from error
    problems = check_resources(resources)
    if problems:
        raise InvalidSpec(f"--resources {path}: {problems[0]}")
    return dict(resources)
