"""Output through pipes that nobody else writes to, which the containerd shim tells by O_NONBLOCK: it is written behind the program."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bundles

SECONDS = 60
#: By pieces that are far smaller than what is written at a time, and then larger.
LINES = 100_000
SCRIPT = f"echo first; seq 1 {LINES}; i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo last; exit 3"
EXPECTED = "".join(
    f"{line}\n" for line in ["first", *range(1, LINES + 1), *(f"line {number}" for number in range(2000)), "last"]
)


@contextlib.contextmanager
def writing(command: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command, and the end to read from of the pipe that is its standard output."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writer) as process:
            os.close(writer)
            yield process, reader
    finally:
        with contextlib.suppress(OSError):
            os.close(reader)


def read_all(reader: int, pause: float = 0) -> str:
    blocks = []
    while block := os.read(reader, 1 << 16):
        blocks.append(block)
        time.sleep(pause)
    return b"".join(blocks).decode()


@pytest.fixture
def bundle(tmp_path: Path) -> bundles.Bundle:
    return bundles.busybox_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("pause", [0, 0.02], ids=["at once", "slowly"])
def test_everything_arrives_in_order(contained: bundles.Runtime, bundle: bundles.Bundle, pause: float) -> None:
    bundle.configure(["sh", "-c", SCRIPT])
    with writing(contained.command("run", "--bundle", str(bundle.path), "output")) as (process, reader):
        assert read_all(reader, pause) == EXPECTED
        assert process.wait(SECONDS) == 3


def test_a_reader_that_has_gone_ends_the_program(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    bundle.configure(["sh", "-c", "yes; exit $?"])
    with writing(contained.command("run", "--bundle", str(bundle.path), "gone")) as (process, reader):
        assert os.read(reader, 2) == b"y\n"
        os.close(reader)
        assert process.wait(SECONDS) == 128 + signal.SIGPIPE


def test_what_exec_has_written_is_there_when_it_ends(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    bundle.configure(["sleep", "1000"])
    subprocess.run(contained.command("create", "--bundle", str(bundle.path), "execs"), check=True, timeout=SECONDS)
    try:
        subprocess.run(contained.command("start", "execs"), check=True, timeout=SECONDS)
        with writing(contained.command("exec", "execs", "sh", "-c", SCRIPT)) as (process, reader):
            assert read_all(reader) == EXPECTED
            assert process.wait(SECONDS) == 3
    finally:
        subprocess.run(contained.command("delete", "--force", "execs"), check=True, timeout=SECONDS)
