"""A command line that stands in for the container: its terminal, its signals, its exit code.

The VMM reads and writes the user's terminal itself: we put it in raw mode, tell the guest its size and put it back at
the end. No byte of it passes through Python.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

_FORWARDED = "SIGHUP SIGINT SIGQUIT SIGTERM SIGUSR1 SIGUSR2 SIGALRM".split()


def window_size(fd: int) -> tuple[int, int]:
    """Rows and columns; zeros when it has none."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return 0, 0
    return size.lines, size.columns


def terminal_fd() -> int | None:
    """The first of stdin, stdout, stderr that is a terminal."""
    return next((fd for fd in (0, 1, 2) if os.isatty(fd)), None)


class RawTerminal:
    """Raw mode for as long as the `with` lasts; nothing when there is no terminal."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._before: list[Any] | None = None

    def __enter__(self) -> RawTerminal:  # noqa: PYI034 - Self lives in typing, whose import costs 7 ms
        if self._fd is not None:
            import termios

            self._before = termios.tcgetattr(self._fd)
            termios.tcsetattr(self._fd, termios.TCSADRAIN, raw(self._before))
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None and self._before is not None:
            import termios

            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


def raw(attributes: list[Any]) -> list[Any]:
    """cfmakeraw(3), on a copy."""
    import termios as t

    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = attributes
    iflag &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
    oflag &= ~t.OPOST
    lflag &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
    cflag = cflag & ~(t.CSIZE | t.PARENB) | t.CS8
    cc = list(cc)
    cc[t.VMIN], cc[t.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, cc]


def make_raw(fd: int) -> None:
    """Raw mode for good: the guest's terminal does the line discipline."""
    import termios

    termios.tcsetattr(fd, termios.TCSANOW, raw(termios.tcgetattr(fd)))


def forward_signals(
    kill: Callable[[int], None], resize: Callable[[int, int], None] | None = None, terminal: int | None = None
) -> None:
    """From now on, what this process is sent goes to the container; a window that changes size too."""
    import _signal as signal  # type: ignore[import-not-found]  # signal itself builds enums for 4 ms

    def forward(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        kill(number)

    for name in _FORWARDED:
        signal.signal(getattr(signal, name), forward)
    if resize is not None and terminal is not None:

        def winch(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
            resize(*window_size(terminal))

        signal.signal(signal.SIGWINCH, winch)
