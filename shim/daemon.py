"""The shim process: its parts put together, and its life from the first connection to Shutdown.

`start` is compiled (kernel_lib/launcher/src/shim): it has made the socket and answered containerd by now. Imports up to
the first call are paid for by every container and held down by a test: `_socket` instead of `socket` spares 7 ms.

It ends by itself when it has no containers, no sandbox and no client: a containerd that was killed between `start` and
Create does not remember it, and nobody else would end it.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # without the enumerations of `signal`: 4 ms and 1 MiB
import os
from _socket import AF_UNIX, SOCK_STREAM, socket

from runtime.vmm import guard_ahead
from shim import log
from shim.events import Publisher
from shim.loop import Loop
from shim.reaper import Reaper
from shim.rpc import Methods
from shim.task.service import TaskService
from shim.ttrpc.server import Server
from shim.workers import Workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from shim.backend import Backend
    from shim.grpc_server import GrpcServer
    from shim.invocation import Invocation
    from shim.rpc import Table

SANDBOX_SERVICE = "containerd.runtime.sandbox.v1.Sandbox"
TTRPC, GRPC = "ttrpc", "grpc"
READY = b"+"
FLUSH_SECONDS = 5.0
ALONE_SECONDS = 10.0  # longer than containerd takes from `start` to its first connection


def live(invocation: Invocation) -> NoReturn:
    """Be the shim, with the socket that is its standard input; who started it may listen at its standard output."""
    path, passing, transport = invocation.rest
    status = 1
    try:
        guard_ahead()
        listener, ready = socket(AF_UNIX, SOCK_STREAM, 0, os.dup(0)), os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1):
            os.dup2(null, fd)
        os.close(null)
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(b"litebox-shim")
        status = _serve(invocation, listener, path, passing, transport, ready)
    except BaseException as error:
        log.exception("shim", error)
    finally:
        os._exit(status)


def _serve(invocation: Invocation, listener: socket, path: str, passing: str, transport: str, ready: int) -> int:
    """Serve until containerd shuts the shim down; return the exit status."""
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
    os.write(ready, READY)
    os.close(ready)
    signal.signal(
        signal.SIGTERM, lambda *_: log.warning("SIGTERM ignored: containers would be left alone; use Shutdown")
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def settled() -> None:
        remove_quietly(passing)
        end_if_alone()

    loop.run_later(ALONE_SECONDS, settled)
    log.debug("serving", socket=path, transport=transport)
    loop.run()
    server.close()
    remove_quietly(path)
    remove_quietly(passing)
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
