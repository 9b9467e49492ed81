"""One container, by its state file and its VMM."""

from __future__ import annotations

import errno as errno_module
import os

from runtime import vmm
from runtime.errors import HookFailed, LiteboxError, NotFound, VmmError, WrongState
from runtime.host import processes
from runtime.processes import Exec, Process
from runtime.store import CONTROL_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from runtime.processes import Stdio
    from runtime.store import Entry, Store
    from runtime.vmm import Asked, Control

    Json = dict[str, Any]

_SIGKILL = 9
_SPEC_VERSION = "1.3.0"
#: For answers that need no work of the guest.
_PROMPT = 5.0
#: In runc's words: containerd tells by them that a process is gone (checkKillError of its shim for runc).
_NOT_RUNNING = "container not running"


class Container:
    """A handle on one container."""

    def __init__(
        self, store: Store, log: Callable[[str], None], id: str, state: Json, started: Asked | None = None
    ) -> None:
        self._store = store
        #: The start that `create` has asked for.
        self._started = started
        self._log = log
        self._state = state
        self.id = id
        self.bundle: str = state["bundle"]
        self.rootfs: str = state["rootfs"]
        #: RFC 3339, when create was called.
        self.created: str = state["created"]
        self.owner: str = state["owner"]
        self.annotations: Mapping[str, str] = state["annotations"]
        #: The OCI process of config.json: what `exec` starts from.
        self.process: Json = state["process"]
        #: process.terminal of config.json.
        self.terminal = bool(self.process.get("terminal"))

    @property
    def pid(self) -> int:
        """The VMM's process id on the host; it lives in the container's network namespace. 0 once it is gone."""
        return int(self._state["pid"]) if self._alive() else 0

    def _alive(self) -> bool:
        return processes.alive(self._state["pid"], self._state["start_time"])

    def status(self) -> str:
        """creating, created, running, paused or stopped: asked of the VMM, not remembered."""
        if not self._alive():
            return "creating" if self._state["phase"] == "creating" and not self._state["pid"] else "stopped"
        if self._state["phase"] == "creating":
            return "creating"
        try:
            with self._connect() as control:
                return str(control.request("state")["status"])
        except (LiteboxError, KeyError):
            if not self._alive():
                return "stopped"
            with self._store.open(self.id) as entry:
                return str((entry.read() or self._state).get("last_status", "running"))

    def state(self) -> Json:
        """The OCI state document."""
        return self._state_as(self.status())

    def _state_as(self, status: str) -> Json:
        document: Json = {
            "ociVersion": _SPEC_VERSION,
            "id": self.id,
            "status": status,
            "pid": 0 if status == "stopped" else self._state["pid"],
            "bundle": self.bundle,
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document

    def start(self) -> None:
        """Run the program. WrongState unless created. ExecFailed (126, 127): the container is stopped then."""
        if self._started:
            started, self._started = self._started, None
            started.answer()
            return
        hooks: Json = self._state["hooks"]
        first = hooks.get("startContainer") or []
        with self._locked():
            # The VMM knows when it cannot be started: it is asked beforehand only where something comes before.
            if first or self._state["phase"] == "creating" or not self._alive():
                self._expect("created", doing="start")
            with self._connect(None) as control:
                for index, hook in enumerate(first):
                    self._run_in_guest(hook, f"hooks.startContainer[{index}] ({hook['path']})")
                try:
                    control.request("start")
                except VmmError as error:
                    if error.errno == errno_module.EALREADY:
                        self._expect("created", doing="start")
                    raise
            if hooks.get("poststart"):
                self._poststart(hooks["poststart"])

    def _poststart(self, hooks: list[Json]) -> None:
        from runtime.host.hooks import run

        try:
            run(hooks, "poststart", self._state_as("running"))
        except HookFailed:
            self._kill_vmm()
            raise

    def _run_in_guest(self, hook: Json, name: str) -> None:
        from runtime import guest_hooks

        try:
            guest_hooks.run(self, hook, name, self._state_as("created"))
        except HookFailed:
            self._kill_vmm()
            raise

    def kill(self, signal: int, *, pid: int = 0, all: bool = False) -> None:
        """Signal PID 1 (or the guest's `pid`, or all). SIGKILL to PID 1 ends the VM even if the guest does not answer.

        WrongState when the container is stopped, NotFound when the guest's `pid` is gone.
        """
        if not self._alive():
            raise WrongState(f"{self.id}: {_NOT_RUNNING}")
        if signal == _SIGKILL and not pid:
            self._kill_vmm(wait=False)
            return
        if signal == 0:
            return
        try:
            with self._connect() as control:
                control.request("kill", signal=signal, pid=pid, all=all)
        except NotFound:
            if pid:
                raise
            raise WrongState(f"{self.id}: {_NOT_RUNNING}") from None
        except VmmError:
            if not self._alive():  # it ended by, or just before, this signal
                return
            raise

    def exec(
        self,
        process: Json,
        stdio: Stdio,
        *,
        preserve_fds: Sequence[int] = (),
        executable: str | None = None,
    ) -> Exec:
        """Run another process: `process` is an OCI process object. ExecFailed when its execve fails.

        `executable`: what to execute for a hook, whatever args[0] is.
        """
        from runtime.environment import with_home
        from runtime.host import facts
        from runtime.plan.process import inherit_rlimits, plan_process

        status = self.status()
        if status not in ("created", "running", "paused"):
            raise WrongState(f"cannot exec in a {status} container")
        if executable is None:  # a hook's environment is what config.json says
            process = {**process, "env": with_home(process, self.rootfs)}
        spec = inherit_rlimits(plan_process(process, [], files=len(preserve_fds)), facts.own_rlimits())
        spec["executable"] = executable
        attached: list[int] = []
        spec["stdio"] = [_attach(fd, attached) for fd in stdio.all()]
        spec["extra_files"] = [_attach(fd, attached) for fd in preserve_fds]
        control = self._connect(None)
        try:
            number = control.send("exec", attached, process=spec)
            answer = control.answer_to(number, "exec")
        except BaseException:
            control.close()
            raise
        return Exec(self.kill, control, number, int(answer["pid"]))

    def pids(self) -> list[Process]:
        """The guest's processes, with the guest's pids."""
        if not self._alive():
            raise WrongState(f"{self.id}: {_NOT_RUNNING}")
        with self._connect() as control:
            return [Process(info) for info in control.request("ps")["processes"]]

    def pause(self) -> None:
        """Stop every vCPU."""
        with self._locked() as entry:
            self._expect("created", "running", doing="pause")
            with self._connect() as control:
                control.request("pause")
            self._remember(entry, "paused")

    def resume(self) -> None:
        """Let them run again."""
        with self._locked() as entry:
            self._expect("paused", doing="resume")
            with self._connect() as control:
                control.request("resume")
            self._remember(entry, "running")

    def update(self, resources: Json) -> None:
        """Apply an OCI `linux.resources` object, outside (cgroup) and inside (the guest's limits)."""
        from runtime import limits

        with self._locked() as entry:
            self._expect("created", "running", "paused", doing="update")
            state = entry.read() or self._state
            changed = limits.change(state, resources, self._log)
            with self._connect() as control:
                control.request("update", limits=changed)
            entry.write(state)
            self._state = state

    def stats(self) -> Json:
        """The `data` object of runc's `events --stats`, plus `litebox`: the VMM's own counters."""
        from runtime.host.cgroups import manager
        from runtime.host.stats import collect

        if not self._alive():
            raise WrongState(f"{self.id}: {_NOT_RUNNING}")
        with self._connect() as control:
            counters = control.request("stats")
        with self._store.open(self.id) as entry:
            state = entry.read() or self._state
        return collect(manager.Cgroups(state["cgroups"]), state["resources"], self._state["pid"], counters)

    def tasks(self) -> int:
        """The threads in the guest, by its own count; also of a paused one."""
        with self._connect() as control:
            return int(control.request("stats")["tasks"])

    @property
    def resources(self) -> Json:
        """`linux.resources` as last asked for."""
        resources: Json = self._state["resources"]
        return resources

    def resize(self, rows: int, columns: int) -> None:
        """Tell PID 1's terminal its size."""
        with self._connect() as control:
            control.request("resize", rows=rows, columns=columns)

    def close_stdin(self) -> None:
        """End of file for PID 1, though others may hold the writing end."""
        with self._connect() as control:
            control.request("close_stdin")

    def trace(self, on: bool) -> None:
        """Switch the system-call trace, which comes as events {"event": "trace", "line": …}."""
        with self._connect() as control:
            control.request("trace", on=on)

    def wait(self, timeout: float | None = None) -> int | None:
        """Until the container has ended; its exit code (128+n for a signal), None at the timeout.

        255 when the VMM was killed and nobody can know. Reaps the VMM when it is a child of this process.
        """
        pid = self._state["pid"]
        if timeout is None:
            try:
                return vmm.exit_code(os.waitpid(pid, 0)[1])
            except ChildProcessError:
                pass
        status = None
        control = None
        if self._alive():
            try:
                control = self._connect(timeout)
                control.send("wait")
            except LiteboxError:
                control = None
            if not processes.wait_gone(pid, self._state["start_time"], timeout):
                if control:
                    control.close()
                return None
        try:
            _, code = os.waitpid(pid, 0)
            return vmm.exit_code(code)
        except ChildProcessError:
            pass
        finally:
            if control:
                try:
                    status = control.receive().get("status")
                except LiteboxError:
                    status = None
                control.close()
        return 255 if status is None else vmm.exit_code(int(status))

    def events(self) -> Iterator[Json]:
        """{"event": "oom"…}, {"event": "exit", "status": wait-status}, as they happen, until the end."""
        with self._connect() as control:
            control.request("events")
            control.set_timeout(None)
            while True:
                try:
                    message = control.receive()
                except VmmError:
                    return
                if "event" in message:
                    yield message
                    if message["event"] == "exit" and "exec" not in message:
                        return

    def delete(self, *, force: bool = False) -> None:
        """Free everything: process, cgroup, state; then poststop hooks. WrongState when it runs and not `force`."""
        if force:  # before the lock: whoever holds it may be waiting for a VMM that stands still
            self._kill_vmm()
        with self._locked() as entry:
            status = self.status()
            if status not in ("stopped", "creating") and not force:
                raise WrongState(f"cannot delete container {self.id!r}: it is {status}; stop it first, or use --force")
            state = entry.read() or self._state
            self._kill_vmm()
            from runtime.host.cgroups import manager

            manager.leave(state)
            entry.remove()
        if state["hooks"].get("poststop"):
            from runtime.host.hooks import run_all

            run_all(state["hooks"]["poststop"], "poststop", self._state_as("stopped"), self._log)

    def _kill_vmm(self, *, wait: bool = True) -> None:
        processes.kill(self._state["pid"], self._state["start_time"], wait=wait)

    def _connect(self, timeout: float | None = _PROMPT) -> Control:
        with self._store.open(self.id) as entry:
            return vmm.Control(entry.fd, CONTROL_SOCKET, timeout)

    def _locked(self) -> Entry:
        entry = self._store.open(self.id)
        try:
            if not entry.lock():
                raise NotFound(f"container {self.id!r} does not exist")
        except BaseException:
            entry.close()
            raise
        return entry

    def _expect(self, *allowed: str, doing: str) -> None:
        status = self.status()
        if status not in allowed:
            raise WrongState(f"cannot {doing} a container in the {status} state")

    def _remember(self, entry: Entry, status: str) -> None:
        """For when the VMM cannot be asked."""
        state = entry.read() or self._state
        state["last_status"] = status
        entry.write(state)


def _attach(fd: int | None, attached: list[int]) -> int:
    if fd is None:
        return -1
    attached.append(fd)
    return len(attached) - 1
