"""Makes the plan of a container."""

from __future__ import annotations

import os.path

from runtime.errors import InvalidSpec, Unsupported
from runtime.plan.model import FIRST_FILE_HANDLE, Namespace, Plan
from runtime.plan.mounts import plan_mounts
from runtime.plan.process import inherit_rlimits, plan_process
from runtime.plan.size import plan_limits, plan_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.plan.model import HostFacts

    Json = dict[str, Any]

_NAMESPACES_OF_THE_GUEST = {"pid", "mount", "cgroup", "time", "user"}
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
    plan_size(plan, annotations, facts)
    mounts = plan_mounts(plan, config, linux, bundle, FIRST_FILE_HANDLE + files)
    process: Json = config.get("process") or {}
    plan.process = process
    if process:
        plan.exec = plan_process(process, plan.warnings, files=files)
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
        "process": inherit_rlimits(plan.exec, facts.rlimits) if process else {},
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
