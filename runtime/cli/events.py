"""events and trace: what a container does, as it does it."""

from __future__ import annotations

import os
import sys

from runtime import fastjson
from runtime.cli.lifecycle import runtime_of
from runtime.errors import InvalidArgument, LiteboxError, WrongState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.cli.flags import Parsed
    from runtime.cli.main import Context
    from runtime.container import Container

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _duration(text: str) -> float:
    """As Go writes them: 5s, 500ms, 1m30s."""
    total, rest = 0.0, text
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = next((unit for unit in ("ms", "s", "m", "h") if rest.startswith(unit)), None)
        if not digits or unit is None:
            raise InvalidArgument(f"--interval: found {text!r}; allowed: durations like 5s or 500ms")
        total += float(digits) * _UNITS[unit]
        rest = rest[len(unit) :]
    if total <= 0:
        raise InvalidArgument(f"--interval: found {text!r}; allowed: more than nothing")
    return total


def _print(kind: str, container: Container, data: Any) -> None:
    print(fastjson.dumps({"type": kind, "id": container.id, "data": data}), flush=True)


def events_command(context: Context, parsed: Parsed) -> int:
    """Statistics at every interval and events in between, until the container ends."""
    interval = _duration(parsed.text("interval"))
    container = runtime_of(context).load(parsed.args[0])
    if container.status() not in ("created", "running", "paused"):
        raise WrongState(f"container {container.id!r} is not running")
    if parsed.on("stats"):
        _print("stats", container, container.stats())
        return 0
    import threading

    ended = threading.Event()

    def follow() -> None:
        try:
            for event in container.events():
                if event["event"] == "oom":
                    _print("oom", container, {key: value for key, value in event.items() if key != "event"})
        except LiteboxError:
            pass
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    while True:
        try:
            _print("stats", container, container.stats())
        except LiteboxError:
            if container.status() == "stopped":
                return 0
            raise
        if ended.wait(interval):
            return 0


def trace_command(context: Context, parsed: Parsed) -> int:
    """Of a container, until it ends or we are interrupted; or of a command in a sandbox."""
    arguments = sys.argv[sys.argv.index("trace") + 1 :] if "trace" in sys.argv else parsed.args
    if arguments[:1] == ["--"] or len(parsed.args) > 1:
        return _trace_command(context, parsed)
    if len(parsed.args) != 1:
        raise InvalidArgument("usage: litebox trace ID; or litebox trace -- COMMAND [ARG...]")
    from runtime.follow import write_all

    container = runtime_of(context).load(parsed.args[0])
    container.trace(True)
    try:
        for event in container.events():
            if event["event"] == "trace":
                write_all(1, (event.get("line", "") + "\n").encode())
    finally:
        try:
            container.trace(False)
        except LiteboxError:
            pass
    return 0


def _trace_command(context: Context, parsed: Parsed) -> int:
    from runtime import sandbox
    from runtime.cli.sandbox import run

    request = sandbox.Request(parsed.args, os.getcwd(), os.environ)
    if os.geteuid() == 0:
        request.gid = os.getegid()
    return run(context, request, trace=True)
