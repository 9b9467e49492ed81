"""The sandbox API: the states of a sandbox, and what its containers take over from it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shim.api import sandbox as api
from shim.api.cri import (
    DNSConfig,
    LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext,
    NamespaceMode,
    NamespaceOption,
    PodSandboxConfig,
    UserNamespace,
)
from shim.api.well_known import Any as Packed
from shim.errors import Code, RpcError
from shim.sandbox import service as sandboxes
from shim.sandbox.pod import Pod, resolv_conf, share
from shim.spec import read_config

PID = 4242


class Bench:
    """A sandbox service; the holder ends when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
        self.pod: Pod | None = None
        self.killed: list[int] = []
        self.ended = 0
        self.bundle = bundle
        self.held: dict[str, Any] = {}
        self.sysctls: dict[str, str] = {}
        self.exit: Callable[[int], None] = lambda _code: None
        monkeypatch.setattr(sandboxes, "hold", self._hold)
        monkeypatch.setattr(sandboxes, "write_sysctl", lambda _pid, values: self.sysctls.update(values))
        monkeypatch.setattr(
            sandboxes, "make_files", lambda bundle, name, dns, own_shm: {"/etc/hostname": f"{bundle}/n"}
        )
        monkeypatch.setattr("os.kill", lambda pid, _signal: self.killed.append(pid))
        self.service = sandboxes.SandboxService(self, self, self._shut_down)  # type: ignore[arg-type]

    def _hold(self, network: str, **options: object) -> tuple[int, int]:
        self.held = {"network": network, **options}
        return PID, os.open(os.devnull, os.O_RDONLY)

    def _shut_down(self) -> None:
        self.ended += 1

    # What the service needs of the reaper and of the task service.

    def watch(self, _pid: int, callback: Callable[[int], None]) -> None:
        self.exit = callback

    def kill_all(self) -> None:
        pass

    def create(self, config: PodSandboxConfig, netns: str = "/run/netns/p") -> None:
        options = Packed(type_url="runtime.v1.PodSandboxConfig", value=config.encode())
        self.service.create(
            api.CreateSandboxRequest(sandbox_id="p", bundle_path=str(self.bundle), options=options, netns_path=netns)
        )

    def status(self, *, verbose: bool = False) -> api.SandboxStatusResponse:
        return self.service.status(api.SandboxStatusRequest(sandbox_id="p", verbose=verbose))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    return Bench(monkeypatch, tmp_path)


def namespaces(**modes: Any) -> LinuxPodSandboxConfig:
    return LinuxPodSandboxConfig(
        security_context=LinuxSandboxSecurityContext(namespace_options=NamespaceOption(**modes))
    )


def test_a_life(bench: Bench) -> None:
    bench.create(PodSandboxConfig(hostname="web-0", linux=LinuxPodSandboxConfig(sysctls={"kernel.shmmax": "9"})))
    assert bench.status().state == "SANDBOX_NOTREADY"
    assert bench.service.start(api.StartSandboxRequest(sandbox_id="p")).pid == PID
    assert bench.held == {"network": "/run/netns/p", "own_users": False, "own_ipc": True, "hostname": "web-0"}
    assert bench.sysctls["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert "kernel.shmmax" not in bench.sysctls
    shown = bench.status(verbose=True)
    assert (shown.state, shown.pid) == ("SANDBOX_READY", PID)
    assert json.loads(shown.info["info"])["pid"] == PID
    exits: list[Any] = []
    bench.service.wait(api.WaitSandboxRequest(sandbox_id="p")).when_set(exits.append)
    stops: list[Any] = []
    for _ in range(2):  # it may be asked twice
        bench.service.stop(api.StopSandboxRequest(sandbox_id="p")).when_set(stops.append)
    assert (exits, stops, bench.killed) == ([], [], [PID, PID])
    bench.exit(137)
    assert exits[0].exit_status == 137
    assert len(stops) == 2
    assert bench.status().state == "SANDBOX_NOTREADY"
    bench.service.stop(api.StopSandboxRequest(sandbox_id="p")).when_set(stops.append)
    assert len(stops) == 3
    bench.service.shutdown(api.ShutdownSandboxRequest(sandbox_id="p"))
    assert bench.ended == 1
    assert bench.pod is None
    with pytest.raises(RpcError, match="not found") as caught:
        bench.status()
    assert caught.value.code == Code.NOT_FOUND


def test_what_fails(bench: Bench) -> None:
    own_users = namespaces(userns_options=UserNamespace(mode=NamespaceMode.POD))
    with pytest.raises(RpcError, match="user namespace"):
        bench.create(PodSandboxConfig(linux=own_users), netns="")
    bench.create(PodSandboxConfig())
    with pytest.raises(RpcError) as caught:
        bench.create(PodSandboxConfig())
    assert caught.value.code == Code.ALREADY_EXISTS
    with pytest.raises(RpcError, match="no cgroup parent"):
        bench.service.metrics(api.SandboxMetricsRequest(sandbox_id="p"))
    bench.service.start(api.StartSandboxRequest(sandbox_id="p"))
    with pytest.raises(RpcError, match="ready"):
        bench.service.start(api.StartSandboxRequest(sandbox_id="p"))
    with pytest.raises(RpcError, match="not found"):
        bench.service.ping(api.PingRequest(sandbox_id="q"))
    assert bench.service.platform(api.PlatformRequest(sandbox_id="p")).platform
    bench.service.shutdown(api.ShutdownSandboxRequest(sandbox_id="p"))
    bench.service.shutdown(api.ShutdownSandboxRequest(sandbox_id="p"))  # containerd asks after failures too


def test_the_hosts_namespaces(bench: Bench) -> None:
    bench.create(PodSandboxConfig(linux=namespaces(network=NamespaceMode.NODE, ipc=NamespaceMode.NODE)), netns="")
    bench.service.start(api.StartSandboxRequest(sandbox_id="p"))
    assert (bench.held["network"], bench.held["own_ipc"]) == ("", False)
    assert bench.sysctls == {}


def test_resolv_conf() -> None:
    dns = DNSConfig(servers=["10.0.0.10", "10.0.0.11"], searches=["a.local", "b.local"], options=["ndots:5"])
    assert resolv_conf(dns) == "search a.local b.local\nnameserver 10.0.0.10\nnameserver 10.0.0.11\noptions ndots:5\n"
    assert resolv_conf(DNSConfig()) == ""


def test_files_of_the_pod_are_mounted_unless_the_container_has_its_own() -> None:
    hosts = {"destination": "/etc/hosts", "type": "bind", "source": "/kubelet/hosts"}
    shm = {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}
    config: dict[str, Any] = {"root": {"readonly": True}, "mounts": [hosts, shm]}
    share(config, {"/etc/hosts": "/b/hosts", "/etc/hostname": "/b/hostname", "/dev/shm": "/b/shm"})
    found = {mount["destination"]: mount for mount in config["mounts"]}
    assert len(config["mounts"]) == 3
    assert found["/etc/hosts"] == hosts
    assert (found["/etc/hostname"]["source"], found["/etc/hostname"]["options"][-1]) == ("/b/hostname", "ro")
    assert (found["/dev/shm"]["source"], found["/dev/shm"]["options"][-1]) == ("/b/shm", "rw")


def test_a_member_takes_over_what_the_pod_has(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"annotations": {"io.kubernetes.cri.container-type": "container"}})
    )
    pod = Pod("web-0", {"kernel.shmmax": "9", "net.core.somaxconn": "1"}, {"/etc/hosts": "/b/hosts"})
    config = read_config(str(tmp_path), None, pod)
    assert config["hostname"] == "web-0"
    assert config["linux"]["sysctl"] == {"kernel.shmmax": "9"}
    assert config["mounts"][0]["source"] == "/b/hosts"
