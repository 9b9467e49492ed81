"""Pods through CRI, as a kubelet asks for them, with crictl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.containerd.daemon import children
from integration.kubernetes.conftest import CONTAINER_PIDS, Cri

FROM_HOST = 1  # MountPropagation.PROPAGATION_HOST_TO_CONTAINER


@pytest.fixture(params=["litebox", "litebox-sandbox"])
def pod(cri: Cri, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    made = cri.pod(request.param)
    yield made
    cri("stopp", made[0])
    cri("rmp", made[0])


def test_two_containers_of_a_pod(cri: Cri, pod: tuple[str, str]) -> None:
    server = "echo served > /tmp/index; while :; do nc -l -p 8080 < /tmp/index; done"
    first = cri.container(pod, "/bin/sh", "-c", server)
    fetch = "for n in 1 2 3 4 5 6 7 8 9; do nc 127.0.0.1 8080 && break; sleep 0.3; done; hostname; exit 5"
    second = cri.container(pod, "/bin/sh", "-c", fetch)
    assert cri.await_exit(second)["exitCode"] == 5
    hostname = json.loads(Path(pod[1]).read_text())["hostname"]
    assert cri("logs", second).split() == ["served", hostname]
    assert cri("exec", first, "/bin/echo", "inside") == "inside"
    assert cri.status(first)["state"] == "CONTAINER_RUNNING"
    shims = {pid for pid, line in cri.containerd.processes().items() if "containerd-shim-" in line}
    assert len(shims) == 1


def test_a_second_container_adds_its_machine_only(cri: Cri, pod: tuple[str, str]) -> None:
    cri.container(pod, "/bin/sleep", "1000")
    (shim,) = [pid for pid, line in cri.containerd.processes().items() if "containerd-shim-" in line]
    before = descendants(shim)
    cri.container(pod, "/bin/sleep", "1000")
    added = descendants(shim) - before
    assert [Path(f"/proc/{pid}/comm").read_text() for pid in added] == ["litebox-vmm\n"]


def descendants(pid: int) -> set[int]:
    return {below for child in children(pid) for below in (child, *descendants(child))}


def test_the_pods_network(cri: Cri, pod: tuple[str, str]) -> None:
    address = json.loads(cri("inspectp", pod[0]))["status"]["network"]["ip"]
    assert address.startswith("10.77.0.")
    script = "ip addr; nc -l -p 8080 & sleep 0.2; netstat -ltn; cat /proc/net/dev; route -n; "
    script += "ping -c 1 $(ip route | cut -d' ' -f3 | head -n 1); kill %1"
    shown = cri.container(pod, "/bin/sh", "-c", script)
    assert cri.await_exit(shown)["exitCode"] == 0
    said = cri("logs", shown)
    assert address in said
    assert ":8080" in said
    assert "eth0:" in said
    assert "10.77.0.1" in said
    assert "1 packets received" in said


def test_stats_are_those_of_the_container(cri: Cri, pod: tuple[str, str]) -> None:
    made = cri.container(pod, "/bin/sleep", "100")
    stats = json.loads(cri("stats", "--output", "json", "--id", made))["stats"][0]
    assert int(stats["memory"]["workingSetBytes"]["value"]) > 100_000


def test_what_the_node_mounts_below_a_volume(cri: Cri, pod: tuple[str, str], tmp_path: Path) -> None:
    """Later mounts are seen, and can be taken away again; a read-only volume leaves them as they are."""

    def on_node(*command: str | Path) -> None:
        subprocess.run(cri.containerd.inside(*command), check=True)

    before, later = tmp_path / "before", tmp_path / "later"
    for folder in (before, later):
        folder.mkdir()
    on_node("mount", "--bind", tmp_path, tmp_path)
    on_node("mount", "--make-shared", tmp_path)
    on_node("mount", "-t", "tmpfs", "none", before)
    volume = {"container_path": "/v", "host_path": str(tmp_path), "readonly": True, "propagation": FROM_HOST}
    try:
        made = cri.container(pod, "/bin/sleep", "1000", mounts=[volume])
        assert (
            cri("exec", made, "sh", "-c", "touch /v/x 2>/dev/null || touch /v/before/x && echo as it was")
            == "as it was"
        )
        on_node("mount", "-t", "tmpfs", "none", later)
        on_node("touch", later / "seen")
        assert cri("exec", made, "ls", "/v/later", "/v/before").split() == ["/v/before:", "x", "/v/later:", "seen"]
        assert cri("exec", made, "cat", "/v/later/seen") == ""
        on_node("umount", later)
        assert cri("exec", made, "ls", "/v/later") == ""
    finally:
        on_node("umount", "--recursive", "--lazy", tmp_path)


def test_volumes_users_and_environment(cri: Cri, pod: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the node\n")
    tmp_path.chmod(0o755)
    made = cri.container(
        pod,
        "/bin/sh",
        "-c",
        "cat /v/file; id -u; echo $WORD; touch /x 2>/dev/null || echo readonly",
        mounts=[{"container_path": "/v", "host_path": str(tmp_path), "readonly": True}],
        envs=[{"key": "WORD", "value": "spoken"}],
        linux={
            "security_context": CONTAINER_PIDS["security_context"]
            | {"run_as_user": {"value": 1000}, "readonly_rootfs": True}
        },
    )
    assert cri.await_exit(made)["exitCode"] == 0
    assert cri("logs", made).splitlines() == ["of the node", "1000", "spoken", "readonly"]
