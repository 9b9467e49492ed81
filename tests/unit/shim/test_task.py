"""The task service's rules: states, codes, and the order of events, over a container that does what the test says."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shim.api import task as api
from shim.api.task_types import Status
from shim.api.well_known import Any as Packed
from shim.backend import OnExit
from shim.errors import Code, RpcError
from shim.loop import Loop
from shim.message import Message
from shim.sandbox.pod import Pod
from shim.stats import Inside
from shim.stdio import Stdio
from shim.task import process as states
from shim.task.service import TaskService


class Machine:
    """A backend and its only instance. Exits happen when the test says `ended`."""

    def __init__(self) -> None:
        self.pid = 4242
        self.ended: dict[str, OnExit] = {}
        self.calls: list[str] = []
        self.stdin = -1  # of the last exec
        self.at_start: Callable[[], None] = lambda: None
        self.console_size: dict[str, int] | None = None

    def create(
        self, container_id: str, bundle: str, stdio: Stdio, options: dict[str, Any], on_exit: OnExit, pod: Pod | None
    ) -> Machine:
        self.calls.append("create")
        self.ended[""] = on_exit
        return self

    def start(self) -> None:
        self.calls.append("start")
        self.at_start()

    def exec(self, exec_id: str, process: dict[str, Any], stdio: Stdio, on_exit: OnExit) -> int:
        self.calls.append(f"exec {process['args'][0]}")
        self.console_size = process.get("consoleSize")
        self.ended[exec_id] = on_exit
        self.stdin = stdio.stdin
        self.at_start()
        return 7

    def kill(self, signal: int, *, exec_id: str = "", everyone: bool = False) -> None:
        self.calls.append(f"kill {signal} {exec_id} {everyone}")

    def resize(self, width: int, height: int, *, exec_id: str = "") -> None:
        self.calls.append(f"resize {width} {height}")

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def pids(self) -> list[int]:
        return [self.pid]

    def update(self, resources: dict[str, Any], annotations: dict[str, str]) -> None:
        self.calls.append(f"update {resources}")

    def cgroup(self) -> list[tuple[str, str]]:
        return []

    def inside(self) -> Inside:
        return Inside(1, 0, 0)

    def on_oom(self, callback: Callable[[], None]) -> None:
        return None

    def delete(self) -> None:
        self.calls.append("delete")


class Bench:
    def __init__(self) -> None:
        self.machine = Machine()
        self.events: list[Message] = []
        self.stopped: int = 0
        self.loop = Loop()
        self.service = TaskService(self.machine, "ns", self.events.append, self.loop, self.stop)
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def stop(self) -> None:
        self.stopped += 1

    def create(self) -> None:
        self.service.create(api.CreateTaskRequest(id="c", bundle="/nonexistent/c"))

    def add_exec(self, exec_id: str = "e", *, terminal: bool = False, stdin: str = "") -> None:
        spec = Packed(
            type_url="types.containerd.io/opencontainers/runtime-spec/1/Process",
            value=json.dumps({"args": ["sh"]}).encode(),
        )
        request = api.ExecProcessRequest(id="c", exec_id=exec_id, spec=spec, terminal=terminal, stdin=stdin)
        self.service.exec(request)

    def start(self, exec_id: str = "") -> int:
        return self.service.start(api.StartRequest(id="c", exec_id=exec_id)).pid

    def status(self, exec_id: str = "") -> int:
        return self.service.state(api.StateRequest(id="c", exec_id=exec_id)).status

    def names(self) -> list[str]:
        return [type(event).__name__ + getattr(event, "exec_id", getattr(event, "id", "")) for event in self.events]

    def close(self) -> None:
        self.loop.stop()
        self.thread.join(5)


@pytest.fixture
def bench() -> Any:
    made = Bench()
    yield made
    made.close()


def code_of(call: Callable[[], object]) -> int:
    with pytest.raises(RpcError) as caught:
        call()
    return caught.value.code


def test_connect_knows_containers_to_come_but_none_that_was_deleted(bench: Bench) -> None:
    def connect() -> int:
        return bench.service.connect(api.ConnectRequest(id="c")).task_pid

    assert connect() == 0
    for _life in range(2):
        bench.create()
        assert connect() == bench.machine.pid
        bench.service.delete(api.DeleteRequest(id="c"))
        assert code_of(connect) == Code.NOT_FOUND


def test_stdin_that_is_closed_before_an_exec_starts(bench: Bench, tmp_path: Path) -> None:
    fifo = str(tmp_path / "stdin")
    os.mkfifo(fifo)
    bench.create()
    bench.start()
    bench.add_exec(stdin=fifo)
    bench.service.close_io(api.CloseIORequest(id="c", exec_id="e", stdin=True))
    read: list[bytes] = []
    bench.machine.at_start = lambda: read.append(os.read(bench.machine.stdin, 1))
    bench.start("e")
    assert read == [b""]


def test_every_transition_is_between_known_states() -> None:
    known = {states.CREATED, states.STARTING, states.RUNNING, states.PAUSED, states.STOPPED, states.DELETED}
    assert {state for state, _ in states.TRANSITIONS} | set(states.TRANSITIONS.values()) == known
    assert states.STATUS.keys() == known


def test_a_life(bench: Bench) -> None:
    bench.create()
    assert bench.status() == Status.CREATED
    assert bench.start() == 4242
    assert bench.status() == Status.RUNNING
    answers: list[Message | RpcError] = []
    bench.service.wait(api.WaitRequest(id="c")).when_set(answers.append)
    assert not answers
    bench.machine.ended[""](3)
    assert bench.status() == Status.STOPPED
    (answer,) = answers
    assert isinstance(answer, api.WaitResponse)
    assert answer.exit_status == 3
    deleted = bench.service.delete(api.DeleteRequest(id="c"))
    assert (deleted.pid, deleted.exit_status) == (4242, 3)
    assert deleted.exited_at == answer.exited_at
    assert bench.names() == ["TaskCreate", "TaskStart", "TaskExitc", "TaskDelete"]
    assert code_of(bench.status) == Code.NOT_FOUND


def test_an_exit_during_start_is_told_after_the_start(bench: Bench) -> None:
    bench.create()
    bench.machine.at_start = lambda: bench.machine.ended[""](0)
    bench.start()
    assert bench.names() == ["TaskCreate", "TaskStart", "TaskExitc"]


def test_the_first_process_exits_last(bench: Bench) -> None:
    bench.create()
    bench.start()
    bench.machine.at_start = lambda: None
    for name in ("e", "f"):
        bench.add_exec(name)
        bench.start(name)
    bench.machine.ended[""](137)
    assert bench.status() == Status.RUNNING
    bench.machine.ended["e"](1)
    done = threading.Event()
    bench.service.wait(api.WaitRequest(id="c")).when_set(lambda _answer: done.set())
    assert done.wait(5)
    assert bench.names()[-3:] == ["TaskExite", "TaskExitf", "TaskExitc"]
    assert bench.service.state(api.StateRequest(id="c", exec_id="f")).exit_status == 137


def test_exec(bench: Bench) -> None:
    bench.create()
    bench.add_exec()
    assert code_of(lambda: bench.start("e")) == Code.FAILED_PRECONDITION
    bench.start()
    assert code_of(bench.add_exec) == Code.ALREADY_EXISTS
    bench.machine.at_start = lambda: bench.machine.ended["e"](5)
    assert bench.start("e") == 7
    assert bench.names() == ["TaskCreate", "TaskExecAddede", "TaskStart", "TaskExecStartede", "TaskExite"]
    assert bench.service.delete(api.DeleteRequest(id="c", exec_id="e")).exit_status == 5
    assert code_of(lambda: bench.status("e")) == Code.NOT_FOUND
    bench.add_exec()
    bench.machine.ended[""](0)
    assert code_of(lambda: bench.add_exec("g")) == Code.FAILED_PRECONDITION


def test_a_terminal_has_the_size_that_was_asked_for_before_its_start(bench: Bench) -> None:
    bench.create()
    bench.start()
    bench.add_exec(terminal=True)
    bench.service.resize_pty(api.ResizePtyRequest(id="c", exec_id="e", width=80, height=24))

    def resize() -> None:
        bench.service.resize_pty(api.ResizePtyRequest(id="c", exec_id="e", width=90, height=25))

    bench.machine.at_start = resize
    bench.start("e")
    assert bench.machine.console_size == {"width": 80, "height": 24}
    bench.service.resize_pty(api.ResizePtyRequest(id="c", exec_id="e", width=100, height=26))
    assert [call for call in bench.machine.calls if "resize" in call] == ["resize 90 25", "resize 100 26"]


def test_an_exec_that_fails_to_start_can_be_deleted(bench: Bench) -> None:
    def fail() -> None:
        raise RpcError("no such file or directory", Code.INVALID_ARGUMENT)

    bench.create()
    bench.start()
    bench.add_exec()
    bench.machine.at_start = fail
    assert code_of(lambda: bench.start("e")) == Code.INVALID_ARGUMENT
    assert bench.status("e") == Status.CREATED
    bench.service.delete(api.DeleteRequest(id="c", exec_id="e"))


def test_pause_and_resume(bench: Bench) -> None:
    bench.create()
    request, resume = api.PauseRequest(id="c"), api.ResumeRequest(id="c")
    assert code_of(lambda: bench.service.pause(request)) == Code.FAILED_PRECONDITION
    bench.start()
    assert code_of(lambda: bench.service.resume(resume)) == Code.FAILED_PRECONDITION
    bench.service.pause(request)
    assert bench.status() == Status.PAUSED
    bench.service.resume(resume)
    assert bench.status() == Status.RUNNING
    assert bench.names()[2:] == ["TaskPaused", "TaskResumed"]


def test_a_stopped_container_has_a_pid_until_it_is_deleted(bench: Bench) -> None:
    bench.create()
    bench.start()
    bench.machine.ended[""](0)
    assert [found.pid for found in bench.service.pids(api.PidsRequest(id="c")).processes] == [4242]
    bench.service.delete(api.DeleteRequest(id="c"))
    assert code_of(lambda: bench.service.pids(api.PidsRequest(id="c"))) == Code.NOT_FOUND


def test_codes(bench: Bench) -> None:
    service = bench.service
    assert code_of(lambda: service.kill(api.KillRequest(id="c"))) == Code.NOT_FOUND
    assert code_of(lambda: service.create(api.CreateTaskRequest())) == Code.INVALID_ARGUMENT
    bench.create()
    assert code_of(bench.create) == Code.ALREADY_EXISTS
    assert code_of(lambda: service.checkpoint(api.CheckpointTaskRequest(id="c"))) == Code.UNIMPLEMENTED
    bench.start()
    assert code_of(bench.start) == Code.FAILED_PRECONDITION
    assert code_of(lambda: service.delete(api.DeleteRequest(id="c"))) == Code.FAILED_PRECONDITION
    assert code_of(lambda: service.update(api.UpdateTaskRequest(id="c"))) == Code.INVALID_ARGUMENT
    assert code_of(lambda: service.stats(api.StatsRequest(id="c"))) == Code.NOT_FOUND
    service.kill(api.KillRequest(id="c", signal=15, all=True))
    bench.machine.ended[""](143)
    assert code_of(lambda: service.kill(api.KillRequest(id="c", signal=15))) == Code.NOT_FOUND
    assert bench.machine.calls == ["create", "start", "kill 15  True"]


def test_shutdown_waits_for_the_last_container(bench: Bench) -> None:
    bench.create()
    bench.service.shutdown(api.ShutdownRequest(id="c"))
    assert bench.stopped == 0
    bench.service.delete(api.DeleteRequest(id="c"))
    bench.service.shutdown(api.ShutdownRequest(id="c"))
    assert bench.stopped == 1


def test_two_deletes_at_once(bench: Bench) -> None:
    inside, go = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        go.wait(5)

    bench.create()
    bench.machine.delete = slow  # type: ignore[method-assign]
    codes: list[int] = []
    first = threading.Thread(target=bench.service.delete, args=(api.DeleteRequest(id="c"),))
    first.start()
    inside.wait(5)
    second = threading.Thread(
        target=lambda: codes.append(code_of(lambda: bench.service.delete(api.DeleteRequest(id="c"))))
    )
    second.start()
    go.set()
    first.join(5)
    second.join(5)
    assert codes == [Code.NOT_FOUND]


def test_a_failed_create_leaves_nothing(bench: Bench) -> None:
    def fail(*_arguments: object) -> Machine:
        raise RpcError("no kvm", Code.UNKNOWN)

    working = bench.machine.create
    bench.machine.create = fail  # type: ignore[method-assign, assignment]
    assert code_of(bench.create) == Code.UNKNOWN
    assert bench.events == []
    bench.machine.create = working  # type: ignore[method-assign]
    bench.create()


def test_two_creates_with_one_id(bench: Bench) -> None:
    inside, go = threading.Event(), threading.Event()
    working = bench.machine.create

    def slow(*arguments: Any) -> Machine:
        inside.set()
        go.wait(5)
        return working(*arguments)

    bench.machine.create = slow  # type: ignore[method-assign, assignment]
    first = threading.Thread(target=bench.create)
    first.start()
    inside.wait(5)
    assert code_of(bench.create) == Code.ALREADY_EXISTS
    assert code_of(bench.start) == Code.FAILED_PRECONDITION
    go.set()
    first.join(5)
    bench.start()


@pytest.mark.parametrize("fails", [False, True], ids=["made", "failed"])
def test_who_asks_during_a_creation_hears_how_it_went(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """As a containerd that takes over a shim with a Create of the one before."""
    begun, may_end = threading.Event(), threading.Event()
    create = bench.machine.create

    def slowly(*arguments: Any) -> Machine:
        begun.set()
        assert may_end.wait(10)
        if fails:
            raise RpcError("no", Code.UNKNOWN)
        return create(*arguments)

    monkeypatch.setattr(bench.machine, "create", slowly)
    answers: list[object] = []

    def creates() -> None:
        with contextlib.suppress(RpcError):
            bench.create()

    def asks() -> None:
        try:
            answers.append([info.pid for info in bench.service.pids(api.PidsRequest(id="c")).processes])
        except RpcError as error:
            answers.append(error.code)

    creator, asker = threading.Thread(target=creates), threading.Thread(target=asks)
    creator.start()
    assert begun.wait(10)
    asker.start()
    asker.join(0.1)
    assert answers == []
    may_end.set()
    for thread in (creator, asker):
        thread.join(10)
    assert answers == [Code.NOT_FOUND if fails else [4242]]
