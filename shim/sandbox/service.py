"""`containerd.runtime.sandbox.v1.Sandbox`: a pod whose sandbox is this shim, without a pause container.

    CREATED ──start──▶ READY ──the holder ends (StopSandbox, or killed)──▶ STOPPED        ShutdownSandbox ends the shim

A shim has one sandbox. Its containers come through the task service, as ever, and take over what `Pod` says.
Source: containerd core/sandbox/controller.go, plugins/sandbox/controller.go, docs/sandbox-api.md.
"""

from __future__ import annotations

import os
import threading

from runtime import fastjson
from runtime.host.cgroups import manager, paths
from runtime.host.namespaces import write_sysctl
from shim import log
from shim.api import sandbox as api
from shim.api.cri import IDMapping, LinuxPodSandboxConfig, NamespaceMode, NamespaceOption, PodSandboxConfig
from shim.api.types import Metric, Platform
from shim.api.well_known import Any
from shim.clock import now_ns, timestamp
from shim.daemon import SANDBOX_SERVICE
from shim.deferred import Deferred
from shim.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    RpcError,
    UnimplementedError,
)
from shim.rpc import Method
from shim.sandbox.holder import hold
from shim.sandbox.pod import Pod, give_files, make_files, remove_files
from shim.stats import metrics
from shim.wire import DecodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.reaper import Reaper
    from shim.task.service import TaskService

CREATED, READY, STOPPED = "created", "ready", "stopped"
#: What CRI calls them; any other word is "not ready" to it.
STATES = {CREATED: "SANDBOX_NOTREADY", READY: "SANDBOX_READY", STOPPED: "SANDBOX_NOTREADY"}
SIGKILL = 9

#: containerd's defaults for a pod with a network of its own (enable_unprivileged_ports, enable_unprivileged_icmp).
NETWORK_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


class Sandbox:
    """The pod's environment."""

    def __init__(self, request: api.CreateSandboxRequest, config: PodSandboxConfig) -> None:
        linux = config.linux or LinuxPodSandboxConfig()
        namespaces = (linux.security_context and linux.security_context.namespace_options) or NamespaceOption()
        users = namespaces.userns_options
        self._own_users = users is not None and users.mode == NamespaceMode.POD
        if self._own_users and not request.netns_path:
            raise InvalidArgumentError("a pod with a user namespace of its own needs a network namespace of its own")
        self.id = request.sandbox_id
        self.bundle = request.bundle_path
        self.cgroup_parent = linux.cgroup_parent
        self.created_at = now_ns()
        self.exited_at = 0
        self.pid = 0
        self.state = CREATED
        self.exit = Deferred()
        self._network = request.netns_path
        self._own_ipc = namespaces.ipc != NamespaceMode.NODE
        self._sysctls = (NETWORK_SYSCTLS if self._network else {}) | linux.sysctls
        self._keeper = -1
        hostname = config.hostname or os.uname().nodename
        files = make_files(self.bundle, hostname, config.dns_config, own_shm=self._own_ipc)
        if users and self._own_users:
            give_files(files, _root_of(users.uids), _root_of(users.gids))
        self.pod = Pod(hostname, linux.sysctls, files)

    def start(self, reaper: Reaper) -> None:
        self.pid, self._keeper = hold(
            self._network, own_users=self._own_users, own_ipc=self._own_ipc, hostname=self.pod.hostname
        )
        self.state = READY
        reaper.watch(self.pid, self._ended)
        network = [(name, value) for name, value in self._sysctls.items() if name.startswith("net.")]
        if network:
            write_sysctl(self.pid, network)

    def stop(self) -> None:
        """End the holder. `exit` is set once it is gone."""
        if self.state == READY:
            os.kill(self.pid, SIGKILL)
        elif self.state == CREATED:
            self._end(0)

    def remove(self) -> None:
        remove_files(self.bundle)

    def _ended(self, code: int) -> None:
        os.close(self._keeper)
        log.debug("the sandbox has ended", id=self.id, code=code)
        self._end(code)

    def _end(self, code: int) -> None:
        self.state = STOPPED
        self.exited_at = now_ns()
        self.exit.set(api.WaitSandboxResponse(exit_status=code, exited_at=timestamp(self.exited_at)))


class SandboxService:
    """The sandbox of this shim, once there is one."""

    def __init__(self, tasks: TaskService, reaper: Reaper, shut_down: Callable[[], None]) -> None:
        self._tasks = tasks
        self._reaper = reaper
        self._shut_down = shut_down
        self._lock = threading.Lock()
        self._sandbox: Sandbox | None = None

    def methods(self) -> dict[tuple[str, str], Method]:
        table = {
            "CreateSandbox": Method(api.CreateSandboxRequest, self.create),
            "StartSandbox": Method(api.StartSandboxRequest, self.start),
            "Platform": Method(api.PlatformRequest, self.platform, inline=True),
            "StopSandbox": Method(api.StopSandboxRequest, self.stop),
            "WaitSandbox": Method(api.WaitSandboxRequest, self.wait, inline=True),
            "SandboxStatus": Method(api.SandboxStatusRequest, self.status, inline=True),
            "PingSandbox": Method(api.PingRequest, self.ping, inline=True),
            "ShutdownSandbox": Method(api.ShutdownSandboxRequest, self.shutdown),
            "SandboxMetrics": Method(api.SandboxMetricsRequest, self.metrics),
        }
        return {(SANDBOX_SERVICE, name): method for name, method in table.items()}

    def create(self, request: api.CreateSandboxRequest) -> api.CreateSandboxResponse:
        if not request.sandbox_id or not request.bundle_path:
            raise InvalidArgumentError("sandbox_id and bundle_path are required")
        if request.rootfs:
            raise UnimplementedError("a sandbox with a root of its own")
        with self._lock:
            if self._sandbox:
                raise AlreadyExistsError(f"this shim has sandbox {self._sandbox.id}")
            self._sandbox = Sandbox(request, _config(request.options))
            self._tasks.pod = self._sandbox.pod
        return api.CreateSandboxResponse()

    def start(self, request: api.StartSandboxRequest) -> api.StartSandboxResponse:
        sandbox = self._find(request.sandbox_id)
        with self._lock:
            if sandbox.state != CREATED:
                raise FailedPreconditionError(f"cannot start: sandbox {sandbox.id} is {sandbox.state}")
            try:
                sandbox.start(self._reaper)
            except OSError as error:
                raise RpcError(f"cannot start sandbox {sandbox.id}: {error}") from error
        return api.StartSandboxResponse(pid=sandbox.pid, created_at=timestamp(sandbox.created_at))

    def platform(self, request: api.PlatformRequest) -> api.PlatformResponse:
        self._find(request.sandbox_id)
        return api.PlatformResponse(platform=Platform(os="linux", architecture="amd64"))

    def stop(self, request: api.StopSandboxRequest) -> Deferred:
        """End what still runs in the pod, then the pod. Answers when it has ended, also if it had before."""
        sandbox = self._find(request.sandbox_id)
        self._tasks.kill_all()
        with self._lock:
            sandbox.stop()
        stopped = Deferred()
        sandbox.exit.when_set(lambda _: stopped.set(api.StopSandboxResponse()))
        return stopped

    def wait(self, request: api.WaitSandboxRequest) -> Deferred:
        return self._find(request.sandbox_id).exit

    def status(self, request: api.SandboxStatusRequest) -> api.SandboxStatusResponse:
        sandbox = self._find(request.sandbox_id)
        info = {}
        if request.verbose:  # CRI reads it as the JSON of its SandboxInfo
            shown = {"pid": sandbox.pid, "processStatus": "running" if sandbox.state == READY else sandbox.state}
            info["info"] = fastjson.dumps(shown)
        return api.SandboxStatusResponse(
            sandbox_id=sandbox.id,
            pid=sandbox.pid if sandbox.state == READY else 0,
            state=STATES[sandbox.state],
            info=info,
            created_at=timestamp(sandbox.created_at),
            exited_at=timestamp(sandbox.exited_at) if sandbox.exited_at else None,
        )

    def ping(self, request: api.PingRequest) -> api.PingResponse:
        self._find(request.sandbox_id)
        return api.PingResponse()

    def shutdown(self, _request: api.ShutdownSandboxRequest) -> api.ShutdownSandboxResponse:
        """Leave nothing, and end the shim, also after a CreateSandbox or StartSandbox that failed."""
        self._tasks.kill_all()
        with self._lock:
            sandbox, self._sandbox = self._sandbox, None
            self._tasks.pod = None
        if sandbox:
            sandbox.stop()
            sandbox.remove()
        self._shut_down()
        return api.ShutdownSandboxResponse()

    def metrics(self, request: api.SandboxMetricsRequest) -> api.SandboxMetricsResponse:
        """Those of the pod's cgroup, in which the containers' are."""
        sandbox = self._find(request.sandbox_id)
        if not sandbox.cgroup_parent:
            raise FailedPreconditionError(f"sandbox {sandbox.id} has no cgroup parent")
        parent = sandbox.cgroup_parent
        if parent.endswith(".slice") and "/" not in parent:
            parent = paths.expand_slice(parent)
        answer = metrics(list(manager.locate(parent, sandbox.id).directories.items()))
        data = Any(type_url=answer.NAME, value=answer.encode())
        return api.SandboxMetricsResponse(metrics=Metric(timestamp=timestamp(now_ns()), id=sandbox.id, data=data))

    def _find(self, sandbox_id: str) -> Sandbox:
        if (found := self._sandbox) and found.id == sandbox_id:
            return found
        raise NotFoundError(f"sandbox {sandbox_id} not found")


def _root_of(mappings: list[IDMapping]) -> int:
    """The host's id of root in a user namespace; -1 when it has none."""
    return next((mapping.host_id for mapping in mappings if mapping.container_id == 0), -1)


def _config(packed: Any | None) -> PodSandboxConfig:
    """What CRI says of the pod; nothing when the caller is not CRI."""
    if packed is None or packed.type_url.rpartition("/")[2] != PodSandboxConfig.NAME:
        return PodSandboxConfig()
    try:
        return PodSandboxConfig.decode(packed.value)
    except DecodeError as error:
        raise InvalidArgumentError(f"options: {error}") from error
