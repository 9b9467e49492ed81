"""Carries a plan out as far as a VMM that boots: descriptors opened, trees detached, process started.

What is opened here is owned by the `Boot` until the VMM has it; nothing survives a failure but an error.
"""

from __future__ import annotations

import os

from runtime import vmm
from runtime.host import mounts, namespaces
from runtime.plan.model import FIRST_FILE_HANDLE, NO_HANDLE, STDIO_HANDLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Sequence
    from typing import Any

    from runtime.plan.model import Plan

    Json = dict[str, Any]

KERNEL = "litebox-kernel"


class Boot:
    """A VMM on its way up."""

    __slots__ = ("_ready", "pid", "placed")

    def __init__(self, pid: int, ready: int, *, placed: bool = False) -> None:
        self.pid = pid
        #: Whether it is in its cgroups.
        self.placed = placed
        self._ready = ready

    def wait_ready(self) -> None:
        """Until the guest waits for `start`. VmmError when it never will; the process is then still to be reaped."""
        try:
            vmm.wait_ready(self._ready)
        finally:
            self.close()

    def close(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1


def boot(
    plan: Plan,
    stdio: Sequence[int | None],
    *,
    control: _socket.socket | None,
    log: Callable[[str], None],
    log_fd: int | None = None,
    files: Sequence[int] = (),
    autostart: bool = False,
    new_session: bool = True,
    controlling_terminal: int | None = None,
    prepare: Callable[[int], None] | None = None,
    ahead: vmm.Ahead | None = None,
    place: Callable[[int, bool], list[int]] | None = None,
) -> Boot:
    """Start the VMM. `stdio` and `files` are borrowed; the caller waits (`Boot.wait_ready`) and reaps `Boot.pid`.

    A VMM started `ahead` is put into its cgroups by `place(pid, True)` before its guest runs, or puts itself there
    with the descriptors that `place` returns; another one is still to be (`Boot.placed`). `prepare` is given the VMM's
    process id before it has the plan, or 0 in the child that becomes it.
    """
    kernel = os.path.join(vmm.library_directory(), KERNEL)
    opened: list[int] = []
    try:
        kvm = vmm.open_kvm()
        opened.append(kvm)
        trees = mounts.detach_all(plan, namespaces.user_namespace, log)
        opened += trees.values()
        joined = _open_namespaces(plan, opened)
        user = namespaces.of_plan(plan)
        if user is not None:
            opened.append(user)
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        opened.append(ready_write)
        descriptors, inherited = _stdio(plan, stdio)
        for index, fd in enumerate(files):
            descriptors.append({"handle": FIRST_FILE_HANDLE + index, "fd": fd, "kind": "stream"})
        descriptors += [{"handle": handle, "fd": fd, "kind": "tree"} for handle, fd in trees.items()]
        launch_plan: Json = {
            "version": 1,
            "kernel": kernel,
            "kvm": kvm,
            "ready": ready_write,
            "vcpus": plan.vcpus,
            "memory": plan.memory,
            "autostart": autostart,
            "descriptors": descriptors,
            "jail": {"namespaces": joined, "enabled": True, "uid": 0, "gid": 0, **plan.jail},
            "debug": plan.debug,
            "container": plan.container,
        }
        if control is not None:
            launch_plan["control"] = control.fileno()
            inherited.append(control.fileno())
        if log_fd is not None:
            launch_plan["log"] = log_fd
            inherited.append(log_fd)
        named = [*opened, *inherited, *files]
        try:
            if ahead is not None and place is not None and user is None:
                if prepare:
                    prepare(ahead.pid)
                cgroups = place(ahead.pid, True)
                opened += cgroups
                if ahead.launch(launch_plan, named, cgroups, new_session=new_session, terminal=controlling_terminal):
                    return Boot(ahead.pid, ready_read, placed=True)
            pid = vmm.launch(
                launch_plan,
                inherited=named,
                new_session=new_session,
                controlling_terminal=controlling_terminal,
                before_exec=_in_child(prepare, user),
            )
            return Boot(pid, ready_read)
        except BaseException:
            os.close(ready_read)
            raise
    finally:
        if ahead is not None:
            ahead.close()
        for fd in opened:
            os.close(fd)


def _in_child(prepare: Callable[[int], None] | None, user: int | None) -> Callable[[], None]:
    def before_exec() -> None:
        if prepare:
            prepare(0)
        if user is not None:
            namespaces.enter_user(user)

    return before_exec


def _open_namespaces(plan: Plan, opened: list[int]) -> list[Json]:
    for namespace in plan.unjoined:
        os.close(namespaces.open_path(namespace.type, namespace.path))
    joined: list[Json] = []
    for namespace in plan.namespaces:
        entry: Json = {"type": namespace.type}
        if namespace.path:
            fd = namespaces.open_path(namespace.type, namespace.path)
            opened.append(fd)
            entry["fd"] = fd
        joined.append(entry)
    return joined


def _stdio(plan: Plan, stdio: Sequence[int | None]) -> tuple[list[Json], list[int]]:
    """Descriptor entries for stdin, stdout, stderr; one entry per distinct descriptor of ours."""
    entries: list[Json] = []
    handles: list[int] = []
    inherited: list[int] = []
    for handle, fd in zip(STDIO_HANDLES, stdio, strict=True):
        if fd is None:
            handles.append(NO_HANDLE)
            continue
        try:
            os.fstat(fd)
        except OSError:  # closed by whoever started us
            handles.append(NO_HANDLE)
            continue
        entries.append({"handle": handle, "fd": fd, "kind": "stream"})
        handles.append(handle)
        inherited.append(fd)
    if plan.container["process"]:
        plan.container["process"]["stdio"] = handles
    return entries, inherited
