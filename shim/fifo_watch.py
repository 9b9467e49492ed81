"""Tells what a client does at its end of a process's FIFOs, through inotify(7).

That it has closed its end of stdin (IN_CLOSE_WRITE): a FIFO without a writer reads as end of file, also before its
first writer came. So the shim keeps a writer of its own open until a client has come and gone. CloseIO is not enough: a
client that reaches the end of its own input before the task exists never sends it (ctr 1.6).

That it reads an output (IN_ACCESS): see `shim.stdio`.
"""

from __future__ import annotations

import os
import threading

from runtime.host.linux import syscall
from shim.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.loop import Loop

# x86-64 system call numbers, and constants of inotify(7).
SYS_INOTIFY_ADD_WATCH, SYS_INOTIFY_RM_WATCH, SYS_INOTIFY_INIT1 = 254, 255, 294
IN_CLOEXEC, IN_NONBLOCK = 0o2000000, 0o4000
IN_ACCESS, IN_CLOSE_WRITE = 0x1, 0x8
HEADER_BYTES = 16


class FifoWatch:
    """One inotify descriptor for all FIFOs of a shim, made with the first of them."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._fd = -1
        self._callbacks: dict[int, Callable[[], None]] = {}

    def watch(self, path: str, callback: Callable[[], None], event: int = IN_CLOSE_WRITE) -> int:
        """Have `callback` called at each `event` of `path`; return what `forget` takes."""
        with self._lock:
            if self._fd < 0:
                self._fd = syscall(SYS_INOTIFY_INIT1, IN_CLOEXEC | IN_NONBLOCK)
                self._loop.add(self._fd, READ, self._ready)
            watch = syscall(SYS_INOTIFY_ADD_WATCH, self._fd, os.fsencode(path), event)
            self._callbacks[watch] = callback
            return watch

    def forget(self, watch: int) -> None:
        """No more calls for this watch. Idempotent."""
        with self._lock:
            if self._callbacks.pop(watch, None):
                try:
                    syscall(SYS_INOTIFY_RM_WATCH, self._fd, watch)
                except OSError:  # gone with its file
                    pass

    def once(self, path: str, event: int, seconds: float, call: Callable[[], None]) -> int:
        """Make `call` at the first `event` of `path`, or when `seconds` have passed; return what `forget` takes.

        On the loop's thread.
        """

        def happened() -> None:
            if watch in self._callbacks:
                self.forget(watch)
                call()

        watch = self.watch(path, happened, event)
        self._loop.run_later(seconds, happened)
        return watch

    def _ready(self, _events: int) -> None:
        data = os.read(self._fd, 4096)
        at = 0
        while at < len(data):
            watch = int.from_bytes(data[at : at + 4], "little", signed=True)
            mask = int.from_bytes(data[at + 4 : at + 8], "little")
            at += HEADER_BYTES + int.from_bytes(data[at + 12 : at + 16], "little")
            with self._lock:
                callback = self._callbacks.get(watch)
            if callback and mask & (IN_ACCESS | IN_CLOSE_WRITE):
                callback()
