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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    Json = dict[str, Any]


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


class Process:
    """One process of the guest, as `ps` lists it."""

    __slots__ = ("command", "cpu_ns", "pid", "ppid", "rss_bytes", "start_ns", "state", "threads", "tty", "uid")

    pid: int
    ppid: int
    uid: int
    state: str
    threads: int
    rss_bytes: int
    cpu_ns: int
    start_ns: int
    tty: str
    command: str


class Runtime:
    """Where containers are kept and how they are made."""

    def __init__(
        self,
        root: str,
        *,
        systemd_cgroup: bool = False,
        rootless: bool | None = None,
        debug: bool = False,
    ) -> None:
        """`root` is the state directory (made when missing); `rootless` None: decided by the effective user."""
        raise NotImplementedError

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
    ) -> Container:
        """Set up everything but the program: VM booted, namespaces, cgroup, mounts, hooks up to createContainer.

        `config` is the parsed config.json (None: read it from the bundle). When `process.terminal` is true, `stdio`
        is the slave of a pty. Errors: AlreadyExists, InvalidSpec, Unsupported, HostError, HookFailed, VmmError;
        after any of them nothing is left behind.
        """
        raise NotImplementedError

    def load(self, id: str) -> Container:
        """The container of that id. NotFound when there is none (leftovers of a crashed create do not count)."""
        raise NotImplementedError

    def list(self) -> list[Container]:
        """Every container, by id."""
        raise NotImplementedError


class Container:
    """A handle on one container."""

    id: str
    bundle: str
    rootfs: str
    #: The VMM's process id on the host; it lives in the container's network namespace. 0 once it is gone.
    pid: int
    #: RFC 3339, when create was called.
    created: str
    owner: str
    annotations: Mapping[str, str]

    def status(self) -> str:
        """creating, created, running, paused or stopped: asked of the VMM, not remembered."""
        raise NotImplementedError

    def state(self) -> Json:
        """The OCI state document."""
        raise NotImplementedError

    def start(self) -> None:
        """Run the program. WrongState unless created. ExecFailed (126, 127): the container is stopped then."""
        raise NotImplementedError

    def kill(self, signal: int, *, pid: int = 0, all: bool = False) -> None:
        """Signal PID 1 (or the guest's `pid`, or all). SIGKILL to PID 1 ends the VM even if the guest does not answer.

        WrongState when the container is stopped, NotFound when the guest's `pid` is gone.
        """
        raise NotImplementedError

    def exec(
        self,
        process: Json,
        stdio: Stdio,
        *,
        preserve_fds: Sequence[int] = (),
    ) -> Exec:
        """Run another process: `process` is an OCI process object. ExecFailed when its execve fails."""
        raise NotImplementedError

    def pids(self) -> list[Process]:
        """The guest's processes, with the guest's pids."""
        raise NotImplementedError

    def pause(self) -> None:
        """Stop every vCPU."""
        raise NotImplementedError

    def resume(self) -> None:
        """Let them run again."""
        raise NotImplementedError

    def update(self, resources: Json) -> None:
        """Apply an OCI `linux.resources` object, outside (cgroup) and inside (the guest's limits)."""
        raise NotImplementedError

    def stats(self) -> Json:
        """The `data` object of runc's `events --stats`, plus `litebox`: the VMM's own counters."""
        raise NotImplementedError

    def resize(self, rows: int, columns: int) -> None:
        """Tell PID 1's terminal its size."""
        raise NotImplementedError

    def close_stdin(self) -> None:
        """End of file for PID 1, though others may hold the writing end."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> int | None:
        """Until the container has ended; its exit code (128+n for a signal), None at the timeout.

        255 when the VMM was killed and nobody can know. Reaps the VMM when it is a child of this process.
        """
        raise NotImplementedError

    def events(self) -> Iterator[Json]:
        """{"event": "oom"…}, {"event": "exit", "status": wait-status}, as they happen, until the end."""
        raise NotImplementedError

    def delete(self, *, force: bool = False) -> None:
        """Free everything: process, cgroup, state; then poststop hooks. WrongState when it runs and not `force`."""
        raise NotImplementedError


class Exec:
    """A process started by `Container.exec`; it holds one connection to the VMM, close it when done."""

    #: The guest's process id.
    pid: int

    def fileno(self) -> int:
        """Readable (poll) when the process has ended: then `wait` does not block."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code (128+n for a signal), None at the timeout; 255 when the VM went away under it."""
        raise NotImplementedError

    def kill(self, signal: int) -> None:
        """Signal this process. NotFound when it is gone."""
        raise NotImplementedError

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal its size."""
        raise NotImplementedError

    def close_stdin(self) -> None:
        """End of file on its stdin."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the connection. The process runs on."""
        raise NotImplementedError
