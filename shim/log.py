"""The shim's log: lines on descriptor 2, which the daemon points at the bundle's `log` FIFO and containerd copies into
its own log.

Lines look like logrus's text format, as those of containerd's own shims do. A FIFO that nobody reads must not stop the
shim: it is opened non-blocking, and a line that does not fit is dropped.
"""

from __future__ import annotations

import os
import time

DEBUG, INFO, WARNING, ERROR = range(4)
_NAMES = ("debug", "info", "warning", "error")

_threshold = INFO
_fields = ""


def configure(*, debug: bool, **fields: str) -> None:
    """Set the threshold and the fields that every line carries."""
    global _threshold, _fields
    _threshold = DEBUG if debug else INFO
    _fields = "".join(f" {name}={value}" for name, value in fields.items())


def write(level: int, message: str, **fields: object) -> None:
    if level < _threshold:
        return
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09d}Z"
    extra = "".join(f" {name}={_quoted(str(value))}" for name, value in fields.items())
    line = f'time="{stamp}" level={_NAMES[level]} msg={_quoted(message)}{_fields}{extra}\n'
    try:
        os.write(
            2, line.encode(errors="replace")[:4095]
        )  # one write of at most PIPE_BUF: lines of two shims do not mix
    except OSError:
        pass  # nobody reads: a log is not worth a container


def debug(message: str, **fields: object) -> None:
    write(DEBUG, message, **fields)


def info(message: str, **fields: object) -> None:
    write(INFO, message, **fields)


def warning(message: str, **fields: object) -> None:
    write(WARNING, message, **fields)


def error(message: str, **fields: object) -> None:
    write(ERROR, message, **fields)


def exception(where: str, error: BaseException) -> None:
    """Log an error that nobody is there to be told of, with where it was raised."""
    trace = error.__traceback__
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    write(ERROR, f"{where}: {type(error).__name__}: {error}", at=" ".join(places))


def _quoted(text: str) -> str:
    if text and all(char.isalnum() or char in "-._/@:" for char in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
