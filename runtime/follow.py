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
        connection.request("events")
        self._connection = connection
        self._trace_to = trace_to
        #: What the VMM's last event said it had done.
        self.final_stats: Json = {}

    def run(self) -> None:
        try:
            self._connection.set_timeout(None)
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
    """What `do --verbose` says at the end: the machine, what the guest did in it, what it cost the host."""

    def count(name: str) -> int:
        value = stats.get(name, 0)
        return sum(value.values()) if isinstance(value, dict) else int(value)

    used = (count("frames_total") - count("frames_free")) >> 8
    present = count("ram_bytes") >> 20
    calls = count("syscalls")
    patched, failed = count("syscalls_patched"), count("syscalls_failed")
    kinds = sorted(stats.get("requests", {}).items(), key=lambda item: -item[1])
    most = ", ".join(f"{number} {name}" for name, number in kinds)
    machine = f"{vcpus} vCPUs, {present} of up to {memory >> 20} MiB of memory present, {used} MiB in use"
    served = f"{calls} system calls served ({patched} without a mode switch, {failed} answered an error)"
    return [
        f"litebox: {machine}; program started after {started_ms:.1f} ms",
        f"litebox: {served}, {count('page_faults')} page faults, {count('context_switches')} context switches",
        f"litebox: {count('requests')} host requests ({most}), {count('exits')} exits of the VM",
    ]
