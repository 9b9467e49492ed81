"""A real cluster of one node: pods that name LiteBox's RuntimeClass, with the files of deploy/ and of this folder."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import bundles
from integration import images
from integration.containerd.daemon import IMAGE
from integration.kubernetes.cluster import ADDRESSES, DNS, Cluster, kubernetes
from integration.kubernetes.conftest import containerd_with_cri
from integration.terminal import talk

HERE = Path(__file__).parent
DEPLOY = HERE.parent.parent / "deploy" / "kubernetes"
RUNTIME_CLASS = DEPLOY / "runtimeclass.yaml"
LATEST = "docker.io/library/busybox:latest"  # what pod.yaml names
LIMITS = ("memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max")  # of cgroups v1 and v2
WATCHER = "docker.io/library/watcher:test"


@pytest.fixture(scope="module")
def cluster(litebox: Path, image: Path, scratch: Path) -> Iterator[Cluster]:
    programs = kubernetes()
    with containerd_with_cri(litebox, image, scratch / "kube", "10.76.0.0/24", "fd76::/64") as containerd:
        archive = scratch / "kube" / "latest.tar"
        watcher = (bundles.build_guest_programs() / "inotify").read_bytes()
        layers = [images.busybox_layer(), images.layer_of("bin/watcher", watcher, mode=0o755)]
        for name in (LATEST, WATCHER):
            images.write_archive(archive, name, layers)
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


def test_a_secret_that_changes_is_noticed(cluster: Cluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"word": "first"}}
    cluster.apply(secret)
    mount = {"name": "key", "mountPath": "/key"}
    watcher = container("watcher", "exec watcher @follow /key", volumeMounts=[mount]) | {"image": WATCHER}
    cluster.apply(pod("notices", watcher, volumes=[{"name": "key", "secret": {"secretName": "key"}}]))
    await_ready(cluster, "notices")
    until(lambda: "watching" in cluster("logs", "notices").stdout, "it does not watch")
    cluster.apply(secret | {"stringData": {"word": "second"}})
    # As the kubelet does it: a new folder, and the link to it renamed over the old one.
    until(lambda: "MOVED_TO ..data" in cluster("logs", "notices").stdout, "nothing is noticed", seconds=100)
    assert cluster("exec", "notices", "--", "cat", "/key/word").stdout == "second"


def test_downward_api(cluster: Cluster) -> None:
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    memory = {"resourceFieldRef": {"resource": "limits.memory"}}
    told = container(
        "told",
        "exec sleep 1000",
        volumeMounts=[{"name": "about", "mountPath": "/about"}],
        env=[{"name": "LIMIT", "valueFrom": memory}, *from_fields(IP="status.podIP", NAME="metadata.name")],
        resources={"limits": {"memory": "64Mi"}},
    )
    cluster.apply(pod("told", told, volumes=[{"name": "about", "downwardAPI": {"items": items}}]))
    await_ready(cluster, "told")
    address = cluster.get("pod", "told")["status"]["podIP"]
    said = cluster("exec", "told", "--", "sh", "-c", "echo $NAME $IP $LIMIT; cat /about/labels").stdout
    assert said.splitlines() == [f"told {address} {64 << 20}", 'app="told"']
    cluster("label", "pod", "told", "colour=red")
    until(
        lambda: 'colour="red"' in cluster("exec", "told", "--", "cat", "/about/labels").stdout,
        "the new label is not seen",
        seconds=100,
    )


def from_fields(**fields: str) -> list[dict[str, Any]]:
    return [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]


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


def test_a_stateful_set_keeps_its_storage(cluster: Cluster, tmp_path: Path) -> None:
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "by-hand",
        "hostPath": {"path": str(tmp_path)},
    }
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "by-hand",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    labels = {"app": "state"}
    keeper = container(
        "keeper",
        "hostname >> /data/log; trap exit TERM; while :; do sleep 0.1; done",
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
    )
    spec = {
        "serviceName": "state",
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod_spec(keeper)},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
    }
    cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "data"}, "spec": volume},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "state"}, "spec": spec},
    )
    cluster("rollout", "status", "statefulset/state", "--timeout=50s")
    cluster("delete", "pod", "state-0")
    until(lambda: (tmp_path / "log").read_text() == "state-0\nstate-0\n", "it does not come back to its data")
    cluster("delete", "statefulset", "state")


def test_a_cron_job(cluster: Cluster) -> None:
    template = {"spec": {"template": {"spec": pod_spec(container("tick", "echo tick"), restartPolicy="Never")}}}
    spec = {"schedule": "* * * * *", "jobTemplate": template}
    cluster.apply({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "ticks"}, "spec": spec})

    def has_run() -> bool:
        return "lastSuccessfulTime" in cluster.get("cronjob", "ticks").get("status", {})

    until(has_run, "no job has run", seconds=100)
    cluster("delete", "cronjob", "ticks")


def test_a_sidecar(cluster: Cluster) -> None:
    """It starts before the container that needs it, and does not keep the pod from ending."""
    sidecar = container(
        "sidecar",
        "mkdir /www; echo beside > /www/index.html; exec httpd -f -p 8080 -h /www",
        restartPolicy="Always",
        startupProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    )
    main = container("main", "wget -q -O - http://127.0.0.1:8080/")
    cluster.apply(pod("beside", main, initContainers=[sidecar], restartPolicy="Never"))
    await_phase(cluster, "beside", "Succeeded")
    assert cluster("logs", "beside", "-c", "main").stdout == "beside\n"


def test_restarts_back_off(cluster: Cluster) -> None:
    cluster.apply(pod("fails", container("fails", "echo said > /dev/termination-log; exit 3")))

    def status() -> dict[str, Any]:
        found: dict[str, Any] = cluster.get("pod", "fails")["status"].get("containerStatuses", [{}])[0]
        return found

    def waits() -> bool:
        return bool(status().get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff")

    until(lambda: status().get("restartCount", 0) >= 1 and waits(), "it does not back off")
    ended = status()["lastState"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (3, "said\n")
    cluster("delete", "pod", "fails")


def test_how_it_ends(cluster: Cluster, tmp_path: Path) -> None:
    """The hook, then SIGTERM, then as much time as it was given."""
    volume = {
        "volumeMounts": [{"name": "told", "mountPath": "/told"}],
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /told/log"]}}},
    }
    polite = container("polite", "trap 'echo term >> /told/log; exit' TERM; while :; do sleep 0.1; done", **volume)
    deaf = container("deaf", "trap '' TERM; while :; do sleep 0.1; done")
    volumes = [{"name": "told", "hostPath": {"path": str(tmp_path)}}]
    cluster.apply(pod("ends", polite, deaf, volumes=volumes, terminationGracePeriodSeconds=3))
    await_ready(cluster, "ends")
    start = time.monotonic()
    cluster("delete", "pod", "ends")
    assert 3 <= time.monotonic() - start < 20
    assert (tmp_path / "log").read_text() == "hook\nterm\n"


def test_overhead_is_granted(cluster: Cluster) -> None:
    """The pod's limit is its containers' and what the RuntimeClass adds."""
    cluster.apply(pod("over", container("over", "exec sleep 1000", resources={"limits": {"memory": "64Mi", "cpu": 1}})))
    await_ready(cluster, "over")
    found = cluster.get("pod", "over")
    groups = list(Path("/sys/fs/cgroup").glob(f"**/pod{found['metadata']['uid']}"))
    limits = [(group / name).read_text().split()[0] for group in groups for name in LIMITS if (group / name).exists()]
    assert sorted(limits) == sorted([f"{(64 + 24) << 20}", "101000"])
    # The container's are its own, and may change while it runs.
    assert "nproc 1" in cluster("exec", "over", "--", "sh", "-c", "echo nproc $(nproc)").stdout
    more = {"memory": "96Mi"}
    bigger = {"spec": {"containers": [{"name": "over", "resources": {"limits": more, "requests": more}}]}}
    cluster("patch", "pod", "over", "--subresource=resize", "--patch", json.dumps(bigger))

    def resized() -> bool:
        status = cluster.get("pod", "over")["status"]["containerStatuses"][0]
        return bool(status["resources"]["limits"]["memory"] == "96Mi")

    until(resized, "the limit does not change")
    assert cluster.get("pod", "over")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_streams(cluster: Cluster) -> None:
    cluster.apply(pod("talks", container("talks", "while read word; do echo got $word; done", stdin=True)))
    await_ready(cluster, "talks")
    attach = cluster.command("attach", "-i", "talks")
    # The end of its input would be the end of it all.
    with subprocess.Popen(attach, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as attached:
        assert attached.stdin
        assert attached.stdout
        attached.stdin.write(b"typed\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == b"got typed\n"

    counts = container("counts", "for n in 1 2 3; do echo $n; sleep 0.5; done")
    cluster.apply(pod("counts", counts, container("stays", "exec sleep 1000")))
    await_ready(cluster, "counts")
    assert cluster("logs", "-f", "counts", "-c", "counts").stdout.split()[:3] == ["1", "2", "3"]
    command = cluster.command(
        "exec", "-it", "counts", "-c", "stays", "--", "sh", "-c", "tty; read word; echo got-$word"
    )
    out, code = talk(command, b"typed\n", environment=cluster.containerd.environment)
    assert b"/dev/pts/" in out
    assert b"got-typed" in out
    assert code == 0


def test_debugging_with_another_container(cluster: Cluster) -> None:
    server = container("server", "mkdir /www; echo seen > /www/index.html; exec httpd -f -p 8080 -h /www")
    cluster.apply(pod("debugged", server))
    await_ready(cluster, "debugged")
    look = ("wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
    image = (f"--image={IMAGE}", "--image-pull-policy=Never", "-c", "debugger")
    cluster("debug", "debugged", *image, "--", *look)
    until(
        lambda: cluster("logs", "debugged", "-c", "debugger", check=False).stdout == "seen\n",
        "the debugger does not see the pod",
    )


def test_drain(cluster: Cluster) -> None:
    cluster.apply(pod("drained", container("drained", "exec sleep 1000")))
    await_ready(cluster, "drained")
    try:
        cluster("drain", "node", "--force", "--pod-selector=app=drained", "--timeout=50s")
        assert cluster("get", "pod", "drained", check=False).returncode
    finally:
        cluster("uncordon", "node")


@pytest.mark.parametrize("path", [*sorted(DEPLOY.glob("*.yaml")), HERE / "pod.yaml"], ids=lambda path: path.stem)
def test_the_api_server_accepts(cluster: Cluster, path: Path) -> None:
    """Against its own schemas, unknown fields refused."""
    cluster("create", "namespace", "litebox-system", check=False)
    cluster("apply", "--dry-run=server", "--validate=strict", "-f", path)


def test_files_and_ports(cluster: Cluster, tmp_path: Path) -> None:
    server = container("server", "mkdir /www; echo forwarded > /www/index.html; exec httpd -f -p 8080 -h /www")
    cluster.apply(pod("files", server))
    await_ready(cluster, "files")
    (tmp_path / "file").write_text("copied\n")
    cluster("cp", tmp_path / "file", "files:/tmp/file")
    assert cluster("exec", "files", "--", "cat", "/tmp/file").stdout == "copied\n"
    cluster("cp", "files:/www/index.html", tmp_path / "page")
    assert (tmp_path / "page").read_text() == "forwarded\n"
    forward = subprocess.Popen(
        cluster.command("port-forward", "pod/files", "18070:8080"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        fetch = cluster.containerd.inside("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:18070/")

        def answers() -> bool:
            return subprocess.run(fetch, capture_output=True, timeout=20, check=False).stdout == b"forwarded\n"

        until(answers, "nothing is forwarded", seconds=20)
    finally:
        forward.terminate()
        forward.wait(10)


def test_services_by_name(cluster: Cluster) -> None:
    """A cluster's DNS server in LiteBox, and services of both families that pods with LiteBox and with runc ask for."""
    start_dns(cluster)
    server = "mkdir /www; echo served by $(hostname) > /www/index.html; exec httpd -f -p 8080 -h /www"
    labels = {"app": "named"}
    backends = pod_spec(container("server", server))
    spec = {"replicas": 2, "serviceName": "named", "selector": {"matchLabels": labels}}
    spec["template"] = {"metadata": {"labels": labels}, "spec": backends}
    ports = {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}], "ipFamilyPolicy": "RequireDualStack"}
    cluster.apply(
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "named"}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "named"}, "spec": ports | {"clusterIP": "None"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "balanced"}, "spec": ports},
    )
    cluster("rollout", "status", "statefulset/named", "--timeout=50s")
    addresses = cluster.get("service", "balanced")["spec"]["clusterIPs"]
    assert len(addresses) == len(ADDRESSES)
    for name, runtime in (("asks-litebox", "litebox"), ("asks-runc", None)):
        cluster.apply(pod(name, container("client", "exec sleep 1000"), runtimeClassName=runtime))
        await_ready(cluster, name)
        for host in ("balanced", "balanced.default.svc.cluster.local", addresses[0], f"[{addresses[1]}]"):
            until(partial(leads_to_both, cluster, name, host), f"{host} does not lead to both pods", seconds=30)
        assert fetched(cluster, name, "named-1.named:8080") == {"served by named-1"}
        found = cluster("exec", name, "--", "nslookup", "-type=aaaa", "balanced.default.svc.cluster.local").stdout
        assert addresses[1] in found
    cluster("delete", "statefulset/named", "service/named", "service/balanced")


def fetched(cluster: Cluster, client: str, host: str, times: int = 1) -> set[str]:
    script = f"for n in $(seq {times}); do wget -q -O - http://{host}/; done"
    return set(cluster("exec", client, "--", "sh", "-c", script, check=False).stdout.splitlines())


def leads_to_both(cluster: Cluster, client: str, host: str) -> bool:
    return fetched(cluster, client, host, times=16) == {"served by named-0", "served by named-1"}


def start_dns(cluster: Cluster) -> None:
    image = "docker.io/library/coredns:test"
    archive = cluster.folder / "coredns.tar"
    program = (cluster.programs / "coredns").read_bytes()
    images.write_archive(archive, image, [images.layer_of("coredns", program, mode=0o755)])
    cluster.containerd.ctr("--namespace", "k8s.io", "image", "import", archive)
    settings = ".:53 {\n errors\n ready\n cache 5\n kubernetes cluster.local\n}\n"
    server = {
        "name": "coredns",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["/coredns", "-conf", "/config/Corefile"],
        "volumeMounts": [{"name": "config", "mountPath": "/config"}],
        "readinessProbe": {"httpGet": {"port": 8181, "path": "/ready"}, "periodSeconds": 1},
    }
    volumes = [{"name": "config", "configMap": {"name": "coredns"}}]
    ports = [{"name": f"dns-{protocol.lower()}", "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns"}, "data": {"Corefile": settings}},
        pod("coredns", server, volumes=volumes, dnsPolicy="Default", automountServiceAccountToken=True),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "dns"},
            "spec": {"clusterIP": DNS, "selector": {"app": "coredns"}, "ports": ports},
        },
    )
    await_ready(cluster, "coredns")


def test_beside_runc(cluster: Cluster) -> None:
    server = container("server", "mkdir /www; echo from runc > /www/index.html; exec httpd -f -p 8080 -h /www")
    cluster.apply(pod("plain", server, runtimeClassName=None))
    await_ready(cluster, "plain")
    address = cluster.get("pod", "plain")["status"]["podIP"]
    client = container("client", f"wget -q -O - http://{address}:8080/")
    cluster.apply(pod("asks", client, restartPolicy="OnFailure"))
    await_phase(cluster, "asks", "Succeeded")
    assert cluster("logs", "asks").stdout == "from runc\n"


def test_asked_by_runc(cluster: Cluster) -> None:
    server = container("server", "mkdir /www; echo from LiteBox > /www/index.html; exec httpd -f -p 8080 -h /www")
    cluster.apply(pod("serves", server))
    await_ready(cluster, "serves")
    address = cluster.get("pod", "serves")["status"]["podIP"]
    client = container("client", f"wget -q -O - http://{address}:8080/")
    cluster.apply(pod("asks-us", client, restartPolicy="OnFailure", runtimeClassName=None))
    await_phase(cluster, "asks-us", "Succeeded")
    assert cluster("logs", "asks-us").stdout == "from LiteBox\n"


def test_pods_outlive_a_restart_of_containerd_and_kubelet(cluster: Cluster) -> None:
    cluster.apply(pod("stays", container("stays", "while :; do date +%s; sleep 1; done")))
    await_ready(cluster, "stays")
    cluster.containerd.stop()
    cluster.containerd.start()
    cluster.restart("kubelet")
    until(lambda: cluster("exec", "stays", "--", "echo", "here", check=False).stdout == "here\n", "no exec any more")
    status = cluster.get("pod", "stays")["status"]
    assert (status["phase"], status["containerStatuses"][0]["restartCount"]) == ("Running", 0)
