"""The same methods over gRPC: the other transport of `containerd.task.v3` and of the sandbox API.

Only for those who ask for it: grpcio adds 60 ms to a pod's start and 15 MiB to its shim. It gives each call a thread
for as long as the call takes, so also each Wait.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from shim import rpc
from shim.errors import Code, RpcError

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # our children never call gRPC, and its handlers hold up every fork
import grpc  # type: ignore[import-untyped]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.message import Message

THREADS = 1024
FINISH_SECONDS = 0.2  # for answers that are under way when the shim ends
STATUS = {code.value[0]: code for code in grpc.StatusCode}


class GrpcServer:
    """Serves `methods` at `path`, in the place of the socket that is there.

    `left` is called when no call is being served any more.
    """

    def __init__(self, path: str, methods: rpc.Methods, left: Callable[[], None]) -> None:
        self._methods = methods
        self._left = left
        self._lock = threading.Lock()
        self._calls = 0
        self._server = grpc.server(ThreadPoolExecutor(THREADS))
        self._server.add_generic_rpc_handlers([_Handler(self._handler)])
        passing = f"{os.path.dirname(path)}/.{os.getpid()}"
        mask = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{passing}")
        finally:
            os.umask(mask)
        self._server.start()
        os.rename(passing, path)

    @property
    def has_clients(self) -> bool:
        """Connections are not told of: a client is who waits for an answer."""
        with self._lock:
            return self._calls > 0

    def close(self) -> None:
        self._server.stop(FINISH_SECONDS).wait()

    def _handler(self, service: str, name: str) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        try:
            method = self._methods.find(service, name)
        except RpcError:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda payload, context: self._serve(method, name, payload, context))

    def _serve(self, method: rpc.Method, name: str, payload: bytes, context: grpc.ServicerContext) -> bytes:
        results: list[Message | RpcError] = []
        done = threading.Event()

        def finish(result: Message | RpcError) -> None:
            results.append(result)
            done.set()

        with self._lock:
            self._calls += 1
        try:
            rpc.run(method, name, payload, finish, finish)
            if not context.add_callback(done.set):
                done.set()  # the client has gone
            done.wait()
        finally:
            with self._lock:
                self._calls -= 1
                alone = not self._calls
            if alone:
                self._left()
        result = results[0] if results else RpcError("the client has gone", Code.CANCELED)
        if isinstance(result, RpcError):
            context.abort(STATUS.get(result.code, grpc.StatusCode.UNKNOWN), result.message)
            raise result  # abort has raised
        return result.encode()


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds the handler of `/SERVICE/METHOD`."""

    def __init__(self, find: Callable[[str, str], grpc.RpcMethodHandler[bytes, bytes] | None]) -> None:
        self._find = find

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        _, service, name = details.method.split("/")
        return self._find(service, name)
