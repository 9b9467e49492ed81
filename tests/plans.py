"""Launch plans (docs/control-protocol.md) for litebox-vmm without a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bundles


def plan(args: Sequence[str], kernel: Path) -> dict[str, Any]:
    """Descriptor 9 is the root file system, as the VMM's caller has to arrange."""
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
        "kernel": str(kernel),
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
                "args": list(args),
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
