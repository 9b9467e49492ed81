"""Pid files, and descriptors that the caller says are open."""

from __future__ import annotations

import os

from runtime.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def write_pid_file(path: str, pid: int) -> None:
    """Atomically: whoever waits for the file finds the number in it."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        raise HostError(f"--pid-file {path}: {error.strerror}", error.errno or 0) from error


def check_files(files: Sequence[int]) -> None:
    """--preserve-fds: every one of them must be open."""
    for fd in files:
        try:
            os.fstat(fd)
        except OSError as error:
            raise HostError(f"--preserve-fds: descriptor {fd} is not open", error.errno or 0) from error
