"""Threads for calls that block. One is kept, more are started while all are busy, and those end after a few idle
seconds.

The bound is far above what containerd asks of one pod at a time; calls beyond it queue. Calls that wait for long (Wait)
must not come here: they answer through `shim.deferred`.
"""

from __future__ import annotations

import threading
from _queue import Empty, SimpleQueue  # the C half of `queue`, whose Python half is not needed

from shim import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 64
IDLE_SECONDS = 5.0
STACK_BYTES = 512 << 10  # of address space: a handler nests a few dozen frames


class Workers:
    """A pool that grows on demand and shrinks when idle."""

    def __init__(self, limit: int = LIMIT, idle_seconds: float = IDLE_SECONDS) -> None:
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._threads = 0
        self._pending = 0  # calls handed in and not yet finished
        threading.stack_size(STACK_BYTES)

    def submit(self, call: Callable[[], None]) -> None:
        """Run `call` on some thread, soon."""
        with self._lock:
            self._pending += 1
            grow = self._threads < min(self._pending, self._limit)
            if grow:
                self._threads += 1
        self._queue.put(call)
        if grow:
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                call = self._queue.get(timeout=self._idle_seconds)
            except Empty:
                with self._lock:
                    if self._pending == 0 and self._threads > 1:
                        self._threads -= 1
                        return
                    keep = self._threads == 1
                if keep:
                    call = self._queue.get()
                else:
                    continue
            try:
                call()
            except Exception as error:
                log.exception("worker", error)
            with self._lock:
                self._pending -= 1
