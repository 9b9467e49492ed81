"""One process of a container (the first one, or one started by Exec) as a state machine.

    CREATED ──start──▶ STARTING ──started──▶ RUNNING ◀──pause / resume──▶ PAUSED
       │                  │ └──failed──▶ CREATED  │                         │
       └─────exited───────┴─────exited────────────┴──────exited─────────────┘
                                                  ▼
                                               STOPPED ──delete──▶ DELETED

`TRANSITIONS` is that drawing as a table; an event that is not in the row of the present state is FailedPrecondition for
the caller. An exit that comes while STARTING is kept back until the start has been announced: an exit event never
precedes its start.

No I/O and no clock: the owner (`shim.task.container`) holds the lock, tells the time and sends the events.
"""

from __future__ import annotations

from shim.api.task import WaitResponse
from shim.api.task_types import Status
from shim.clock import timestamp
from shim.deferred import Deferred
from shim.errors import FailedPreconditionError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.stdio import Stdio

CREATED, STARTING, RUNNING, PAUSED, STOPPED, DELETED = "created", "starting", "running", "paused", "stopped", "deleted"
START, START_DONE, START_FAILED, PAUSE, RESUME, EXIT, DELETE = (
    "start",
    "started",
    "failed to start",
    "pause",
    "resume",
    "exit",
    "delete",
)

TRANSITIONS: dict[tuple[str, str], str] = {
    (CREATED, START): STARTING,
    (CREATED, EXIT): STOPPED,
    (CREATED, DELETE): DELETED,
    (STARTING, START_DONE): RUNNING,
    (STARTING, START_FAILED): CREATED,
    (RUNNING, PAUSE): PAUSED,
    (RUNNING, EXIT): STOPPED,
    (PAUSED, RESUME): RUNNING,
    (PAUSED, EXIT): STOPPED,
    (STOPPED, DELETE): DELETED,
}

STATUS = {
    CREATED: Status.CREATED,
    STARTING: Status.CREATED,
    RUNNING: Status.RUNNING,
    PAUSED: Status.PAUSED,
    STOPPED: Status.STOPPED,
    DELETED: Status.STOPPED,
}


class Process:
    """A process; all methods are called with the container's lock held."""

    def __init__(self, exec_id: str, stdio: Stdio, *, stdin: str, stdout: str, stderr: str, terminal: bool) -> None:
        self.exec_id = exec_id
        self.stdio = stdio
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.terminal = terminal
        self.stdin_closed = False  # by CloseIO, which may come before the process has started
        self.window = (0, 0)  # width and height of the terminal, as last asked for
        self.state = CREATED
        self.pid = 0
        self.exit_code = 0
        self.exited_at = 0  # nanoseconds; 0: has not
        self.exit = Deferred()
        self._early: tuple[int, int] | None = None

    def step(self, event: str) -> None:
        """Move to the next state, or say why not."""
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            what = f"process {self.exec_id!r}" if self.exec_id else "process"
            if self.state in (STOPPED, DELETED) and event in (PAUSE, RESUME):
                raise FailedPreconditionError(f"cannot {event} a {self.state} container")
            raise FailedPreconditionError(f"cannot {event}: {what} is {self.state}")
        self.state = following

    def require_alive(self) -> None:
        """Kill and its like need a process: containerd expects NotFound for one that has ended."""
        if self.state in (STOPPED, DELETED):
            raise NotFoundError("process already finished")

    def exited(self, code: int, at: int) -> bool:
        """The process has ended. False when that has to wait for the start to be announced, or is known already."""
        if self.state in (STOPPED, DELETED):
            return False
        if self.state == STARTING:
            self._early = (code, at)
            return False
        self.step(EXIT)
        self.exit_code = code
        self.exited_at = at
        return True

    def early_exit(self) -> tuple[int, int] | None:
        """An exit that came while STARTING; asked for once the start has been announced, or has failed."""
        early, self._early = self._early, None
        return early

    def announce(self) -> None:
        """Answer those who wait for the exit."""
        self.exit.set(WaitResponse(exit_status=self.exit_code, exited_at=timestamp(self.exited_at)))
