"""Loggers: the programs behind `binary://` (nerdctl and docker-like tools log this way).

A logger gets the container's outputs as descriptors 3 and 4 and a pipe as 5. It closes the pipe when it is ready; under
`binary-v2` it writes a byte first, so that a crash is told from readiness. The URI's query is its command line:
`?key=value&key=value` becomes `key value key value`. Its environment is CONTAINER_ID and CONTAINER_NAMESPACE and
nothing else. Source: containerd core/runtime/v2/logging/logging_unix.go.
"""

from __future__ import annotations

import os
import select
import time

from shim import log
from shim.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SIGPIPE = 13  # Python ignores it, and children would inherit that
FIRST_FREE = 16  # where descriptors are parked, out of the way of 3, 4 and 5


class Logger:
    """A running logger."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def finish(self, patience: float) -> None:
        """Give it time to write what is left, now that its outputs have ended; then end it. Reaps it."""
        for signal, seconds in ((0, patience), (15, 2.0), (9, 2.0)):
            if signal:
                log.warning("the logger does not end by itself", pid=self.pid, signal=signal)
                os.kill(self.pid, signal)
            end = time.monotonic() + seconds
            pause = 0.001
            while time.monotonic() < end:
                try:
                    done, _status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:
                    return
                if done:
                    return
                time.sleep(pause)
                pause = min(pause * 2, 0.05)


def command_of(uri: str) -> list[str]:
    """The program and arguments of a `binary://PATH?QUERY` URI."""
    path, _, query = uri.partition("://")[2].partition("?")
    if not path.startswith("/"):
        raise InvalidArgumentError(f"a logger needs an absolute path: {uri!r}")
    arguments = [unquote(path, plus=False)]
    for pair in query.split("&") if query else ():
        key, _, value = pair.partition("=")
        arguments += [unquote(key), unquote(value)]
    return arguments


def unquote(text: str, *, plus: bool = True) -> str:
    """Undo percent-encoding (RFC 3986, 2.1) and, in a query, `+` for a space.

    By hand: urllib.parse is 1 MiB that stays.
    """
    if plus:
        text = text.replace("+", " ")
    head, *parts = text.encode().split(b"%")
    out = bytearray(head)
    for part in parts:
        try:
            out += bytes((int(part[:2], 16),)) + part[2:]
        except ValueError:
            raise InvalidArgumentError(f"malformed percent-encoding in {text!r}") from None
    return out.decode(errors="surrogateescape")


def run_logger(uri: str, container_id: str, namespace: str, stdout: int, stderr: int, seconds: float) -> Logger:
    """Start the logger on the read ends `stdout` and `stderr` (borrowed) and wait until it is ready."""
    command = command_of(uri)
    ready, said = os.pipe()
    try:
        pid = _spawn(command, [stdout, stderr, said], {"CONTAINER_ID": container_id, "CONTAINER_NAMESPACE": namespace})
    except OSError as error:
        os.close(ready)
        raise NotFoundError(f"cannot run logger {command[0]}: {error.strerror}") from error
    finally:
        os.close(said)
    logger = Logger(pid)
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    try:
        if not poll.poll(seconds * 1000):
            logger.finish(0)
            raise FailedPreconditionError(f"logger {command[0]} was not ready within {seconds:g} s")
        if not os.read(ready, 1) and uri.startswith("binary-v2:"):
            logger.finish(0)
            raise FailedPreconditionError(f"logger {command[0]} ended before it was ready")
    finally:
        os.close(ready)
    return logger


def _spawn(command: Sequence[str], descriptors: Sequence[int], environment: dict[str, str]) -> int:
    """Start `command` with `descriptors` as 3, 4, … and its standard streams on /dev/null."""
    import fcntl

    parked: list[int] = []
    try:
        parked.extend(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for fd in descriptors)
        actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]]
        actions = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + index) for index, fd in enumerate(parked)]
        return os.posix_spawn(
            command[0], list(command), environment, file_actions=actions, setpgroup=0, setsigdef=[SIGPIPE]
        )
    finally:
        for fd in parked:
            os.close(fd)
