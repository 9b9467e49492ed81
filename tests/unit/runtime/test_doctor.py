"""`litebox doctor`: each thing that can be wrong gets its verdict and its remedy."""

from __future__ import annotations

from typing import Any

import pytest

from runtime import doctor
from runtime.doctor import BROKEN, FINE, ODD, Machine, judge, report


def healthy(**changes: Any) -> Machine:
    machine = Machine()
    machine.kernel = (6, 1)
    machine.kvm_api = 12
    machine.kvm_module = "kvm_intel"
    machine.cgroup_version = 2
    machine.controllers = ("cpu", "io", "memory", "pids")
    machine.user_namespaces = 100
    machine.landlock = machine.shim_found = machine.containerd_handler = machine.docker_runtime = True
    machine.containerd, machine.docker, machine.podman = "2.1.4", "28.0.1", "4.3.1"
    for name, value in changes.items():
        setattr(machine, name, value)
    return machine


def test_a_healthy_machine() -> None:
    findings = judge(healthy())
    assert {finding.level for finding in findings} == {FINE}
    lines: list[str] = []
    assert report(findings, lines.append) == 0
    assert len(lines) == len(findings)


def test_without_engines_there_is_nothing_to_say_of_them() -> None:
    about = {finding.about for finding in judge(healthy(containerd=None, docker=None, podman=None))}
    assert about == {"kvm", "kernel", "cgroups"}


@pytest.mark.parametrize(
    "changes, about, level, mend",
    [
        ({"kvm_error": "ENOENT"}, "kvm", BROKEN, "modprobe"),
        ({"kvm_error": "ENXIO"}, "kvm", BROKEN, "modprobe"),
        ({"kvm_error": "EACCES", "kvm_group": "kvm"}, "kvm", BROKEN, "sudo usermod -aG kvm $USER"),
        ({"kvm_error": "EACCES", "kvm_group": "root"}, "kvm", BROKEN, "chgrp kvm /dev/kvm"),
        ({"kvm_error": "EBUSY"}, "kvm", BROKEN, "dmesg"),
        ({"kvm_api": 11}, "kvm", BROKEN, "kernel"),
        ({"library_error": "not found"}, "litebox", BROKEN, "make install"),
        ({"kernel": (5, 4)}, "kernel", BROKEN, "kernel"),
        ({"user_namespaces": 0}, "jail", BROKEN, "sysctl"),
        ({"user_namespace_barrier": "a.b=1", "root": False}, "jail", BROKEN, "sudo sysctl -w a.b=1"),
        ({"landlock": False}, "jail", ODD, "lsm="),
        ({"cgroup_version": 0}, "cgroups", BROKEN, "mount"),
        ({"controllers": ("memory",)}, "cgroups", ODD, "+cpu +pids"),
        ({"controllers": (), "root": False}, "cgroups", ODD, "Delegate"),
        ({"containerd": "1.4.9"}, "containerd", BROKEN, "1.6"),
        ({"shim_found": False, "docker": None}, "containerd", BROKEN, "make install"),
        ({"shim_found": False, "shim": "/s", "containerd": None}, "docker", BROKEN, "sudo ln -s /s /usr/local/bin/"),
        ({"containerd_handler": False}, "kubernetes", ODD, "litebox-v3.toml && printf 'version = 3"),
        ({"containerd_handler": False, "containerd_config": "version = 3"}, "kubernetes", ODD, "sed -i '1i imports = "),
        ({"containerd_handler": False, "containerd": "1.7.28"}, "kubernetes", ODD, "litebox-v2.toml"),
        ({"docker": "20.10.24+dfsg1"}, "docker", ODD, "add-runtime"),
        ({"docker_runtime": False}, "docker", ODD, "daemon.json"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], about: str, level: str, mend: str) -> None:
    (finding,) = [finding for finding in judge(healthy(**changes)) if finding.level != FINE]
    assert (finding.about, finding.level) == (about, level)
    assert mend in finding.mend
    lines: list[str] = []
    assert report([finding], lines.append) == (level == BROKEN)
    assert finding.mend in lines[1]


def test_what_was_built_by_hand_counts_as_new() -> None:
    unknown = "of an unknown version"
    assert {finding.level for finding in judge(healthy(containerd=unknown, docker=unknown))} == {FINE}


def test_looking_at_this_machine_works() -> None:
    assert judge(doctor.look())
    assert doctor.program_version("no-such-program") is None
