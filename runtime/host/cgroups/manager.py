"""Makes a container's cgroups, puts the VMM into them, reads them, removes them.

The directories are a list that the state file keeps: it is written before they are made, so whoever finds a crashed
create knows what to remove. Removing what was never made is no error.
"""

from __future__ import annotations

import errno as errno_module
import os
import time

from runtime.errors import HostError, InvalidSpec, Unsupported
from runtime.host.cgroups import paths, resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

_REMOVE_TRIES = 200


class Cgroups:
    """One container's directories, by the controllers of their hierarchy."""

    def __init__(self, directories: dict[str, str]) -> None:
        #: "cpu,cpuacct" → directory; v2: "" → directory.
        self.directories = directories

    @property
    def unified(self) -> bool:
        """cgroup v2."""
        return "" in self.directories

    def path_of(self, controller: str) -> str | None:
        """The directory that has the controller's files."""
        if self.unified:
            return self.directories[""]
        return next((path for names, path in self.directories.items() if controller in names.split(",")), None)


def locate(cgroups_path: str, container_id: str, *, unit: Json | None = None) -> Cgroups:
    """Where the container's cgroups are to be; with a unit, where systemd makes them."""
    found = paths.hierarchies(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup"))
    if unit:
        path = f"{unit['root']}{paths.expand_slice(unit['slice'])}/{unit['name']}"
    else:
        path = paths.container_path(cgroups_path, container_id)
    return Cgroups({",".join(sorted(hierarchy.controllers)): paths.directory(hierarchy, path) for hierarchy in found})


def settings_for(cgroups: Cgroups, wanted: Json) -> list[resources.Setting]:
    """linux.resources as this host's files."""
    return resources.settings_v2(wanted) if cgroups.unified else resources.settings_v1(wanted)


def make(cgroups: Cgroups, settings: list[resources.Setting], *, may_lack: bool, log: Callable[[str], None]) -> None:
    """Make the directories, apply the settings.

    `may_lack` (rootless, no path asked for): without the right to make cgroups, do without.
    """
    needed = {setting.controller for setting in settings}
    for names, directory in cgroups.directories.items():
        try:
            if names:
                _make_v1(names, directory)
            else:
                _make_v2(directory, needed)
        except OSError as error:
            if may_lack and error.errno in (errno_module.EACCES, errno_module.EPERM, errno_module.EROFS):
                continue  # `apply` says so of what was asked for
            raise HostError(f"cgroup {directory}: {error.strerror}", error.errno or 0) from error
    apply(cgroups, settings, may_lack=may_lack, log=log)


def move(cgroups: Cgroups, pid: int, *, may_lack: bool) -> None:
    """Put a process into them. Takes an RCU grace period, 10 to 20 ms, unless somebody has just done so."""
    for directory in cgroups.directories.values():
        try:
            _write(f"{directory}/cgroup.procs", str(pid))
        except OSError as error:
            if may_lack:
                continue
            raise HostError(f"cgroup {directory}: joining it: {error.strerror}", error.errno or 0) from error


def open_tasks(cgroups: Cgroups) -> list[int] | None:
    """Descriptors by which a process of one thread moves itself, which waits for nothing. None: v2 has no such way."""
    if cgroups.unified:
        return None
    opened: list[int] = []
    try:
        for directory in cgroups.directories.values():
            opened.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        for fd in opened:
            os.close(fd)
        raise HostError(f"cgroup {directory}: joining it: {error.strerror}", error.errno or 0) from error
    return opened


def _make_v1(names: str, directory: str) -> None:
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_v1(names, os.path.dirname(directory))
        _make_v1(names, directory)
        return
    if "cpuset" in names.split(","):
        # A new cpuset has neither CPUs nor memory, and takes no process.
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not _read(f"{directory}/{file}").strip():
                _write(f"{directory}/{file}", _read(f"{os.path.dirname(directory)}/{file}").strip())


def _make_v2(directory: str, needed: set[str]) -> None:
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        _enable_controllers(directory, needed)
        os.mkdir(path, 0o755)
        directory = path


def _enable_controllers(directory: str, needed: set[str]) -> None:
    """All that are there, so that limits can be set later; those asked for must be."""
    available = set(_read(f"{directory}/cgroup.controllers").split())
    enabled = set(_read(f"{directory}/cgroup.subtree_control").split())
    for controller in sorted(available - enabled):
        try:
            _write(f"{directory}/cgroup.subtree_control", f"+{controller}")
        except OSError as error:
            if controller in needed:
                raise OSError(error.errno, f"enabling {controller}: {error.strerror}") from error


def apply(cgroups: Cgroups, settings: list[resources.Setting], *, may_lack: bool, log: Callable[[str], None]) -> None:
    """Write every setting; an error names the JSON path and what the kernel said."""
    for setting in settings:
        directory = cgroups.path_of(setting.controller)
        if directory is None:
            if may_lack:
                log(f"{setting.where}: no {setting.controller} controller; doing without")
                continue
            raise Unsupported(f"{setting.where}: this host has no {setting.controller} controller")
        path = f"{directory}/{setting.file}"
        if setting.file.startswith("blkio.weight") and not os.path.exists(path):
            # Since Linux 5.0 BFQ is the only scheduler with weights.
            path = f"{directory}/{setting.file.replace('.', '.bfq.', 1)}"
        try:
            _write_limit(path, setting)
        except FileNotFoundError as error:
            if may_lack or setting.file in ("memory.memsw.limit_in_bytes", "memory.swap.max"):
                log(f"{setting.where}: {setting.file} is not there; doing without")
                continue
            raise Unsupported(
                f"{setting.where}: this host's {setting.controller} controller has no {setting.file}"
            ) from error
        except OSError as error:
            if may_lack and error.errno in (errno_module.EACCES, errno_module.EPERM):
                log(f"{setting.where}: {error.strerror}; doing without")
                continue
            kind = InvalidSpec if error.errno in (errno_module.EINVAL, errno_module.ERANGE) else Unsupported
            raise kind(f"{setting.where}: {path} does not take {setting.value!r}: {error.strerror}") from error


def _write_limit(path: str, setting: resources.Setting) -> None:
    """v1 wants memory.limit <= memory.memsw.limit at every moment: when raising, the larger one goes first."""
    try:
        _write(path, setting.value)
    except OSError as error:
        if setting.file == "memory.limit_in_bytes" and error.errno in (errno_module.EINVAL, errno_module.EBUSY):
            _write(path.replace("memory.limit", "memory.memsw.limit"), "-1")
            _write(path, setting.value)
            return
        raise


def missing(cgroups: Cgroups) -> list[str]:
    """The directories that do not exist yet: those that will be ours to remove."""
    return [directory for directory in cgroups.directories.values() if not os.path.isdir(directory)]


def leave(state: Json) -> None:
    """Remove what was made for the container of this state: its unit, its directories."""
    if state.get("systemd_unit"):
        from runtime.host.cgroups import systemd

        systemd.stop(state["systemd_unit"])
    remove(state["cgroups_made"])


def remove(made: list[str]) -> None:
    """Kill what is left in directories that were made for the container, and remove them (a second's patience)."""
    for directory in made:
        for _ in range(_REMOVE_TRIES):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno not in (errno_module.EBUSY, errno_module.ENOTEMPTY):
                    raise HostError(f"cgroup {directory}: {error.strerror}", error.errno or 0) from error
                _kill_all(directory)
                time.sleep(0.005)
            else:
                break
        else:
            raise HostError(f"cgroup {directory}: still busy: a process in it does not die", errno_module.EBUSY)


def _kill_all(directory: str) -> None:
    for line in _read(f"{directory}/cgroup.procs").split():
        try:
            os.kill(int(line), 9)
        except OSError:
            continue  # gone, or not ours to kill: then rmdir says so


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        pieces = []
        while piece := os.read(fd, 65536):
            pieces.append(piece)
        return b"".join(pieces).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


read_file = _read
