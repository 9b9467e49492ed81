"""`containerd.task.v2.Task` and `containerd.task.v3.Task`: the same seventeen methods under two names.

A method decodes, finds its container, asks it, and answers; the rules are in `shim.task.container`. Wait does not hold
a thread: it answers when the process's exit is announced.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from runtime import fastjson
from shim import log, rootfs
from shim.api import task as api
from shim.api.events import TaskCreate, TaskIO
from shim.api.runc_options import ProcessDetails
from shim.api.task_types import ProcessInfo
from shim.api.well_known import Any
from shim.clock import timestamp
from shim.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, RpcError, UnimplementedError
from shim.fifo_watch import FifoWatch
from shim.message import Message
from shim.rpc import Method
from shim.stdio import Stdio, open_stdio
from shim.task import process as states
from shim.task.container import Container
from shim.task.process import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any as AnyType

    from shim.backend import Backend, Instance
    from shim.deferred import Deferred
    from shim.loop import Loop
    from shim.sandbox.pod import Pod

SERVICES = ("containerd.task.v2.Task", "containerd.task.v3.Task")
VERSION = "2"
KILL = 9
RECENT = 32  # deleted containers to be remembered


class Empty(Message):
    """google.protobuf.Empty"""

    __slots__ = ()
    NAME = "google.protobuf.Empty"


EMPTY = Empty()


class TaskService:
    """The containers of this shim."""

    def __init__(
        self,
        backend: Backend,
        namespace: str,
        publish: Callable[[Message], None],
        loop: Loop,
        shut_down: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._namespace = namespace
        self._publish = publish
        self._loop = loop
        self._shut_down = shut_down
        self._watch = FifoWatch(loop)
        self._lock = threading.Lock()
        self._containers: dict[str, Container] = {}
        self._deleted: deque[str] = deque(maxlen=RECENT)
        self.pod: Pod | None = None  # of the sandbox whose containers these are

    def methods(self) -> dict[tuple[str, str], Method]:
        """The table for the server; `inline` for those that never block."""
        table = {
            "State": Method(api.StateRequest, self.state, inline=True),
            "Create": Method(api.CreateTaskRequest, self.create),
            "Start": Method(api.StartRequest, self.start),
            "Delete": Method(api.DeleteRequest, self.delete),
            "Pids": Method(api.PidsRequest, self.pids),
            "Pause": Method(api.PauseRequest, self.pause),
            "Resume": Method(api.ResumeRequest, self.resume),
            "Checkpoint": Method(api.CheckpointTaskRequest, self.checkpoint, inline=True),
            "Kill": Method(api.KillRequest, self.kill),
            "Exec": Method(api.ExecProcessRequest, self.exec),
            "ResizePty": Method(api.ResizePtyRequest, self.resize_pty),
            "CloseIO": Method(api.CloseIORequest, self.close_io, inline=True),
            "Update": Method(api.UpdateTaskRequest, self.update),
            "Wait": Method(api.WaitRequest, self.wait, inline=True),
            "Stats": Method(api.StatsRequest, self.stats),
            "Connect": Method(api.ConnectRequest, self.connect, inline=True),
            "Shutdown": Method(api.ShutdownRequest, self.shutdown, inline=True),
        }
        return {(service, name): method for service in SERVICES for name, method in table.items()}

    def create(self, request: api.CreateTaskRequest) -> api.CreateTaskResponse:
        if not request.id or not request.bundle:
            raise InvalidArgumentError("id and bundle are required")
        if request.checkpoint:
            raise UnimplementedError("restoring a checkpoint is not supported")
        process = Process(
            "", Stdio(), stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=request.terminal
        )
        container = Container(request.id, request.bundle, process, self._publish, self._loop.run_later)
        with self._lock:
            if request.id in self._containers:
                raise AlreadyExistsError(f"container {request.id} exists")
            self._containers[request.id] = container
            if request.id in self._deleted:
                self._deleted.remove(request.id)
        try:
            instance = self._make(request, container)
        except BaseException:
            process.stdio.close()
            rootfs.unmount(f"{request.bundle}/rootfs")
            self._forget(request.id)
            container.settle()
            raise
        process.stdio.handed_over()
        container.created(instance, lambda: self._publish(_create_event(request, instance.pid)))
        container.settle()
        return api.CreateTaskResponse(pid=instance.pid)

    def _make(self, request: api.CreateTaskRequest, container: Container) -> Instance:
        """Mount the root, open the streams, have the backend do the rest."""
        if request.rootfs:
            rootfs.mount_all(request.rootfs, f"{request.bundle}/rootfs")
        stdio = container.init.stdio = self._open_stdio(container.id, container.init)

        def exited(code: int) -> None:
            stdio.when_read(lambda: container.init_exited(code))

        return self._backend.create(request.id, request.bundle, stdio, _options(request.options), exited, self.pod)

    def start(self, request: api.StartRequest) -> api.StartResponse:
        container = self._find(request.id)
        if request.exec_id:
            return api.StartResponse(
                pid=container.start_exec(request.exec_id, lambda process: self._open_stdio(container.id, process))
            )
        return api.StartResponse(pid=container.start())

    def delete(self, request: api.DeleteRequest) -> api.DeleteResponse:
        container = self._find_settled(request.id)
        if request.exec_id:
            ended = container.delete_exec(request.exec_id)
        else:
            ended = container.delete()
            rootfs.unmount(f"{container.bundle}/rootfs")
            self._forget(request.id)
            self._deleted.append(request.id)
            container.deleted()
        return api.DeleteResponse(pid=ended.pid, exit_status=ended.exit_code, exited_at=timestamp(ended.exited_at))

    def exec(self, request: api.ExecProcessRequest) -> Empty:
        container = self._find(request.id)
        if not request.exec_id:
            raise InvalidArgumentError("exec_id is required")
        if request.spec is None:
            raise InvalidArgumentError("spec is required")
        spec = _json_object(request.spec)
        process = Process(
            request.exec_id,
            Stdio(),
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
            terminal=request.terminal,
        )
        spec["terminal"] = request.terminal
        container.add_exec(process, spec)
        return EMPTY

    def state(self, request: api.StateRequest) -> api.StateResponse:
        container = self._find(request.id)
        process = container.process(request.exec_id)
        return api.StateResponse(
            id=request.exec_id or container.id,
            bundle=container.bundle,
            pid=process.pid,
            status=states.STATUS[process.state],
            stdin=process.stdin,
            stdout=process.stdout,
            stderr=process.stderr,
            terminal=process.terminal,
            exit_status=process.exit_code,
            exited_at=timestamp(process.exited_at) if process.exited_at else None,
            exec_id=request.exec_id,
        )

    def pids(self, request: api.PidsRequest) -> api.PidsResponse:
        container = self._find_settled(request.id)
        execs = {process.pid: process.exec_id for process in container.running_execs()}
        processes = []
        # A stopped container still answers with its pid: a containerd that restarts takes a shim without one for leaked
        # and would delete the container before anybody has asked for its exit code (shim_load.go, shouldCleanupShim).
        stopped = container.init.state == states.STOPPED
        for pid in [container.init.pid] if stopped else container.made.pids():
            info = None
            if pid in execs:
                info = Any(type_url=ProcessDetails.NAME, value=ProcessDetails(exec_id=execs[pid]).encode())
            processes.append(ProcessInfo(pid=pid, info=info))
        return api.PidsResponse(processes=processes)

    def pause(self, request: api.PauseRequest) -> Empty:
        self._find(request.id).pause()
        return EMPTY

    def resume(self, request: api.ResumeRequest) -> Empty:
        self._find(request.id).resume()
        return EMPTY

    def checkpoint(self, request: api.CheckpointTaskRequest) -> Empty:
        self._find(request.id)
        raise UnimplementedError("checkpoint is not supported")

    def kill(self, request: api.KillRequest) -> Empty:
        self._find(request.id).kill(request.exec_id, request.signal, everyone=request.all)
        return EMPTY

    def resize_pty(self, request: api.ResizePtyRequest) -> Empty:
        self._find(request.id).resize(request.exec_id, request.width, request.height)
        return EMPTY

    def close_io(self, request: api.CloseIORequest) -> Empty:
        if request.stdin:
            self._find(request.id).close_stdin(request.exec_id)
        return EMPTY

    def update(self, request: api.UpdateTaskRequest) -> Empty:
        container = self._find(request.id)
        if request.resources is None:
            raise InvalidArgumentError("resources are required")
        container.made.update(_json_object(request.resources), request.annotations)
        return EMPTY

    def wait(self, request: api.WaitRequest) -> Deferred:
        return self._find(request.id).process(request.exec_id).exit

    def stats(self, request: api.StatsRequest) -> api.StatsResponse:
        from shim.stats import metrics

        container = self._find(request.id)
        if container.init.state == states.STOPPED:
            raise NotFoundError(f"container {request.id} is stopped")
        answer = metrics(container.made.cgroup(), container.made.inside())
        return api.StatsResponse(stats=Any(type_url=answer.NAME, value=answer.encode()))

    def connect(self, request: api.ConnectRequest) -> api.ConnectResponse:
        """NotFound for a container that was deleted: a containerd that was killed before it noted so then removes the
        bundle, and lets go of this shim. 1.6 would keep both.
        """
        with self._lock:
            container = self._containers.get(request.id)
            if container is None and request.id in self._deleted:
                raise NotFoundError(f"container {request.id} was deleted")
        return api.ConnectResponse(
            shim_pid=os.getpid(), task_pid=container.init.pid if container else 0, version=VERSION
        )

    @property
    def in_use(self) -> bool:
        """Whether there are containers, or a sandbox that they may come into."""
        with self._lock:
            return bool(self._containers) or self.pod is not None

    def kill_all(self) -> None:
        """End every container, whatever becomes of it then."""
        with self._lock:
            containers = list(self._containers.values())
        for container in containers:
            try:
                container.kill("", KILL, everyone=True)
            except RpcError as error:  # it has ended, or is being created
                log.debug(f"not killed: {error}", id=container.id)

    def shutdown(self, request: api.ShutdownRequest) -> Empty:
        if self.in_use:
            log.debug("shutdown refused: the shim is in use", id=request.id)
        else:
            self._shut_down()
        return EMPTY

    def _find(self, container_id: str) -> Container:
        with self._lock:
            if found := self._containers.get(container_id):
                return found
        raise NotFoundError(f"container {container_id} not found")

    def _find_settled(self, container_id: str) -> Container:
        """As it is after its creation, which may fail."""
        self._find(container_id).await_settled()
        return self._find(container_id)

    def _forget(self, container_id: str) -> None:
        with self._lock:
            self._containers.pop(container_id, None)

    def _open_stdio(self, container_id: str, process: Process) -> Stdio:
        return open_stdio(
            (process.stdin, process.stdout, process.stderr),
            terminal=process.terminal,
            container_id=container_id,
            namespace=self._namespace,
            watch=self._watch,
        )


def _create_event(request: api.CreateTaskRequest, pid: int) -> TaskCreate:
    streams = TaskIO(stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=request.terminal)
    return TaskCreate(container_id=request.id, bundle=request.bundle, rootfs=request.rootfs, io=streams, pid=pid)


def _json_object(packed: Any) -> dict[str, AnyType]:
    """An OCI object, which containerd sends as JSON under a type URL of its own (typeurl, `types.containerd.io/…`)."""
    try:
        value = fastjson.loads(packed.value)
    except ValueError as error:
        raise InvalidArgumentError(f"{packed.type_url}: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{packed.type_url}: not an object")
    return value


def _options(packed: Any | None) -> dict[str, AnyType]:
    """The runtime options of Create: `runtimeoptions.v1.Options` names a configuration file or holds one.

    Others are not for us.
    """
    if packed is None or not packed.value or packed.type_url.rpartition("/")[2] != "runtimeoptions.v1.Options":
        return {}
    from shim.api.options import Options
    from shim.wire import DecodeError

    try:
        options = Options.decode(packed.value)
    except DecodeError as error:
        raise RpcError(f"options: {error}", InvalidArgumentError.code) from error
    return {"config_path": options.config_path, "config_body": options.config_body}
