"""Turns the plan's trees into detached mounts, each held by a descriptor and attached nowhere.

Nothing here touches the host's mount table, so there is nothing to undo: a detached tree dies with its last descriptor.
Names inside the container's file system are resolved with openat2(RESOLVE_IN_ROOT): a symbolic link of the bundle
cannot lead out of it.
"""

from __future__ import annotations

import os
import stat

from runtime.errors import HostError, InvalidSpec, Unsupported
from runtime.host import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runtime.plan.model import Plan, Tree

    Json = dict[str, Any]

_IN_ROOT = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS


def detach_all(
    plan: Plan, user_namespace: Callable[[list[Json], list[Json]], int], log: Callable[[str], None]
) -> dict[int, int]:
    """Make every tree; returns descriptors by handle. On failure none is left open.

    `user_namespace` makes a descriptor of a user namespace with the given mappings, for idmapped mounts.
    """
    made: dict[int, int] = {}
    try:
        for tree in plan.trees:
            made[tree.handle] = _detach(tree, user_namespace)
        _make_mount_points(plan, made, log)
        for tree in plan.trees:
            _restrict(tree, made[tree.handle])
    except BaseException:
        for fd in made.values():
            os.close(fd)
        raise
    return made


def _detach(tree: Tree, user_namespace: Callable[[list[Json], list[Json]], int]) -> int:
    if tree.fstype:
        try:
            return linux.new_mount(tree.fstype, tree.source, tree.data, tree.attributes | tree.recursive_attributes)
        except OSError as error:
            raise Unsupported(f"{tree.where}.type: found {tree.fstype!r}: {error.strerror}") from error
    flags = linux.OPEN_TREE_CLONE | linux.AT_NO_AUTOMOUNT | (linux.AT_RECURSIVE if tree.recursive else 0)
    try:
        if tree.hidden:
            from runtime.host.namespaces import open_tree_without

            fd = open_tree_without(tree.source, flags, tree.hidden)
        else:
            fd = linux.open_tree(tree.source, flags)
    except OSError as error:
        kind = InvalidSpec if error.errno in (2, 20, 40) else HostError
        raise kind(f"{tree.where}: found {tree.source!r}: {error.strerror}") from error
    try:
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        tree.spec["is_file"] = not is_directory
        if tree.destination == "/" and not is_directory:
            raise InvalidSpec(f"{tree.where}: found {tree.source!r}, not a directory")
        linux.mount_setattr(fd, propagation=tree.propagation, recursive=True)
        if tree.id_mappings:
            _idmap(tree, fd, user_namespace(*tree.id_mappings))
    except OSError as error:
        os.close(fd)
        raise HostError(f"{tree.where}: {tree.source!r}: {error.strerror}", error.errno or 0) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _idmap(tree: Tree, fd: int, userns: int) -> None:
    try:
        linux.mount_setattr(fd, set=linux.MOUNT_ATTR_IDMAP, userns_fd=userns, recursive=tree.recursive_idmap)
    except OSError as error:
        raise Unsupported(
            f"{tree.where}: the file system of {tree.source!r} cannot be idmapped: {error.strerror}"
        ) from error
    finally:
        os.close(userns)


def _restrict(tree: Tree, fd: int) -> None:
    """Read-only and the like, last: the mount points had to be made first."""
    try:
        if tree.recursive_attributes or tree.cleared:
            clear = tree.cleared | _atime_field(tree.recursive_attributes)
            linux.mount_setattr(fd, set=tree.recursive_attributes, clear=clear, recursive=True)
        if tree.attributes:
            linux.mount_setattr(fd, set=tree.attributes, clear=_atime_field(tree.attributes))
    except OSError as error:
        raise HostError(f"{tree.where}: {tree.source!r}: {error.strerror}", error.errno or 0) from error


def _atime_field(attributes: int) -> int:
    """Atime is a field of three bits: to set it, clear it."""
    return linux.MOUNT_ATTR_ATIME if attributes & linux.MOUNT_ATTR_ATIME else 0


def _make_mount_points(plan: Plan, trees: dict[int, int], log: Callable[[str], None]) -> None:
    """Directories (files for file binds) that mounts and the working directory need, made where they are missing.

    Only in trees of the host that are mounted writable; the library OS makes those in its own file systems. A tree
    that cannot be written is left as it is: the guest reports the missing mount point then.
    """
    mounted: list[tuple[str, Json]] = []
    for spec in plan.container["mounts"]:
        destination: str = spec["destination"]
        if destination != "/":
            _make_in(mounted, trees, destination, is_file=spec["is_file"], log=log)
        mounted.append((destination, spec))
    if plan.cwd != "/":
        _make_in(mounted, trees, os.path.normpath(plan.cwd), is_file=False, log=log)


def _make_in(
    mounted: list[tuple[str, Json]], trees: dict[int, int], path: str, *, is_file: bool, log: Callable[[str], None]
) -> None:
    for destination, spec in reversed(mounted):
        prefix = "/" if destination == "/" else destination + "/"
        if path == destination:
            return
        if path.startswith(prefix):
            if spec["kind"] == "host" and not spec["is_file"]:
                try:
                    make_path(trees[spec["handle"]], path[len(prefix) :], is_file=is_file)
                except OSError as error:
                    log(f"mount point {path} could not be made: {error.strerror}")
            return


def make_path(root: int, path: str, *, is_file: bool) -> None:
    """mkdir -p (or touch) of `path` inside the tree `root`, never outside."""
    try:
        os.close(linux.openat2(root, path, os.O_PATH, _IN_ROOT))
        return
    except FileNotFoundError:
        pass
    parent, _, name = path.rstrip("/").rpartition("/")
    directory = "."
    for part in parent.split("/"):
        if not part:
            continue
        above, directory = directory, f"{directory}/{part}"
        _make_entry(root, above, part, is_file=False)
    _make_entry(root, directory, name, is_file=is_file)


def _make_entry(root: int, directory: str, name: str, *, is_file: bool) -> None:
    at = linux.openat2(root, directory, os.O_PATH | os.O_DIRECTORY, _IN_ROOT)
    try:
        if is_file:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o755, dir_fd=at))
        else:
            os.mkdir(name, 0o755, dir_fd=at)
    except FileExistsError:
        pass
    finally:
        os.close(at)


def read_file(root: int, path: str, limit: int = 1 << 20) -> bytes:
    """A file of the container's, as its own root sees it; empty when there is none."""
    try:
        fd = linux.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK, _IN_ROOT)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        return os.read(fd, limit)
    finally:
        os.close(fd)
