"""The rows of the command line: how long create, start, exec, state, kill and delete take, and what an idle container costs."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bundles

TICKS = os.sysconf("SC_CLK_TCK")
IDLE_SECONDS = 2.0
TIMEOUT = 30.0


def launch(command: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, env=environment)


def await_end(process: subprocess.Popen[bytes], deadline: float) -> None:
    """Its end, as it happens: `Popen.wait` with a timeout looks after 1, 2, 4, 8, ... ms, and would round the figures so."""
    watch = os.pidfd_open(process.pid)
    try:
        ended, _, _ = select.select([watch], [], [], max(0.0, deadline - time.perf_counter()))
    finally:
        os.close(watch)
    if not ended:
        process.kill()
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, process.args)


def _timed(command: list[str]) -> float:
    start = time.perf_counter()
    await_end(launch(command), start + TIMEOUT)
    return (time.perf_counter() - start) * 1000


class Lifecycle:
    """Measures one runtime. Every method is a row and returns its value once."""

    def __init__(self, runtime: bundles.Runtime, work: Path) -> None:
        self._runtime = runtime
        self._true, self._sleep = (
            self._bundle(work / name, program) for name, program in (("t", "true"), ("s", "sleep"))
        )
        self._number = 0

    @staticmethod
    def _bundle(path: Path, program: str) -> bundles.Bundle:
        bundle = bundles.busybox_bundle(path)
        bundle.configure([program, *(["1000"] if program == "sleep" else [])])
        return bundle

    def _identifier(self) -> str:
        self._number += 1
        return f"bench-{os.getpid()}-{self._number}"

    def _do(self, *args: str) -> float:
        return _timed(self._runtime.command(*args))

    def _process(self, identifier: str) -> int:
        command = self._runtime.command("state", identifier)
        state = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT).stdout)
        return int(state["pid"])

    @contextlib.contextmanager
    def _running(self) -> Iterator[str]:
        identifier = self._identifier()
        self._do("create", "--bundle", str(self._sleep.path), identifier)
        self._do("start", identifier)
        try:
            yield identifier
        finally:
            self._remove(identifier)

    def _remove(self, identifier: str) -> None:
        """What is left of a container, be it nothing."""
        with contextlib.suppress(subprocess.SubprocessError):
            self._do("delete", "--force", identifier)

    def rows(self) -> dict[str, Callable[[], float]]:
        names = ("run", "create", "start", "exec", "state", "kill", "delete", "many", "pss", "idle")
        return {name: getattr(self, name) for name in names}

    def run(self) -> float:
        identifier = self._identifier()
        try:
            return self._do("run", "--bundle", str(self._true.path), identifier)
        except subprocess.SubprocessError:
            self._remove(identifier)
            raise

    def create(self) -> float:
        identifier = self._identifier()
        try:
            return self._do("create", "--bundle", str(self._sleep.path), identifier)
        finally:
            self._remove(identifier)

    def start(self) -> float:
        identifier = self._identifier()
        self._do("create", "--bundle", str(self._sleep.path), identifier)
        try:
            return self._do("start", identifier)
        finally:
            self._remove(identifier)

    def exec(self) -> float:
        with self._running() as identifier:
            return self._do("exec", identifier, "true")

    def state(self) -> float:
        with self._running() as identifier:
            return self._do("state", identifier)

    def kill(self) -> float:
        with self._running() as identifier:
            watch = os.pidfd_open(self._process(identifier))
            start = time.perf_counter()
            self._do("kill", identifier, "KILL")
            gone, _, _ = select.select([watch], [], [], TIMEOUT)
            end = time.perf_counter()
            os.close(watch)
            if not gone:
                raise subprocess.TimeoutExpired("kill", TIMEOUT)
            return (end - start) * 1000

    def delete(self) -> float:
        with self._running() as identifier:
            return self._do("delete", "--force", identifier)

    def many(self) -> float:
        start = time.perf_counter()
        started = {}
        for identifier in (self._identifier() for _ in range(20)):
            command = self._runtime.command("run", "--bundle", str(self._true.path), identifier)
            started[identifier] = launch(command)
        try:
            for process in started.values():
                await_end(process, start + TIMEOUT)
            return (time.perf_counter() - start) * 1000
        finally:
            for identifier, process in started.items():
                if process.returncode != 0:
                    self._remove(identifier)
                    process.kill()
                    process.wait()

    def pss(self) -> float:
        with self._running() as identifier:
            time.sleep(1)
            return sum(pss_kib(process) for process in family(self._process(identifier))) / 1024

    def idle(self) -> float:
        with self._running() as identifier:
            time.sleep(1)
            processes = family(self._process(identifier))
            before = sum(map(_cpu_ticks, processes))
            time.sleep(IDLE_SECONDS)
            return (sum(map(_cpu_ticks, processes)) - before) / TICKS / IDLE_SECONDS * 100


def family(process: int) -> list[int]:
    """A process and its descendants."""
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def pss_kib(process: int) -> int:
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def _cpu_ticks(process: int) -> int:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
