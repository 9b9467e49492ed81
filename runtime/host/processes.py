"""Processes that we started: known by id *and* start time, so that one which got the id later is never taken for it."""

from __future__ import annotations

import os

from runtime.errors import HostError

_SIGKILL = 9


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 when the process is gone or a zombie."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fields = os.read(fd, 4096).rpartition(b")")[2].split()
    except OSError:
        return 0
    finally:
        os.close(fd)
    if fields[0] in (b"Z", b"X", b"x"):
        return 0
    return int(fields[19])


def alive(pid: int, started: int) -> bool:
    """Whether the process we once started still runs."""
    return pid > 0 and started > 0 and start_time(pid) == started


def wait_gone(pid: int, start_time: int, timeout: float | None) -> bool:
    """Until the process is a zombie or gone."""
    import select

    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError as error:
        raise HostError(f"pidfd_open: {error.strerror}", error.errno or 0) from error
    try:
        if not alive(pid, start_time):
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    finally:
        os.close(fd)


def kill(pid: int, start_time: int, *, wait: bool = True) -> None:
    """SIGKILL to the process we started, not to one that got its id; reaped when it is our child."""
    if not pid:
        return
    if alive(pid, start_time):
        try:
            os.kill(pid, _SIGKILL)
        except ProcessLookupError:
            return
        if wait and not wait_gone(pid, start_time, 10):
            raise HostError(f"process {pid} does not die")
