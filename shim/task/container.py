"""One container: its first process, those that Exec added, and the order in which the world hears of them.

Two locks. `_turn` is held for a whole lifecycle call (start, pause, exec, delete …), which may block in the backend, so
such calls come one at a time. `_lock` guards the processes' states and is never held across the backend, so State,
Wait, Kill and exits get through meanwhile. Order: `_turn` before `_lock`.

What always holds of the events: create, start, exit, delete in this order for the container; exec-added, exec-started,
exit for each other process; and the container's exit comes after the exits of all its other processes, because with the
first process the machine is gone.
"""

from __future__ import annotations

import threading

from shim import log
from shim.api.events import (
    TaskDelete,
    TaskExecAdded,
    TaskExecStarted,
    TaskExit,
    TaskOOM,
    TaskPaused,
    TaskResumed,
    TaskStart,
)
from shim.clock import now_ns, timestamp
from shim.errors import AlreadyExistsError, FailedPreconditionError, NotFoundError
from shim.task import process as states
from shim.task.process import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shim.backend import Instance
    from shim.message import Message
    from shim.stdio import Stdio

    Publish = Callable[[Message], None]

KILLED = 128 + 9
CREATE_SECONDS = 4.0  # longer than a creation takes, shorter than containerd waits for a shim's answer
EXEC_GRACE_SECONDS = 2.5  # for exits of other processes to arrive after that of the first, their outputs being read


class Container:
    """A container of this shim. `after` runs a call later on the event loop."""

    def __init__(
        self,
        container_id: str,
        bundle: str,
        init: Process,
        publish: Publish,
        after: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self.id = container_id
        self.bundle = bundle
        self.init = init
        self.instance: Instance | None = None
        self._publish = publish
        self._after = after
        self._turn = threading.Lock()
        self._lock = threading.RLock()
        self._execs: dict[str, Process] = {}
        self._specs: dict[str, dict[str, Any]] = {}
        self._init_exit: tuple[int, int] | None = None
        self._settled = threading.Event()

    # What the service asks.

    def settle(self) -> None:
        """It has been made, or has failed to be."""
        self._settled.set()

    def await_settled(self) -> None:
        """Wait for that. A containerd that is started again while the Create of the one before is served asks for the
        processes at once; a shim that has none it takes for leaked, and forgets the container.
        """
        self._settled.wait(CREATE_SECONDS)

    def created(self, instance: Instance, announce: Callable[[], None]) -> None:
        """The backend has made it: announce that, and any exit that came first."""
        with self._lock:
            self.instance = instance
            self.init.pid = instance.pid
            announce()
            if early := self._init_exit:
                self._end_init(*early)
        instance.on_oom(lambda: self._publish(TaskOOM(container_id=self.id)))

    def process(self, exec_id: str) -> Process:
        if not exec_id:
            return self.init
        with self._lock:
            if found := self._execs.get(exec_id):
                return found
        raise NotFoundError(f"process {exec_id} does not exist in container {self.id}")

    def start(self) -> int:
        with self._turn:
            with self._lock:
                self.init.step(states.START)
            try:
                self._made().start()
            except BaseException:
                with self._lock:
                    self.init.step(states.START_FAILED)
                    self._catch_up(self.init)
                raise
            with self._lock:
                self.init.step(states.START_DONE)
                self._publish(TaskStart(container_id=self.id, pid=self.init.pid))
                self._catch_up(self.init)
            return self.init.pid

    def add_exec(self, added: Process, spec: dict[str, Any]) -> None:
        with self._lock:
            if self.init.state in (states.STOPPED, states.DELETED):
                raise FailedPreconditionError(f"container {self.id} is not running")
            if added.exec_id in self._execs:
                raise AlreadyExistsError(f"process {added.exec_id} exists in container {self.id}")
            self._execs[added.exec_id] = added
            self._specs[added.exec_id] = spec
            self._publish(TaskExecAdded(container_id=self.id, exec_id=added.exec_id))

    def start_exec(self, exec_id: str, open_stdio: Callable[[Process], Stdio]) -> int:
        added = self.process(exec_id)
        with self._turn:
            with self._lock:
                if self.init.state != states.RUNNING:
                    raise FailedPreconditionError(f"container {self.id} is {self.init.state}, not running")
                added.step(states.START)
                spec = self._specs[exec_id]
                window = added.window
                if window != (0, 0):
                    spec["consoleSize"] = {"width": window[0], "height": window[1]}
            try:
                stdio = added.stdio = open_stdio(added)
                if added.stdin_closed:
                    stdio.close_stdin()
                added.pid = self._made().exec(
                    exec_id, spec, stdio, lambda code: stdio.when_read(lambda: self.exec_exited(exec_id, code))
                )
            except BaseException:
                with self._lock:
                    added.step(states.START_FAILED)
                    added.early_exit()
                    added.stdio.close()
                raise
            added.stdio.handed_over()
            with self._lock:
                added.step(states.START_DONE)
                self._publish(TaskExecStarted(container_id=self.id, exec_id=exec_id, pid=added.pid))
                self._catch_up(added)
            if added.window != window:  # resized while it was being started
                self._resize(added)
            return added.pid

    def kill(self, exec_id: str, signal: int, *, everyone: bool) -> None:
        target = self.process(exec_id)
        with self._lock:
            target.require_alive()
            if exec_id and target.state == states.CREATED:
                raise FailedPreconditionError(f"process {exec_id} has not started")
        self._made().kill(signal, exec_id=exec_id, everyone=everyone)

    def resize(self, exec_id: str, width: int, height: int) -> None:
        """Give a process's terminal its size. One that has not started yet starts with it."""
        target = self.process(exec_id)
        with self._lock:
            target.window = (width, height)
            if not target.terminal or (exec_id and target.state in (states.CREATED, states.STARTING)):
                return
        self._resize(target)

    def _resize(self, target: Process) -> None:
        if target.state in (states.CREATED, states.STARTING, states.RUNNING, states.PAUSED):
            self._made().resize(*target.window, exec_id=target.exec_id)

    def close_stdin(self, exec_id: str) -> None:
        target = self.process(exec_id)
        target.stdin_closed = True
        target.stdio.close_stdin()

    def pause(self) -> None:
        with self._turn:
            with self._lock:
                if self.init.state != states.RUNNING:
                    raise FailedPreconditionError(f"cannot pause: container {self.id} is {self.init.state}")
            self._made().pause()
            with self._lock:
                if self.init.state == states.RUNNING:
                    self.init.step(states.PAUSE)
                    self._publish(TaskPaused(container_id=self.id))

    def resume(self) -> None:
        with self._turn:
            with self._lock:
                if self.init.state != states.PAUSED:
                    raise FailedPreconditionError(f"cannot resume: container {self.id} is {self.init.state}")
            self._made().resume()
            with self._lock:
                if self.init.state == states.PAUSED:
                    self.init.step(states.RESUME)
                    self._publish(TaskResumed(container_id=self.id))

    def delete_exec(self, exec_id: str) -> Process:
        with self._turn:
            ended = self.process(exec_id)
            with self._lock:
                ended.step(states.DELETE)
                del self._execs[exec_id]
                del self._specs[exec_id]
            ended.stdio.close()
            ended.stdio.finish_logger()
            return ended

    def delete(self) -> Process:
        """Free the container. The caller forgets it and unmounts its root."""
        with self._turn:
            with self._lock:
                if self.init.state == states.DELETED:  # by another call, which held the turn until now
                    raise NotFoundError(f"container {self.id} not found")
                if self.init.state not in (states.STOPPED, states.CREATED):
                    raise FailedPreconditionError(f"cannot delete: container {self.id} is {self.init.state}")
                was_created = self.init.state == states.CREATED
            self._made().delete()
            with self._lock:
                if was_created and self.init.state == states.CREATED:  # its exit is not announced: it never ran
                    self.init.exit_code, self.init.exited_at = KILLED, now_ns()
                    self.init.announce()
                self.init.step(states.DELETE)
                self.init.stdio.close()
            self.init.stdio.finish_logger()
            return self.init

    def deleted(self) -> None:
        """Everything is gone: say so."""
        init = self.init
        at = timestamp(init.exited_at)
        self._publish(TaskDelete(container_id=self.id, pid=init.pid, exit_status=init.exit_code, exited_at=at))

    @property
    def made(self) -> Instance:
        """The backend's container; FailedPrecondition while Create is under way."""
        return self._made()

    def running_execs(self) -> list[Process]:
        with self._lock:
            return [added for added in self._execs.values() if added.state == states.RUNNING]

    # What the backend reports.

    def init_exited(self, code: int) -> None:
        """The first process, and with it the machine, has ended."""
        at = now_ns()
        with self._lock:
            self._init_exit = (code, at)
            if self.instance is None:
                return  # `created` catches up
            if not any(added.state in (states.RUNNING, states.STARTING) for added in self._execs.values()):
                self._end_init(code, at)
                return
        self._after(EXEC_GRACE_SECONDS, self._end_all)

    def exec_exited(self, exec_id: str, code: int) -> None:
        at = now_ns()
        with self._lock:
            ended = self._execs.get(exec_id)
            if ended is None or not ended.exited(code, at):
                return
            self._announce(ended)
            if self._init_exit and self.instance is not None and not self.running_execs():
                self._end_init(*self._init_exit)

    # With the lock held.

    def _end_all(self) -> None:
        """The grace is over: processes whose exits did not arrive died with the machine."""
        with self._lock:
            for added in self._execs.values():
                if added.exited(KILLED, now_ns()):
                    self._announce(added)
            if self._init_exit:
                self._end_init(*self._init_exit)

    def _end_init(self, code: int, at: int) -> None:
        if self.init.exited(code, at):
            self._announce(self.init)

    def _catch_up(self, started: Process) -> None:
        """Handle an exit that came before the start was announced."""
        early = started.early_exit()
        if early is not None and started.exited(*early):
            self._announce(started)

    def _announce(self, ended: Process) -> None:
        ended.stdio.close()
        log.debug("exited", id=self.id, exec=ended.exec_id, code=ended.exit_code)
        self._publish(
            TaskExit(
                container_id=self.id,
                id=ended.exec_id or self.id,
                pid=ended.pid,
                exit_status=ended.exit_code,
                exited_at=timestamp(ended.exited_at),
            )
        )
        ended.announce()

    def _made(self) -> Instance:
        if self.instance is None:
            raise FailedPreconditionError(f"container {self.id} is being created")
        return self.instance
