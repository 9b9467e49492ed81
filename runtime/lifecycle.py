"""The container's life, as a library: what `litebox` and the containerd shim both do.

    creating ──create──▶ created ──start──▶ running ◀──resume── paused
        │                   │                  │  └────pause──────▲
        └────── any failure or crash ──────────┴──▶ stopped ──delete──▶ (nothing left)

Usable in-process from several threads: a `Runtime` holds no state but its settings, a `Container` is a handle on what
the state directory and the VMM say, and each call takes the container's lock for as long as it changes something.

Whoever calls `Runtime.create` becomes the parent of the VMM process (`Container.pid`): it gets SIGCHLD and must reap it
with waitpid(2); the exit status is the container's (128+n for a signal). `Container.wait` does so when nobody else has.

Plain classes rather than dataclasses: importing dataclasses costs 12 ms, which every `litebox` command would pay.
"""

from __future__ import annotations

import errno as errno_module
import os
import time

from runtime import vmm
from runtime.errors import HookFailed, HostError, LiteboxError, NotFound, VmmError, WrongState
from runtime.store import CONTROL_SOCKET, Store, alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from runtime.store import Entry
    from runtime.vmm import Control

    Json = dict[str, Any]

_SIGKILL = 9
_SPEC_VERSION = "1.3.0"
#: For answers that need no work of the guest.
_PROMPT = 5.0


class Stdio:
    """Host descriptors for stdin, stdout and stderr; None is /dev/null. Borrowed: the callee duplicates what it keeps.

    With a terminal, all three are the host side of it: pass the *slave* of a pty pair whose master you keep
    (or a user's own terminal in raw mode).
    """

    __slots__ = ("stderr", "stdin", "stdout")

    def __init__(self, stdin: int | None = None, stdout: int | None = None, stderr: int | None = None) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    def all(self) -> tuple[int | None, int | None, int | None]:
        """In order."""
        return self.stdin, self.stdout, self.stderr


class Process:
    """One process of the guest, as `ps` lists it."""

    __slots__ = ("command", "cpu_ns", "pid", "ppid", "rss_bytes", "start_ns", "state", "threads", "tty", "uid")

    def __init__(self, info: Json) -> None:
        self.pid = int(info["pid"])
        self.ppid = int(info.get("ppid", 0))
        self.uid = int(info.get("uid", 0))
        state = info.get("state", "?")
        #: R, S, D, T, Z as in proc(5).
        self.state = chr(state) if isinstance(state, int) else str(state)
        self.threads = int(info.get("threads", 1))
        self.rss_bytes = int(info.get("rss_bytes", 0))
        self.cpu_ns = int(info.get("cpu_ns", 0))
        self.start_ns = int(info.get("start_ns", 0))
        self.tty = str(info.get("tty", ""))
        self.command = str(info.get("command", ""))


class Runtime:
    """Where containers are kept and how they are made."""

    def __init__(
        self,
        root: str,
        *,
        systemd_cgroup: bool = False,
        rootless: bool | None = None,
        debug: bool = False,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """`root` is the state directory (made when missing); `rootless` None: decided by the effective user.

        `log` gets what went otherwise than asked, without being an error.
        """
        self.store = Store(root)
        self.systemd_cgroup = systemd_cgroup
        self.rootless = rootless
        self.debug = debug
        self.log = log or (lambda _message: None)

    def create(
        self,
        id: str,
        bundle: str,
        stdio: Stdio,
        *,
        config: Json | None = None,
        pid_file: str | None = None,
        preserve_fds: int = 0,
        log_fd: int | None = None,
        new_session: bool = True,
        controlling_terminal: int | None = None,
        window: tuple[int, int] | None = None,
        trace: bool = False,
    ) -> Container:
        """Set up everything but the program: VM booted, namespaces, cgroup, mounts, hooks up to createContainer.

        `config` is the parsed config.json (None: read it from the bundle). When `process.terminal` is true, `stdio`
        is the slave of a pty, named once more as `controlling_terminal` so that the guest follows its size. Errors:
        AlreadyExists, InvalidSpec, Unsupported, HostError, HookFailed, VmmError; after any of them nothing is left.
        """
        from runtime import create as creation

        request = creation.Request(id, bundle, stdio.all())
        request.config = config
        request.pid_file = pid_file
        request.files = tuple(range(3, 3 + preserve_fds))
        request.log_fd = log_fd
        request.new_session = new_session
        request.controlling_terminal = controlling_terminal
        request.window = window
        request.trace = trace
        request.systemd_cgroup = self.systemd_cgroup
        request.rootless = self.rootless
        request.debug = self.debug
        return Container(self, id, creation.create(self.store, request, self.log))

    def load(self, id: str) -> Container:
        """The container of that id. NotFound when there is none (leftovers of a crashed create do not count)."""
        with self.store.open(id) as entry:
            state = entry.read()
            if state is None or (state["phase"] == "creating" and self._crashed(entry)):
                raise NotFound(f"container {id!r} does not exist")
        return Container(self, id, state)

    def list(self) -> list[Container]:
        """Every container, by id."""
        found = []
        for name in self.store.ids():
            try:
                found.append(self.load(name))
            except LiteboxError:
                continue
        return found

    def clean(self, id: str) -> bool:
        """Undo what a crashed create of this id left behind; whether there was anything."""
        try:
            entry = self.store.open(id)
        except NotFound:
            return False
        with entry:
            if not entry.lock(wait=False):
                return False
            state = entry.read()
            if state is not None and state["phase"] != "creating":
                return False
            if state is not None:
                from runtime import create as creation

                creation.undo(entry, state, self.log)
            entry.remove()
            return True

    def _crashed(self, entry: Entry) -> bool:
        """A create in progress holds the lock."""
        if not entry.lock(wait=False):
            return False
        entry.unlock()
        return True


class Container:
    """A handle on one container."""

    def __init__(self, runtime: Runtime, id: str, state: Json) -> None:
        self._runtime = runtime
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
        return alive(self._state["pid"], self._state["start_time"])

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
            with self._runtime.store.open(self.id) as entry:
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
        """A startContainer hook: its path is the container's, its stdin the state, its namespaces the guest's."""
        from runtime import fastjson

        read, write = os.pipe2(os.O_CLOEXEC)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        process = {
            "args": hook.get("args") or [hook["path"]],
            "env": hook.get("env") or [],
            "cwd": "/",
            "capabilities": self.process.get("capabilities"),
        }
        try:
            started = self.exec(process, Stdio(read, out_write, out_write), executable=hook["path"], started_only=False)
        except LiteboxError as error:
            os.close(write)
            os.close(out_read)
            self._kill_vmm()
            raise HookFailed(f"{name}: {error}") from error
        finally:
            os.close(read)
            os.close(out_write)
        try:
            os.write(write, fastjson.dumps(self._state_as("created")).encode())
        except BrokenPipeError:
            pass
        os.close(write)
        code = started.wait(hook.get("timeout"))
        said = b""
        if code is None:
            started.kill(_SIGKILL)
        elif code:
            os.set_blocking(out_read, False)
            try:
                said = os.read(out_read, 2000)
            except BlockingIOError:
                said = b""
        os.close(out_read)
        started.close()
        if code != 0:
            self._kill_vmm()
            how = f"exit status {code}" if code is not None else f"still running after {hook['timeout']} seconds"
            text = said.decode("utf-8", "replace").strip()
            raise HookFailed(f"{name}: {how}" + (f": {text}" if text else ""))

    def kill(self, signal: int, *, pid: int = 0, all: bool = False) -> None:
        """Signal PID 1 (or the guest's `pid`, or all). SIGKILL to PID 1 ends the VM even if the guest does not answer.

        WrongState when the container is stopped, NotFound when the guest's `pid` is gone.
        """
        if not self._alive():
            raise WrongState(f"container {self.id!r} is not running")
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
            raise WrongState(f"container {self.id!r} is not running") from None
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
        started_only: bool = True,
    ) -> Exec:
        """Run another process: `process` is an OCI process object. ExecFailed when its execve fails.

        `executable`: what to execute, where it is not args[0].
        """
        from runtime.host import facts
        from runtime.plan import plan_process

        if started_only:
            status = self.status()
            if status not in ("running", "paused"):
                raise WrongState(f"cannot exec in a {status} container")
        spec = plan_process(process, facts.gather(), [], files=len(preserve_fds))
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
        return Exec(self, control, number, int(answer["pid"]))

    def pids(self) -> list[Process]:
        """The guest's processes, with the guest's pids."""
        if not self._alive():
            raise WrongState(f"container {self.id!r} is not running")
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
        from runtime.host import facts
        from runtime.host.cgroups import manager
        from runtime.plan import guest_ram, plan_limits

        with self._locked() as entry:
            self._expect("created", "running", "paused", doing="update")
            state = entry.read() or self._state
            merged = _merge(state["resources"], resources)
            if (resources.get("memory") or {}).get("limit"):
                state["guest_memory"] = guest_ram(merged, facts.gather())
            limits = plan_limits(merged, state["guest_memory"])
            groups = manager.Cgroups(state["cgroups"])
            manager.apply(
                groups, manager.settings_for(groups, resources), may_lack=state["rootless"], log=self._runtime.log
            )
            if state.get("systemd_unit"):
                from runtime.host.cgroups import systemd

                systemd.update(state["systemd_unit"], manager.settings_for(groups, resources))
            with self._connect() as control:
                control.request("update", limits=limits)
            state["resources"] = merged
            entry.write(state)
            self._state = state

    def stats(self) -> Json:
        """The `data` object of runc's `events --stats`, plus `litebox`: the VMM's own counters."""
        from runtime.host.cgroups import manager
        from runtime.host.stats import collect

        if not self._alive():
            raise WrongState(f"container {self.id!r} is not running")
        with self._connect() as control:
            counters = control.request("stats")
            processes = len(control.request("ps")["processes"])
        with self._runtime.store.open(self.id) as entry:
            state = entry.read() or self._state
        return collect(manager.Cgroups(state["cgroups"]), state["resources"], self._state["pid"], counters, processes)

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
            if not _wait_gone(pid, self._state["start_time"], timeout):
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

            run_all(state["hooks"]["poststop"], "poststop", self._state_as("stopped"), self._runtime.log)

    def _kill_vmm(self, *, wait: bool = True) -> None:
        kill_vmm(self._state["pid"], self._state["start_time"], wait=wait)

    def _connect(self, timeout: float | None = _PROMPT) -> Control:
        with self._runtime.store.open(self.id) as entry:
            return vmm.Control(entry.fd, CONTROL_SOCKET, timeout)

    def _locked(self) -> Entry:
        entry = self._runtime.store.open(self.id)
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


class Exec:
    """A process started by `Container.exec`; it holds one connection to the VMM, close it when done."""

    def __init__(self, container: Container, control: Control, number: int, pid: int) -> None:
        self._container = container
        self._control = control
        self._code: int | None = None
        #: The request's id, by which the VMM knows it.
        self.number = number
        #: The guest's process id.
        self.pid = pid

    def fileno(self) -> int:
        """Readable (poll) when the process has ended: then `wait` does not block."""
        return self._control.fileno()

    def detach(self) -> int:
        """Give the connection away, for a proxy."""
        return self._control.detach()

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code (128+n for a signal), None at the timeout; 255 when the VM went away under it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._code is None:
            self._control.set_timeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
            try:
                message = self._control.receive()
            except VmmError as error:
                if error.errno == errno_module.ETIMEDOUT:
                    return None
                self._code = 255
                break
            if message.get("event") == "exit":
                self._code = vmm.exit_code(int(message["status"]))
        return self._code

    def kill(self, signal: int) -> None:
        """Signal this process. NotFound when it is gone."""
        with self._container._connect() as control:
            control.request("kill", signal=signal, pid=self.pid, all=False)

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal its size."""
        self._control.send("resize", exec=self.number, rows=rows, columns=columns)

    def close_stdin(self) -> None:
        """End of file on its stdin."""
        self._control.send("close_stdin", exec=self.number)

    def close(self) -> None:
        """Let go of the connection. The process runs on."""
        self._control.close()


def _attach(fd: int | None, attached: list[int]) -> int:
    if fd is None:
        return -1
    attached.append(fd)
    return len(attached) - 1


def _merge(old: Json, new: Json) -> Json:
    """`new` over `old`, one level into each controller."""
    merged = dict(old)
    for key, value in new.items():
        merged[key] = {**old.get(key, {}), **value} if isinstance(value, dict) else value
    return merged


def _wait_gone(pid: int, start_time: int, timeout: float | None) -> bool:
    """Until the process is a zombie or gone."""
    import select

    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError as error:
        raise HostError(f"pidfd_open: {error.strerror}", error.errno or 0) from error
    try:
        if not alive(pid, start_time):
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    finally:
        os.close(fd)


def kill_vmm(pid: int, start_time: int, *, wait: bool = True) -> None:
    """SIGKILL to the process we started, not to one that got its id; reaped when it is our child."""
    if not pid:
        return
    if alive(pid, start_time):
        try:
            os.kill(pid, _SIGKILL)
        except ProcessLookupError:
            return
        if wait and not _wait_gone(pid, start_time, 10):
            raise HostError(f"process {pid} does not die")
