"""The two ends of a ttrpc connection as state machines: bytes in, events out; calls in, bytes out. No I/O, no threads.

A stream as the server sees it (all services here are unary: one request, one response):

    IDLE ──request──▶ CALLED ──response──▶ CLOSED
      └──request (more to come)──▶ STREAMING ──data──▶ STREAMING
                                       └──response (refused)──▶ CLOSED ──data──▶ CLOSED (late, dropped)

`TRANSITIONS` is that drawing as a table; what it lacks is a protocol error. Client streams have odd ids that only grow,
so one number tells IDLE from CLOSED and a finished stream costs nothing. A request that breaks a rule is answered with
an error on its own stream and the connection goes on, as the Go server does it (server.go, `recv`).
"""

from __future__ import annotations

from shim.api.ttrpc import KeyValue, Request, Response, Status
from shim.errors import Code
from shim.ttrpc import frame as wire
from shim.ttrpc.frame import Frame, FrameReader, pack_frame
from shim.wire import DecodeError

IDLE, CALLED, STREAMING, CLOSED = "idle", "called", "streaming", "closed"
REQUEST, REQUEST_OPEN, DATA, RESPONSE = "request", "request, open", "data", "response"

TRANSITIONS: dict[tuple[str, str], str] = {
    (IDLE, REQUEST): CALLED,
    (IDLE, REQUEST_OPEN): STREAMING,
    (STREAMING, DATA): STREAMING,
    (CALLED, RESPONSE): CLOSED,
    (STREAMING, RESPONSE): CLOSED,
    (CLOSED, DATA): CLOSED,
}


class ProtocolError(Exception):
    """Our own side did what the table forbids."""


class Call:
    """A request to be served."""

    __slots__ = ("metadata", "method", "payload", "service", "stream", "timeout_nano")

    def __init__(self, stream: int, request: Request) -> None:
        self.stream = stream
        self.service = request.service
        self.method = request.method
        self.payload = request.payload
        self.timeout_nano = request.timeout_nano
        self.metadata = request.metadata


class Refusal:
    """A frame that breaks the rules, and the error to answer it with."""

    __slots__ = ("code", "message", "stream")

    def __init__(self, stream: int, code: int, message: str) -> None:
        self.stream = stream
        self.code = code
        self.message = message


class ServerConnection:
    """The server's end."""

    def __init__(self) -> None:
        self._frames = FrameReader()
        self._last = 0
        self._live: dict[int, str] = {}

    def state(self, stream: int) -> str:
        return self._live.get(stream) or (CLOSED if stream <= self._last else IDLE)

    def receive(self, data: bytes) -> list[Call | Refusal]:
        """Take bytes from the peer; return the calls and refusals they complete, in order."""
        return [event for frame in self._frames.feed(data) if (event := self._frame(frame))]

    def response(self, stream: int, payload: bytes) -> bytes:
        """Answer the call on `stream`."""
        body = Response(payload=payload).encode()
        if len(body) > wire.MAX_DATA:
            return self.error(stream, Code.RESOURCE_EXHAUSTED, f"response of {len(body)} bytes exceeds {wire.MAX_DATA}")
        self._close(stream)
        return pack_frame(stream, wire.RESPONSE, body)

    def error(self, stream: int, code: int, message: str) -> bytes:
        """Answer the call on `stream` with an error."""
        self._close(stream)
        return self.refusal(stream, code, message)

    def refusal(self, stream: int, code: int, message: str) -> bytes:
        """Answer a frame that never became a call."""
        self._live.pop(stream, None)
        return pack_frame(stream, wire.RESPONSE, Response(status=Status(code=code, message=message[:65536])).encode())

    def _frame(self, frame: Frame) -> Call | Refusal | None:
        stream = frame.stream
        if frame.kind == wire.REQUEST:
            return self._request(frame)
        if frame.kind == wire.DATA:
            if (self.state(stream), DATA) in TRANSITIONS:
                return None
            return Refusal(stream, Code.INVALID_ARGUMENT, f"data on stream {stream}, which is {self.state(stream)}")
        return Refusal(stream, Code.INVALID_ARGUMENT, f"unexpected frame type {frame.kind}")

    def _request(self, frame: Frame) -> Call | Refusal:
        stream = frame.stream
        event = REQUEST_OPEN if frame.flags & wire.REMOTE_OPEN else REQUEST
        state = TRANSITIONS.get((self.state(stream), event))
        if stream % 2 == 0:
            return Refusal(stream, Code.INVALID_ARGUMENT, "StreamID must be odd for client initiated streams")
        if state is None:
            return Refusal(stream, Code.INVALID_ARGUMENT, "StreamID cannot be re-used and must increment")
        self._last = stream
        if frame.oversize:
            return Refusal(
                stream,
                Code.RESOURCE_EXHAUSTED,
                f"message length {frame.oversize} exceed maximum message size of {wire.MAX_DATA}",
            )
        try:
            request = Request.decode(frame.data)
        except DecodeError as error:
            return Refusal(stream, Code.INVALID_ARGUMENT, f"malformed request: {error}")
        self._live[stream] = state
        if state == STREAMING:
            return Refusal(stream, Code.UNIMPLEMENTED, f"{request.service}/{request.method} is not a stream")
        return Call(stream, request)

    def _close(self, stream: int) -> None:
        if (self.state(stream), RESPONSE) not in TRANSITIONS:
            raise ProtocolError(f"response on stream {stream}, which is {self.state(stream)}")
        del self._live[stream]


class ClientConnection:
    """The client's end: one request a stream, responses in any order."""

    def __init__(self) -> None:
        self._frames = FrameReader()
        self._next = 1
        self._waiting: set[int] = set()

    def request(
        self, service: str, method: str, payload: bytes, *, timeout_nano: int, metadata: dict[str, str]
    ) -> tuple[int, bytes]:
        """Return the new stream's id and the bytes that ask."""
        stream = self._next
        self._next += 2
        self._waiting.add(stream)
        pairs = [KeyValue(key=key, value=value) for key, value in metadata.items()]
        request = Request(service=service, method=method, payload=payload, timeout_nano=timeout_nano, metadata=pairs)
        return stream, pack_frame(stream, wire.REQUEST, request.encode())

    def receive(self, data: bytes) -> list[tuple[int, Response]]:
        """Take bytes from the peer; return (stream, response) for those that answer a request of ours.

        Raises DecodeError.
        """
        answers = []
        for frame in self._frames.feed(data):
            if frame.kind == wire.RESPONSE and frame.stream in self._waiting:
                self._waiting.discard(frame.stream)
                if frame.oversize:
                    answers.append(
                        (
                            frame.stream,
                            Response(status=Status(code=Code.RESOURCE_EXHAUSTED, message="oversize response")),
                        )
                    )
                else:
                    answers.append((frame.stream, Response.decode(frame.data)))
        return answers
