"""Pods whose sandbox is the shim (`sandboxer = "shim"`): what differs from those with a pause container, and faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.containerd.daemon import children
from integration.kubernetes.conftest import Cri

HANDLER = "litebox-sandbox"
PORTS = "net/ipv4/ip_local_port_range"
SLEEP = ("/bin/sleep", "1000")


@pytest.fixture
def pod(cri: Cri) -> Iterator[tuple[str, str]]:
    """A pod; whatever a test has done to it, it can be removed, and nothing is left."""
    before = set(cri.containerd.processes()), set(cri.containerd.mounts())
    dns = {"servers": ["10.0.0.10"], "searches": ["a.local"], "options": ["ndots:5"]}
    sysctls = {"kernel.shm_rmid_forced": "1", PORTS.replace("/", "."): "2000 3000"}
    made = cri.pod(HANDLER, dns_config=dns, linux={"sysctls": sysctls, "cgroup_parent": "/litebox-test"})
    yield made
    cri("stopp", made[0])
    cri("rmp", made[0])
    until(lambda: (set(cri.containerd.processes()), set(cri.containerd.mounts())) == before, "something is left")
    bundles = cri.containerd.state.glob("io.containerd.*/k8s.io/*")
    assert made[0] not in {path.name for path in bundles}


def until(condition: Callable[[], bool], otherwise: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def inspect(cri: Cri, pod: tuple[str, str]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(cri("inspectp", pod[0]))
    return shown


def shim_of(cri: Cri, pod: tuple[str, str]) -> int:
    (shim,) = cri.containerd.shims(pod[0])
    return shim


def test_it_has_no_machine_of_its_own(cri: Cri, pod: tuple[str, str]) -> None:
    shown = inspect(cri, pod)
    assert shown["status"]["state"] == "SANDBOX_READY"
    assert children(shim_of(cri, pod)) == [shown["info"]["pid"]]
    assert Path(f"/proc/{shown['info']['pid']}/comm").read_text() == "cat\n"


def test_what_its_containers_share(cri: Cri, pod: tuple[str, str]) -> None:
    script = "echo first > /dev/shm/word; cat /etc/hostname /etc/resolv.conf; hostname; "
    script += "cat /proc/sys/kernel/shm_rmid_forced; grep -c localhost /etc/hosts"
    first = cri.container(pod, "/bin/sh", "-c", script)
    assert cri.await_exit(first)["exitCode"] == 0
    hostname = json.loads(Path(pod[1]).read_text())["hostname"]
    resolv = ["search a.local", "nameserver 10.0.0.10", "options ndots:5"]
    said = cri("logs", first).splitlines()
    assert said[:6] == [hostname, *resolv, hostname, "1"]
    assert int(said[6]) >= 1
    show = ("nsenter", "--net", "--target", str(inspect(cri, pod)["info"]["pid"]), "cat", f"/proc/sys/{PORTS}")
    assert subprocess.run(show, check=True, capture_output=True).stdout.split() == [b"2000", b"3000"]
    second = cri.container(pod, "/bin/cat", "/dev/shm/word")
    assert cri.await_exit(second)["exitCode"] == 0
    assert cri("logs", second) == "first"


def test_stats_of_the_pod(cri: Cri, pod: tuple[str, str]) -> None:
    cri.container(pod, *SLEEP)
    pid = inspect(cri, pod)["info"]["pid"]
    stats = json.loads(cri("statsp", "--output", "json", "--id", pod[0]))["stats"][0]["linux"]
    assert int(stats["memory"]["workingSetBytes"]["value"]) > 100_000
    assert stats["network"]["defaultInterface"]["name"] == "eth0"
    assert len(stats["containers"]) == 1
    assert Path(f"/proc/{pid}").exists()


def test_a_restart_of_containerd(cri: Cri, pod: tuple[str, str]) -> None:
    made = cri.container(pod, *SLEEP)
    cri.containerd.stop(signal.SIGKILL)
    cri.containerd.start()
    until(lambda: "true" in cri("info", "-o", "go-template", "--template", "{{.status}}", check=False), "not ready")
    assert inspect(cri, pod)["status"]["state"] == "SANDBOX_READY"
    assert cri.status(made)["state"] == "CONTAINER_RUNNING"
    assert cri("exec", made, "/bin/echo", "inside") == "inside"
    after = cri.container(pod, "/bin/sh", "-c", "exit 4")
    assert cri.await_exit(after)["exitCode"] == 4
    assert len(cri.containerd.shims(pod[0])) == 1


def test_a_sandbox_that_dies(cri: Cri, pod: tuple[str, str]) -> None:
    made = cri.container(pod, *SLEEP)
    os.kill(inspect(cri, pod)["info"]["pid"], signal.SIGKILL)
    until(lambda: inspect(cri, pod)["status"]["state"] == "SANDBOX_NOTREADY", "the pod stays ready")
    assert pod[0] in cri("pods", "--quiet", "--no-trunc", "--state", "NotReady")
    cri("stop", "--timeout", "0", made)


def test_a_shim_that_dies(cri: Cri, pod: tuple[str, str]) -> None:
    made = cri.container(pod, *SLEEP)
    os.kill(shim_of(cri, pod), signal.SIGKILL)
    until(lambda: pod[0] in cri("pods", "--quiet", "--no-trunc", "--state", "NotReady"), "the pod stays ready")
    assert cri.await_exit(made)["exitCode"]


def test_a_pod_on_the_hosts_network(cri: Cri) -> None:
    made = cri.pod(HANDLER, linux={"security_context": {"namespace_options": {"network": 2, "ipc": 2}}})
    shown = cri.container(made, "/bin/sh", "-c", "cat /etc/hostname; ls -d /dev/shm")
    assert cri.await_exit(shown)["exitCode"] == 0
    cri("stopp", made[0])
    cri("rmp", made[0])
    assert cri.containerd.shims(made[0]) == []


def test_a_pod_with_users_of_its_own(cri: Cri) -> None:
    mappings = [{"host_id": 100000, "container_id": 0, "length": 65536}]
    users = {"userns_options": {"mode": 0, "uids": mappings, "gids": mappings}}
    made = cri.pod(HANDLER, linux={"security_context": {"namespace_options": users}})
    pid = inspect(cri, made)["info"]["pid"]
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", "100000", "65536"]
    cri("stopp", made[0])
    cri("rmp", made[0])


def test_a_pod_that_cannot_be(cri: Cri) -> None:
    """CreateSandbox fails: containerd says why, and the shim is gone."""
    before = set(cri.containerd.processes())
    with pytest.raises(AssertionError, match="nothing-like-it"):
        cri.pod(HANDLER, linux={"sysctls": {"net.nothing-like-it": "1"}})
    until(lambda: set(cri.containerd.processes()) == before, "a shim is left")
