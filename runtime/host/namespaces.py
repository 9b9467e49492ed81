"""Namespaces: opened by path and handed over by descriptor, or made for their id mappings."""

from __future__ import annotations

import _socket
import os
import stat
import sys

from runtime.errors import HostError, InvalidSpec, Unsupported
from runtime.host import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from runtime.plan.model import Plan

    Json = dict[str, Any]

_NS_GET_NSTYPE = 0xB703
_KINDS = {
    "network": linux.CLONE_NEWNET,
    "ipc": linux.CLONE_NEWIPC,
    "uts": linux.CLONE_NEWUTS,
    "user": linux.CLONE_NEWUSER,
    "mount": linux.CLONE_NEWNS,
    "pid": linux.CLONE_NEWPID,
    "cgroup": linux.CLONE_NEWCGROUP,
    "time": linux.CLONE_NEWTIME,
}


def open_path(kind: str, path: str) -> int:
    """A descriptor of the namespace at `path`, checked to be one of that kind."""
    import fcntl

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidSpec(f"linux.namespaces: {kind} namespace at {path!r}: {error.strerror}") from error
    try:
        found = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        found = 0
    if found != _KINDS[kind]:
        os.close(fd)
        raise InvalidSpec(f"linux.namespaces: {path!r} is not a {kind} namespace")
    return fd


def of_plan(plan: Plan) -> int | None:
    """The user namespace the VMM is to start in, None when it is ours."""
    if plan.uid_gid_mappings:
        return user_namespace(*plan.uid_gid_mappings)
    if plan.user_namespace_path:
        return open_path("user", plan.user_namespace_path)
    return None


def user_namespace(uid_mappings: list[Json], gid_mappings: list[Json]) -> int:
    """A new user namespace with these mappings, kept alive by the descriptor returned."""
    pid, release = _fork_into(linux.CLONE_NEWUSER)
    try:
        write_mappings(pid, uid_mappings, gid_mappings)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"user namespace: {error.strerror}", error.errno or 0) from error
    finally:
        release()


def _fork_into(flags: int) -> tuple[int, Callable[[], None]]:
    """A child that waits in new namespaces until `release` ends and reaps it."""
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    hold_read, hold_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(hold_write)
        try:
            linux.prctl(linux.PR_SET_PDEATHSIG, 9)
            linux.unshare(flags)
            os.write(ready_write, b"+")
            os.read(hold_read, 1)
        except OSError as error:
            os.write(ready_write, bytes([(error.errno or 1) & 0xFF]))
        finally:
            os._exit(0)
    os.close(ready_write)
    os.close(hold_read)

    def release() -> None:
        os.close(hold_write)
        os.waitpid(pid, 0)

    answer = os.read(ready_read, 1)
    os.close(ready_read)
    if answer != b"+":
        release()
        reason = os.strerror(answer[0]) if answer else "the helper process died"
        raise Unsupported(f"new namespaces cannot be made here: {reason}")
    return pid, release


def write_mappings(pid: int, uid_mappings: list[Json], gid_mappings: list[Json]) -> None:
    """Map ids of the user namespace that `pid` is in: directly as root, by newuidmap(1) otherwise."""
    for kind, mappings in (("gid", gid_mappings), ("uid", uid_mappings)):
        lines = [f"{mapping['containerID']} {mapping['hostID']} {mapping['size']}" for mapping in mappings]
        try:
            _write(f"/proc/{pid}/{kind}_map", "\n".join(lines) + "\n")
        except PermissionError:
            if os.geteuid() == 0:
                raise
            _map_by_helper(kind, pid, lines)


def map_self(uid: int, gid: int) -> None:
    """Root inside is `uid` outside: what an unprivileged process may map by itself, after unshare(CLONE_NEWUSER)."""
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/gid_map", f"0 {gid} 1\n")
    _write("/proc/self/uid_map", f"0 {uid} 1\n")


def _map_by_helper(kind: str, pid: int, lines: list[str]) -> None:
    import subprocess

    command = [f"new{kind}map", str(pid), *" ".join(lines).split()]
    try:
        done = subprocess.run(command, capture_output=True, check=False, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise Unsupported(
            f"{command[0]} is not installed (package uidmap): it is needed to map ids as a user"
        ) from error
    if done.returncode:
        raise InvalidSpec(f"linux.{kind}Mappings: {done.stderr.strip() or command[0] + ' failed'}")


def enter_user(fd: int) -> None:
    """Become root of the user namespace. For a child process, just before exec."""
    linux.setns(fd, linux.CLONE_NEWUSER)
    os.setgid(0)
    os.setuid(0)


def run_inside(pid: int, kinds: list[str], work: Callable[[], None]) -> None:
    """Run `work` in namespaces of another process, in a child of ours. OSError of the child is raised here."""
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _work_and_exit(pid, kinds, work, write)
    os.close(write)
    try:
        answer = b""
        while piece := os.read(read, 4096):
            answer += piece
    finally:
        os.close(read)
        os.waitpid(child, 0)
    if answer:
        number, _, text = answer.decode("utf-8", "replace").partition(" ")
        raise OSError(int(number), text)


def _work_and_exit(pid: int, kinds: list[str], work: Callable[[], None], report: int) -> NoReturn:
    try:
        fds = [(kind, os.open(f"/proc/{pid}/ns/{_FILE_NAMES[kind]}", os.O_RDONLY)) for kind in kinds]
        for kind, fd in fds:
            linux.setns(fd, _KINDS[kind])
        work()
    except OSError as error:
        os.write(report, f"{error.errno or 5} {error.strerror}: {error.filename or ''}".rstrip(": ").encode())
    except BaseException as error:  # noqa: BLE001 - a forked child must not return
        os.write(report, f"5 {error}".encode())
    finally:
        os._exit(0)


_FILE_NAMES = {"network": "net", "mount": "mnt"} | {kind: kind for kind in ("ipc", "uts", "user", "pid", "cgroup")}


def write_sysctl(pid: int, settings: list[tuple[str, str]]) -> None:
    """Set net.* values in the network namespace of `pid`."""

    def write() -> None:
        for name, value in settings:
            _write("/proc/sys/" + name.replace(".", "/"), value)

    try:
        run_inside(pid, ["network"], write)
    except OSError as error:
        raise HostError(f"linux.sysctl: {error.strerror}", error.errno or 0) from error


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(fd)


def run_in_container(pid: int, kinds: list[str], rootfs: str, work: Callable[[], None]) -> None:
    """Run `work` as a createContainer hook finds things: in the container's namespaces, its mounts at `rootfs`, below
    the host's root (what runc has before pivot_root). The mount namespace is a copy that dies with the child.

    The VMM has the container's mounts at its root, already pivoted: they are copied from there.
    """
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    containers = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    user = "user" in kinds
    others = [kind for kind in kinds if kind != "user"]

    def enter_and_work() -> None:
        linux.setns(containers, linux.CLONE_NEWNS)
        mounts = linux.open_tree("/", linux.OPEN_TREE_CLONE | linux.AT_RECURSIVE)
        linux.setns(own, linux.CLONE_NEWNS)
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("", "/", "", linux.MS_SLAVE | linux.MS_REC)
        linux.move_mount(mounts, rootfs)
        os.close(mounts)
        if user:
            enter_user(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
            linux.unshare(linux.CLONE_NEWNS)  # the hook's own, where it may mount
        work()

    try:
        run_inside(pid, others, enter_and_work)
    finally:
        os.close(own)
        os.close(containers)


#: File systems that show or steer the kernel.
_KERNELS = frozenset("proc sysfs cgroup cgroup2 devtmpfs devpts securityfs debugfs tracefs bpf configfs pstore".split())


def open_tree_without(source: str, flags: int, hidden: tuple[str, ...]) -> int:
    """A detached copy of the tree at `source` with empty folders for those `hidden`, and where the kernel's own file
    systems are mounted elsewhere in it. Made in a mount namespace that is gone afterwards.
    """
    ours, its = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)

    def work() -> None:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("", "/", "", linux.MS_SLAVE | linux.MS_REC)
        for path in dict.fromkeys([*(os.path.join(source, name) for name in hidden), *_mounts_of_the_kernel()]):
            if _is_plain_folder(path):
                linux.mount("none", path, "tmpfs", linux.MS_RDONLY)
        tree = linux.open_tree(source, flags)
        its.sendmsg([b"+"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, tree.to_bytes(4, sys.byteorder))])

    try:
        run_inside(0, [], work)
        _, ancillary, _, _ = ours.recvmsg(1, _socket.CMSG_SPACE(4))
    finally:
        ours.close()
        its.close()
    fd = int.from_bytes(ancillary[0][2], sys.byteorder)
    os.set_inheritable(fd, False)
    return fd


def _mounts_of_the_kernel() -> list[str]:
    from runtime.host.cgroups.paths import unescape

    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        rows = [line.partition(" - ") for line in file]
    return [unescape(left.split()[4]) for left, _, right in rows if right.split()[0] in _KERNELS]


def _is_plain_folder(path: str) -> bool:
    """Not one below a folder hidden before, which is gone, nor a symbolic link, which leads elsewhere."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
