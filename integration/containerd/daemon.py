"""A containerd of one's own: root, state and socket in a scratch folder, in namespaces that end with the test.

Nothing of the machine's is used but its kernel: what is mounted is mounted in the private namespace, and the processes
that are left at the end are found by the bundle folder in which they were started.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

RUNTIME = "io.containerd.litebox.v1"
IMAGE = "docker.io/library/busybox:test"
SOCKETS = Path("/run/containerd/s")
CALL_SECONDS = 60

CONFIG = """\
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[debug]
  level = "debug"
"""


class Containerd:
    """A containerd, and the `ctr` that came with it: started on entry, ended with everything it started on exit.

    `network` and `processes` give it namespaces of its own for these; one for mounts it has always. `config` has places
    for root, state and socket; `settings` are variables of its environment.
    """

    def __init__(
        self,
        program: Path,
        litebox: Path,
        folder: Path,
        *,
        network: bool = False,
        processes: bool = False,
        config: str = CONFIG,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.program = program
        self.folder = folder
        self.socket = folder / "c.sock"
        self.state = folder / "state"
        self.config = folder / "config.toml"
        self.config.write_text(config.format(root=folder / "root", state=self.state, socket=self.socket))
        self.environment = {
            **os.environ,
            "PATH": f"{litebox}:{program.parent}:{os.environ['PATH']}",
            **(settings or {}),
        }
        self._namespaces = ["--mount", *(["--net"] if network else []), *(["--pid"] if processes else [])]
        unshare = ["unshare", *self._namespaces, "--propagation", "private"]
        if processes:
            # Its first process reaps what it inherits.
            unshare += ["--fork", "--kill-child", "--mount-proc", "sh", "-c", "trap '' CHLD; exec sleep infinity"]
        else:
            unshare += ["sleep", "infinity"]
        self._holder = subprocess.Popen(unshare)
        self._daemon: subprocess.Popen[bytes] | None = None
        while not (asleep := self._sleeper(forked=processes)):
            time.sleep(0.01)
        self._place = asleep

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def inside(self, *command: str | Path) -> list[str]:
        """A command line that runs where this containerd runs."""
        return ["nsenter", f"--target={self._place}", *self._namespaces, *map(str, command)]

    def _sleeper(self, *, forked: bool) -> int:
        """The process that holds the namespaces, once it does."""
        pid = next(iter(children(self._holder.pid)), 0) if forked else self._holder.pid
        return pid if pid and Path(f"/proc/{pid}/comm").read_text() == "sleep\n" else 0

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            command = self.inside(self.program, "-c", self.config)
            self._daemon = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while self.ctr("version", check=False).returncode:
            if time.monotonic() > deadline or self._daemon.poll() is not None:
                raise RuntimeError(f"containerd does not start:\n{self.log()[-2000:]}")
            time.sleep(0.05)

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self._daemon:
            # Where nsenter enters a PID namespace it forks, and passes no signal on.
            os.kill(children(self._daemon.pid)[0] if "--pid" in self._namespaces else self._daemon.pid, how)
            self._daemon.wait(20)
            self._daemon = None

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def ctr(
        self, *arguments: str | Path, stdin: bytes | None = None, check: bool = True, seconds: float = CALL_SECONDS
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ctr. Its standard input is empty unless given."""
        command = self.inside(self.program.parent / "ctr", "--address", self.socket, *arguments)
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment
        )
        try:
            out, err = process.communicate(stdin or b"", timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(
                f"ctr {' '.join(map(str, arguments))} hangs\n{out!r}\n{err!r}\n{self.log()[-3000:]}"
            ) from None
        if check and process.returncode:
            raise AssertionError(f"ctr {' '.join(map(str, arguments))}: {process.returncode}\n{out!r}\n{err!r}")
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def command(self, *arguments: str | Path) -> list[str]:
        """A command line of ctr."""
        return self.inside(self.program.parent / "ctr", "--address", self.socket, *arguments)

    def popen(self, *arguments: str | Path, **options: object) -> subprocess.Popen[bytes]:
        """ctr in the background."""
        return subprocess.Popen(self.command(*arguments), env=self.environment, **options)  # type: ignore[call-overload, no-any-return]

    def run(
        self,
        name: str,
        *command: str,
        flags: Sequence[str] = ("--rm",),
        stdin: bytes | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        """`ctr run` with LiteBox."""
        return self.ctr("run", "--runtime", RUNTIME, *flags, IMAGE, name, *command, stdin=stdin, check=check)

    def status(self, name: str) -> str:
        """RUNNING, STOPPED … or nothing when there is no such task."""
        for line in self.ctr("task", "list").stdout.decode().splitlines()[1:]:
            words = line.split()
            if words[0] == name:
                return words[-1]
        return ""

    def await_status(self, name: str, status: str, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while (now := self.status(name)) != status:
            assert time.monotonic() < deadline, f"{name} is {now!r}, not {status!r}"
            time.sleep(0.05)

    def bundle(self, name: str) -> Path:
        return self.state / "io.containerd.runtime.v2.task" / "default" / name

    def processes(self) -> dict[int, str]:
        """Shims, VMMs and whatever else was started from a bundle of this containerd: pid and command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    place = str((entry / "cwd").readlink())
                    environment = (entry / "environ").read_bytes()
                except OSError:
                    continue
                daemon = line.split(" ")[0] == str(self.program)
                if not daemon and (str(self.state) in place or str(self.socket).encode() in environment):
                    found[int(entry.name)] = line
        return found

    def shims(self, name: str) -> list[int]:
        """The shim processes that were started for a container."""
        return [pid for pid, line in self.processes().items() if "containerd-shim-" in line and f" -id {name} " in line]

    def sockets(self, names: Iterable[str]) -> list[Path]:
        """Those of the shims of these containers that are there, named as containerd's own shims do it."""
        hashes = (hashlib.sha256(f"{self.socket}/default/{name}".encode()).hexdigest() for name in names)
        return [path for path in map(SOCKETS.joinpath, hashes) if path.exists()]

    def mounts(self) -> list[str]:
        """Mount points below the state folder."""
        lines = Path(f"/proc/{self._place}/mountinfo").read_text().splitlines()
        return [point for line in lines if (point := line.split()[4]).startswith(str(self.state))]

    def close(self) -> None:
        """End everything, whatever state it is in."""
        self.stop(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            # A shim's machines outlive it, and show nothing by which to find them.
            machines = {child for pid in left for child in children(pid)}
            for pid in {*left, *machines}:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self._holder.kill()
        self._holder.wait()


def children(pid: int) -> list[int]:
    """The child processes, whichever thread started them."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(word) for word in thread.read_text().split()]
    return found


def is_version(program: Path, version: str) -> bool:
    """Whether this containerd is one of a line: "2", "1.7"."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return any(word.lstrip("v").startswith(f"{version}.") for word in said.split())
