"""Exits of child processes, and of those that become children because the shim is a subreaper.

A process that matters is watched by its pidfd on the event loop, so no signal can be lost and no pid mistaken. What
nobody watches (a hook's left-over, a logger's child) comes to the shim when its parent dies; it is reaped a moment
after SIGCHLD, the moment being there so that code that waits for a child of its own is not robbed of the status.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # without the enumerations of `signal`: 4 ms and 1 MiB
import os

from runtime.host import linux
from shim import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.loop import Loop

PR_SET_CHILD_SUBREAPER = 36
ORPHAN_SECONDS = 2.0


class Reaper:
    """Watches processes of this shim."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._watched: set[int] = set()
        self._suspect = 0
        self._scheduled = False

    def install(self) -> None:
        """Have orphans reaped. On the main thread."""
        signal.signal(signal.SIGCHLD, lambda *_: self._loop.run_soon(self._look_later))

    def adopt_orphans(self) -> None:
        """Become the parent of orphaned descendants (prctl(2), PR_SET_CHILD_SUBREAPER)."""
        linux.prctl(PR_SET_CHILD_SUBREAPER, 1)

    def watch(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call `callback(exit code)` once `pid` has ended: 128 + signal for a killed one, 255 when nobody can know."""
        pidfd = os.pidfd_open(pid)
        self._watched.add(pid)

        def ended(_events: int) -> None:
            self._loop.remove(pidfd)
            os.close(pidfd)
            self._watched.discard(pid)
            callback(collect(pid))

        self._loop.add(pidfd, 1, ended)

    def _look_later(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.run_later(ORPHAN_SECONDS, self._look)

    def _look(self) -> None:
        """Reap the zombie that was there at the last look too."""
        self._scheduled = False
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            found = None
        if found is None:
            self._suspect = 0
            return
        if found.si_pid == self._suspect and found.si_pid not in self._watched:
            log.debug("reaped an orphan", orphan=found.si_pid)
            collect(found.si_pid)
            self._suspect = 0
        else:
            self._suspect = found.si_pid
        self._look_later()


def collect(pid: int) -> int:
    """Reap an ended child and return its exit code."""
    try:
        _, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 255
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
