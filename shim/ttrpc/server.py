"""The ttrpc server: sockets on the event loop, handlers on worker threads, answers from any thread.

A connection's state machine and its outgoing bytes are guarded by one lock that is never held across a handler or a
blocking call. What a peer does not read is buffered up to a bound, beyond which the connection is dropped, so a peer
that stops reading delays nobody else.
"""

from __future__ import annotations

import os
import threading
from _socket import (
    AF_UNIX,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SOCK_STREAM,
    socket,
)  # `socket` itself costs 7 ms: see shim.daemon

from shim import log, rpc
from shim.errors import RpcError
from shim.loop import GONE, READ, WRITE
from shim.ttrpc.connection import Call, Refusal, ServerConnection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.loop import Loop
    from shim.message import Message
    from shim.workers import Workers

RECEIVE = 64 << 10
BACKLOG_BYTES = 32 << 20  # of answers that the peer has not read


class Server:
    """Serves `methods` on a listening socket.

    `left` is called when the last client has gone.
    """

    def __init__(
        self,
        loop: Loop,
        workers: Workers,
        methods: rpc.Methods,
        left: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._methods = methods
        self._listeners: list[socket] = []
        self._connections: set[_Connection] = set()
        self._left = left

    @property
    def has_clients(self) -> bool:
        return bool(self._connections)

    def listen(self, listener: socket) -> None:
        listener.setblocking(False)
        self._listeners.append(listener)
        self._loop.add(listener.fileno(), READ, lambda _events: self._accept(listener))

    def close(self) -> None:
        """Stop accepting, and drop all connections. On the loop's thread."""
        for listener in self._listeners:
            self._loop.remove(listener.fileno())
            listener.close()
        for connection in list(self._connections):
            connection.drop()

    def _accept(self, listener: socket) -> None:
        try:
            fd, _peer = listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return
        except OSError as error:  # EMFILE and the like: the listener stays readable, so breathe
            log.warning(f"accept: {error}")
            self._loop.remove(listener.fileno())
            self._loop.run_later(
                0.1, lambda: self._loop.add(listener.fileno(), READ, lambda _events: self._accept(listener))
            )
            return
        os.set_inheritable(fd, False)
        connection = _Connection(self, socket(AF_UNIX, SOCK_STREAM, 0, fd))
        self._connections.add(connection)
        self._loop.add(fd, READ, connection.ready)

    # What connections need of their server.

    def dispatch(self, connection: _Connection, call: Call) -> None:
        try:
            method = self._methods.find(call.service, call.method)
        except RpcError as error:
            connection.fail(call, error)
            return

        def run() -> None:
            rpc.run(
                method,
                call.method,
                call.payload,
                lambda message: connection.answer(call, message),
                lambda error: connection.fail(call, error),
            )

        if method.inline:
            run()
        else:
            self._workers.submit(run)

    def forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._left()

    @property
    def loop(self) -> Loop:
        return self._loop


class _Connection:
    """One client."""

    def __init__(self, server: Server, sock: socket) -> None:
        self._server = server
        self._socket = sock
        self._state = ServerConnection()
        self._out = bytearray()
        self._lock = threading.Lock()
        self._open = True

    def ready(self, events: int) -> None:
        """Callback of the loop."""
        if events & WRITE:
            with self._lock:
                self._flush()
        if events & (READ | GONE):
            self._read()

    def answer(self, call: Call, message: Message) -> None:
        payload = message.encode()
        self._send(lambda: self._state.response(call.stream, payload))

    def fail(self, call: Call, error: RpcError) -> None:
        self._send(lambda: self._state.error(call.stream, error.code, error.message))

    def drop(self) -> None:
        """Close. On the loop's thread."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            self._out.clear()
            self._server.loop.remove(self._socket.fileno())
            self._socket.close()
        self._server.forget(self)

    def _read(self) -> None:
        try:
            data = self._socket.recv(RECEIVE, MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop()
            return
        with self._lock:
            events = self._state.receive(data)
        for event in events:
            if isinstance(event, Call):
                self._server.dispatch(self, event)
            else:
                log.warning(f"refused a frame: {event.message}")
                self._refuse(event)

    def _refuse(self, refusal: Refusal) -> None:
        self._send(lambda: self._state.refusal(refusal.stream, refusal.code, refusal.message))

    def _send(self, pack: Callable[[], bytes]) -> None:
        with self._lock:
            if not self._open:
                return
            self._out += pack()
            self._flush()

    def _flush(self) -> None:
        """Send what the socket takes; the loop sends the rest. With the lock held."""
        if not self._open:
            return
        try:
            while self._out:
                sent = self._socket.send(self._out, MSG_DONTWAIT | MSG_NOSIGNAL)
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()
            self._server.loop.run_soon(self.drop)
            return
        if len(self._out) > BACKLOG_BYTES:
            log.warning("dropped a client that reads no answers")
            self._server.loop.run_soon(self.drop)
        self._server.loop.change(self._socket.fileno(), READ | WRITE if self._out else READ)
