"""A real cluster of one node: pods that name LiteBox's RuntimeClass, with the files of deploy/ and of this folder."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration import images
from integration.containerd.daemon import IMAGE
from integration.kubernetes.cluster import Cluster, kubernetes
from integration.kubernetes.conftest import containerd_with_cri

HERE = Path(__file__).parent
RUNTIME_CLASS = HERE.parent.parent / "deploy" / "kubernetes" / "runtimeclass.yaml"
LATEST = "docker.io/library/busybox:latest"  # what pod.yaml names


@pytest.fixture(scope="module")
def cluster(litebox: Path, image: Path, scratch: Path) -> Iterator[Cluster]:
    programs = kubernetes()
    with containerd_with_cri(litebox, image, scratch / "kube", "10.76.0.0/24") as containerd:
        archive = scratch / "kube" / "latest.tar"
        images.write_archive(archive, LATEST, [images.busybox_layer()])
        containerd.ctr("--namespace", "k8s.io", "image", "import", archive)
        made = Cluster(containerd, programs, scratch / "kube" / "cluster")
        try:
            made.start()
            made("label", "node", "node", "dev.litebox/installed=true")
            made("apply", "-f", RUNTIME_CLASS)
            yield made
            made("delete", "pod,deployment,job", "--all", "--grace-period=1", "--wait", check=False)
        finally:
            made.stop()


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": pod_spec(*containers, **spec),
    }


def pod_spec(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "runtimeClassName": "litebox",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": list(containers),
    } | spec


def container(name: str, script: str, **more: Any) -> dict[str, Any]:
    command = ["/bin/sh", "-c", script]
    return {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": command} | more


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


def await_phase(cluster: Cluster, name: str, phase: str) -> dict[str, Any]:
    until(lambda: cluster.get("pod", name)["status"]["phase"] == phase, f"{name} is not {phase}")
    return cluster.get("pod", name)


def await_ready(cluster: Cluster, name: str) -> None:
    cluster("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=50s")


def test_the_pod_of_the_readme(cluster: Cluster) -> None:
    cluster("apply", "-f", HERE / "pod.yaml")
    await_phase(cluster, "in-litebox", "Succeeded")
    assert "hello from a micro-VM" in cluster("logs", "in-litebox").stdout
    assert cluster.get("pod", "in-litebox")["spec"]["overhead"]


def test_containers_of_a_pod_share_network_and_volumes(cluster: Cluster) -> None:
    shared = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    first = container("first", "echo prepared > /shared/index.html", **shared)
    server = container("server", "exec httpd -f -p 8080 -h /shared", **shared)
    fetch = "until wget -q -O - http://127.0.0.1:8080/; do sleep 0.2; done; exec sleep 1000"
    volumes = [{"name": "shared", "emptyDir": {"medium": "Memory"}}]
    cluster.apply(pod("shares", server, container("client", fetch), initContainers=[first], volumes=volumes))
    await_ready(cluster, "shares")
    until(lambda: "prepared" in cluster("logs", "shares", "-c", "client").stdout, "nothing was served")
    assert cluster("exec", "shares", "-c", "server", "--", "cat", "/shared/index.html").stdout == "prepared\n"
    assert cluster("exec", "shares", "-c", "client", "--", "sh", "-c", "exit 3", check=False).returncode == 3
    typed = cluster("exec", "-i", "shares", "-c", "client", "--", "cat", stdin="typed\n")
    assert typed.stdout == "typed\n"


def test_probes(cluster: Cluster) -> None:
    quick = {"periodSeconds": 1, "failureThreshold": 2}
    probed = container(
        "probed",
        "mkdir /www; echo yes > /www/index.html; touch /tmp/alive; exec httpd -f -p 8080 -h /www",
        startupProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 20},
        readinessProbe={"httpGet": {"port": 8080, "path": "/index.html"}} | quick,
        livenessProbe={"exec": {"command": ["test", "-e", "/tmp/alive"]}} | quick,
    )
    cluster.apply(pod("probes", probed))
    await_ready(cluster, "probes")
    assert cluster.get("pod", "probes")["status"]["containerStatuses"][0]["restartCount"] == 0
    cluster("exec", "probes", "--", "rm", "/tmp/alive")
    until(
        lambda: cluster.get("pod", "probes")["status"]["containerStatuses"][0]["restartCount"] == 1,
        "a failed liveness probe restarts the container",
    )
    await_ready(cluster, "probes")


def test_a_configmap_that_changes(cluster: Cluster) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"word": "first"}}
    cluster.apply(settings)
    watching = container(
        "watching",
        "while :; do cat /settings/word; echo; sleep 0.5; done",
        volumeMounts=[{"name": "settings", "mountPath": "/settings"}],
        env=[{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
    )
    cluster.apply(pod("config", watching, volumes=[{"name": "settings", "configMap": {"name": "settings"}}]))
    await_ready(cluster, "config")
    assert cluster("exec", "config", "--", "sh", "-c", "echo $NODE").stdout == "node\n"
    until(lambda: "first" in cluster("logs", "config").stdout, "the first word")
    cluster.apply(settings | {"data": {"word": "second"}})
    until(lambda: "second" in cluster("logs", "config").stdout, "the second word", seconds=100)


def test_security_context(cluster: Cluster) -> None:
    script = "id -u; id -g; id -G; touch /x 2>/dev/null || echo readonly; touch /v/x && echo writable; stat -c %g /v/x"
    limited = container(
        "limited",
        script,
        securityContext={
            "runAsUser": 1000, "runAsGroup": 2000, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
    )  # fmt: skip
    spec = {"securityContext": {"fsGroup": 3000}, "volumes": [{"name": "v", "emptyDir": {}}], "restartPolicy": "Never"}
    cluster.apply(pod("secure", limited, **spec))
    await_phase(cluster, "secure", "Succeeded")
    lines = cluster("logs", "secure").stdout.splitlines()
    assert lines[:2] == ["1000", "2000"]
    assert set(lines[2].split()) == {"2000", "3000"}
    assert lines[3:] == ["readonly", "writable", "3000"]


def test_out_of_memory_is_told(cluster: Cluster) -> None:
    eater = container("eater", "x=x; while :; do x=$x$x; done", resources={"limits": {"memory": "64Mi"}})
    cluster.apply(pod("eats", eater, restartPolicy="Never"))
    failed = await_phase(cluster, "eats", "Failed")
    ended = failed["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_workloads(cluster: Cluster) -> None:
    once = {"spec": pod_spec(container("once", "echo done once"), restartPolicy="Never")}
    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": once}})
    labels = {"app": "web"}

    def deployment(word: str) -> dict[str, Any]:
        server = container("web", f"trap exit TERM; echo {word}; while :; do sleep 0.1; done")
        template = {"metadata": {"labels": labels}, "spec": pod_spec(server)}
        spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}

    for word in ("one", "two"):
        cluster.apply(deployment(word))
        cluster("rollout", "status", "deployment/web", "--timeout=50s")
    until(lambda: set(cluster("logs", "-l", "app=web").stdout.split()) == {"two"}, "the old pods do not go")
    cluster("wait", "--for=condition=Complete", "job/once", "--timeout=50s")
    assert cluster("logs", "job/once").stdout == "done once\n"


def test_files_and_ports(cluster: Cluster, tmp_path: Path) -> None:
    server = container("server", "mkdir /www; echo forwarded > /www/index.html; exec httpd -f -p 8080 -h /www")
    cluster.apply(pod("files", server))
    await_ready(cluster, "files")
    (tmp_path / "file").write_text("copied\n")
    cluster("cp", tmp_path / "file", "files:/tmp/file")
    assert cluster("exec", "files", "--", "cat", "/tmp/file").stdout == "copied\n"
    forward = cluster.popen("port-forward", "pod/files", "18070:8080")
    try:
        fetch = cluster.containerd.inside("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:18070/")

        def answers() -> bool:
            return subprocess.run(fetch, capture_output=True, timeout=20, check=False).stdout == b"forwarded\n"

        until(answers, "nothing is forwarded", seconds=20)
    finally:
        forward.terminate()
        forward.wait(10)


def test_beside_runc(cluster: Cluster) -> None:
    server = container("server", "mkdir /www; echo from runc > /www/index.html; exec httpd -f -p 8080 -h /www")
    cluster.apply(pod("plain", server, runtimeClassName=None))
    await_ready(cluster, "plain")
    address = cluster.get("pod", "plain")["status"]["podIP"]
    client = container("client", f"wget -q -O - http://{address}:8080/")
    cluster.apply(pod("asks", client, restartPolicy="OnFailure"))
    await_phase(cluster, "asks", "Succeeded")
    assert cluster("logs", "asks").stdout == "from runc\n"


def test_pods_outlive_a_restart_of_containerd_and_kubelet(cluster: Cluster) -> None:
    cluster.apply(pod("stays", container("stays", "while :; do date +%s; sleep 1; done")))
    await_ready(cluster, "stays")
    cluster.containerd.stop()
    cluster.containerd.start()
    cluster.restart("kubelet")
    until(lambda: cluster("exec", "stays", "--", "echo", "here", check=False).stdout == "here\n", "no exec any more")
    status = cluster.get("pod", "stays")["status"]
    assert (status["phase"], status["containerStatuses"][0]["restartCount"]) == ("Running", 0)
