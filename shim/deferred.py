"""An answer that comes later, without a thread that waits for it."""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.errors import RpcError
    from shim.message import Message


class Deferred:
    """Set once, to a message or an error; whoever asked before or after gets it.

    Callbacks run on the thread that sets it.
    """

    __slots__ = ("_callbacks", "_lock", "_result")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._result: Message | RpcError | None = None
        self._callbacks: list[Callable[[Message | RpcError], None]] = []

    def set(self, result: Message | RpcError) -> None:
        with self._lock:
            if self._result is not None:
                return
            self._result = result
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(result)

    def when_set(self, callback: Callable[[Message | RpcError], None]) -> None:
        with self._lock:
            if self._result is None:
                self._callbacks.append(callback)
                return
        callback(self._result)
