"""Output through pipes that nobody else writes to, which the containerd shim tells by O_NONBLOCK: it is written behind the program."""

from __future__ import annotations

import contextlib
import os
import select
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


SOURCE = Path(__file__).parent / "writer.c"
WRITER_LINES = 20_000
PIPE_BUF = 4096
#: What a prompt may take to be there, where others use the machine.
PATIENCE = 20


@contextlib.contextmanager
def writing(command: list[str], *, errors: bool = False) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command, and the end to read from of the pipe that is its standard output, and with `errors` its standard error."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer if errors else None
        ) as process:
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


@pytest.fixture(scope="module")
def writer() -> Path:
    made = bundles.BUILD / "cli" / "writer"
    made.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", made, SOURCE], check=True)
    return made


@contextlib.contextmanager
def container(
    contained: bundles.Runtime, folder: Path, writer: Path, way: str, *, errors: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A container called as its way of writing."""
    bundle = bundles.busybox_bundle(folder / "bundle", [writer])
    bundle.configure(["writer", way])
    try:
        with writing(contained.command("run", "--bundle", str(bundle.path), way), errors=errors) as (process, reader):
            yield process, reader
            process.wait(SECONDS)
    finally:
        subprocess.run(contained.command("delete", "--force", way), check=False, timeout=SECONDS, capture_output=True)


def line_of(writer: str, number: int) -> str:
    length = 20 + number % 200 if number % 64 else PIPE_BUF
    return f"{writer} {number} ".ljust(length - 1, writer)


def lines_by(text: str) -> dict[str, list[str]]:
    """What each writer wrote."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        found.setdefault(line[:1], []).append(line)
    return found


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


@pytest.mark.parametrize("way", ["sleeps", "computes"])
def test_a_prompt_is_there_while_the_program_goes_on(
    contained: bundles.Runtime, tmp_path: Path, writer: Path, way: str
) -> None:
    with container(contained, tmp_path, writer, way) as (process, reader):
        seen = b""
        while not seen.endswith(b"name: "):
            assert select.select([reader], [], [], PATIENCE)[0], seen
            seen += os.read(reader, PIPE_BUF)
        assert seen == b"one\ntwo\nname: "
        assert process.poll() is None
        subprocess.run(contained.command("kill", way, "KILL"), check=True, timeout=SECONDS)


def test_a_large_write_stays_in_order(contained: bundles.Runtime, tmp_path: Path, writer: Path) -> None:
    with container(contained, tmp_path, writer, "large") as (process, reader):
        assert read_all(reader) == "before\njust before\n" + "x" * ((2 << 20) - 1) + "\nafter\n"
        assert process.wait(SECONDS) == 0


def test_who_does_not_block_writes_whole_lines(contained: bundles.Runtime, tmp_path: Path, writer: Path) -> None:
    with container(contained, tmp_path, writer, "nonblocking") as (process, reader):
        assert select.select([reader], [], [], PATIENCE)[0]
        time.sleep(0.5)  # until there is no more room
        assert read_all(reader).splitlines() == [line_of("N", number) for number in range(WRITER_LINES)]
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize(("way", "writers"), [("threads", "AB"), ("processes", "ABC")])
def test_lines_of_several_writers_stay_whole(
    contained: bundles.Runtime, tmp_path: Path, writer: Path, way: str, writers: str
) -> None:
    with container(contained, tmp_path, writer, way) as (process, reader):
        found = lines_by(read_all(reader))
        assert found == {name: [line_of(name, number) for number in range(WRITER_LINES)] for name in writers}
        assert process.wait(SECONDS) == 0


def test_output_and_errors_on_one_pipe_keep_their_order(
    contained: bundles.Runtime, tmp_path: Path, writer: Path
) -> None:
    with container(contained, tmp_path, writer, "both", errors=True) as (process, reader):
        assert read_all(reader).split() == [str(number) for number in range(WRITER_LINES)]
        assert process.wait(SECONDS) == 0


def test_what_a_killed_process_has_written_is_there(contained: bundles.Runtime, tmp_path: Path, writer: Path) -> None:
    with container(contained, tmp_path, writer, "killed") as (process, reader):
        assert read_all(reader).splitlines() == [line_of("K", number) for number in range(WRITER_LINES)]
        assert process.wait(SECONDS) == 128 + signal.SIGKILL


def test_the_end_waits_for_a_slow_reader(contained: bundles.Runtime, tmp_path: Path, writer: Path) -> None:
    with container(contained, tmp_path, writer, "much") as (process, reader):
        time.sleep(4)
        assert read_all(reader).splitlines() == [line_of("M", number * 64) for number in range(40)]
        assert process.wait(SECONDS) == 0


def test_who_waits_for_a_reader_can_be_killed(contained: bundles.Runtime, tmp_path: Path, writer: Path) -> None:
    with container(contained, tmp_path, writer, "much") as (process, reader):
        assert select.select([reader], [], [], PATIENCE)[0]
        time.sleep(0.5)
        subprocess.run(contained.command("kill", "much", "KILL"), check=True, timeout=SECONDS)
        assert process.wait(SECONDS) == 128 + signal.SIGKILL


@pytest.mark.parametrize("way", ["killed", "threads"])
def test_what_exec_has_written_when_it_is_killed(
    contained: bundles.Runtime, tmp_path: Path, writer: Path, way: str
) -> None:
    bundle = bundles.busybox_bundle(tmp_path / "bundle", [writer])
    bundle.configure(["sleep", "1000"])
    subprocess.run(contained.command("create", "--bundle", str(bundle.path), "host"), check=True, timeout=SECONDS)
    try:
        subprocess.run(contained.command("start", "host"), check=True, timeout=SECONDS)
        with writing(contained.command("exec", "host", "writer", way)) as (process, reader):
            found = lines_by(read_all(reader))
            expected = "K" if way == "killed" else "AB"
            assert found == {name: [line_of(name, number) for number in range(WRITER_LINES)] for name in expected}
            assert process.wait(SECONDS) == (128 + signal.SIGKILL if way == "killed" else 0)
    finally:
        subprocess.run(contained.command("delete", "--force", "host"), check=True, timeout=SECONDS)
