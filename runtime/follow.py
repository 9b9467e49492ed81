"""Threads that follow a VMM's events while the main thread waits for its end."""

from __future__ import annotations

import os
import threading

from runtime.errors import LiteboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.vmm import Control

    Json = dict[str, Any]


class Follower(threading.Thread):
    """Reads one `events` connection to its end."""

    def __init__(self, connection: Control, *, trace_to: int | None = None) -> None:
        super().__init__(daemon=True)
        self._connection = connection
        self._trace_to = trace_to
        #: What the VMM's last event said it had done.
        self.final_stats: Json = {}

    def run(self) -> None:
        try:
            self._connection.set_timeout(None)
            self._connection.send("events")
            while True:
                self._event(self._connection.receive())
        except LiteboxError:
            return  # the VMM has ended, and the connection with it

    def _event(self, message: Json) -> None:
        if message.get("event") == "trace" and self._trace_to is not None:
            write_all(self._trace_to, (message.get("line", "") + "\n").encode())
        elif message.get("event") == "exit" and "exec" not in message:
            self.final_stats = message.get("stats") or {}


def write_all(fd: int, data: bytes) -> None:
    """write(2) until all of it is out."""
    while data:
        data = data[os.write(fd, data) :]


def summary(stats: Json, vcpus: int, memory: int, started_ms: float) -> list[str]:
    """What `do --verbose` says at the end."""
    lines = [f"litebox: {vcpus} vCPUs, up to {memory >> 20} MiB, started in {started_ms:.1f} ms"]
    for name, value in stats.items():
        if isinstance(value, dict):
            counts = {kind: count for kind, count in value.items() if isinstance(count, int)}
            lines.append(f"litebox: {name.replace('_', ' ')}: {sum(counts.values())}")
            if name == "requests" and counts:
                kinds = sorted(counts, key=lambda kind: -counts[kind])
                lines.append("litebox:   " + ", ".join(f"{kind} {counts[kind]}" for kind in kinds))
        elif isinstance(value, int | float):
            lines.append(f"litebox: {name.replace('_', ' ')}: {value}")
    return lines
