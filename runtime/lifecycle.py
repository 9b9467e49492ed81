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

from runtime.errors import LiteboxError, NotFound
from runtime.processes import Stdio
from runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runtime.container import Container
    from runtime.store import Entry
    from runtime.vmm import Asked

    Json = dict[str, Any]


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
        start: bool = False,
    ) -> Container:
        """Set up everything but the program: VM booted, namespaces, cgroup, mounts, hooks up to createContainer.

        `config` is the parsed config.json (None: read it from the bundle). When `process.terminal` is true, `stdio`
        is the slave of a pty, named once more as `controlling_terminal` so that the guest follows its size. `start`:
        the caller is going to call `start` at once, so the program may run before. Errors:
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
        request.start = start
        request.systemd_cgroup = self.systemd_cgroup
        request.rootless = self.rootless
        request.debug = self.debug
        state, started = creation.create(self.store, request, self.log)
        return self._container(id, state, started)

    def load(self, id: str) -> Container:
        """The container of that id. NotFound when there is none (leftovers of a crashed create do not count)."""
        with self.store.open(id) as entry:
            state = entry.read()
            if state is None or (state["phase"] == "creating" and self._crashed(entry)):
                raise NotFound(f"container {id!r} does not exist")
        return self._container(id, state)

    def _container(self, id: str, state: Json, started: Asked | None = None) -> Container:
        from runtime.container import Container

        return Container(self.store, self.log, id, state, started)

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
