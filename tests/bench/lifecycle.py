"""The rows of the command line: how long create, start, exec, state, kill and delete take, and what an idle container costs."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bundles
import plans
from bench import operations

TICKS = os.sysconf("SC_CLK_TCK")
IDLE_SECONDS = 2.0
TIMEOUT = 30.0
USE_AND_FREE = "dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; echo; exec sleep 1000"
#: What may be left of it.
FREED_KIB = 50 << 10


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
        self._freed = bundles.busybox_bundle(work / "freed")
        self._freed.configure(["sh", "-c", USE_AND_FREE])
        self._ops = bundles.busybox_bundle(work / "ops", [operations.build()])
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
        names = ("run", "boot", "create", "start", "exec", "state", "kill", "delete", "many", "pss", "idle")
        return {name: getattr(self, name) for name in names} | {"give-back": self.give_back}

    def run(self) -> float:
        identifier = self._identifier()
        try:
            return self._do("run", "--bundle", str(self._true.path), identifier)
        except subprocess.SubprocessError:
            self._remove(identifier)
            raise

    def boot(self) -> float:
        """The VMM alone, from its start to the first instruction of a program that tells the time."""
        if self._runtime.name != "litebox":
            raise ValueError("no VMM")
        folder = bundles.BUILD / "lib/litebox"
        plan = plans.plan(["/bin/ops", "clock"], folder / "litebox-kernel")
        with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as output:
            file.write(json.dumps(plan).encode())
            file.seek(0)
            root = os.open(self._ops.rootfs, os.O_PATH)
            redirections = f"exec 8<&{file.fileno()} 9<&{root}; exec {folder}/litebox-vmm run --plan 8"
            start = time.monotonic()
            try:
                subprocess.run(
                    ["sh", "-c", redirections],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    pass_fds=(file.fileno(), root),
                    timeout=TIMEOUT,
                    check=True,
                )
            finally:
                os.close(root)
            output.seek(0)
            return int(output.read()) / 1e6 - start * 1000

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

    def give_back(self) -> float:
        identifier = self._identifier()
        command = self._runtime.command("run", "--bundle", str(self._freed.path), identifier)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout
                process.stdout.readline()
                start = time.perf_counter()
                container = self._process(identifier)
                while sum(pss_kib(member) for member in family(container)) > FREED_KIB:
                    if time.perf_counter() > start + TIMEOUT:
                        raise subprocess.TimeoutExpired("give-back", TIMEOUT)
                    time.sleep(0.02)
                return (time.perf_counter() - start) * 1000
            finally:
                self._remove(identifier)

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
