"""The guest programs in litebox-vmm on hardware-faithful KVM: the same output as natively.

One machine boots and runs them all, each in a micro-VM of its own; then every case is compared as in tests/guest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import bundles
import oracle
from hwkvm import machine

Runner = Callable[[str], tuple[bundles.Completed, oracle.Sections]]

# Programs whose cases depend on how fast the machine is, or that take minutes of emulated time, are left out.
PROGRAMS = (
    "processes", "exec", "wait", "tracing", "threads", "memory", "code", "signals", "exceptions", "files", "names", "locks", "pipes",
    "unixsockets", "events", "inotify", "terminals", "inet", "procfs", "credentials", "misc",
)  # fmt: skip
VMM = bundles.BUILD / "lib/litebox/litebox-vmm"
KERNEL = bundles.BUILD / "lib/litebox/litebox-kernel"
SECONDS = 1000
pytestmark = pytest.mark.timeout(SECONDS + 300)


def plan(program: str) -> dict[str, Any]:
    """A launch plan (docs/control-protocol.md) without a runtime: descriptor 9 is the root file system."""
    mask = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))
    pseudo = [
        ("/proc", "proc", []),
        ("/dev", "devtmpfs", ["mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", ["mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", []),
        ("/sys", "sysfs", []),
        ("/tmp", "tmpfs", ["mode=1777"]),
    ]
    mounts: list[dict[str, Any]] = [
        {"destination": "/", "kind": "host", "source": "rootfs", "fstype": "rootfs", "handle": 16, "exclusive": True}
    ]
    for destination, kind, options in pseudo:
        fstype = "tmpfs" if kind == "devtmpfs" else kind
        mounts.append({"destination": destination, "kind": kind, "source": kind, "fstype": fstype, "options": options})
    limits = [(7, 1024, 4096), (4, 0, 0), (3, 8 << 20, 64 << 20)]
    return {
        "version": 1,
        "kernel": "/lib/litebox-kernel",
        "vcpus": 1,
        "memory": 512 << 20,
        "autostart": True,
        "descriptors": [
            {"handle": 16, "fd": 9, "kind": "tree"},
            *({"handle": fd + 1, "fd": fd, "kind": "stream"} for fd in range(3)),
        ],
        "jail": {
            "namespaces": [{"type": "network"}, {"type": "ipc"}, {"type": "uts"}],
            "enabled": True,
            "uid": 0,
            "gid": 0,
        },
        "container": {
            "id": "test",
            "hostname": "litebox-test",
            "mounts": mounts,
            "process": {
                "args": [f"/bin/{program}"],
                "env": [f"{name}={value}" for name, value in bundles.ENVIRONMENT.items()],
                "cwd": "/work",
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), mask),
                "rlimits": [{"resource": number, "soft": soft, "hard": hard} for number, soft, hard in limits],
                "stdio": [1, 2, 3],
            },
            "cgroup": "/",
            "cgroup_version": 2,
        },
    }


@pytest.fixture(scope="session")
def ended(tmp_path_factory: pytest.TempPathFactory) -> machine.Ended:
    """The machine, after it ran everything."""
    if why := machine.missing():
        pytest.skip(why)
    if not VMM.exists() or not KERNEL.exists():
        pytest.skip("litebox-vmm is not built: make build")
    work = tmp_path_factory.mktemp("hwkvm")
    folder = bundles.build_guest_programs()
    bundle = bundles.busybox_bundle(work / "bundle", [folder / program for program in PROGRAMS])
    files = {"bin/litebox-vmm": VMM, "lib/litebox-kernel": KERNEL, "container": bundle.rootfs}
    commands = {}
    for program in PROGRAMS:
        (work / f"{program}.json").write_text(json.dumps(plan(program)))
        files[f"plans/{program}.json"] = work / f"{program}.json"
        # The cases need a fresh /work each time; the container's file system is a folder of the machine's tmpfs.
        commands[program] = (
            f"rm -rf /container/work; mkdir /container/work; "
            f"timeout 120 litebox-vmm run --plan 8 8< /plans/{program}.json 9< /container"
        )
    try:
        return machine.run(commands, files, work, timeout=SECONDS)
    except OSError as error:
        pytest.skip(f"no kernel for the machine: {error}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        known = oracle.deviations("litebox") | oracle.deviations("hwkvm")
        metafunc.parametrize(("program", "case"), list(oracle.parameters(PROGRAMS, known)))


@pytest.mark.slow
def test_case(ended: machine.Ended, natively: Runner, program: str, case: str) -> None:
    assert program in ended.commands, f"the machine did not get to it:\n{ended.console[-3000:]}"
    completed = ended.commands[program]
    found = oracle.sections(completed.stdout)
    assert case in found, f"the program did not get to this case: exit {completed.code}\n{ended.console[-3000:]}"
    assert found[case] == natively(program)[1][case]
