"""The planner: config.json and host facts in, launch plan out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime.errors import InvalidSpec, LiteboxError, Unsupported
from runtime.plan.make import make
from runtime.plan.model import HostFacts, Plan
from runtime.plan.size import GUEST_OVERHEAD, parse_cpu_list, parse_size

FACTS = HostFacts(memory=8 << 30, cpus=4, cgroup_version=1, rlimits={"RLIMIT_CPU": (2**64 - 1, 2**64 - 1)})


def planned(config: dict[str, Any], **options: Any) -> Plan:
    return make(config, "c1", "/bundle", FACTS, **options)


def mount_of(plan: Plan, destination: str) -> dict[str, Any]:
    return next(spec for spec in plan.container["mounts"] if spec["destination"] == destination)


def test_the_root_is_the_first_mount_and_a_recursive_tree(config: dict[str, Any]) -> None:
    plan = planned(config)
    root = plan.container["mounts"][0]
    assert (root["destination"], root["kind"], root["exclusive"], root["readonly"]) == ("/", "host", True, False)
    tree = plan.trees[0]
    assert (tree.source, tree.recursive, tree.handle) == ("/bundle/rootfs", True, root["handle"])


def test_handles_are_unique_and_leave_room_for_streams(config: dict[str, Any]) -> None:
    config["mounts"] += [
        {"destination": f"/v{n}", "type": "bind", "source": "/srv", "options": ["rbind"]} for n in range(9)
    ]
    plan = planned(config, files=3)
    handles = [tree.handle for tree in plan.trees] + plan.container["process"]["extra_files"] + [1, 2, 3]
    assert len(set(handles)) == len(handles)
    assert plan.container["process"]["extra_files"] == [8, 9, 10]


def test_the_plan_is_json(config: dict[str, Any]) -> None:
    assert json.loads(json.dumps(planned(config).container))["id"] == "c1"


@pytest.mark.parametrize(
    ("fstype", "kind"),
    [
        ("proc", "proc"),
        ("sysfs", "sysfs"),
        ("tmpfs", "tmpfs"),
        ("devpts", "devpts"),
        ("mqueue", "mqueue"),
        ("cgroup2", "cgroup"),
    ],
)
def test_file_systems_of_the_library_os(config: dict[str, Any], fstype: str, kind: str) -> None:
    config["mounts"] = [{"destination": "/x/", "type": fstype, "source": "s", "options": ["nosuid", "ro", "size=1m"]}]
    spec = mount_of(planned(config), "/x")
    assert (spec["kind"], spec["fstype"], spec["source"], spec["options"]) == (kind, fstype, "s", ["size=1m"])
    assert (spec["readonly"], spec["nosuid"], spec["nodev"]) == (True, True, False)


def test_a_tmpfs_on_dev_gets_the_default_devices(config: dict[str, Any]) -> None:
    assert mount_of(planned(config), "/dev")["kind"] == "devtmpfs"
    config["mounts"] = []
    assert mount_of(planned(config), "/dev")["kind"] == "devtmpfs"


def test_bind_mounts(config: dict[str, Any]) -> None:
    config["mounts"] = [
        {"destination": "/a", "type": "bind", "source": "/srv/a", "options": ["bind", "ro", "noexec", "rslave"]},
        {"destination": "/b", "type": "none", "source": "b", "options": ["rbind", "rro", "rnoatime"]},
        {"destination": "/c", "source": "/srv/c"},
    ]
    plan = planned(config)
    first, second, third = plan.trees[1:]
    assert (first.source, first.recursive, first.attributes & 1) == ("/srv/a", False, 1)
    assert first.propagation == 1 << 19
    assert mount_of(plan, "/a")["noexec"]
    assert (second.source, second.recursive, second.recursive_attributes & 0x11) == ("/bundle/b", True, 0x11)
    assert mount_of(plan, "/b")["readonly"]
    assert third.source == "/srv/c"
    # Whatever the guest sees, the VMM meets neither device nodes nor set-uid programs.
    assert all(tree.recursive_attributes & 0x6 == 0x6 for tree in plan.trees)


def test_later_mount_options_win(config: dict[str, Any]) -> None:
    config["mounts"] = [{"destination": "/a", "type": "tmpfs", "options": ["ro", "rw", "nosuid", "suid"]}]
    spec = mount_of(planned(config), "/a")
    assert not spec["readonly"]
    assert not spec["nosuid"]


def test_idmapped_mounts(config: dict[str, Any]) -> None:
    mapping = [{"containerID": 0, "hostID": 1000, "size": 10}]
    config["mounts"] = [
        {
            "destination": "/a",
            "type": "bind",
            "source": "/a",
            "options": ["rbind"],
            "uidMappings": mapping,
            "gidMappings": mapping,
        }
    ]
    assert planned(config).trees[1].id_mappings == (mapping, mapping)
    del config["mounts"][0]["gidMappings"]
    with pytest.raises(InvalidSpec, match=r"mounts\[0\]"):
        planned(config)


def test_a_host_file_system_is_mounted_on_the_host(config: dict[str, Any]) -> None:
    config["mounts"] = [
        {"destination": "/o", "type": "overlay", "source": "overlay", "options": ["lowerdir=/a:/b", "ro"]}
    ]
    plan = planned(config)
    assert (plan.trees[1].fstype, plan.trees[1].data) == ("overlay", ["lowerdir=/a:/b"])
    assert mount_of(plan, "/o")["kind"] == "host"


def test_limits_and_sizes(config: dict[str, Any]) -> None:
    config["linux"]["resources"] = {
        "memory": {"limit": 64 << 20},
        "cpu": {"quota": 150_000, "period": 100_000},
        "pids": {"limit": 10},
    }
    plan = planned(config)
    assert plan.container["limits"] == {
        "memory": 64 << 20, "ram": plan.memory, "cpu_quota": 150_000, "cpu_period": 100_000, "pids": 10,
    }  # fmt: skip
    assert (plan.vcpus, plan.memory) == (2, (64 << 20) + GUEST_OVERHEAD)
    config["linux"]["resources"] = {"cpu": {"cpus": "0,2-3"}}
    assert (planned(config).vcpus, planned(config).memory) == (3, 8 << 30)
    config["annotations"] = {"dev.litebox.vcpus": "1", "dev.litebox.memory": "1g"}
    assert (planned(config).vcpus, planned(config).memory) == (1, 1 << 30)


def test_no_limit_is_no_limit(config: dict[str, Any]) -> None:
    config["linux"]["resources"] = {"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}
    plan = planned(config)
    assert plan.container["limits"] == {"memory": 0, "ram": plan.memory, "cpu_quota": 0, "cpu_period": 0, "pids": 0}


def test_namespaces_of_the_vmm(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"] = [
        {"type": "pid"},
        {"type": "mount"},
        {"type": "uts"},
        {"type": "network", "path": "/run/netns/x"},
        {"type": "cgroup"},
    ]
    assert [(n.type, n.path) for n in planned(config).namespaces] == [("uts", ""), ("network", "/run/netns/x")]


def test_sysctls_are_split(config: dict[str, Any]) -> None:
    config["linux"]["sysctl"] = {"net.core.somaxconn": "5", "kernel.shmmax": "7", "fs/mqueue/msg_max": "3"}
    plan = planned(config)
    assert plan.host_sysctl == [("net.core.somaxconn", "5")]
    assert plan.container["sysctl"] == [("kernel.shmmax", "7"), ("fs.mqueue.msg_max", "3")]


def test_the_process(config: dict[str, Any]) -> None:
    config["process"].update(
        user={"uid": 5, "gid": 6, "umask": 0o27, "additionalGids": [7]},
        capabilities={"bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NEW_FANGLED"]},
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
        consoleSize={"height": 24, "width": 80},
        noNewPrivileges=True,
        oomScoreAdj=-5,
    )
    plan = planned(config)
    process = plan.container["process"]
    assert (process["uid"], process["gid"], process["umask"], process["additional_gids"]) == (5, 6, 0o27, [7])
    assert process["capabilities"] == {
        "bounding": 0b100001,
        "effective": 0,
        "inheritable": 0,
        "permitted": 0,
        "ambient": 0,
    }
    assert {"resource": 7, "soft": 10, "hard": 20} in process["rlimits"]
    assert {"resource": 0, "soft": 2**64 - 1, "hard": 2**64 - 1} in process["rlimits"], "inherited from the caller"
    assert (process["rows"], process["columns"], process["no_new_privileges"]) == (24, 80, True)
    assert any("CAP_NEW_FANGLED" in warning for warning in plan.warnings)


def test_devices(config: dict[str, Any]) -> None:
    config["linux"]["devices"] = [
        {"path": "/dev/../dev/fuse", "type": "u", "major": 10, "minor": 229, "fileMode": 0o20640, "uid": 3}
    ]
    assert planned(config).container["devices"] == [
        {"path": "/dev/fuse", "kind": "c", "major": 10, "minor": 229, "mode": 0o640, "uid": 3, "gid": 0}
    ]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"linux": {"intelRdt": {"closID": "x"}}}, "linux.intelRdt"),
    ({"linux": {"memoryPolicy": {"mode": "MPOL_BIND"}}}, "linux.memoryPolicy"),
    ({"linux": {"netDevices": {"eth0": {}}}}, "linux.netDevices"),
    ({"linux": {"resources": {"rdma": {"mlx": {"hcaHandles": 1}}}}}, "linux.resources.rdma"),
    ({"linux": {"timeOffsets": {"monotonic": {"secs": 5}}}}, "linux.timeOffsets.monotonic"),
    ({"linux": {"personality": {"domain": "LINUX", "flags": ["X"]}}}, "linux.personality.flags"),
    ({"linux": {"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}}, r"linux.namespaces\[0\]"),
    ({"vm": {"kernel": {"path": "/k"}}}, "vm:"),
    ({"solaris": {"milestone": "x"}}, "solaris"),
    ({"mounts": [{"destination": "/", "type": "tmpfs"}]}, r"mounts\[0\].destination"),
    ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}}, "SCMP_ACT_NOTIFY"),
    ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_ARM"]}}}, "architectures"),
]  # fmt: skip
INVALID: list[tuple[dict[str, Any], str]] = [
    ({"root": {"path": ""}}, "root.path"),
    ({"process": {"args": []}}, "process.args"),
    ({"process": {"rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}}, r"process.rlimits\[0\].type"),
    ({"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}}, r"process.rlimits\[0\].soft"),
    ({"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2}}, r"process.rlimits\[1\].type"),
    ({"linux": {"namespaces": [{"type": "uts"}, {"type": "uts"}]}}, r"linux.namespaces\[1\].type"),
    ({"linux": {"namespaces": [{"type": "uts", "path": "x"}]}}, r"linux.namespaces\[0\].path"),
    ({"linux": {"namespaces": [{"type": "user"}]}}, "linux.uidMappings"),
    ({"linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}}, "linux.uidMappings"),
    ({"linux": {"maskedPaths": ["proc"]}}, r"linux.maskedPaths\[0\]"),
    ({"linux": {"readonlyPaths": ["proc"]}}, r"linux.readonlyPaths\[0\]"),
    ({"linux": {"sysctl": {"vm.swappiness": "1"}}}, "vm.swappiness"),
    ({"linux": {"sysctl": {"net.x": "1"}, "namespaces": []}}, "net.x"),
    ({"linux": {"sysctl": {"kernel.shm/../../x": "1"}}}, "kernel.shm"),
    ({"linux": {"devices": [{"path": "/dev/x", "type": "c"}]}}, r"linux.devices\[0\]"),
    ({"linux": {"resources": {"cpu": {"cpus": "a-b"}}}}, "cpu.cpus"),
    ({"mounts": [{"destination": "/a", "type": "bind"}]}, r"mounts\[0\].source"),
    ({"mounts": [{"destination": "/a"}]}, r"mounts\[0\].type"),
    ({"mounts": [{"destination": "/a", "type": "tmpfs"}] * 3000}, "mounts"),
    *(({"mounts": [{"destination": "/a", "type": "tmpfs", "options": [option]}]}, rf"mounts\[0\].options: found '{option}'")
      for option in ("bogus", "bogus=1", "size=much", "mode=9", "mode=", "uid=root")),
    ({"annotations": {"dev.litebox.vcpu": "1"}}, "dev.litebox.vcpu"),
    ({"annotations": {"dev.litebox.vcpus": "none"}}, "dev.litebox.vcpus"),
    ({"annotations": {"dev.litebox.rootfs": "x"}}, "dev.litebox.rootfs"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_done_is_refused_with_its_path(
    config: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    with pytest.raises(Unsupported, match=message):
        planned(config)


@pytest.mark.parametrize(("changes", "message"), INVALID)
def test_what_is_wrong_is_named_by_its_path(config: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    with pytest.raises(InvalidSpec, match=message):
        planned(config)


def test_nulls_of_go_programs_are_absent_values(config: dict[str, Any]) -> None:
    config.update(hooks=None, annotations=None, domainname=None, mounts=None)
    config["linux"].update(seccomp=None, resources=None, devices=None, sysctl=None, maskedPaths=None)
    config["process"].update(capabilities=None, rlimits=None, env=None, consoleSize=None)
    assert planned(config).container["process"]["args"] == ["true"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5", 5),
        ("64k", 64 << 10),
        ("1G", 1 << 30),
        ("10mb", 10 << 20),
        ("2GiB", 2 << 30),
        ("x", None),
        ("", None),
        ("-1", None),
        ("1.5g", None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["x", "1-", "-1", "0-99999999", "1;2"])
def test_bad_cpu_lists(text: str) -> None:
    with pytest.raises(LiteboxError):
        parse_cpu_list(text, "here")
