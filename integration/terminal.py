"""A program on a terminal of its own, as a person would use it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

ROWS, COLUMNS = 33, 101


def talk(
    command: Sequence[str | os.PathLike[str]],
    typed: bytes,
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float = 60,
) -> tuple[bytes, int]:
    """Run the command on a terminal of ROWS and COLUMNS, type, and read until it has ended.

    Return what the terminal showed, and the exit code. TimeoutExpired when it has not ended in time.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    shown = b""
    deadline = time.monotonic() + seconds
    try:
        os.write(master, typed)
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([master], [], [], min(left, 0.1))[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                shown += os.read(master, 65536)
            except OSError:  # EIO: nobody has the terminal any more
                break
        return shown, process.wait(max(1.0, deadline - time.monotonic()))
    finally:
        process.kill()
        process.wait()
        os.close(master)
