"""What a plan says.

Handles, by which the guest knows host descriptors: 1, 2, 3 are stdin, stdout and stderr, 8 and up the descriptors
of --preserve-fds, after those the mount trees.
"""

from __future__ import annotations

from runtime.mount_options import PROPAGATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Json = dict[str, Any]

NO_HANDLE = 0xFFFFFFFF
STDIO_HANDLES = (1, 2, 3)
FIRST_FILE_HANDLE = 8


class HostFacts:
    """What the planner has to know about the machine."""

    __slots__ = ("cgroup_version", "cpus", "memory", "rlimits")

    def __init__(
        self, *, memory: int, cpus: int, cgroup_version: int = 2, rlimits: Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        self.memory = memory
        self.cpus = cpus
        self.cgroup_version = cgroup_version
        #: The caller's own limits, which a process inherits when config.json sets none.
        self.rlimits = rlimits or {}


class Tree:
    """A detached mount tree to make: a copy of what is mounted at `source`, or a new file system."""

    __slots__ = (
        "attributes",
        "cleared",
        "data",
        "destination",
        "fstype",
        "handle",
        "hidden",
        "id_mappings",
        "propagation",
        "recursive",
        "recursive_attributes",
        "recursive_idmap",
        "source",
        "spec",
        "where",
    )

    def __init__(self, handle: int, spec: Json, where: str, source: str, *, fstype: str = "") -> None:
        self.handle = handle
        #: The MountSpec, whose `is_file` is filled in when the tree has been opened.
        self.spec = spec
        #: The JSON path to blame.
        self.where = where
        self.source = source
        #: Empty: a bind mount.
        self.fstype = fstype
        self.data: list[str] = []
        self.recursive = False
        self.attributes = 0
        self.recursive_attributes = 0
        self.cleared = 0
        self.propagation = PROPAGATION["private"]
        #: Folders below `source` that are empty in the copy, whatever is mounted there or below.
        self.hidden: tuple[str, ...] = ()
        #: (uidMappings, gidMappings) of an idmapped mount.
        self.id_mappings: tuple[list[Json], list[Json]] | None = None
        self.recursive_idmap = False
        self.destination: str = spec["destination"]


class Namespace:
    """A namespace of the VMM: joined by `path`, or new."""

    __slots__ = ("path", "type")

    def __init__(self, type: str, path: str = "") -> None:
        self.type = type
        self.path = path


class Plan:
    """Everything `create` has to do, and the ContainerSpec."""

    __slots__ = (
        "cgroups_path",
        "container",
        "cwd",
        "debug",
        "exec",
        "has_network_namespace",
        "hooks",
        "host_sysctl",
        "jail",
        "memory",
        "namespaces",
        "process",
        "resources",
        "rootfs",
        "terminal",
        "trees",
        "uid_gid_mappings",
        "unjoined",
        "user_namespace_path",
        "vcpus",
        "warnings",
    )

    def __init__(self) -> None:
        self.container: Json = {}
        self.trees: list[Tree] = []
        self.namespaces: list[Namespace] = []
        #: Given by path, but the guest has its own: only checked.
        self.unjoined: list[Namespace] = []
        self.has_network_namespace = False
        #: uidMappings and gidMappings of a user namespace to make.
        self.uid_gid_mappings: tuple[list[Json], list[Json]] | None = None
        self.user_namespace_path = ""
        #: net.* sysctls, written in the container's network namespace.
        self.host_sysctl: list[tuple[str, str]] = []
        self.hooks: dict[str, list[Json]] = {}
        self.cgroups_path = ""
        self.resources: Json = {}
        #: The OCI process, for what the host does to the VMM (scheduling, oom score).
        self.process: Json = {}
        #: What `exec` starts from: PID 1 without the limits it inherits.
        self.exec: Json = {}
        self.jail: Json = {"apparmor": "", "selinux": ""}
        self.rootfs = ""
        self.cwd = "/"
        self.terminal = False
        self.vcpus = 1
        self.memory = 0
        self.debug = False
        self.warnings: list[str] = []
