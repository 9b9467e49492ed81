"""Changing the network from inside a container, as CAP_NET_ADMIN allows: what iproute2, ifconfig, route, arp and brctl say and
leave behind is what they say and leave behind on the host, in a network namespace of their own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import bundles

ADMINISTRATOR = ("CAP_NET_ADMIN",)
#: Each command, what it says, and its exit status.
SHELL = """
run() {{ echo "$ $*"; "$@" 2>&1; echo "= $?"; }}
{script}
"""

LINKS = """
run /bin/ip link add br0 address 02:00:00:00:00:01 type bridge stp_state 0 forward_delay 200
run /bin/ip link add a0 address 02:00:00:00:00:02 type veth peer name b0 address 02:00:00:00:00:03
run /bin/ip link add br0 type bridge
run /bin/ip link set a0 master br0
run /bin/ip link set br0 mtu 1400 txqueuelen 77 alias "a bridge"
run /bin/ip link set b0 name c0
run /bin/ip link set c0 address 02:00:00:00:00:13
run /bin/ip link set a0 up
run /bin/ip link set c0 up
run /bin/ip link set br0 up
run /bin/ip -d -o link show br0
run /bin/ip -d -o link show a0
run /bin/ip -br link show c0
run /bin/ip link set a0 nomaster
run /bin/ip link set c0 down
run /bin/ip -br link
run /bin/ip link del a0
run /bin/ip link del a0
run /bin/ip link set br0 addrgenmode none
run /bin/ip link del br0
run /bin/ip -o link
"""

ADDRESSES_AND_ROUTES = """
run /bin/ip link add a0 address 02:00:00:00:00:02 type veth peer name b0 address 02:00:00:00:00:03
run /bin/ip link set a0 up
run /bin/ip link set b0 up
run /bin/ip addr add 10.1.0.1/24 broadcast + label a0:1 dev a0
run /bin/ip addr add 10.1.0.1/24 dev a0
run /bin/ip addr add 10.1.0.2/24 dev a0
run /bin/ip addr add fd00::1/64 dev a0 nodad
run /bin/ip -o -4 addr show a0
run /bin/ip route add 10.2.0.0/16 via 10.1.0.9 metric 7 mtu 1300
run /bin/ip route add 10.3.0.0/16 dev a0 src 10.1.0.2
run /bin/ip route add 10.4.0.0/16 nexthop via 10.1.0.8 weight 2 nexthop via 10.1.0.9
run /bin/ip route replace 10.2.0.0/16 via 10.1.0.8 metric 7
run /bin/ip route add default via 10.9.0.1
run /bin/ip route add default via 10.1.0.254
run /bin/ip route add blackhole 10.5.0.0/16
run /bin/ip -6 route add fd01::/64 via fd00::9
run /bin/ip route
run /bin/ip -6 route show fd01::/64
run /bin/ip route get 10.3.0.1
run /bin/ip route del 10.3.0.0/16
run /bin/ip route del 10.3.0.0/16
run /bin/ip rule add from 10.1.0.1 table 100 priority 500
run /bin/ip rule
run /bin/ip rule del priority 500
run /bin/ip neigh add 10.1.0.77 lladdr 02:00:00:00:00:77 dev a0 nud permanent
run /bin/ip neigh show 10.1.0.77
run /bin/ip neigh del 10.1.0.77 dev a0
run /bin/ip addr del 10.1.0.2/24 dev a0
run /bin/ip -o -4 addr show a0
run /bin/ip route flush 10.2.0.0/16
run /bin/ip addr flush dev a0
run /bin/ip route
"""

CONTROLS = """
run brctl addbr b0
run brctl addbr b0
run brctl addbr b1
run /bin/ip link add v0 type veth peer name v1
run brctl addif b0 v0
run brctl addif b0 nonesuch
run cat /sys/class/net/v0/mtu
run /bin/ip -br link show master b0 type veth up
run brctl delif b0 v0
run brctl delbr b1
run brctl delbr b1
run /bin/ifconfig v0 hw ether 02:00:00:00:00:02
run busybox ifconfig v0 10.1.0.1 netmask 255.255.255.0 broadcast 10.1.0.255 mtu 1300 up
run busybox ifconfig v1 txqueuelen 50 up
run /bin/ip -o -4 addr show v0
run busybox ifconfig v0 add fd00::1/64
run busybox route add -net 10.2.0.0 netmask 255.255.0.0 gw 10.1.0.9
run busybox route add -net 10.3.0.0/16 dev v0
run busybox route add default gw 10.1.0.254 dev v0
run busybox route -A inet6 add fd01::/64 dev v0
run busybox route -n
run /bin/ip -6 route show fd01::/64
run busybox route del default
run busybox route del default
run /bin/ip route
run /bin/arp -i v0 -s 10.1.0.5 02:00:00:00:00:55
run /bin/ip neigh show 10.1.0.5
run /bin/arp -i v0 -d 10.1.0.5
run busybox ifconfig v0 down
run /bin/ip -br link show v0
run brctl delbr b0
"""

SETTINGS = """
run sh -c "find /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/neigh /proc/sys/net/ipv6/conf -type f | sort"
run stat -c "%A %F" /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/route/flush
run sysctl net.ipv4.ip_forward net.ipv4.ip_local_port_range net.ipv6.conf.lo.disable_ipv6
run sysctl -w net.ipv4.ip_forward=1
run cat /proc/sys/net/ipv4/conf/lo/forwarding
run sysctl -w net.ipv4.ip_local_port_range="20000 30000"
run sysctl net.ipv4.ip_local_port_range
run sysctl -w net.ipv4.ip_forward=word
run /bin/ip link add a0 type veth peer name b0
run sysctl -w net.ipv4.conf.a0.rp_filter=2
run sysctl net.ipv4.conf.a0.rp_filter
run sysctl -w net.ipv4.conf.none.rp_filter=2
run ls /proc/sys/net/ipv4/conf
run sysctl -w net.ipv4.tcp_congestion_control=reno
"""

WITHOUT = """
run /bin/ip link add br0 type bridge
run /bin/ip link set lo mtu 1400
run /bin/ip addr add 10.1.0.1/24 dev lo
run /bin/ip route add 10.2.0.0/16 dev lo
run brctl addbr b0
run busybox ifconfig lo 127.0.0.2
run busybox route add -net 10.3.0.0/16 dev lo
run /bin/ip -o link
"""


@pytest.fixture
def bundle(tmp_path: Path) -> bundles.Bundle:
    programs = [Path(found) for name in ("ip", "ifconfig", "arp") if (found := shutil.which(name))]
    if len(programs) < 3:
        pytest.skip("needs iproute2 and net-tools")
    return bundles.busybox_bundle(tmp_path / "bundle", programs)


def outcome(runtime: bundles.Native | bundles.Runtime, bundle: bundles.Bundle) -> Sequence[str]:
    ended = runtime.run(bundle, timeout=60)
    assert ended.code == 0, str(ended)
    # Timers run.
    return re.sub(r"(timer +)[\d.]+", r"\1", ended.text).splitlines()


@pytest.mark.parametrize(
    ("script", "capabilities"),
    [
        (LINKS, ADMINISTRATOR),
        (ADDRESSES_AND_ROUTES, ADMINISTRATOR),
        (CONTROLS, ADMINISTRATOR),
        (SETTINGS, ADMINISTRATOR),
        (WITHOUT, ()),
    ],
    ids=["links", "addresses and routes", "controls", "settings", "without the capability"],
)
def test_as_on_the_host(
    contained: bundles.Runtime, bundle: bundles.Bundle, script: str, capabilities: Sequence[str]
) -> None:
    bundle.configure(["sh", "-c", SHELL.format(script=script)], capabilities=capabilities)
    assert outcome(contained, bundle) == outcome(bundles.Native(), bundle)


@pytest.mark.parametrize(
    "command",
    [
        "ip link add x0 type vxlan id 7 dstport 4789",  # a kind of device that is not known
        "ip link add x0 netns 1 type veth",  # another namespace
        "ip link set lo netns 1",
        "tc qdisc add dev lo root tbf rate 1mbit burst 10kb latency 1ms",
    ],
)
def test_what_is_not_offered(contained: bundles.Runtime, bundle: bundles.Bundle, command: str) -> None:
    name, *arguments = command.split()
    program = Path(shutil.which(name) or pytest.skip("a program is missing"))
    bundle = bundles.busybox_bundle(bundle.path.parent / "refused", [program])
    bundle.configure([f"/bin/{name}", *arguments], capabilities=ADMINISTRATOR)
    ended = contained.run(bundle, timeout=60)
    assert (ended.code, ended.stderr.strip()) == (2, b"RTNETLINK answers: Operation not supported")


@pytest.mark.parametrize("capabilities", [(), ("CAP_NET_RAW",), ADMINISTRATOR], ids=["without", "raw", "administrator"])
def test_options_of_sockets_that_take_a_capability(
    contained: bundles.Runtime, tmp_path: Path, capabilities: Sequence[str]
) -> None:
    program = bundles.BUILD / "cli" / "options"
    program.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-static", "-o", program, Path(__file__).parent / "options.c"], check=True)
    bundle = bundles.busybox_bundle(tmp_path / "bundle", [program])
    bundle.configure(["options"], capabilities=capabilities)
    assert outcome(contained, bundle) == outcome(bundles.Native(), bundle)


def test_the_hosts_network_is_not_the_containers(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    document = bundles.configuration(
        ["/bin/ip", "link", "add", "litebox0", "type", "bridge"], capabilities=ADMINISTRATOR
    )
    document["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    (bundle.path / "config.json").write_text(json.dumps(document))
    ended = contained.run(bundle, timeout=60)
    assert (ended.code, ended.stderr.strip()) == (2, b"RTNETLINK answers: Operation not permitted")


def test_settings_are_kept_from_others(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    script = "cat /proc/sys/net/ipv4/ip_default_ttl; echo 7 > /proc/sys/net/ipv4/ip_default_ttl"
    bundle.configure(["sh", "-c", script])
    ended = contained.run(bundle, timeout=60)
    assert (ended.code, ended.text) == (1, "64\n"), str(ended)
    assert b"Operation not permitted" in ended.stderr


def test_ports_that_need_no_capability(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    document = bundles.configuration(["busybox", "nc", "-l", "-p", "80", "-w", "1"], uid=1000)
    document["process"]["capabilities"] = {}
    refused, allowed = document, {**document, "linux": {**document["linux"]}}
    allowed["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80"}
    for config, words in ((refused, b"Permission denied"), (allowed, b"timed out")):
        (bundle.path / "config.json").write_text(json.dumps(config))
        assert words in contained.run(bundle, timeout=60).stderr
