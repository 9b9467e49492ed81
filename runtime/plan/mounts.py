"""Of the root and the mounts: what the guest serves, and which trees of the host it gets."""

from __future__ import annotations

import os.path

from runtime import mount_options
from runtime.errors import InvalidSpec, Unsupported
from runtime.mount_options import PROPAGATION
from runtime.plan.model import Tree
from runtime.plan.size import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.plan.model import Plan

    Json = dict[str, Any]

_MAX_MOUNTS = 2048
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
_TMPFS_OPTIONS = (
    "size nr_blocks nr_inodes mode uid gid huge mpol inode32 inode64 noswap context fscontext defcontext rootcontext"
).split()


def plan_mounts(plan: Plan, config: Json, linux: Json, bundle: str, handle: int) -> list[Json]:
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
    propagation = linux.get("rootfsPropagation") or "private"
    if propagation.removeprefix("r") not in PROPAGATION:
        names = ", ".join(f"{name}, r{name}" for name in PROPAGATION)
        raise InvalidSpec(f"linux.rootfsPropagation: found {propagation!r}; allowed: {names}")
    tree.propagation = PROPAGATION[propagation.removeprefix("r")]
    plan.trees.append(tree)
    specs = [spec]
    handle += 1

    mounts = config.get("mounts") or []
    if len(mounts) > _MAX_MOUNTS:
        raise InvalidSpec(f"mounts: found {len(mounts)}; allowed: at most {_MAX_MOUNTS}")
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


def _check_tmpfs(options: list[str], where: str) -> None:
    """As tmpfs(5) refuses them."""
    for option in options:
        name, _, value = option.partition("=")
        digits = value.rstrip("%") if name == "size" else value
        known = name in _TMPFS_OPTIONS
        if known and name == "mode":
            known = value != "" and set(value) <= set("01234567")
        elif known and name in ("uid", "gid"):
            known = value.isdigit()
        elif known and name in ("size", "nr_blocks", "nr_inodes"):
            known = parse_size(digits or "x") is not None
        if not known:
            raise InvalidSpec(f"{where}.options: found {option!r}; tmpfs allows: {', '.join(_TMPFS_OPTIONS)}")


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
        if fstype == "tmpfs":
            _check_tmpfs(options.data, where)
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
        tree.propagation = options.propagation or PROPAGATION["private"]
        uid, gid = mount.get("uidMappings") or [], mount.get("gidMappings") or []
        if uid or gid:
            if not uid or not gid:
                raise InvalidSpec(f"{where}: found one of uidMappings and gidMappings; allowed: both or none")
            tree.id_mappings = (uid, gid)
            tree.recursive_idmap = options.recursive_idmap
        elif options.idmap:
            raise Unsupported(f"{where}.options: idmap without uidMappings and gidMappings is not supported")
    return spec, tree
