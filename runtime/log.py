"""The log as runc's callers read it: JSON lines (level, msg, time) or text, in a file or on standard error.

An error also goes to standard error as one line, for the person at the terminal, when the log is a file.
"""

from __future__ import annotations

import os
import sys
import time

from runtime import fastjson
from runtime.errors import HostError, InvalidArgument


def rfc3339(seconds: float) -> str:
    """UTC with nanosecond places, as Go prints it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e9):09d}Z"


class Log:
    """Where messages go."""

    def __init__(self) -> None:
        self.fd: int | None = None
        self._json = False
        self._debug = False

    def open(self, path: str, format: str, *, debug: bool) -> None:
        """Take the global flags."""
        if format not in ("text", "json"):
            raise InvalidArgument(f"--log-format: found {format!r}; allowed: text, json")
        self._json = format == "json"
        self._debug = debug
        if path:
            try:
                self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise HostError(f"--log: {path}: {error.strerror}", error.errno or 0) from error

    def debug(self, message: str) -> None:
        if self._debug:
            self._write("debug", message)

    def warning(self, message: str) -> None:
        self._write("warning", message)

    def failure(self, message: str) -> None:
        message = message.replace("\n", " ")
        if self.fd is not None or self._json:
            self._write("error", message)
        if self.fd is not None or not self._json:
            print(f"litebox: {message}", file=sys.stderr)

    def _write(self, level: str, message: str) -> None:
        now = rfc3339(time.time())
        if self._json:
            line = fastjson.dumps({"level": level, "msg": message, "time": now})
        else:
            line = f'time="{now}" level={level} msg={fastjson.dumps(message)}'
        data = (line + "\n").encode()
        try:
            os.write(2 if self.fd is None else self.fd, data)
        except OSError:
            return
