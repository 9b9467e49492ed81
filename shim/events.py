"""Events to containerd, one at a time and in order, over containerd's ttrpc socket or with its `publish` command.

A restart of containerd breaks the connection in the middle of anything: the event at the head of the queue is kept and
sent again over a new connection until it is taken or its time is up, and those behind it wait, so that their order
holds (create, start, exit, delete: containerd and Docker rely on it). An event that containerd refuses, or whose time
is up, is tried once through `CONTAINERD publish`, then logged and dropped.
"""

from __future__ import annotations

import os
import threading
import time
from _queue import SimpleQueue

from shim import log
from shim.api.events_service import ForwardRequest
from shim.api.types import Envelope
from shim.api.well_known import Any
from shim.clock import now_ns, timestamp
from shim.errors import RpcError
from shim.ttrpc.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.message import Message

TOPICS = {
    "TaskCreate": "/tasks/create",
    "TaskStart": "/tasks/start",
    "TaskExit": "/tasks/exit",
    "TaskDelete": "/tasks/delete",
    "TaskExecAdded": "/tasks/exec-added",
    "TaskExecStarted": "/tasks/exec-started",
    "TaskOOM": "/tasks/oom",
    "TaskPaused": "/tasks/paused",
    "TaskResumed": "/tasks/resumed",
}
SERVICE, METHOD = "containerd.services.events.ttrpc.v1.Events", "Forward"
CALL_SECONDS = 5.0
KEEP_SECONDS = 120.0  # longer than containerd takes to restart


class Publisher:
    """Sends events from a thread of its own; `publish` never blocks."""

    def __init__(self, *, namespace: str, ttrpc_address: str, grpc_address: str, binary: str) -> None:
        self._namespace = namespace
        self._ttrpc_address = ttrpc_address
        self._grpc_address = grpc_address
        self._binary = binary
        self._queue: SimpleQueue[Envelope | None] = SimpleQueue()
        self._client: Client | None = None
        self._closed_at = float("inf")  # when patience ends, once closing
        self._thread = threading.Thread(target=self._forward_all, daemon=True)
        self._thread.start()

    def publish(self, event: Message) -> None:
        topic = TOPICS[type(event).__name__]
        packed = Any(type_url=event.NAME, value=event.encode())
        self._queue.put(Envelope(timestamp=timestamp(now_ns()), namespace=self._namespace, topic=topic, event=packed))

    def close(self, patience: float) -> None:
        """Send what is queued, but wait no longer than `patience` seconds for it."""
        self._closed_at = time.monotonic() + patience
        self._queue.put(None)
        self._thread.join(patience)

    def _forward_all(self) -> None:
        while (envelope := self._queue.get()) is not None:
            try:
                self._deliver(envelope)
            except Exception as error:
                log.exception(f"event {envelope.topic}", error)
        self._hang_up()

    def _deliver(self, envelope: Envelope) -> None:
        deadline = time.monotonic() + KEEP_SECONDS
        pause = 0.05
        failure: Exception | None = None
        while self._ttrpc_address:
            try:
                self._forward(envelope)
            except RpcError as error:  # containerd heard it and said no: saying it again does not help
                failure = error
                break
            except OSError as error:
                self._hang_up()
                failure = error
                if time.monotonic() + pause > min(deadline, self._closed_at):
                    break
                time.sleep(pause)
                pause = min(pause * 2, 2.0)
            else:
                return
        if not self._run_publish(envelope):
            log.error(f"event {envelope.topic} dropped: {failure}")

    def _forward(self, envelope: Envelope) -> None:
        if self._client is None:
            self._client = Client(self._ttrpc_address, CALL_SECONDS)
        self._client.call(
            SERVICE, METHOD, ForwardRequest(envelope=envelope).encode(), {"containerd-namespace-ttrpc": self._namespace}
        )

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _run_publish(self, envelope: Envelope) -> bool:
        """The way without ttrpc: `containerd --address A publish --topic T --namespace N`, the event on its stdin."""
        if not self._binary or envelope.event is None:
            return False
        reader, writer = os.pipe()
        try:
            arguments = [
                self._binary,
                "--address",
                self._grpc_address,
                "publish",
                "--topic",
                envelope.topic,
                "--namespace",
                self._namespace,
            ]
            actions = [
                (os.POSIX_SPAWN_DUP2, reader, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ]
            pid = os.posix_spawnp(self._binary, arguments, os.environ, file_actions=actions)
        except OSError as error:
            log.warning(f"cannot run {self._binary}: {error}")
            os.close(writer)
            return False
        finally:
            os.close(reader)
        try:
            os.write(writer, envelope.event.encode())
        except OSError:
            pass
        finally:
            os.close(writer)
        return _wait(pid, CALL_SECONDS)


def _wait(pid: int, seconds: float) -> bool:
    """Whether the child ended well in time; killed when it did not end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.02)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return False
