"""A pty pair whose master goes to whoever called us: the console socket of runc's contract."""

from __future__ import annotations

import os
import sys

from runtime.cli.foreground import make_raw
from runtime.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Pty:
    """Master and slave. The slave is raw: the line discipline that counts is the guest's."""

    def __init__(self, console_size: dict[str, Any] | None) -> None:
        self.master, self.slave = os.openpty()
        make_raw(self.slave)
        if console_size:
            import fcntl
            import termios

            rows, columns = int(console_size.get("height", 0)), int(console_size.get("width", 0))
            size = rows.to_bytes(2, sys.byteorder) + columns.to_bytes(2, sys.byteorder) + bytes(4)
            fcntl.ioctl(self.slave, termios.TIOCSWINSZ, size)

    def send_master(self, path: str) -> None:
        """To the listening unix socket at `path`, with the terminal's name as message."""
        import _socket

        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            connection.connect(path)
            packed = self.master.to_bytes(4, sys.byteorder)
            name = os.ttyname(self.slave).encode()
            connection.sendmsg([name], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
        except OSError as error:
            raise HostError(f"--console-socket {path}: {error.strerror or error}", error.errno or 0) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Both ends of ours."""
        os.close(self.master)
        os.close(self.slave)
