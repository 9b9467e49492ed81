"""Events reach containerd in order, also when it restarts in the middle."""

from __future__ import annotations

import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from shim.api.events import TaskCreate, TaskExit
from shim.api.events_service import ForwardRequest
from shim.api.well_known import Any
from shim.errors import RpcError
from shim.events import TOPICS, Publisher
from shim.loop import Loop
from shim.message import Message
from shim.rpc import Method, Methods
from shim.task.service import EMPTY
from shim.ttrpc.server import Server
from shim.workers import Workers


class Containerd:
    """The end that takes events; `break_after` events it closes all connections, as a restart does."""

    def __init__(self, path: Path, got: list[ForwardRequest], *, refuse: bool = False) -> None:
        self.got = got
        self.refuse = refuse
        self.loop = Loop()
        methods = {
            ("containerd.services.events.ttrpc.v1.Events", "Forward"): Method(ForwardRequest, self.forward, inline=True)
        }
        self.server = Server(self.loop, Workers(), Methods(methods))
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(128)
        self.server.listen(listener)
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def forward(self, request: ForwardRequest) -> Message:
        if self.refuse:
            raise RpcError("no")
        self.got.append(request)
        return EMPTY

    def close(self) -> None:
        self.loop.run_soon(self.server.close)
        self.loop.run_soon(self.loop.stop)
        self.thread.join(5)


def publisher(address: str, binary: str = "") -> Publisher:
    return Publisher(namespace="ns", ttrpc_address=address, grpc_address="/g", binary=binary)


def test_order_holds_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "ttrpc"
    got: list[ForwardRequest] = []
    events = publisher(f"unix://{path}")
    for number in range(3):
        events.publish(TaskCreate(container_id=str(number)))  # containerd is not there yet
    containerd = Containerd(path, got)
    for number in range(3, 50):
        events.publish(TaskCreate(container_id=str(number)))
        if number % 10 == 0:
            time.sleep(0.05)
            containerd.close()
            containerd = Containerd(path, got)
    events.close(10)
    containerd.close()
    packed = [request.envelope.event for request in got if request.envelope and request.envelope.event]
    seen = [int(TaskCreate.decode(event.value).container_id) for event in packed]
    assert sorted(set(seen)) == list(range(50))
    assert seen == sorted(seen)
    envelope = got[0].envelope
    assert envelope
    assert (envelope.namespace, envelope.topic) == ("ns", "/tasks/create")
    assert envelope.event
    assert envelope.event.type_url == "containerd.events.TaskCreate"


@pytest.mark.parametrize("refuse", [False, True])
def test_the_publish_command_is_the_way_out(tmp_path: Path, refuse: bool) -> None:
    script = tmp_path / "containerd"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat > {tmp_path}/event\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    containerd = Containerd(tmp_path / "t", [], refuse=True) if refuse else None
    events = publisher(str(tmp_path / "t") if refuse else "", str(script))
    events.publish(TaskExit(container_id="c", exit_status=3))
    events.close(10)
    if containerd:
        containerd.close()
    assert (tmp_path / "arguments").read_text() == "--address /g publish --topic /tasks/exit --namespace ns\n"
    event = Any.decode((tmp_path / "event").read_bytes())
    assert TaskExit.decode(event.value).exit_status == 3


def test_what_nobody_takes_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    events = publisher("", "/nonexistent")
    events.publish(TaskExit())
    events.close(5)
    assert "dropped" in capfd.readouterr().err


def test_every_event_has_a_topic() -> None:
    import shim.api.events as module

    names = {name for name in vars(module) if name.startswith("Task") and name != "TaskIO"}
    assert names == TOPICS.keys()
    assert all(topic.startswith("/tasks/") for topic in TOPICS.values())
