"""The rows through containerd: ctr with runc's shim and with LiteBox's, on one containerd of one's own."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.lifecycle import TIMEOUT, await_end, family, launch, pss_kib
from integration import images, installed
from integration.containerd.daemon import CONFIG, IMAGE, RUNTIME, Containerd

RUNTIMES = {"runc": "io.containerd.runc.v2", "litebox": RUNTIME}
STREAM_BYTES, PIECES_BYTES = 256 << 20, 32 << 20
SLEEP = ("/bin/sleep", "1000")


def missing() -> str:
    """Why there is no containerd to measure with; empty when there is one."""
    if os.geteuid():
        return "it needs root"
    if not installed.engines("containerd"):
        return "containerd is not installed (make engines)"
    if installed.programs() is None:
        return f"{installed.SHIM} is not built (make build)"
    return images.missing()


@contextlib.contextmanager
def containerd(folder: Path) -> Iterator[Containerd]:
    """A running one, the image imported. It logs as it does for users: what it is asked to debug takes time."""
    litebox = installed.programs()
    assert litebox
    config = CONFIG.partition("[debug]")[0]
    program = next(iter(installed.engines("containerd").values()))
    with Containerd(program, litebox, folder, config=config) as daemon:
        archive = folder / "busybox.tar"
        images.write_archive(archive, IMAGE, [images.busybox_layer()])
        daemon.ctr("image", "import", archive)
        yield daemon


class Engine:
    """Measures one runtime. Every method is a row and returns its value once."""

    def __init__(self, daemon: Containerd, runtime: str) -> None:
        self._daemon = daemon
        self._name = runtime
        self._number = 0

    def rows(self) -> dict[str, Callable[[], float]]:
        return {
            "engine-first-line": self.first_line,
            "engine-run": self.run,
            "engine-detach": self.detach,
            "engine-exec": self.exec,
            "engine-remove": self.remove,
            "engine-many": self.many,
            "engine-stream": lambda: self.output(64 << 10, STREAM_BYTES),
            "engine-pieces": lambda: self.output(512, PIECES_BYTES),
            "engine-pss": self.pss,
        }

    def _identifier(self) -> str:
        self._number += 1
        return f"{self._name}{self._number}"

    def _ctr(self, *arguments: str) -> list[str]:
        return self._daemon.inside(self._daemon.program.parent / "ctr", "--address", self._daemon.socket, *arguments)

    def _run(self, *arguments: str) -> list[str]:
        """`ctr run`, with flags and the command line of a container."""
        flags = [word for word in arguments if word.startswith("-")]
        program = arguments[len(flags) :]
        return self._ctr("run", "--runtime", RUNTIMES[self._name], *flags, IMAGE, self._identifier(), *program)

    def _timed(self, command: list[str]) -> float:
        began = time.perf_counter()
        await_end(launch(command, self._daemon.environment), began + TIMEOUT)
        return (time.perf_counter() - began) * 1000

    @contextlib.contextmanager
    def _asleep(self) -> Iterator[str]:
        self._timed(self._run("-d", "--null-io", *SLEEP))
        name = f"{self._name}{self._number}"
        try:
            yield name
        finally:
            with contextlib.suppress(subprocess.SubprocessError):
                self._timed(self._ctr("task", "rm", "--force", name))
            self._timed(self._ctr("container", "rm", name))

    def first_line(self) -> float:
        began = time.perf_counter()
        command, quiet = self._run("--rm", "/bin/echo", "up"), subprocess.DEVNULL
        environment = self._daemon.environment
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, env=environment) as process:
            assert process.stdout
            select.select([process.stdout], [], [], TIMEOUT)
            took = (time.perf_counter() - began) * 1000
            if process.stdout.read() != b"up\n":
                raise ValueError("the line did not come")
            return took

    def run(self) -> float:
        return self._timed(self._run("--rm", "/bin/true"))

    def detach(self) -> float:
        began = time.perf_counter()
        with self._asleep():
            return (time.perf_counter() - began) * 1000

    def exec(self) -> float:
        with self._asleep() as name:
            return self._timed(self._ctr("task", "exec", "--exec-id", "e", name, "/bin/true"))

    def remove(self) -> float:
        with self._asleep() as name:
            return self._timed(self._ctr("task", "rm", "--force", name))

    def many(self) -> float:
        began = time.perf_counter()
        environment = self._daemon.environment
        for process in [launch(self._run("--rm", "/bin/true"), environment) for _ in range(20)]:
            await_end(process, began + TIMEOUT)
        return (time.perf_counter() - began) * 1000

    def output(self, piece: int, total: int) -> float:
        """What a container writes, as ctr hands it on: MB/s, without the start."""
        command = self._run("--rm", "/bin/dd", "if=/dev/zero", f"bs={piece}", f"count={total // piece}")
        quiet, environment = subprocess.DEVNULL, self._daemon.environment
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, env=environment) as process:
            assert process.stdout
            select.select([process.stdout], [], [], TIMEOUT)
            began, got = time.perf_counter(), 0
            while block := os.read(process.stdout.fileno(), 1 << 20):
                got += len(block)
            took = time.perf_counter() - began
        if got != total:
            raise ValueError(f"{got} bytes came")
        return got / took / 1e6

    def pss(self) -> float:
        with self._asleep() as name:
            time.sleep(1)
            (shim,) = self._daemon.shims(name)
            return sum(map(pss_kib, family(shim))) / 1024
