"""`litebox do` as data: the config.json of a sandbox over this machine's own files. Pure, like the planner.

The root tree is copied read-only and lies below a layer in the guest's memory (annotation dev.litebox.rootfs=overlay).
Of what the kernel and services of this machine show in HIDDEN, the VMM gets nothing: the guest has its own there, and
/run is empty but for what /etc/resolv.conf leads to.
"""

from __future__ import annotations

import os.path

from runtime.errors import InvalidArgument
from runtime.linux_tables import CAPABILITIES
from runtime.plan.size import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Json = dict[str, Any]

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "TERM", "COLORTERM", "LANG", "LANGUAGE", "TZ", "SHELL")
#: Served by the library OS; what this machine has there cannot be seen.
_GUESTS_OWN = ("/proc", "/sys", "/dev")
#: Left out of the root tree, which is this machine's.
HIDDEN = ("proc", "sys", "dev", "run")
#: What the library OS starts with.
_LEAST_MEMORY = 4 << 20
_MOUNTS: tuple[Json, ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777"]},  # noqa: S108
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=755"]},
)


class Request:
    """What the command line asked for."""

    __slots__ = (
        "command",
        "cpus",
        "cwd",
        "environment",
        "gid",
        "hostname",
        "memory",
        "network",
        "resolv_conf",
        "root",
        "terminal",
        "uid",
        "variables",
        "volumes",
        "workdir",
    )

    def __init__(self, command: Sequence[str], cwd: str, environment: Mapping[str, str]) -> None:
        self.command = list(command)
        self.cwd = cwd
        self.environment = environment
        self.root = "/"
        self.volumes: list[str] = []
        self.network = "none"
        self.memory = ""
        self.cpus = ""
        self.uid = 0
        self.gid = 0
        self.variables: list[str] = []
        self.workdir = ""
        self.hostname = "litebox"
        self.terminal = False
        #: Where /etc/resolv.conf of this machine leads to, when that is below /run.
        self.resolv_conf = ""


def config(request: Request) -> Json:
    """The config.json."""
    if request.network not in ("none", "host"):
        raise InvalidArgument(f"--net: found {request.network!r}; allowed: none, host")
    mounts = list(_MOUNTS)
    if request.resolv_conf.startswith("/run/"):
        mounts.append(_bind(request.resolv_conf, request.resolv_conf, "ro"))
    volumes = [_volume(text, request.cwd) for text in request.volumes]
    own_root = os.path.normpath(request.root) == "/"
    outside = not own_root or _below(request.cwd, "/run")
    hidden = any(_below(request.cwd, path) for path in _GUESTS_OWN) or request.cwd == "/"
    if outside and not hidden and not any(_below(request.cwd, volume["destination"]) for volume in volumes):
        mounts.append(_bind(request.cwd, request.cwd, "ro"))
    mounts += volumes
    annotations = {"dev.litebox.rootfs": "overlay"}
    if request.cpus:
        if not request.cpus.isdigit() or int(request.cpus) < 1:
            raise InvalidArgument(f"--cpus: found {request.cpus!r}; allowed: a whole number from 1")
        annotations["dev.litebox.vcpus"] = request.cpus
    resources: Json = {}
    if request.memory:
        size = parse_size(request.memory)
        if size is not None and size < _LEAST_MEMORY:
            raise InvalidArgument(f"--memory: found {request.memory!r}; allowed: at least {_LEAST_MEMORY >> 20}m")
        if not size:
            raise InvalidArgument(f"--memory: found {request.memory!r}; allowed: bytes, or a number with k, m or g")
        resources["memory"] = {"limit": size}
    kinds = ["pid", "ipc", "uts", "mount", "cgroup"] + (["network"] if request.network == "none" else [])
    capabilities = list(CAPABILITIES) if request.uid == 0 else []
    return {
        "ociVersion": "1.0.2",
        "hostname": request.hostname,
        "root": {"path": request.root},
        "annotations": annotations,
        "mounts": mounts,
        "process": {
            "terminal": request.terminal,
            "args": request.command,
            "env": _variables(request),
            "cwd": request.workdir or ("/" if hidden and request.cwd != "/" else request.cwd),
            "user": {"uid": request.uid, "gid": request.gid},
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        },
        "linux": {"namespaces": [{"type": kind} for kind in kinds], "resources": resources},
    }


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _bind(source: str, destination: str, *options: str) -> Json:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", *options]}


def _volume(text: str, cwd: str) -> Json:
    source, _, rest = text.partition(":")
    destination, _, mode = rest.partition(":")
    destination = destination or source
    if not source or mode not in ("", "ro", "rw"):
        raise InvalidArgument(f"--volume: found {text!r}; allowed: SRC:DST, SRC:DST:ro")
    destination = os.path.normpath(os.path.join(cwd, destination))
    return _bind(os.path.normpath(os.path.join(cwd, source)), destination, mode or "rw")


def _variables(request: Request) -> list[str]:
    chosen = {"PATH": _DEFAULT_PATH} | {
        name: value for name, value in request.environment.items() if name in _KEPT_VARIABLES or name.startswith("LC_")
    }
    for text in request.variables:
        name, equals, value = text.partition("=")
        if not name:
            raise InvalidArgument(f"--env: found {text!r}; allowed: NAME=VALUE or NAME")
        if equals:
            chosen[name] = value
        elif name in request.environment:
            chosen[name] = request.environment[name]
    return [f"{name}={value}" for name, value in chosen.items()]


def find_user(text: str, passwd: str, group: str) -> tuple[int, int]:
    """UID[:GID], by number or by the names in these files."""
    user, colon, group_text = text.partition(":")
    gid = None
    if user.isdigit():
        uid = int(user)
        for fields in _entries(passwd):
            if fields[2] == user:
                gid = int(fields[3])
                break
    else:
        for fields in _entries(passwd):
            if fields[0] == user:
                uid, gid = int(fields[2]), int(fields[3])
                break
        else:
            raise InvalidArgument(f"--user: found {user!r}, which is not in /etc/passwd")
    if colon:
        if group_text.isdigit():
            gid = int(group_text)
        else:
            found = [fields for fields in _entries(group) if fields[0] == group_text]
            if not found:
                raise InvalidArgument(f"--user: found the group {group_text!r}, which is not in /etc/group")
            gid = int(found[0][2])
    return uid, gid or 0


def _entries(text: str) -> list[list[str]]:
    rows = [line.split(":") for line in text.splitlines()]
    return [row for row in rows if len(row) >= 4 and row[2].isdigit()]
