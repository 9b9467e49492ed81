"""Where a container's cgroup is. Pure: /proc/self/mountinfo and /proc/self/cgroup come in as text."""

from __future__ import annotations

import os.path

from runtime.errors import InvalidSpec

_V1_CONTROLLERS = frozenset(
    "cpu cpuacct cpuset memory devices freezer blkio pids hugetlb net_cls net_prio perf_event rdma misc".split()
)


class Hierarchy:
    """One mounted cgroup hierarchy."""

    __slots__ = ("controllers", "mount", "own", "unified")

    def __init__(self, mount: str, controllers: frozenset[str], own: str, *, unified: bool) -> None:
        self.mount = mount
        #: v1: those of this hierarchy (or {"name=systemd"}); v2: empty, see cgroup.controllers.
        self.controllers = controllers
        #: Our own cgroup, relative to the mount.
        self.own = own
        self.unified = unified


def hierarchies(mountinfo: str, own_cgroups: str) -> list[Hierarchy]:
    """Those that containers are put into: all of v1 (the unified one of a hybrid host has no controllers), or v2's."""
    own: dict[str, str] = {}
    for line in own_cgroups.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in names.split(","):
            own[name] = path
    found: dict[frozenset[str], Hierarchy] = {}
    unified = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest_fields = left.split(), right.split()
        if len(fields) < 5 or len(rest_fields) < 3 or rest_fields[0] not in ("cgroup", "cgroup2"):
            continue
        root, mount = unescape(fields[3]), unescape(fields[4])
        if rest_fields[0] == "cgroup2":
            unified = unified or Hierarchy(mount, frozenset(), _relative(own.get("", "/"), root), unified=True)
            continue
        controllers = frozenset(
            option for option in rest_fields[2].split(",") if option in _V1_CONTROLLERS or option.startswith("name=")
        )
        if controllers and controllers not in found:
            path = next((own[name] for name in controllers if name in own), "/")
            found[controllers] = Hierarchy(mount, controllers, _relative(path, root), unified=False)
    if found:
        return list(found.values())
    return [unified] if unified else []


def unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _relative(path: str, root: str) -> str:
    """A cgroup path as seen through a mount whose root is `root`."""
    if root in ("/", path):
        return path if root == "/" else "/"
    return path[len(root) :] if path.startswith(root + "/") else "/"


def container_path(cgroups_path: str, container_id: str) -> str:
    """The container's cgroup: absolute from the hierarchy's root, or relative to our own.

    As runc: absolute paths from the root, relative ones below the caller's. `slice:prefix:name` is systemd's form:
    where it would put the container, if it ran.
    """
    if is_systemd_form(cgroups_path):
        slice_, prefix, name = split_systemd(cgroups_path)
        return f"{expand_slice(slice_)}/{unit_name(prefix, name)}"
    if not cgroups_path:
        return container_id
    normal = os.path.normpath(cgroups_path)
    if "\0" in normal or normal.startswith(".."):
        raise InvalidSpec(f"linux.cgroupsPath: found {cgroups_path!r}; allowed: a path that does not lead upwards")
    return "/" + normal.lstrip("/") if cgroups_path.startswith("/") else normal


def is_systemd_form(path: str) -> bool:
    """slice:prefix:name."""
    return path.count(":") == 2 and "/" not in path


def split_systemd(path: str) -> tuple[str, str, str]:
    """slice:prefix:name."""
    parts = path.split(":")
    if len(parts) != 3 or not parts[2]:
        raise InvalidSpec(f"linux.cgroupsPath: found {path!r}; allowed with --systemd-cgroup: slice:prefix:name")
    return parts[0] or "system.slice", parts[1], parts[2]


def unit_name(prefix: str, name: str) -> str:
    """The scope of a container; a name that is a slice stays one."""
    return name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"


def expand_slice(slice_: str) -> str:
    """a-b.slice is /a.slice/a-b.slice (systemd.slice(5))."""
    if not slice_.endswith(".slice") or "/" in slice_:
        raise InvalidSpec(f"linux.cgroupsPath: found the slice {slice_!r}; allowed: a name that ends in .slice")
    stem = slice_[: -len(".slice")]
    if stem == "-":
        return "/"
    parts = stem.split("-")
    if not all(parts):
        raise InvalidSpec(f"linux.cgroupsPath: found the slice {slice_!r}, with an empty part between its dashes")
    return "".join(f"/{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts)))


def directory(hierarchy: Hierarchy, path: str) -> str:
    """Of the container, in one hierarchy."""
    base = hierarchy.mount if path.startswith("/") else os.path.join(hierarchy.mount, hierarchy.own.lstrip("/"))
    return os.path.normpath(os.path.join(base, path.lstrip("/")))
