"""ttrpc: frames and streams without I/O, then the server over a real socket with clients that misbehave."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.api.task import ConnectResponse, StartRequest, StartResponse, WaitRequest
from shim.api.ttrpc import Request, Response
from shim.deferred import Deferred
from shim.errors import Code, NotFoundError, RpcError
from shim.loop import Loop
from shim.message import Message
from shim.rpc import Method, Methods
from shim.ttrpc import connection as states
from shim.ttrpc.client import Client
from shim.ttrpc.connection import Call, ClientConnection, ProtocolError, Refusal, ServerConnection
from shim.ttrpc.frame import DATA, HEADER, MAX_DATA, REMOTE_OPEN, REQUEST, RESPONSE, FrameReader, pack_frame
from shim.ttrpc.server import Server
from shim.workers import Workers


def ask(stream: int, method: str = "M", payload: bytes = b"", flags: int = 0) -> bytes:
    return pack_frame(stream, REQUEST, Request(service="S", method=method, payload=payload).encode(), flags)


def test_frames_arrive_whole_however_they_are_cut() -> None:
    rng = random.Random(1)
    sent = [(stream, bytes(rng.randrange(256) for _ in range(rng.randrange(50)))) for stream in range(1, 60, 2)]
    data = b"".join(pack_frame(stream, DATA, body, 4) for stream, body in sent)
    for _ in range(50):
        reader, got, at = FrameReader(), [], 0
        while at < len(data):
            step = rng.randrange(1, 40)
            got += reader.feed(data[at : at + step])
            at += step
        assert [(frame.stream, frame.data) for frame in got] == sent
        assert all(frame.kind == DATA and frame.flags == 4 and not frame.oversize for frame in got)


@pytest.mark.parametrize("step", [1 << 12, 1 << 20, 1 << 30])
def test_an_oversize_frame_is_reported_and_skipped(step: int) -> None:
    length = MAX_DATA + 1
    data = HEADER.pack(length, 1, REQUEST, 0) + bytes(length) + ask(3)
    reader, got = FrameReader(), []
    for at in range(0, len(data), step):
        got += reader.feed(data[at : at + step])
    assert [(frame.stream, frame.oversize, bool(frame.data)) for frame in got] == [(1, length, False), (3, 0, True)]


def test_a_call_and_its_answer() -> None:
    server, client = ServerConnection(), ClientConnection()
    stream, out = client.request("S", "M", b"in", timeout_nano=7, metadata={"k": "v"})
    (call,) = server.receive(out)
    assert isinstance(call, Call)
    assert (call.stream, call.service, call.method, call.payload, call.timeout_nano) == (stream, "S", "M", b"in", 7)
    assert server.state(stream) == states.CALLED
    assert client.receive(server.response(stream, b"out")) == [(stream, Response(payload=b"out"))]
    assert server.state(stream) == states.CLOSED


def test_every_state_has_only_the_drawn_ways_out() -> None:
    every = [states.IDLE, states.CALLED, states.STREAMING, states.CLOSED]
    assert set(states.TRANSITIONS.values()) | {states.IDLE} == set(every)
    server = ServerConnection()
    server.receive(ask(5))
    for event in (server.receive(ask(5))[0], server.receive(ask(3))[0], server.receive(ask(2))[0]):
        assert isinstance(event, Refusal)
        assert event.code == Code.INVALID_ARGUMENT
    server.response(5, b"")
    with pytest.raises(ProtocolError):
        server.response(5, b"")
    with pytest.raises(ProtocolError):
        server.response(7, b"")


def test_a_streaming_request_is_refused_and_its_late_data_dropped() -> None:
    server = ServerConnection()
    (refusal,) = server.receive(ask(1, flags=REMOTE_OPEN))
    assert isinstance(refusal, Refusal)
    assert refusal.code == Code.UNIMPLEMENTED
    assert server.state(1) == states.STREAMING
    server.refusal(refusal.stream, refusal.code, refusal.message)
    assert server.state(1) == states.CLOSED
    assert server.receive(pack_frame(1, DATA, b"late")) == []


@pytest.mark.parametrize(
    "frame",
    [pack_frame(1, DATA, b""), pack_frame(1, RESPONSE, b""), pack_frame(1, 9, b""), pack_frame(1, REQUEST, b"\xff")],
)
def test_what_is_no_request_is_refused(frame: bytes) -> None:
    (refusal,) = ServerConnection().receive(frame)
    assert isinstance(refusal, Refusal)
    assert refusal.code == Code.INVALID_ARGUMENT


class Served:
    """A server on a socket, with a method of each kind."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.release = threading.Event()
        self.left = threading.Event()
        self.later = Deferred()
        self.clients: list[Client] = []
        self.loop = Loop()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(128)
        methods = {
            ("S", "Echo"): Method(StartRequest, self.echo),
            ("S", "Block"): Method(StartRequest, self.block),
            ("S", "Later"): Method(WaitRequest, lambda _request: self.later, inline=True),
            ("S", "Fail"): Method(StartRequest, self.fail),
            ("S", "Bug"): Method(StartRequest, lambda _request: 1 / 0),  # type: ignore[arg-type, return-value]
        }
        self.server = Server(self.loop, Workers(), Methods(methods), left=self.left.set)
        self.server.listen(listener)
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def echo(self, request: StartRequest) -> Message:
        return StartResponse(pid=len(request.id))

    def block(self, _request: StartRequest) -> Message:
        self.release.wait(20)
        return StartResponse(pid=1)

    def fail(self, _request: StartRequest) -> Message:
        raise NotFoundError("nowhere")

    def client(self) -> Client:
        self.clients.append(Client(self.path, 20))
        return self.clients[-1]

    def close(self) -> None:
        self.release.set()
        for client in self.clients:
            client.close()
        self.loop.run_soon(self.server.close)
        self.loop.stop()
        self.thread.join(5)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    serving = Served(tmp_path / "s")
    yield serving
    serving.close()


def echo(client: Client, text: str = "abc") -> int:
    return StartResponse.decode(client.call("S", "Echo", StartRequest(id=text).encode(), {})).pid


def test_calls_that_block_starve_no_other(served: Served) -> None:
    blocked = [served.client() for _ in range(20)]
    threads = [threading.Thread(target=c.call, args=("S", "Block", b"", {})) for c in blocked]
    threads += [
        threading.Thread(target=c.call, args=("S", "Later", b"", {})) for c in (served.client() for _ in range(100))
    ]
    for thread in threads:
        thread.start()
    client = served.client()
    start = time.monotonic()
    assert echo(client) == 3
    assert time.monotonic() - start < 5
    served.release.set()
    served.later.set(ConnectResponse(shim_pid=1))
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "method, code",
    [("Fail", Code.NOT_FOUND), ("Bug", Code.UNKNOWN), ("None", Code.UNIMPLEMENTED)],
)
def test_errors_have_their_codes(served: Served, method: str, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    client = served.client()
    with pytest.raises(RpcError) as caught:
        client.call("S", method, b"", {})
    assert caught.value.code == code
    assert echo(client) == 3
    assert ("ZeroDivisionError" in capfd.readouterr().err) == (method == "Bug")


def test_a_malformed_payload_is_an_invalid_argument(served: Served) -> None:
    with pytest.raises(RpcError) as caught:
        served.client().call("S", "Echo", b"\xff", {})
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_misbehaving_clients_harm_only_themselves(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    half, garbage, oversize = (socket.socket(socket.AF_UNIX) for _ in range(3))
    for sock in (half, garbage, oversize):
        sock.connect(served.path)
    half.sendall(ask(1, "Echo")[:7])
    garbage.sendall(random.Random(3).randbytes(100_000))
    oversize.sendall(HEADER.pack(MAX_DATA + 5, 1, REQUEST, 0) + bytes(MAX_DATA + 5))
    (frame,) = FrameReader().feed(oversize.recv(65536))
    status = Response.decode(frame.data).status
    assert status
    assert status.code == Code.RESOURCE_EXHAUSTED
    assert echo(served.client()) == 3
    for sock in (half, garbage, oversize):
        sock.close()
    capfd.readouterr()


def test_the_last_client_that_leaves_is_told(served: Served) -> None:
    first, second = served.client(), served.client()
    assert [echo(first), echo(second)] == [3, 3]
    first.close()
    assert not served.left.wait(0.2)
    assert served.server.has_clients
    second.close()
    assert served.left.wait(5)
    assert not served.server.has_clients


def test_ten_thousand_requests_at_once(served: Served) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(served.path)
    out = b"".join(ask(2 * n + 1, "Echo", StartRequest(id="x" * (n % 50)).encode()) for n in range(10_000))
    sender = threading.Thread(target=sock.sendall, args=(out,))
    sender.start()
    reader = FrameReader()
    answers: dict[int, int] = {}
    while len(answers) < 10_000:
        for frame in reader.feed(sock.recv(65536)):
            answers[frame.stream] = StartResponse.decode(Response.decode(frame.data).payload).pid
    sender.join()
    sock.close()
    assert answers == {2 * n + 1: n % 50 for n in range(10_000)}


def test_a_client_that_reads_nothing_delays_nobody(served: Served) -> None:
    deaf = socket.socket(socket.AF_UNIX)
    deaf.connect(served.path)
    deaf.sendall(b"".join(ask(2 * n + 1, "Echo") for n in range(20_000)))
    assert echo(served.client()) == 3
    deaf.close()
