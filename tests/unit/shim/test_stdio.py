"""Standard streams: who sees an end of file, and when; files; loggers."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.errors import Code, RpcError
from shim.fifo_watch import FifoWatch
from shim.logger import command_of
from shim.loop import Loop
from shim.stdio import Stdio, open_stdio


@pytest.fixture
def watch() -> Iterator[FifoWatch]:
    loop = Loop()
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield FifoWatch(loop)
    loop.stop()
    thread.join(5)


@pytest.fixture
def fifos(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / name) for name in ("stdin", "stdout", "stderr")]
    for path in paths:
        os.mkfifo(path)
    return paths


def opened(watch: FifoWatch, stdin: str = "", stdout: str = "", stderr: str = "", *, terminal: bool = False) -> Stdio:
    return open_stdio((stdin, stdout, stderr), terminal=terminal, container_id="c", namespace="n", watch=watch)


def readable(fd: int, seconds: float) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


def test_nothing_is_nothing(watch: FifoWatch) -> None:
    stdio = opened(watch)
    assert (stdio.stdin, stdio.stdout, stdio.stderr) == (-1, -1, -1)
    stdio.close()


def test_output_nobody_reads_yet_is_kept(
    watch: FifoWatch, fifos: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shim.stdio.READER_SECONDS", 0.1)
    stdio = opened(watch, *fifos)
    assert capfd.readouterr().err.count("nobody reads") == 2
    os.write(stdio.stdout, b"early")  # no reader yet: neither blocked nor killed
    process = os.dup(stdio.stdout)
    stdio.handed_over()
    reader = os.open(fifos[1], os.O_RDONLY)
    assert os.read(reader, 10) == b"early"
    os.write(process, b"last")
    os.close(process)
    stdio.close()
    assert os.read(reader, 10) == b"last"
    assert os.read(reader, 10) == b""
    os.close(reader)


def test_output_waits_for_its_reader(watch: FifoWatch, fifos: list[str]) -> None:
    got: list[bytes] = []

    def client() -> None:
        time.sleep(0.2)
        with Path(fifos[1]).open("rb") as out, Path(fifos[2]).open("rb") as err:
            got.extend((out.read(), err.read()))

    thread = threading.Thread(target=client)
    thread.start()
    stdio = opened(watch, "", *fifos[1:])
    os.write(stdio.stdout, b"out")
    os.write(stdio.stderr, b"err")
    stdio.close()
    thread.join(5)
    assert got == [b"out", b"err"]


def test_stdin_ends_when_the_client_has_come_and_gone(watch: FifoWatch, fifos: list[str]) -> None:
    stdio = opened(watch, fifos[0])
    assert not readable(stdio.stdin, 0.1)  # no client yet: no end of file
    client = os.open(fifos[0], os.O_WRONLY)
    os.write(client, b"in")
    assert os.read(stdio.stdin, 10) == b"in"
    assert not readable(stdio.stdin, 0.1)
    os.close(client)
    assert readable(stdio.stdin, 5)
    assert os.read(stdio.stdin, 10) == b""
    stdio.close()


def test_a_client_that_comes_and_goes_while_stdin_is_opened_is_seen(
    watch: FifoWatch, fifos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = threading.Event()
    real_open, real_close_stdin = os.open, Stdio.close_stdin

    def open_and_let_the_client_write(path: str, flags: int, mode: int = 0o777) -> int:
        fd = real_open(path, flags, mode)
        if not flags & os.O_WRONLY:
            client = real_open(path, os.O_WRONLY)
            os.write(client, b"in")
            os.close(client)
            assert gone.wait(5)
        return fd

    def close_stdin(stdio: Stdio) -> None:
        real_close_stdin(stdio)
        gone.set()

    monkeypatch.setattr("shim.stdio.os.open", open_and_let_the_client_write)
    monkeypatch.setattr(Stdio, "close_stdin", close_stdin)
    stdio = opened(watch, fifos[0])
    assert os.read(stdio.stdin, 10) == b"in"
    assert readable(stdio.stdin, 0)
    assert os.read(stdio.stdin, 10) == b""
    stdio.close()


def test_an_exit_waits_until_its_output_is_read(watch: FifoWatch, fifos: list[str]) -> None:
    readers = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in fifos[1:]]
    stdio = opened(watch, "", *fifos[1:])
    os.write(stdio.stdout, b"out")
    os.write(stdio.stderr, b"err")
    stdio.handed_over()
    told = threading.Event()
    stdio.when_read(told.set)
    for reader in readers:
        for _byte in range(3):
            assert not told.wait(0.1)
            assert os.read(reader, 1)
    assert told.wait(1)
    for reader in readers:
        assert os.read(reader, 1) == b""
        os.close(reader)


@pytest.mark.parametrize("reader", ["absent", "idle", "late"])
def test_an_exit_does_not_wait_for_ever(
    watch: FifoWatch, fifos: list[str], monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    monkeypatch.setattr("shim.stdio.IDLE_SECONDS", 0.3)
    monkeypatch.setattr("shim.stdio.UNREAD_SECONDS", 0.5)
    client = os.open(fifos[1], os.O_RDONLY | os.O_NONBLOCK)
    stdio = opened(watch, "", fifos[1])
    os.write(stdio.stdout, b"out" * 100)
    stdio.handed_over()
    if reader == "absent":
        os.close(client)
    told = threading.Event()
    stdio.when_read(told.set)
    assert told.is_set() == (reader == "absent")
    deadline = time.monotonic() + 5
    while not told.wait(0.1):
        assert time.monotonic() < deadline
        if reader == "late":
            assert os.read(client, 1)


def test_close_stdin_loses_nothing(watch: FifoWatch, fifos: list[str]) -> None:
    stdio = opened(watch, fifos[0])
    client = os.open(fifos[0], os.O_WRONLY)
    os.write(client, b"in")
    stdio.close_stdin()
    os.write(client, b"put")
    os.close(client)
    assert os.read(stdio.stdin, 10) == b"input"
    assert os.read(stdio.stdin, 10) == b""
    stdio.close()


def test_a_terminal_has_one_output(watch: FifoWatch, fifos: list[str]) -> None:
    reader = os.open(fifos[1], os.O_RDONLY | os.O_NONBLOCK)
    stdio = opened(watch, *fifos, terminal=True)
    os.close(reader)
    assert stdio.stdout >= 0
    assert stdio.stderr == -1
    stdio.close()


def test_files_are_appended_to_by_both_outputs(watch: FifoWatch, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log"
    for text in (b"one ", b"two "):
        stdio = opened(watch, stdout=f"file://{path}", stderr=f"file://{path}")
        os.write(stdio.stdout, text)
        os.write(stdio.stderr, b"err ")
        stdio.close()
    assert path.read_bytes() == b"one err two err "


@pytest.mark.parametrize(
    "stdout, code",
    [
        ("/nonexistent/fifo", Code.NOT_FOUND),
        ("pigeon:///x", Code.INVALID_ARGUMENT),
        ("binary://x", Code.INVALID_ARGUMENT),
    ],
)
def test_what_cannot_be_opened(watch: FifoWatch, fifos: list[str], stdout: str, code: int) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(RpcError) as caught:
        opened(watch, stdin=fifos[0], stdout=stdout)
    assert caught.value.code == code
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1  # the watch's inotify


def test_the_command_line_of_a_logger() -> None:
    assert command_of("binary:///bin/l%20g?--a=b%20c&flag=&x=+") == ["/bin/l g", "--a", "b c", "flag", "", "x", " "]


LOGGER = """\
import os, sys
out = open(sys.argv[1], "a")
mode = sys.argv[3]
if mode == "crash":
    sys.exit(1)
if mode != "mute":
    if mode == "v2":
        os.write(5, b"!")
    os.close(5)
while data := os.read(3, 100):
    out.write(f"out {data!r} ")
while data := os.read(4, 100):
    out.write(f"err {data!r} ")
out.write(os.environ["CONTAINER_ID"] + os.environ["CONTAINER_NAMESPACE"] + str(len(os.environ)))
"""


def logger_uri(tmp_path: Path, scheme: str, mode: str) -> str:
    script = tmp_path / "logger.py"
    script.write_text(LOGGER)
    return f"{scheme}://{sys.executable}?{script}={tmp_path}/log&-={mode}"


@pytest.mark.parametrize("scheme, mode", [("binary", "v1"), ("binary-v2", "v2")])
def test_a_logger_gets_everything(watch: FifoWatch, tmp_path: Path, scheme: str, mode: str) -> None:
    stdio = opened(watch, stdout=logger_uri(tmp_path, scheme, mode))
    os.write(stdio.stdout, b"hello")
    os.write(stdio.stderr, b"oops")
    stdio.close()
    stdio.finish_logger()
    written = (tmp_path / "log").read_text()
    assert written.startswith("out b'hello' err b'oops' cn")


def test_a_logger_that_fails_is_an_error(watch: FifoWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RpcError, match="ended before it was ready"):
        opened(watch, stdout=logger_uri(tmp_path, "binary-v2", "crash"))
    monkeypatch.setattr("shim.stdio.MAX_LOGGER_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(RpcError, match="not ready"):
        opened(watch, stdout=logger_uri(tmp_path, "binary", "mute"))
    assert time.monotonic() - start < 5
    with pytest.raises(RpcError, match="cannot run"):
        opened(watch, stdout="binary:///nonexistent/logger")
