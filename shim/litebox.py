"""The backend that runs containers in LiteBox's micro-VMs, through the library that is also behind the `litebox`
command.

The library blocks where it must and is used from the shim's worker threads. Its terminal descriptors need no pty here:
the container's terminal is the library OS's own, and the FIFOs are its far side.
"""

from __future__ import annotations

import os
import threading

from shim import log
from shim.cleanup import PID_FILE
from shim.errors import Code, NotFoundError, RpcError
from shim.paths import state_root
from shim.spec import read_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from runtime.container import Container
    from runtime.processes import Exec
    from runtime.settings import Settings
    from shim.backend import Instance, OnExit
    from shim.invocation import Invocation
    from shim.loop import Loop
    from shim.reaper import Reaper
    from shim.sandbox.pod import Pod
    from shim.stats import Inside
    from shim.stdio import Stdio

KILL = 9

CODES = {
    "invalid_argument": Code.INVALID_ARGUMENT,
    "unimplemented": Code.UNIMPLEMENTED,
    "not_found": Code.NOT_FOUND,
    "already_exists": Code.ALREADY_EXISTS,
    "failed_precondition": Code.FAILED_PRECONDITION,
}


class translated:  # noqa: N801 - used as a statement; contextlib would cost its import
    """`with translated():` turns the library's errors into RPC errors by their stable `kind`.

    A program that cannot be executed is told in runc's words: Docker finds exit codes 126 and 127 by looking for them.
    """

    def __init__(self, process: dict[str, Any] | None = None) -> None:
        self._process = process

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        from runtime.errors import ExecFailed, LiteboxError  # loaded by then

        if isinstance(error, ExecFailed) and self._process and self._process.get("args"):
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            program = self._process["args"][0]
            raise RpcError(f'unable to start container process: exec: "{program}": {why}', Code.UNKNOWN) from error
        if isinstance(error, LiteboxError):
            raise RpcError(str(error), CODES.get(error.kind, Code.UNKNOWN)) from error


class LiteboxBackend:
    """Makes containers with `runtime.lifecycle`."""

    def __init__(self, invocation: Invocation, reaper: Reaper, loop: Loop) -> None:
        self._namespace = invocation.namespace
        self._debug = invocation.debug
        self._reaper = reaper
        self._loop = loop
        self._ready = False
        self._read: tuple[tuple[str, int], Settings] | None = None

    def create(
        self,
        container_id: str,
        bundle: str,
        stdio: Stdio,
        options: dict[str, Any],
        on_exit: OnExit,
        pod: Pod | None,
    ) -> Instance:
        from runtime.lifecycle import Runtime

        if not self._ready:
            self._reaper.adopt_orphans()
            self._ready = True
        with translated():
            settings = self._settings(options.get("config_path", ""))
            runtime = Runtime(state_root(bundle, self._namespace), debug=self._debug)
            container = runtime.create(
                container_id,
                bundle,
                _streams(stdio),
                config=read_config(bundle, settings, pod),
                pid_file=f"{bundle}/{PID_FILE}",
            )
        return LiteboxInstance(container, self._reaper, self._loop, on_exit)

    def _settings(self, named: str) -> Settings | None:
        """Of the configuration file, where there is one; read again when it has changed."""
        from runtime.settings import load_apart, path_in_use

        path = path_in_use(named)
        if not path:
            return None
        try:
            version = (path, os.stat(path).st_mtime_ns)
        except OSError:
            version = (path, 0)
        if self._read is None or self._read[0] != version:
            self._read = (version, load_apart(path))
        return self._read[1]


class LiteboxInstance:
    """One container, and the processes that were added to it."""

    def __init__(self, container: Container, reaper: Reaper, loop: Loop, on_exit: OnExit) -> None:
        self._container = container
        self._loop = loop
        self._execs: dict[str, Exec] = {}
        self._lock = threading.Lock()
        self.pid = container.pid
        reaper.watch(self.pid, on_exit)

    def start(self) -> None:
        with translated(self._container.process):
            self._container.start()

    def exec(self, exec_id: str, process: dict[str, Any], stdio: Stdio, on_exit: OnExit) -> int:
        with translated(process):
            added = self._container.exec(process, _streams(stdio))
        with self._lock:
            self._execs[exec_id] = added
        fd = added.fileno()

        def look(_events: int) -> None:
            code = added.wait(0)
            if code is None:  # the answer to a resize
                return
            self._loop.remove(fd)
            with self._lock:
                self._execs.pop(exec_id, None)
            added.close()
            on_exit(code)

        self._loop.add(fd, 1, look)
        return added.pid

    def kill(self, signal: int, *, exec_id: str = "", everyone: bool = False) -> None:
        from runtime.errors import WrongState  # loaded by then

        with translated():
            if exec_id:
                self._exec(exec_id).kill(signal)
                return
            try:
                self._container.kill(signal, all=everyone)
            except WrongState as error:
                # It ended just now: whoever stops it takes this answer, and no other, for done.
                raise NotFoundError(str(error)) from error

    def resize(self, width: int, height: int, *, exec_id: str = "") -> None:
        with translated():
            if exec_id:
                self._exec(exec_id).resize(height, width)
            else:
                self._container.resize(height, width)

    def pause(self) -> None:
        with translated():
            self._container.pause()

    def resume(self) -> None:
        with translated():
            self._container.resume()

    def pids(self) -> list[int]:
        """The machine is the one process that the host sees; the guest's pids would name strangers to `docker top`."""
        return [self.pid]

    def update(self, resources: dict[str, Any], annotations: dict[str, str]) -> None:
        del annotations
        with translated():
            self._container.update(resources)

    def cgroup(self) -> list[tuple[str, str]]:
        return cgroup_of(self.pid)

    def inside(self) -> Inside:
        from shim.stats import Inside

        with translated():
            tasks, resources = self._container.tasks(), self._container.resources
        memory, pids = (resources.get(name) or {} for name in ("memory", "pids"))
        return Inside(tasks, max(memory.get("limit") or 0, 0), max(pids.get("limit") or 0, 0))

    def on_oom(self, callback: Callable[[], None]) -> None:
        threading.Thread(target=self._follow, args=(callback,), daemon=True).start()

    def delete(self) -> None:
        with translated():
            self._container.delete(force=True)

    def _exec(self, exec_id: str) -> Exec:
        with self._lock:
            if found := self._execs.get(exec_id):
                return found
        raise NotFoundError(f"process {exec_id} has ended")

    def _follow(self, callback: Callable[[], None]) -> None:
        try:
            events: Iterator[dict[str, Any]] = self._container.events()
            for event in events:
                if event.get("event") == "oom":
                    callback()
                elif event.get("event") == "trace":
                    log.info(str(event["line"]), id=self._container.id)
        except Exception as error:
            log.debug(f"events ended: {error}")


def force_delete(root: str, container_id: str) -> None:
    """Free whatever is left of a container whose shim is gone, also of one that it was creating."""
    from runtime.errors import NotFound
    from runtime.lifecycle import Runtime

    runtime = Runtime(root)
    try:
        container = runtime.load(container_id)
    except NotFound:
        runtime.clean(container_id)
    else:
        container.delete(force=True)


def cgroup_of(pid: int) -> list[tuple[str, str]]:
    """(controllers, directory) for each cgroup of a process: cgroups(7), /proc/PID/cgroup.

    One ("", directory) for v2.
    """
    mounts = _cgroup_mounts()
    found = []
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            for line in file:
                _number, controllers, path = line.rstrip("\n").split(":", 2)
                if mount := mounts.get(controllers):
                    found.append((controllers, os.path.normpath(f"{mount}/{path}")))
    except OSError:
        return []
    legacy = [pair for pair in found if pair[0]]
    return legacy or found


def _cgroup_mounts() -> dict[str, str]:
    """Mount points by controllers: a v1 hierarchy by its super options, v2 under ""."""
    mounts: dict[str, str] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            kind, _source, options = right.split(" ", 2)
            where = left.split(" ")[4]
            if kind == "cgroup2":
                mounts[""] = where
            elif kind == "cgroup":
                controllers = [word for word in options.strip().split(",") if word not in ("rw", "ro", "relatime")]
                mounts[",".join(word for word in controllers if "=" not in word)] = where
    return mounts


def _streams(stdio: Stdio) -> Any:
    from runtime.processes import Stdio as Streams

    return Streams(*(fd if fd >= 0 else None for fd in (stdio.stdin, stdio.stdout, stdio.stderr)))
