"""A process's standard streams, as containerd names them, turned into descriptors that go straight to the VMM.

    ""                 nothing: /dev/null
    /path              a FIFO whose other end is containerd or its client
    fifo:///path       the same
    file:///path       a file, appended to, for both outputs
    binary:///p?k=v    a logger: a program that is given the read ends as descriptors 3 and 4 and says on 5 that it is
    ready

No byte passes through the shim: the VMM reads and writes these descriptors itself, and the container's terminal, if it
has one, is the library OS's own. So a slow reader slows the container and nothing else, and a fast exit loses nothing:
the bytes are in the FIFO when the process is gone.

The shim keeps the other direction of each FIFO open while the process lives. A reader of our own on stdout means that
the container neither blocks in open nor dies of SIGPIPE while containerd restarts; a writer on stdin means that the
container sees no end of file before the client's first byte. That writer is dropped when a client has come and closed
its end, or by CloseIO: the container then reads what is left, and after it the end of file. `close` drops them all once
the process has ended, and only then readers see end of file.

An exit is not announced before the client has read what is in its FIFOs (`when_read`). A client that hears of an exit
cancels its streams: one that is still being opened is given up (containerd's package fifo, `Close`), and those of
containerd 2.4 are closed wherever they are (pkg/cio/io_unix.go, `copyIO`).

Source of the URI forms: containerd core/runtime/v2/README.md, "Logging".
"""

from __future__ import annotations

import os
import stat
import threading
import time
from fcntl import F_SETPIPE_SZ, fcntl, ioctl
from functools import partial

from shim import log
from shim.errors import InvalidArgumentError, NotFoundError
from shim.fifo_watch import IN_ACCESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.fifo_watch import FifoWatch
    from shim.logger import Logger

    Streams = tuple[str, str, str]

ENXIO = 6
FIONREAD = 0x541B
OUTPUT_BYTES = 1 << 20  # in a FIFO until its reader comes to them: a machine that has to wait pays for waking up
READER_SECONDS = 5.0  # for a client to open the output it asked for, on a busy machine too
IDLE_SECONDS = 2.0  # without a read, until a client is taken not to come for what an ended process has written
UNREAD_SECONDS = 10.0  # for it to come to the end: what the process has left behind may go on writing
LOGGER_FINISH_SECONDS = 5.0
MAX_LOGGER_SECONDS = 10.0  # for a logger to become ready: containerd's own limit


class Stdio:
    """Three descriptors for the process (-1: none), and what is kept beside them.

    Owned by one process of a container.
    """

    def __init__(self, *, terminal: bool = False, watch: FifoWatch | None = None) -> None:
        self._watch = watch
        self._watched = -1
        self.terminal = terminal
        self.stdin = self.stdout = self.stderr = -1
        # Of the fields below: the client's end of file comes on the loop's thread, whatever is being done here.
        self._lock = threading.Lock()
        self._stdin_closed = False
        self._stdin_keeper = -1
        self._keepers: list[int] = []
        self._fifos: list[str] = []  # outputs
        self._logger: Logger | None = None

    def handed_over(self) -> None:
        """Close our copies of the process's descriptors: it has its own now."""
        for fd in {self.stdin, self.stdout, self.stderr} - {-1}:
            os.close(fd)
        self.stdin = self.stdout = self.stderr = -1

    def close_stdin(self) -> None:
        with self._lock:
            self._stdin_closed = True
            watched, self._watched = self._watched, -1
            keeper, self._stdin_keeper = self._stdin_keeper, -1
        if watched >= 0 and self._watch is not None:
            self._watch.forget(watched)
        if keeper >= 0:
            os.close(keeper)

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        self.handed_over()
        self.close_stdin()
        self._close_outputs()

    def _close_outputs(self) -> None:
        with self._lock:
            keepers, self._keepers = self._keepers, []
        for fd in keepers:
            os.close(fd)

    def when_read(self, call: Callable[[], None]) -> None:
        """Make `call` once the client has read what is in the outputs, or does not go on reading.

        For a process that has ended. On the loop's thread.
        """
        self._close_outputs()
        self._read_further(call, time.monotonic() + UNREAD_SECONDS, 0)

    def _read_further(self, call: Callable[[], None], end: float, before: int) -> None:
        """`before`: how many bytes were in the last FIFO before it was read, or the time for that was over."""
        while self._fifos and self._watch is not None:
            fifo = self._fifos[-1]
            left = unread(fifo)
            if left in (0, before) or time.monotonic() > end:
                self._fifos.pop()
                before = 0
                continue
            again = partial(self._read_further, call, end, left)
            watch = self._watch.once(fifo, IN_ACCESS, IDLE_SECONDS, again)
            if unread(fifo) == left:
                return
            self._watch.forget(watch)  # it was read before there was a watch
        call()

    def finish_logger(self) -> None:
        """Wait until the logger, if there is one, has written what it got. Blocks for a few seconds at most."""
        logger, self._logger = self._logger, None
        if logger is not None:
            logger.finish(LOGGER_FINISH_SECONDS)

    # Opening. `open_stdio` closes what is open when one of these fails.

    def open_stdin(self, path: str) -> None:
        fifo = is_fifo(path)
        if fifo and self._watch is not None:  # before there is a reader: until then no client's open can have succeeded
            self._watched = self._watch.watch(path, self.close_stdin)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.stdin = reader
        if fifo:
            keeper = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with self._lock:
                self._stdin_keeper = keeper
                gone = self._stdin_closed
            if gone:  # the client came and went since there is a reader
                self.close_stdin()
        os.set_blocking(reader, True)

    def open_output(self, path: str) -> int:
        if not is_fifo(path):
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._fifos.append(path)
        writer = open_beside_reader(path)
        self._keepers.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        if writer < 0:
            writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl(writer, F_SETPIPE_SZ, OUTPUT_BYTES)
        except OSError:  # beyond what the user may have in pipes (pipe(7)): the default will do
            pass
        return writer

    def open_file(self, path: str) -> None:
        os.makedirs(os.path.dirname(path) or "/", mode=0o755, exist_ok=True)
        self.stdout = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not self.terminal:
            self.stderr = os.dup(self.stdout)

    def open_logger(self, uri: str, container_id: str, namespace: str) -> None:
        from shim.logger import run_logger

        out_reader, self.stdout = os.pipe()
        err_reader, self.stderr = os.pipe()
        try:
            self._logger = run_logger(uri, container_id, namespace, out_reader, err_reader, MAX_LOGGER_SECONDS)
        finally:
            os.close(out_reader)
            os.close(err_reader)


def open_stdio(streams: Streams, *, terminal: bool, container_id: str, namespace: str, watch: FifoWatch) -> Stdio:
    """Open the streams of a process. Raises RpcError, with nothing left open, when one cannot be had."""
    stdin, stdout, stderr = streams
    stdio = Stdio(terminal=terminal, watch=watch)
    try:
        if stdin:
            stdio.open_stdin(_path(stdin))
        scheme = stdout.partition("://")[0] if "://" in stdout else ""
        if scheme in ("binary", "binary-v2"):
            stdio.open_logger(stdout, container_id, namespace)
        elif scheme == "file":
            stdio.open_file(stdout.removeprefix("file://").partition("?")[0])
        else:
            if stdout:
                stdio.stdout = stdio.open_output(_path(stdout))
            if stderr and not terminal:
                stdio.stderr = stdio.open_output(_path(stderr))
    except FileNotFoundError as error:
        stdio.close()
        raise NotFoundError(f"stdio: {error.filename or stdout}: {error.strerror}") from error
    except OSError as error:
        stdio.close()
        raise InvalidArgumentError(f"stdio: {error.filename or stdout}: {error.strerror}") from error
    except BaseException:
        stdio.close()
        raise
    return stdio


def open_beside_reader(path: str) -> int:
    """Open a FIFO for writing once the client is reading it, or opening it to read; -1 when it does not come.

    It stays non-blocking: no other process has this open file description, and the VMM then writes in large pieces.

    Waiting matters: a process that ended before its client came would take its output with it, and leave the client
    waiting for a writer. Before our own keeper is there, ENXIO tells that there is no reader (fifo(7)).
    """
    end = time.monotonic() + READER_SECONDS
    pause = 0.001
    while True:
        try:
            writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != ENXIO:
                raise
            if time.monotonic() > end:
                log.warning("nobody reads the output", fifo=path)
                return -1
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        else:
            return writer


def unread(path: str) -> int:
    """How many bytes are in a FIFO that has a reader, or one that is opening it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # nobody reads it, or its client has removed it
        return 0
    try:
        count = bytearray(4)
        ioctl(fd, FIONREAD, count)
        return int.from_bytes(count, "little")
    finally:
        os.close(fd)


def is_fifo(path: str) -> bool:
    return stat.S_ISFIFO(os.stat(path).st_mode)


def _path(stream: str) -> str:
    if "://" not in stream:
        return stream
    scheme, _, path = stream.partition("://")
    if scheme != "fifo":
        raise InvalidArgumentError(f"stdio: unsupported scheme {scheme!r} in {stream!r}")
    return path
