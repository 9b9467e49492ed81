"""From a validated config.json to a launch plan. Pure: facts about the host come in, a value comes out.

The plan names what has to be done on the host (trees to detach, namespaces to open, cgroup to make, hooks to run) and
holds the ContainerSpec that litebox-vmm gets; `host.mounts`, `host.cgroups` and `lifecycle` carry it out.

Handles, by which the guest knows host descriptors: 1, 2, 3 are stdin, stdout and stderr, 8 and up the descriptors
of --preserve-fds, 16 + FILES and up the mount trees.
"""

from __future__ import annotations

import os.path

from runtime import mount_options
from runtime.errors import InvalidSpec, Unsupported
from runtime.linux_tables import ALL_CAPABILITIES, CAPABILITIES, RLIMITS, capability_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Json = dict[str, Any]

NO_HANDLE = 0xFFFFFFFF
STDIO_HANDLES = (1, 2, 3)
FIRST_FILE_HANDLE = 8
MAX_HANDLE = 4095
MAX_MOUNTS = 2048

#: Guest RAM beyond the container's memory limit: what the library OS itself needs must not eat into the limit.
GUEST_OVERHEAD = 64 << 20
_PAGE = 4096
_RLIM_INFINITY = 0xFFFF_FFFF_FFFF_FFFF

#: Served by the library OS in guest memory.
_GUEST_FILESYSTEMS = {
    "proc": "proc",
    "sysfs": "sysfs",
    "tmpfs": "tmpfs",
    "ramfs": "tmpfs",
    "devtmpfs": "devtmpfs",
    "devpts": "devpts",
    "mqueue": "mqueue",
    "cgroup": "cgroup",
    "cgroup2": "cgroup",
}
_NAMESPACES_OF_THE_GUEST = {"pid", "mount", "cgroup", "time", "user"}
_PROPAGATION = {
    "": 0,
    "private": 1 << 18,
    "rprivate": 1 << 18,
    "slave": 1 << 19,
    "rslave": 1 << 19,
    "shared": 1 << 20,
    "rshared": 1 << 20,
    "unbindable": 1 << 17,
    "runbindable": 1 << 17,
}
_PERSONALITIES = {"LINUX": 0, "LINUX32": 0x0008}
_ANNOTATIONS = (
    "dev.litebox.debug",
    "dev.litebox.init",
    "dev.litebox.memory",
    "dev.litebox.rootfs",
    "dev.litebox.trace",
    "dev.litebox.transport",  # the shim's affair
    "dev.litebox.vcpus",
)


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
        self.propagation = _PROPAGATION["private"]
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
    """Everything `lifecycle` has to do, and the ContainerSpec."""

    __slots__ = (
        "cgroups_path",
        "container",
        "cwd",
        "debug",
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
        self.jail: Json = {"apparmor": "", "selinux": ""}
        self.rootfs = ""
        self.cwd = "/"
        self.terminal = False
        self.vcpus = 1
        self.memory = 0
        self.debug = False
        self.warnings: list[str] = []


def make(config: Json, container_id: str, bundle: str, facts: HostFacts, *, files: int = 0) -> Plan:
    """Plan a container. `config` has passed validation; `files` is the number of --preserve-fds descriptors."""
    plan = Plan()
    linux: Json = config.get("linux") or {}
    if config.get("vm"):
        raise Unsupported("vm: LiteBox boots its own library OS; leave the vm section out")
    for section in ("windows", "solaris", "zos", "freebsd"):
        if config.get(section):
            raise Unsupported(f"{section}: this runtime runs Linux containers")
    _refuse_hardware(linux)
    annotations: Json = config.get("annotations") or {}
    _check_annotations(annotations)

    plan.hooks = {kind: hooks for kind, hooks in (config.get("hooks") or {}).items() if hooks}
    plan.cgroups_path = linux.get("cgroupsPath") or ""
    plan.resources = linux.get("resources") or {}
    plan.debug = annotations.get("dev.litebox.debug") == "true"

    guest_namespaces = _plan_namespaces(plan, linux)
    _plan_size(plan, annotations, facts)
    mounts = _plan_mounts(plan, config, linux, bundle, FIRST_FILE_HANDLE + files)
    process: Json = config.get("process") or {}
    plan.process = process
    plan.terminal = bool(process.get("terminal"))
    plan.cwd = process.get("cwd") or "/"
    guest_sysctl = _plan_sysctl(plan, linux)
    plan.jail["apparmor"] = process.get("apparmorProfile") or ""
    plan.jail["selinux"] = process.get("selinuxLabel") or ""
    personality: Json = linux.get("personality") or {}
    if personality.get("flags"):
        raise Unsupported("linux.personality.flags: no flags are supported")

    init = annotations.get("dev.litebox.init", "protected")
    if init not in ("protected", "ordinary"):
        raise InvalidSpec(f"annotations['dev.litebox.init']: found {init!r}; allowed: protected, ordinary")

    seccomp = None
    if linux.get("seccomp"):
        from runtime.seccomp import translate

        seccomp = translate(linux["seccomp"])
    plan.container = {
        "id": container_id,
        "hostname": config.get("hostname") or "",
        "domainname": config.get("domainname") or "",
        "mounts": mounts,
        "ordinary_init": init == "ordinary",
        "trace": annotations.get("dev.litebox.trace") == "true",
        "process": plan_process(process, facts, plan.warnings, files=files) if process else {},
        "masked_paths": _paths(linux, "maskedPaths"),
        "readonly_paths": _paths(linux, "readonlyPaths"),
        "devices": [_plan_device(device, index) for index, device in enumerate(linux.get("devices") or [])],
        "sysctl": guest_sysctl,
        "limits": plan_limits(plan.resources, plan.memory),
        "seccomp": seccomp,
        "cgroup": "/" if "cgroup" in guest_namespaces else plan.cgroups_path or f"/{container_id}",
        "cgroup_version": facts.cgroup_version,
        "personality": _PERSONALITIES[personality.get("domain") or "LINUX"],
        "uid_map": _id_map(linux.get("uidMappings")),
        "gid_map": _id_map(linux.get("gidMappings")),
    }
    return plan


def _id_map(mappings: list[Json] | None) -> list[Json]:
    return [
        {"inside": mapping["containerID"], "outside": mapping["hostID"], "count": mapping["size"]}
        for mapping in mappings or []
    ]


def plan_process(process: Json, facts: HostFacts, warnings: list[str], *, files: int = 0) -> Json:
    """A ProcessSpec, its stdio handles those of PID 1."""
    user: Json = process.get("user") or {}
    console: Json = process.get("consoleSize") or {}
    args = process.get("args") or []
    if not args:
        raise InvalidSpec("process.args: found nothing to run; allowed: a list with at least one string")
    spec: Json = {
        "executable": None,
        "args": args,
        "env": process.get("env") or [],
        "cwd": process.get("cwd") or "/",
        "uid": user.get("uid", 0),
        "gid": user.get("gid", 0),
        "umask": user.get("umask"),
        "additional_gids": user.get("additionalGids") or [],
        "capabilities": _plan_capabilities(process.get("capabilities") or {}, warnings),
        "rlimits": _plan_rlimits(process.get("rlimits") or [], facts),
        "no_new_privileges": bool(process.get("noNewPrivileges")),
        "oom_score_adj": process.get("oomScoreAdj"),
        "terminal": bool(process.get("terminal")),
        "rows": min(console.get("height", 0), 0xFFFF),
        "columns": min(console.get("width", 0), 0xFFFF),
        "stdio": list(STDIO_HANDLES),
        "extra_files": list(range(FIRST_FILE_HANDLE, FIRST_FILE_HANDLE + files)),
    }
    return spec


def plan_limits(resources: Json, ram: int) -> Json:
    """The limits the guest sees and enforces, of linux.resources; `ram` see `guest_ram`."""
    memory = (resources.get("memory") or {}).get("limit") or 0
    cpu: Json = resources.get("cpu") or {}
    quota = cpu.get("quota") or 0
    pids = (resources.get("pids") or {}).get("limit") or 0
    return {
        "memory": max(memory, 0),
        "ram": ram,
        "cpu_quota": max(quota, 0),
        "cpu_period": (cpu.get("period") or 100_000) if quota > 0 else 0,
        "pids": max(pids, 0),
    }


def guest_ram(resources: Json, facts: HostFacts) -> int:
    """Bytes of RAM for a guest with these limits."""
    limit = (resources.get("memory") or {}).get("limit") or 0
    return _whole_pages(min(limit + GUEST_OVERHEAD, facts.memory) if limit > 0 else facts.memory)


def _whole_pages(size: int) -> int:
    return (size + _PAGE - 1) // _PAGE * _PAGE


def _refuse_hardware(linux: Json) -> None:
    if linux.get("intelRdt"):
        raise Unsupported("linux.intelRdt: cache and bandwidth allocation is not supported inside a micro-VM")
    if linux.get("memoryPolicy"):
        raise Unsupported("linux.memoryPolicy: NUMA policies are not supported inside a micro-VM")
    if linux.get("netDevices"):
        raise Unsupported("linux.netDevices: moving host network devices into the container is not supported")
    if (linux.get("resources") or {}).get("rdma"):
        raise Unsupported("linux.resources.rdma: RDMA devices are not available inside a micro-VM")
    for name, offset in (linux.get("timeOffsets") or {}).items():
        if (offset or {}).get("secs") or (offset or {}).get("nanosecs"):
            raise Unsupported(f"linux.timeOffsets.{name}: clock offsets are not supported")


def _check_annotations(annotations: Json) -> None:
    for key in annotations:
        if key.startswith("dev.litebox.") and key not in _ANNOTATIONS:
            raise InvalidSpec(f"annotations[{key!r}]: unknown; allowed: {', '.join(_ANNOTATIONS)}")


def _plan_namespaces(plan: Plan, linux: Json) -> set[str]:
    """Fill in the VMM's namespaces; returns the types the container has."""
    seen: set[str] = set()
    for index, namespace in enumerate(linux.get("namespaces") or []):
        kind, path = namespace["type"], namespace.get("path") or ""
        where = f"linux.namespaces[{index}]"
        if kind in seen:
            raise InvalidSpec(f"{where}.type: found a second {kind!r}; each type may appear once")
        seen.add(kind)
        if path and not path.startswith("/"):
            raise InvalidSpec(f"{where}.path: found {path!r}; allowed: an absolute path")
        if kind == "network":
            plan.has_network_namespace = True
        if kind == "user":
            plan.user_namespace_path = path
        if kind in ("pid", "time") and path:
            raise Unsupported(
                f"{where}: {kind} namespaces cannot be joined: each container's processes live in a kernel of their own"
            )
        if kind in ("mount", "cgroup") and path:
            plan.unjoined.append(Namespace(kind, path))
            plan.warnings.append(f"{where}: the {kind} namespace at {path} is not joined: the guest has its own")
        if kind not in _NAMESPACES_OF_THE_GUEST:
            plan.namespaces.append(Namespace(kind, path))
    if "pid" not in seen:
        plan.warnings.append(
            "linux.namespaces: no pid namespace asked for; the micro-VM has one of its own all the same"
        )
    if "mount" not in seen:
        plan.warnings.append(
            "linux.namespaces: no mount namespace asked for; the micro-VM has one of its own all the same"
        )
    uid, gid = linux.get("uidMappings") or [], linux.get("gidMappings") or []
    if "user" in seen:
        if not plan.user_namespace_path:
            if not uid or not gid:
                raise InvalidSpec(
                    "linux.uidMappings: found none; a new user namespace needs uidMappings and gidMappings"
                )
            plan.uid_gid_mappings = (uid, gid)
    elif uid or gid:
        raise InvalidSpec("linux.uidMappings: found mappings without a user namespace in linux.namespaces")
    return seen


def _annotation_number(annotations: Json, key: str) -> int:
    text = annotations.get(key)
    if text is None:
        return 0
    number = parse_size(text) if key.endswith("memory") else int(text) if str(text).isdigit() else None
    if not number:
        raise InvalidSpec(f"annotations[{key!r}]: found {text!r}; allowed: a positive number")
    return number


def parse_size(text: str) -> int | None:
    """512, 64k, 512m, 2g (also with b or ib behind): bytes, or None."""
    lowered = text.strip().lower()
    for ending in ("ib", "b"):
        if lowered.endswith(ending) and len(lowered) > len(ending):
            lowered = lowered[: -len(ending)]
            break
    shift = {"k": 10, "m": 20, "g": 30, "t": 40}.get(lowered[-1:], 0)
    digits = lowered[:-1] if shift else lowered
    return int(digits) << shift if digits.isascii() and digits.isdigit() else None


def _plan_size(plan: Plan, annotations: Json, facts: HostFacts) -> None:
    chosen = _annotation_number(annotations, "dev.litebox.memory")
    plan.memory = _whole_pages(chosen) if chosen else guest_ram(plan.resources, facts)
    limits = plan_limits(plan.resources, plan.memory)
    vcpus = _annotation_number(annotations, "dev.litebox.vcpus")
    if not vcpus:
        vcpus = facts.cpus
        cpu: Json = plan.resources.get("cpu") or {}
        if cpu.get("cpus"):
            vcpus = min(vcpus, len(parse_cpu_list(cpu["cpus"], "linux.resources.cpu.cpus")) or 1)
        if limits["cpu_quota"]:
            vcpus = min(vcpus, -(-limits["cpu_quota"] // limits["cpu_period"]))
    plan.vcpus = max(1, min(vcpus, facts.cpus))


def parse_cpu_list(text: str, where: str) -> set[int]:
    """0-3,7: the set of numbers."""
    numbers: set[int] = set()
    for part in text.replace(" ", "").strip().split(","):
        if not part:
            continue
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) > 8191:
            raise InvalidSpec(f"{where}: found {text!r}; allowed: numbers and ranges like 0-3,7")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def _plan_mounts(plan: Plan, config: Json, linux: Json, bundle: str, handle: int) -> list[Json]:
    root: Json = config.get("root") or {}
    path = root.get("path") or ""
    if not path:
        raise InvalidSpec("root.path: found nothing; allowed: the path of the root filesystem")
    plan.rootfs = os.path.normpath(os.path.join(bundle, path))
    readonly = bool(root.get("readonly"))
    annotations: Json = config.get("annotations") or {}
    sharing = annotations.get("dev.litebox.rootfs", "exclusive")
    if sharing not in ("exclusive", "shared", "overlay"):
        raise InvalidSpec(f"annotations['dev.litebox.rootfs']: found {sharing!r}; allowed: exclusive, shared, overlay")
    # Not "rootfs": df(1) and others leave out what has that source.
    spec = _mount_spec("/", "overlay" if sharing == "overlay" else "host", "litebox", "ext4", handle)
    spec["exclusive"] = sharing != "shared"
    spec["readonly"] = readonly
    tree = Tree(handle, spec, "root.path", plan.rootfs)
    tree.recursive = True
    tree.recursive_attributes = mount_options.NOSUID | mount_options.NODEV
    if readonly:
        tree.attributes |= mount_options.RDONLY
    if sharing == "overlay":
        tree.recursive_attributes |= mount_options.RDONLY
    propagation = linux.get("rootfsPropagation") or ""
    if propagation not in _PROPAGATION:
        raise InvalidSpec(
            f"linux.rootfsPropagation: found {propagation!r}; allowed: {', '.join(sorted(_PROPAGATION)[1:])}"
        )
    tree.propagation = _PROPAGATION[propagation] or _PROPAGATION["private"]
    plan.trees.append(tree)
    specs = [spec]
    handle += 1

    mounts = config.get("mounts") or []
    if len(mounts) > MAX_MOUNTS:
        raise InvalidSpec(f"mounts: found {len(mounts)}; allowed: at most {MAX_MOUNTS}")
    for index, mount in enumerate(mounts):
        where = f"mounts[{index}]"
        spec, new_tree = _plan_mount(mount, where, bundle, handle)
        if new_tree:
            plan.trees.append(new_tree)
            handle += 1
        specs.append(spec)
    if not any(_is_dev(spec["destination"]) for spec in specs[1:]):
        # runtime-spec: the default devices must be supplied whatever the bundle mounts.
        dev = _mount_spec("/dev", "devtmpfs", "tmpfs", "tmpfs", 0)
        dev["options"] = ["mode=755", "size=65536k"]
        dev["nosuid"] = True
        specs.insert(1, dev)
    return specs


def _is_dev(destination: str) -> bool:
    return os.path.normpath(destination) == "/dev"


def _mount_spec(destination: str, kind: str, source: str, fstype: str, handle: int) -> Json:
    return {
        "destination": destination,
        "kind": kind,
        "source": source,
        "fstype": fstype,
        "handle": handle,
        "is_file": False,
        "origin": "",
        "exclusive": False,
        "readonly": False,
        "nosuid": False,
        "nodev": False,
        "noexec": False,
        "noatime": False,
        "options": [],
    }


def _plan_mount(mount: Json, where: str, bundle: str, handle: int) -> tuple[Json, Tree | None]:
    destination: str = mount["destination"]
    if not destination.startswith("/"):
        # Absolute since 1.0, but 1.0 to 1.2 let runtimes take a relative one for one from "/" (runc still does).
        destination = "/" + destination
    destination = os.path.normpath(destination)
    options = mount_options.parse(mount.get("options") or [], f"{where}.options")
    fstype = mount.get("type") or ""
    source = mount.get("source") or ""
    bind = options.bind or fstype in ("bind", "rbind") or (not fstype and bool(source))
    if destination == "/":
        raise Unsupported(f"{where}.destination: a mount over / is not supported; use root.path")
    tree = None
    if bind:
        if not source:
            raise InvalidSpec(f"{where}.source: found nothing; a bind mount needs a path")
        spec = _mount_spec(destination, "host", source, "ext4", handle)
        spec["origin"] = os.path.normpath(os.path.join(bundle, source))
        tree = Tree(handle, spec, f"{where}.source", spec["origin"])
        tree.recursive = options.recursive_bind or fstype == "rbind"
    elif fstype in _GUEST_FILESYSTEMS:
        kind = _GUEST_FILESYSTEMS[fstype]
        if kind == "tmpfs" and _is_dev(destination):
            kind = "devtmpfs"
        spec = _mount_spec(destination, kind, source or fstype, fstype, 0)
        spec["options"] = options.data
    elif fstype:
        spec = _mount_spec(destination, "host", source or fstype, fstype, handle)
        tree = Tree(handle, spec, where, source, fstype=fstype)
        tree.data = options.data
    else:
        raise InvalidSpec(f"{where}.type: found nothing; allowed: bind, tmpfs, proc, overlay and other file systems")
    attributes = options.all_attributes
    spec["readonly"] = bool(attributes & mount_options.RDONLY)
    spec["nosuid"] = bool(attributes & mount_options.NOSUID)
    spec["nodev"] = bool(attributes & mount_options.NODEV)
    spec["noexec"] = bool(attributes & mount_options.NOEXEC)
    spec["noatime"] = bool(attributes & mount_options.NOATIME)
    if tree:
        tree.attributes = options.attributes & (
            mount_options.RDONLY | mount_options.NOATIME | mount_options.NOSYMFOLLOW
        )
        # The VMM must never meet a device node or a set-uid file it could act on, whatever the guest may see.
        tree.recursive_attributes = (
            options.recursive_attributes & (mount_options.RDONLY | mount_options.NOATIME | mount_options.NOSYMFOLLOW)
            | mount_options.NOSUID
            | mount_options.NODEV
        )
        tree.cleared = options.recursive_cleared & mount_options.RDONLY
        tree.propagation = options.propagation or _PROPAGATION["private"]
        uid, gid = mount.get("uidMappings") or [], mount.get("gidMappings") or []
        if uid or gid:
            if not uid or not gid:
                raise InvalidSpec(f"{where}: found one of uidMappings and gidMappings; allowed: both or none")
            tree.id_mappings = (uid, gid)
            tree.recursive_idmap = options.recursive_idmap
        elif options.idmap:
            raise Unsupported(f"{where}.options: idmap without uidMappings and gidMappings is not supported")
    return spec, tree


def _paths(linux: Json, key: str) -> list[str]:
    paths: list[str] = linux.get(key) or []
    for index, path in enumerate(paths):
        if not path.startswith("/"):
            raise InvalidSpec(f"linux.{key}[{index}]: found {path!r}; allowed: an absolute path")
    return [os.path.normpath(path) for path in paths]


def _plan_device(device: Json, index: int) -> Json:
    where = f"linux.devices[{index}]"
    kind = {"u": "c"}.get(device["type"], device["type"])
    if kind != "p" and (device.get("major") is None or device.get("minor") is None):
        raise InvalidSpec(f"{where}: found no major and minor number; a {device['type']!r} device needs both")
    return {
        "path": os.path.normpath(device["path"]),
        "kind": kind,
        "major": max(device.get("major") or 0, 0),
        "minor": max(device.get("minor") or 0, 0),
        "mode": device.get("fileMode", 0o666) & 0o7777,
        "uid": device.get("uid") or 0,
        "gid": device.get("gid") or 0,
    }


def _plan_sysctl(plan: Plan, linux: Json) -> list[tuple[str, str]]:
    """Split into the network namespace's (host) and the guest's; what belongs to neither is refused, as runc does."""
    guest: list[tuple[str, str]] = []
    for name, value in (linux.get("sysctl") or {}).items():
        dotted = name.replace("/", ".")
        if ".." in dotted or not dotted or dotted[0] == ".":
            raise InvalidSpec(f"linux.sysctl: found the name {name!r}; allowed: names like net.core.somaxconn")
        if dotted.startswith("net."):
            if not plan.has_network_namespace:
                raise InvalidSpec(
                    f"linux.sysctl[{name!r}]: not allowed in the host's network namespace; add a network namespace"
                )
            plan.host_sysctl.append((dotted, value))
        elif dotted in ("kernel.domainname", "kernel.hostname", "kernel.sem") or dotted.startswith(
            ("kernel.msg", "kernel.shm", "fs.mqueue.")
        ):
            guest.append((dotted, value))
        else:
            raise InvalidSpec(
                f"linux.sysctl[{name!r}]: not in a namespace of the container; allowed: net.*, kernel.msg*, "
                "kernel.shm*, kernel.sem, kernel.hostname, kernel.domainname, fs.mqueue.*"
            )
    return guest


def _plan_capabilities(capabilities: Json, warnings: list[str]) -> Json:
    masks = {}
    for key in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        masks[key], unknown = capability_mask(capabilities.get(key) or [])
        warnings.extend(f"process.capabilities.{key}: ignoring unknown {name!r}" for name in unknown)
    return masks


def all_capabilities() -> Json:
    """Masks with everything but the ambient set."""
    return dict.fromkeys(("bounding", "effective", "permitted"), ALL_CAPABILITIES) | {"inheritable": 0, "ambient": 0}


def capability_names() -> list[str]:
    """All of them, by name."""
    return list(CAPABILITIES)


def _plan_rlimits(rlimits: list[Json], facts: HostFacts) -> list[Json]:
    limits = dict(facts.rlimits)
    seen = set()
    for index, rlimit in enumerate(rlimits):
        name = rlimit["type"]
        where = f"process.rlimits[{index}]"
        if name not in RLIMITS:
            raise InvalidSpec(f"{where}.type: found {name!r}; allowed: {', '.join(RLIMITS)}")
        if name in seen:
            raise InvalidSpec(f"{where}.type: found a second {name}; each may appear once")
        seen.add(name)
        if rlimit["soft"] > rlimit["hard"]:
            raise InvalidSpec(f"{where}.soft: found {rlimit['soft']}; allowed: at most hard, {rlimit['hard']}")
        limits[name] = (rlimit["soft"], rlimit["hard"])
    return [
        {"resource": RLIMITS.index(name), "soft": soft & _RLIM_INFINITY, "hard": hard & _RLIM_INFINITY}
        for name, (soft, hard) in limits.items()
    ]
