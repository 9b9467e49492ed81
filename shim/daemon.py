"""The shim process: its parts put together, and its life from the first connection to Shutdown.

It ends by itself when it has no containers, no sandbox and no client: a containerd that was killed between `start` and
Create does not remember it, and nobody else would end it.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # without the enumerations of `signal`: 4 ms and 1 MiB
import os

from shim import log
from shim.bootstrap import GRPC
from shim.events import Publisher
from shim.loop import Loop
from shim.reaper import Reaper
from shim.rpc import Methods
from shim.task.service import TaskService
from shim.ttrpc.server import Server
from shim.workers import Workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from shim.backend import Backend
    from shim.grpc_server import GrpcServer
    from shim.invocation import Invocation
    from shim.rpc import Table

SANDBOX_SERVICE = "containerd.runtime.sandbox.v1.Sandbox"
FLUSH_SECONDS = 5.0
ALONE_SECONDS = 10.0  # longer than containerd takes from `start` to its first connection


def serve(invocation: Invocation, listener: socket, path: str, transport: str, listening: Callable[[], None]) -> int:
    """Serve until containerd shuts the shim down; return the exit status. `listening`: calls are taken now."""
    log.configure(debug=invocation.debug, id=invocation.id, namespace=invocation.namespace, pid=str(os.getpid()))
    loop = Loop()
    reaper = Reaper(loop)
    reaper.install()
    workers = Workers()
    publisher = Publisher(
        namespace=invocation.namespace,
        ttrpc_address=invocation.ttrpc_address,
        grpc_address=invocation.address,
        binary=invocation.publish_binary,
    )

    def shut_down() -> None:
        loop.run_later(0.005, loop.stop)  # the answer to Shutdown goes out first

    service = TaskService(
        make_backend(invocation, reaper, loop), invocation.namespace, publisher.publish, loop, shut_down
    )

    def end_if_alone() -> None:
        if not server.has_clients and not service.in_use:
            log.debug("no containers, no sandbox and no client: ends")
            loop.stop()

    def sandbox_methods() -> Table:
        from shim.sandbox.service import SandboxService

        return SandboxService(service, reaper, shut_down).methods()

    methods = Methods(service.methods(), {SANDBOX_SERVICE: sandbox_methods})

    def left() -> None:
        loop.run_later(ALONE_SECONDS, end_if_alone)

    server: Server | GrpcServer
    if transport == GRPC:
        from shim.grpc_server import GrpcServer

        server = GrpcServer(path, methods, left)
        listener.close()
    else:
        server = Server(loop, workers, methods, left)
        server.listen(listener)
    listening()
    signal.signal(
        signal.SIGTERM, lambda *_: log.warning("SIGTERM ignored: containers would be left alone; use Shutdown")
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop.run_later(ALONE_SECONDS, end_if_alone)
    log.debug("serving", socket=path, transport=transport)
    loop.run()
    server.close()
    remove_quietly(path)
    publisher.close(FLUSH_SECONDS)
    return 0


def make_backend(invocation: Invocation, reaper: Reaper, loop: Loop) -> Backend:
    from shim.litebox import LiteboxBackend

    return LiteboxBackend(invocation, reaper, loop)


def remove_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
