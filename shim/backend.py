"""What the shim needs of the thing that runs containers. Types only: imported for type checking, never at run time.

Calls block as long as they must; the shim makes them on worker threads, one lifecycle call per container at a time.
Failures are `shim.errors.RpcError`; anything else is reported to containerd as an unknown error with its text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from shim.sandbox.pod import Pod
from shim.stats import Inside
from shim.stdio import Stdio

OnExit = Callable[[int], None]
"""Called once, from any thread, with an exit code: 0 to 255, 128 + signal for a killed process."""


class Instance(Protocol):
    """A created container."""

    @property
    def pid(self) -> int:
        """A live host process in the container's network namespace: Docker configures interfaces through its /proc."""

    def start(self) -> None:
        """Run the container's first process.

        FailedPrecondition or NotFound with the reason when its program cannot be run.
        """

    def exec(self, exec_id: str, process: dict[str, Any], stdio: Stdio, on_exit: OnExit) -> int:
        """Start another process from an OCI `process` object; return its pid as shown to the user."""

    def kill(self, signal: int, *, exec_id: str = "", everyone: bool = False) -> None:
        """NotFound when the process has ended."""

    def resize(self, width: int, height: int, *, exec_id: str = "") -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def pids(self) -> list[int]:
        """Processes to show to the host.

        At least one while the container lives (containerd reaps a shim without any).
        """

    def update(self, resources: dict[str, Any], annotations: dict[str, str]) -> None: ...

    def cgroup(self) -> list[tuple[str, str]]:
        """(controllers, directory) of each cgroup of the container: one ("", dir) on v2, one per hierarchy on v1."""

    def inside(self) -> Inside:
        """What statistics say of the container that its cgroup does not know."""

    def on_oom(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the container runs out of memory."""

    def delete(self) -> None:
        """Free everything; kills what still runs. Idempotent."""


class Backend(Protocol):
    """Makes containers."""

    def create(
        self,
        container_id: str,
        bundle: str,
        stdio: Stdio,
        options: dict[str, Any],
        on_exit: OnExit,
        pod: Pod | None,
    ) -> Instance:
        """Set the container up, its first process not yet started. Leaves nothing behind when it fails.

        `pod`: that of the sandbox which it belongs to, if the shim has one.
        """
