"""One epoll loop, for everything of the shim that waits without a thread: sockets, pidfds, FIFOs.

Only the loop's thread calls the callbacks. Any thread may add, change or remove a descriptor (epoll(7) allows it while
another thread waits) and may hand over a call with `run_soon`. A callback that raises is logged and does not end the
loop.
"""

from __future__ import annotations

import os
import select
from collections import deque
from time import monotonic

from shim import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR


class Loop:
    """The shim's event loop; `run` returns after `stop`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._soon: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self.add(self._wake, READ, self._awake)

    def add(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` whenever `fd` is ready; the caller removes it before closing it."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        if self._callbacks.pop(fd, None):
            self._epoll.unregister(fd)

    def run_soon(self, call: Callable[[], None]) -> None:
        """Have the loop's thread make `call`. From any thread."""
        self._soon.append(call)
        os.eventfd_write(self._wake, 1)

    def run_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Have the loop's thread make `call` after `seconds`. From any thread."""
        self.run_soon(lambda: self._timers.append((monotonic() + seconds, call)))

    def stop(self) -> None:
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        while not self._stopping:
            for fd, events in self._epoll.poll(self._patience()):
                if callback := self._callbacks.get(fd):
                    _guarded(lambda callback=callback, events=events: callback(events))  # type: ignore[misc]
            while self._soon:
                _guarded(self._soon.popleft())
            self._fire()

    def _patience(self) -> float:
        if not self._timers:
            return -1
        return max(0.0, min(at for at, _ in self._timers) - monotonic())

    def _fire(self) -> None:
        now = monotonic()
        due = [timer for timer in self._timers if timer[0] <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for _, call in due:
            _guarded(call)

    def _awake(self, _events: int) -> None:
        os.eventfd_read(self._wake)


def _guarded(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception as error:
        log.exception("event loop", error)
