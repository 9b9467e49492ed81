"""Pods on the networks that CNI's own plugins make: bridge and ptp, IPv4 and IPv6 side by side, ports mapped."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import bundles
from integration import images
from integration.kubernetes.conftest import Cri, connected, containerd_with_cri

SUBNETS = {"bridge": ("10.73.0.0/24", "fd73::/64"), "ptp": ("10.74.0.0/24", "fd74::/64")}
TOOLS = "docker.io/library/network:test"
SERVER = "mkdir /www; echo served by $(hostname) > /www/index.html; exec httpd -f -p 8080 -h /www"
PORT = 18080


class Pod(NamedTuple):
    name: str
    handle: tuple[str, str]
    addresses: list[str]  # one for each subnet
    container: str


@pytest.fixture(scope="module", params=SUBNETS)
def network(request: pytest.FixtureRequest, litebox: Path, image: Path, scratch: Path) -> Iterator[Cri]:
    kind = request.param
    folder = scratch / kind
    with (
        containerd_with_cri(litebox, image, folder, *SUBNETS[kind], network=kind) as containerd,
        connected(containerd, folder) as cri,
    ):
        for family in ("ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"):
            subprocess.run(containerd.inside("sh", "-c", f"echo 1 > /proc/sys/net/{family}"), check=True)
        program = (bundles.build_guest_programs() / "inet").read_bytes()
        layers = [images.busybox_layer(), images.layer_of("bin/inet", program, mode=0o755)]
        images.write_archive(folder / "tools.tar", TOOLS, layers)
        containerd.ctr("--namespace", "k8s.io", "image", "import", folder / "tools.tar")
        yield cri


@pytest.fixture(scope="module")
def pods(network: Cri) -> list[Pod]:
    """A server, with a mapped port, and a client."""
    mapped: dict[str, Any] = {"port_mappings": [{"container_port": 8080, "host_port": PORT}]}
    made = [make(network, SERVER, **mapped), make(network, "exec sleep 1000")]
    await_unique_addresses(network)
    return made


def await_unique_addresses(cri: Cri) -> None:
    """Until the node may use its IPv6 addresses: duplicate address detection takes a second or two."""
    show = cri.containerd.inside("ip", "-6", "-oneline", "address", "show", "tentative")
    deadline = time.monotonic() + 10
    while subprocess.run(show, capture_output=True, check=True).stdout:
        assert time.monotonic() < deadline, "the node's addresses stay tentative"
        time.sleep(0.1)


def make(cri: Cri, script: str, **more: Any) -> Pod:
    handle = cri.pod("litebox", **more)
    found = json.loads(cri("inspectp", handle[0]))["status"]["network"]
    addresses = [found["ip"], *(other["ip"] for other in found["additionalIps"])]
    hostname = json.loads(Path(handle[1]).read_text())["hostname"]
    container = cri.container(handle, "/bin/sh", "-c", script, image={"image": TOOLS})
    return Pod(hostname, handle, addresses, container)


def gateway(address: str) -> str:
    """The node's own address in a pod's subnet."""
    return str(ip_address(address) - (int(ip_address(address)) & 0xFF) + 1)


def url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


def fetched(cri: Cri, pod: Pod, address: str, port: int = 8080) -> str:
    return cri("exec", pod.container, "wget", "-q", "-O", "-", url(address, port))


def await_server(cri: Cri, server: Pod) -> None:
    deadline = time.monotonic() + 10
    while "served" not in cri("exec", server.container, "wget", "-q", "-O", "-", url("::1", 8080), check=False):
        assert time.monotonic() < deadline, "the server does not start"
        time.sleep(0.2)


def test_a_pod_knows_its_addresses(network: Cri, pods: list[Pod]) -> None:
    pod = pods[1]
    told = network("exec", pod.container, "inet", "@addresses").splitlines()
    assert {"lo 127.0.0.1", "lo ::1", *(f"eth0 {address}" for address in pod.addresses)} <= set(told)
    assert any(line.startswith("eth0 fe80:") and line.endswith("%eth0") for line in told), told
    shown = network("exec", pod.container, "ip", "addr")
    assert all(address in shown for address in pod.addresses)
    table = network("exec", pod.container, "cat", "/proc/net/if_inet6")
    assert ip_address(pod.addresses[1]).exploded.replace(":", "") in table
    for family, address in zip(("-4", "-6"), pod.addresses, strict=True):
        assert f"default via {gateway(address)} dev eth0" in network("exec", pod.container, "ip", family, "route")


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_pods_and_the_node_reach_each_other(network: Cri, pods: list[Pod], family: int) -> None:
    server, client = pods
    await_server(network, server)
    page = f"served by {server.name}"
    address = server.addresses[family]
    node = gateway(address)
    assert fetched(network, client, address) == page
    for where in (url(address, 8080), url(node, PORT)):
        fetch = network.containerd.inside("busybox", "wget", "-q", "-O", "-", where)
        assert subprocess.run(fetch, capture_output=True, text=True, timeout=20, check=True).stdout == f"{page}\n"
    listener = network.containerd.inside("busybox", "nc", "-l", "-p", "18081", "-e", "/bin/echo", "of the node")
    with subprocess.Popen(listener) as listening:
        time.sleep(0.3)
        try:
            assert network("exec", client.container, "nc", "-w", "5", node, "18081") == "of the node"
        finally:
            listening.kill()


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_echo_requests(network: Cri, pods: list[Pod], family: int) -> None:
    server, client = pods
    for address in (server.addresses[family], gateway(client.addresses[family]), ("127.0.0.1", "::1")[family]):
        assert "1 packets received" in network("exec", client.container, ("ping", "ping6")[family], "-c", "1", address)


def test_link_local_addresses(network: Cri, pods: list[Pod]) -> None:
    """They are of use with their interface only."""
    server = pods[0]
    told = [line.split() for line in network("exec", server.container, "inet", "@addresses").splitlines()]
    (address,) = [words[1] for words in told if words[1].startswith("fe80:")]
    await_server(network, server)
    assert "1 packets received" in network("exec", server.container, "ping6", "-c", "1", address)
    assert fetched(network, server, address) == f"served by {server.name}"


def test_names(network: Cri) -> None:
    config = {"servers": ["fd00::53", "10.0.0.53"], "searches": ["test.svc"], "options": ["ndots:3"]}
    pod = make(network, "exec sleep 1000", dns_config=config)
    said = network("exec", pod.container, "cat", "/etc/resolv.conf").splitlines()
    assert sorted(said) == ["nameserver 10.0.0.53", "nameserver fd00::53", "options ndots:3", "search test.svc"]
