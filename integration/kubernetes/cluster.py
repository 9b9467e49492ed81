"""A Kubernetes of one node: etcd, API server, controllers, scheduler, kubelet and proxy, over one's own containerd.

Everything lives in one folder and in the namespaces of that containerd (network and mounts), where the node has
addresses of its own, of IPv4 and IPv6. Pods are told of a DNS server at DNS, which a test may start.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration import installed
from integration.containerd.daemon import Containerd

PROGRAMS = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl",
    "coredns",
)  # fmt: skip
ADDRESSES = ("10.89.0.1", "fd89::1")
SERVICES = "10.96.0.0/16,fd96::/112"
DNS = "10.96.0.10"
ETCD, PEER, API, KUBELET, HEALTH, MANAGER, SCHEDULER, PROXY = 12379, 12380, 443, 16450, 16451, 16452, 16453, 16454
TOKEN = "admin"  # the API server listens in a private network namespace only
READY_SECONDS = 120
# A kubelet sets them, for the whole machine.
SYSCTLS = [Path("/proc/sys") / name for name in ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")]


def kubernetes() -> Path:
    """The folder with Kubernetes' programs. Skips where they are not installed."""
    kubelets = list(installed.engines("kubelet").values())
    if not kubelets or any(not kubelets[0].with_name(name).exists() for name in PROGRAMS):
        pytest.skip("Kubernetes is not installed (make engines)")
    return kubelets[0].parent


class Cluster:
    """The cluster; `kubectl` talks to it."""

    def __init__(self, containerd: Containerd, programs: Path, folder: Path) -> None:
        self.containerd = containerd
        self.programs = programs
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self._sysctls = {path: path.read_text() for path in SYSCTLS}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._arguments: dict[str, tuple[str, ...]] = {}

    def start(self) -> None:
        self.folder.mkdir()
        self._prepare_network()
        self._write_files()
        at = f"https://127.0.0.1:{API}"
        etcd, peer = f"http://127.0.0.1:{ETCD}", f"http://127.0.0.1:{PEER}"
        self._run(
            "etcd", f"--data-dir={self.folder}/etcd", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )  # fmt: skip
        self._run(
            "kube-apiserver", f"--etcd-servers={etcd}", f"--advertise-address={ADDRESSES[0]}", f"--secure-port={API}",
            f"--cert-dir={self.folder}/apiserver", f"--service-cluster-ip-range={SERVICES}", "--allow-privileged",
            f"--token-auth-file={self.folder}/tokens", "--authorization-mode=AlwaysAllow",
            "--kubelet-preferred-address-types=InternalIP", f"--service-account-issuer={at}",
            f"--service-account-key-file={self.folder}/account.pub",
            f"--service-account-signing-key-file={self.folder}/account.key",
        )  # fmt: skip
        self._await("the API server", lambda: self("get", "--raw", "/readyz", check=False).returncode == 0)
        connection = (f"--kubeconfig={self.kubeconfig}", "--bind-address=127.0.0.1", "--leader-elect=false")
        self._run(
            "kube-controller-manager", *connection, f"--secure-port={MANAGER}", f"--cert-dir={self.folder}/manager",
            f"--service-account-private-key-file={self.folder}/account.key",
            f"--root-ca-file={self.folder}/apiserver/apiserver.crt", "--controllers=*,-node-ipam-controller",
            f"--service-cluster-ip-range={SERVICES}",
        )  # fmt: skip
        self._run("kube-scheduler", *connection, f"--secure-port={SCHEDULER}", f"--cert-dir={self.folder}/scheduler")
        self._run(
            "kubelet", f"--config={self.folder}/kubelet.json", f"--kubeconfig={self.kubeconfig}",
            f"--root-dir={self.folder}/kubelet", f"--cert-dir={self.folder}/kubelet-certificates",
            "--hostname-override=node", f"--node-ip={','.join(ADDRESSES)}",
        )  # fmt: skip
        self._await("the node", self._node_is_ready)
        self._run("kube-proxy", f"--config={self.folder}/proxy.json", "--hostname-override=node")
        self._await("the service account", lambda: self("get", "sa", "default", check=False).returncode == 0)

    def stop(self) -> None:
        for process in reversed(self._running.values()):
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        for path, value in self._sysctls.items():
            path.write_text(value)

    def __call__(
        self, *arguments: str | Path, stdin: str = "", check: bool = True, seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """kubectl."""
        command = self.command(*arguments)
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
        assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done

    def command(self, *arguments: str | Path) -> list[str]:
        """A command line of kubectl."""
        return self.containerd.inside(self.programs / "kubectl", "--kubeconfig", self.kubeconfig, *arguments)

    def apply(self, *objects: dict[str, Any]) -> None:
        self("apply", "-f", "-", stdin="\n---\n".join(json.dumps(item) for item in objects))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self("get", kind, name, "-o", "json").stdout)
        return value

    def log(self, program: str) -> str:
        return (self.folder / f"{program}.log").read_text(errors="replace")

    def _prepare_network(self) -> None:
        """The node's addresses, on an interface that leads nowhere; and what passes between pods and services."""
        for command in (
            ("ip", "link", "add", "node0", "type", "veth", "peer", "name", "node1"),
            ("ip", "link", "set", "node1", "up"),
            ("ip", "addr", "add", f"{ADDRESSES[0]}/32", "dev", "node0"),
            ("ip", "addr", "add", f"{ADDRESSES[1]}/128", "dev", "node0", "nodad"),
            ("ip", "link", "set", "node0", "up"),
            ("ip", "route", "add", "default", "dev", "node0"),
            ("ip", "-6", "route", "add", "default", "dev", "node0"),
            ("sysctl", "-q", "net.ipv4.conf.all.forwarding=1", "net.ipv6.conf.all.forwarding=1"),
        ):
            subprocess.run(self.containerd.inside(*command), check=True)

    def _write_files(self) -> None:
        key, public = self.folder / "account.key", self.folder / "account.pub"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
        (self.folder / "tokens").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        server = {"server": f"https://127.0.0.1:{API}", "insecure-skip-tls-verify": True}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(json.dumps(config))
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESSES[0],
            "port": KUBELET,
            "healthzPort": HEALTH,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "cgroupRoot": "/",
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "failCgroupV1": False,
            "oomScoreAdj": 0,
            "containerRuntimeEndpoint": f"unix://{self.containerd.socket}",
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": False,
            "podLogsDir": str(self.folder / "pod-logs"),
            "serializeImagePulls": False,
            "syncFrequency": "5s",
        }
        (self.folder / "kubelet.json").write_text(json.dumps(kubelet))
        proxy = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": str(self.kubeconfig)},
            "healthzBindAddress": f"127.0.0.1:{PROXY}",
            "metricsBindAddress": "",
            # The whole machine's.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
        (self.folder / "proxy.json").write_text(json.dumps(proxy))

    def restart(self, program: str) -> None:
        process = self._running[program]
        process.terminate()
        process.wait(20)
        self._run(program, *self._arguments[program])

    def _run(self, program: str, *arguments: str) -> None:
        self._arguments[program] = arguments
        with (self.folder / f"{program}.log").open("ab") as log:
            command = self.containerd.inside(self.programs / program, *arguments)
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._running[program] = process

    def _node_is_ready(self) -> bool:
        path = '-o=jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        return self("get", "node", "node", path, check=False).stdout == "True"

    def _await(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            for program, process in self._running.items():
                assert process.poll() is None, f"{program} has ended:\n{self.log(program)[-2000:]}"
            assert time.monotonic() < deadline, f"{what} is not ready"
            time.sleep(0.3)
