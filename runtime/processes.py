"""Processes of the guest: what they are given, what `ps` says of them, one that `exec` started."""

from __future__ import annotations

import errno as errno_module
import time

from runtime import vmm
from runtime.errors import VmmError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runtime.vmm import Control

    Json = dict[str, Any]


class Stdio:
    """Host descriptors for stdin, stdout and stderr; None is /dev/null. Borrowed: the callee duplicates what it keeps.

    With a terminal, all three are the host side of it: pass the *slave* of a pty pair whose master you keep
    (or a user's own terminal in raw mode).
    """

    __slots__ = ("stderr", "stdin", "stdout")

    def __init__(self, stdin: int | None = None, stdout: int | None = None, stderr: int | None = None) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    def all(self) -> tuple[int | None, int | None, int | None]:
        """In order."""
        return self.stdin, self.stdout, self.stderr


class Process:
    """One process of the guest, as `ps` lists it."""

    __slots__ = ("command", "cpu_ns", "pid", "ppid", "rss_bytes", "start_ns", "state", "threads", "tty", "uid")

    def __init__(self, info: Json) -> None:
        self.pid = int(info["pid"])
        self.ppid = int(info.get("ppid", 0))
        self.uid = int(info.get("uid", 0))
        state = info.get("state", "?")
        #: R, S, D, T, Z as in proc(5).
        self.state = chr(state) if isinstance(state, int) else str(state)
        self.threads = int(info.get("threads", 1))
        self.rss_bytes = int(info.get("rss_bytes", 0))
        self.cpu_ns = int(info.get("cpu_ns", 0))
        self.start_ns = int(info.get("start_ns", 0))
        self.tty = str(info.get("tty", ""))
        self.command = str(info.get("command", ""))


class Exec:
    """A process started by `Container.exec`; it holds one connection to the VMM, close it when done."""

    def __init__(self, signal: Callable[..., None], control: Control, number: int, pid: int) -> None:
        self._signal = signal
        self._control = control
        self._code: int | None = None
        #: The request's id, by which the VMM knows it.
        self.number = number
        #: The guest's process id.
        self.pid = pid

    def fileno(self) -> int:
        """Readable (poll) when the process has ended: then `wait` does not block."""
        return self._control.fileno()

    def detach(self) -> int:
        """Give the connection away, for a proxy."""
        return self._control.detach()

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code (128+n for a signal), None at the timeout; 255 when the VM went away under it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._code is None:
            self._control.set_timeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
            try:
                message = self._control.receive()
            except VmmError as error:
                if error.errno == errno_module.ETIMEDOUT:
                    return None
                self._code = 255
                break
            if message.get("event") == "exit":
                self._code = vmm.exit_code(int(message["status"]))
        return self._code

    def kill(self, signal: int) -> None:
        """Signal this process. NotFound when it is gone."""
        self._signal(signal, pid=self.pid)

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal its size."""
        self._control.send("resize", exec=self.number, rows=rows, columns=columns)

    def close_stdin(self) -> None:
        """End of file on its stdin."""
        self._control.send("close_stdin", exec=self.number)

    def close(self) -> None:
        """Let go of the connection. The process runs on."""
        self._control.close()
