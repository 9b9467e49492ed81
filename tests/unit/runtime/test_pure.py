"""Small pure parts: flags, signals, seccomp, JSON, cgroup paths and settings, sandbox configuration."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime import fastjson, sandbox, seccomp
from runtime.cli.flags import Flag, parse
from runtime.errors import InvalidArgument, InvalidSpec, Unsupported
from runtime.host.cgroups import paths, resources
from runtime.linux_tables import signal_number
from runtime.plan.make import make
from runtime.plan.model import HostFacts
from runtime.store import check_id

FLAGS = (
    Flag("bundle b", "DIR"),
    Flag("all a"),
    Flag("env e", "K=V", repeat=True),
    Flag("format", "F", default="table"),
)


def test_flags_as_go_reads_them() -> None:
    parsed = parse(["-bundle", "x", "--all=false", "-e", "A=1", "--env=B=2", "id", "-a"], FLAGS, interspersed=True)
    assert (parsed.text("bundle"), parsed.on("all"), parsed.list("env"), parsed.args) == (
        "x",
        True,
        ["A=1", "B=2"],
        ["id"],
    )
    assert parsed.text("format") == "table"
    parsed = parse(["id", "-a"], FLAGS, interspersed=False)
    assert (parsed.args, parsed.on("all")) == (["id", "-a"], False)
    assert parse(["--", "-a"], FLAGS, interspersed=True).args == ["-a"]
    assert parse(["-"], FLAGS, interspersed=True).args == ["-"]


@pytest.mark.parametrize("argv", [["--nope"], ["--bundle"], ["--all=perhaps"]])
def test_bad_flags(argv: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        parse(argv, FLAGS, interspersed=True)


@pytest.mark.parametrize(
    ("text", "number"),
    [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("SIGPOLL", 29), ("0", 0),
     ("65", None), ("SIGNOPE", None), ("RTMIN+40", None), ("", None), ("-9", None), ("RTMIN3", None)],
)  # fmt: skip
def test_signals(text: str, number: int | None) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("name", ["a", "A.b_c+d-9", "x" * 255])
def test_ids(name: str) -> None:
    assert check_id(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "é", "x" * 300, "a\0", "-/../x"])
def test_bad_ids(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_id(name)


def test_json_round_trip() -> None:
    value = {"a": [1, -2.5, None, True, 'é\n"\\'], "b": {}}
    assert fastjson.loads(fastjson.dumps(value)) == value == json.loads(fastjson.dumps(value))
    assert fastjson.loads("\ufeff".encode() + b" 1 ") == 1


@pytest.mark.parametrize("text", ["", "{", "{} {}", "[NaN]", "[1,]", '{"a":01}', '"\t"', "[" * 100_000])
def test_bad_json(text: str) -> None:
    with pytest.raises(ValueError):
        fastjson.loads(text)


def test_seccomp_translation() -> None:
    document: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["write", "read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["only_on_arm"], "action": "SCMP_ACT_ALLOW"},
        ],
    }  # fmt: skip
    spec = seccomp.translate(document)
    assert spec is not None
    assert (spec["default_action"], spec["flags"]) == (0x00050026, 2)
    assert spec["rules"][0] == {"syscalls": [0, 1], "action": 0x7FFF0000, "args": []}
    assert spec["rules"][1]["action"] == 0x00050001
    assert [rule["args"][0]["value"] for rule in spec["rules"] if rule["syscalls"] == [135]] == [0, 8], "alternatives"
    assert spec["rules"][4]["args"] == [{"index": 0, "op": "masked_eq", "value": 0x7E020000, "value_two": 0}]
    assert len(spec["rules"]) == 5
    assert seccomp.translate({"defaultAction": "SCMP_ACT_ALLOW"}) is None


MOUNTINFO = """\
24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
26 24 0:24 /kube/pod1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
27 24 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
28 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
OWN = "3:memory:/kube/pod1/c\n2:cpu,cpuacct:/user.slice\n1:name=systemd:/\n0::/user.slice\n"


def test_hybrid_hierarchies() -> None:
    found = {",".join(sorted(h.controllers)): h for h in paths.hierarchies(MOUNTINFO, OWN)}
    assert set(found) == {"cpu,cpuacct", "memory", "name=systemd"}, "the unified one has no controllers"
    assert found["memory"].own == "/c", "seen through a mount whose root is not the hierarchy's"
    assert paths.directory(found["cpu,cpuacct"], "x/y") == "/sys/fs/cgroup/cpu,cpuacct/user.slice/x/y"
    assert paths.directory(found["cpu,cpuacct"], "/x") == "/sys/fs/cgroup/cpu,cpuacct/x"


def test_unified_hierarchy() -> None:
    (only,) = paths.hierarchies("30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/user.slice/me\n")
    assert (only.unified, only.own) == (True, "/user.slice/me")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "c1"),
        ("/a//b/", "/a/b"),
        ("a/b", "a/b"),
        ("/a/../../b", "/b"),
        ("machine.slice:libpod:9", "/machine.slice/libpod-9.scope"),
        ("a-b-c.slice:cri:9", "/a.slice/a-b.slice/a-b-c.slice/cri-9.scope"),
        (":x:9", "/system.slice/x-9.scope"),
        ("-.slice:x:pod.slice", "//pod.slice"),
    ],
)
def test_cgroup_paths(path: str, expected: str) -> None:
    assert paths.container_path(path, "c1") == expected


@pytest.mark.parametrize("path", ["../x", "a/../../x", "x:y:z", "a--b.slice:y:z"])
def test_bad_cgroup_paths(path: str) -> None:
    with pytest.raises(InvalidSpec):
        paths.container_path(path, "c1")


def files(settings: list[resources.Setting]) -> dict[str, str]:
    return {setting.file: setting.value for setting in settings}


EVERYTHING: dict[str, Any] = {
    "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0-1", "mems": "0"},
    "memory": {"limit": 64 << 20, "reservation": 32 << 20, "swap": 64 << 20, "swappiness": 10},
    "pids": {"limit": 20},
    "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}]},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
}


def test_settings_of_cgroup_v1() -> None:
    written = files(resources.settings_v1(EVERYTHING))
    assert written["cpu.cfs_quota_us"] == "50000"
    assert int(written["memory.limit_in_bytes"]) == resources.memory_with_overhead(64 << 20)
    assert int(written["memory.memsw.limit_in_bytes"]) >= int(written["memory.limit_in_bytes"])
    assert written["pids.max"] == str(20 + resources.VMM_THREADS)
    assert written["blkio.throttle.read_bps_device"] == "8:0 1000"
    assert written["hugetlb.2MB.limit_in_bytes"] == "0"
    with pytest.raises(Unsupported, match="unified"):
        resources.settings_v1({"unified": {"memory.high": "1"}})


def test_settings_of_cgroup_v2() -> None:
    written = files(
        resources.settings_v2({**EVERYTHING, "unified": {"memory.high": "5", "io.max": "8:0 rbps=1\n8:1 rbps=1"}})
    )
    assert (written["cpu.weight"], written["cpu.max"]) == ("39", "50000 100000")
    assert (written["memory.swap.max"], written["memory.low"]) == ("0", str(32 << 20))
    assert (written["memory.high"], written["io.weight"]) == ("5", "4950")
    assert files(resources.settings_v2({"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}})) == {
        "memory.max": "max", "memory.swap.max": "max", "pids.max": "max",
    }  # fmt: skip
    with pytest.raises(InvalidSpec):
        resources.settings_v2({"unified": {"../x": "1"}})


def test_swap_needs_a_limit() -> None:
    for settings in (resources.settings_v1, resources.settings_v2):
        with pytest.raises(InvalidSpec, match=r"memory\.swap"):
            settings({"memory": {"swap": 5}})
        with pytest.raises(InvalidSpec, match=r"memory\.swap"):
            settings({"memory": {"swap": 5, "limit": 6}})


def request(**changes: Any) -> sandbox.Request:
    made = sandbox.Request(["true"], "/srv/project", {"PATH": "/bin", "SECRET": "x", "LC_ALL": "C"})
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def test_a_sandbox_is_a_valid_config() -> None:
    from oci_spec.validate import check_config

    document = sandbox.config(request(volumes=["/a:/b:ro", "rel:there"], memory="1g", cpus="2"))
    assert check_config(document) == []
    plan = make(document, "do-1", "/", HostFacts(memory=8 << 30, cpus=4))
    assert plan.container["mounts"][0]["kind"] == "overlay"
    assert (plan.vcpus, plan.container["limits"]["memory"]) == (2, 1 << 30)
    binds = {m["destination"]: m for m in document["mounts"] if m["type"] == "bind"}
    assert binds["/b"]["options"] == ["rbind", "ro"]
    assert (binds["/srv/project/there"]["source"], binds["/srv/project/there"]["options"]) == (
        "/srv/project/rel",
        ["rbind", "rw"],
    )
    assert document["process"]["env"] == ["PATH=/bin", "LC_ALL=C"], "the environment is not handed in"
    assert {"type": "network"} in document["linux"]["namespaces"]


def test_another_root_still_shows_the_working_directory() -> None:
    document = sandbox.config(request(root="/images/debian"))
    assert {
        "destination": "/srv/project",
        "type": "bind",
        "source": "/srv/project",
        "options": ["rbind", "ro"],
    } in document["mounts"]
    document = sandbox.config(request(root="/images/debian", volumes=["/srv/project:/srv/project"]))
    assert sum(mount["destination"] == "/srv/project" for mount in document["mounts"]) == 1


def test_the_network_of_the_host() -> None:
    assert {"type": "network"} not in sandbox.config(request(network="host"))["linux"]["namespaces"]


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "x"},
        {"cpus": "0"},
        {"cpus": "1.5"},
        {"memory": "lots"},
        {"volumes": ["a:b:c"]},
        {"volumes": [":x"]},
        {"variables": ["=x"]},
    ],
)
def test_bad_sandboxes(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        sandbox.config(request(**changes))


def test_users() -> None:
    passwd, group = "root:x:0:0::/root:/bin/sh\nme:x:7:8::/:/bin/sh\n", "staff:x:50:\n"
    assert sandbox.find_user("me", passwd, group) == (7, 8)
    assert sandbox.find_user("7:staff", passwd, group) == (7, 50)
    assert sandbox.find_user("99", passwd, group) == (99, 0)
    for text in ("you", "me:nobody"):
        with pytest.raises(InvalidArgument):
            sandbox.find_user(text, passwd, group)
