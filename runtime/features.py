"""The features document (runtime-spec features.md), from the tables that the planner works by."""

from __future__ import annotations

import os

from runtime.linux_tables import CAPABILITIES
from runtime.mount_options import MOUNT_OPTIONS
from runtime.seccomp import ACTION_NAMES, FLAG_NAMES, OPERATOR_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
_UNSAFE_ANNOTATIONS = ["dev.litebox."]


def features_document() -> dict[str, Any]:
    """Of this version, on this host."""
    apparmor = os.path.exists("/sys/module/apparmor/parameters/enabled")
    selinux = os.path.exists("/sys/fs/selinux")
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": HOOKS,
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": list(CAPABILITIES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": False},
            "seccomp": {
                "enabled": True,
                "actions": [name for name in ACTION_NAMES if name != "SCMP_ACT_NOTIFY"],
                "operators": OPERATOR_NAMES,
                "archs": ["SCMP_ARCH_X86_64"],
                "knownFlags": FLAG_NAMES,
                "supportedFlags": FLAG_NAMES,
            },
            "apparmor": {"enabled": apparmor},
            "selinux": {"enabled": selinux},
            "intelRdt": {"enabled": False},
            "memoryPolicy": {},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": False},
        },
        "annotations": {"dev.litebox.version": "0.1.0"},
        "potentiallyUnsafeConfigAnnotations": _UNSAFE_ANNOTATIONS,
    }
