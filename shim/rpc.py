"""Methods and how one is run, whatever carries the call: ttrpc (`shim.ttrpc.server`) or gRPC (`shim.grpc_server`)."""

from __future__ import annotations

from shim import log
from shim.deferred import Deferred
from shim.errors import Code, RpcError
from shim.wire import DecodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from shim.message import Message

    Handler = Callable[[Any], Message | Deferred]
    Table = Mapping[tuple[str, str], "Method"]


class Method:
    """How one method is called: the class of its request, and the handler."""

    __slots__ = ("handler", "inline", "request")

    def __init__(self, request: type[Message], handler: Handler, *, inline: bool = False) -> None:
        self.request = request
        self.handler = handler
        self.inline = inline  # never blocks: run it on the event loop


class Methods:
    """All methods by service and name. The services in `later` are loaded when they are first asked for."""

    def __init__(self, table: Table, later: Mapping[str, Callable[[], Table]] | None = None) -> None:
        self._table = dict(table)
        self._later = dict(later or {})

    def find(self, service: str, name: str) -> Method:
        """Raises RpcError, Unimplemented, for one that is not there."""
        if load := self._later.pop(service, None):
            self._table.update(load())
        if method := self._table.get((service, name)):
            return method
        known = any(service == other for other, _ in self._table)
        raise RpcError(f"method {name}" if known else f"service {service}", Code.UNIMPLEMENTED)


def run(
    method: Method,
    name: str,
    payload: bytes,
    answer: Callable[[Message], None],
    fail: Callable[[RpcError], None],
) -> None:
    """Run the handler of a call and see to it that exactly one of `answer` and `fail` follows, on whatever thread."""
    log.debug(f"{name} called")
    try:
        result = method.handler(method.request.decode(payload))
    except RpcError as error:
        fail(error)
    except DecodeError as error:
        fail(RpcError(f"malformed {method.request.NAME}: {error}", Code.INVALID_ARGUMENT))
    except Exception as error:  # our own bug: the caller is told, the shim serves on
        log.exception(name, error)
        fail(RpcError(f"{type(error).__name__}: {error}", Code.UNKNOWN))
    else:
        if isinstance(result, Deferred):
            result.when_set(lambda late: fail(late) if isinstance(late, RpcError) else answer(late))
        else:
            answer(result)
