"""A blocking ttrpc client for one caller: what the events publisher needs to reach containerd."""

from __future__ import annotations

from _socket import AF_UNIX, MSG_NOSIGNAL, SOCK_STREAM, socket

from shim.errors import RpcError
from shim.ttrpc.connection import ClientConnection
from shim.wire import DecodeError

RECEIVE = 16 << 10


class Client:
    """A connection to `address` (a path, with or without `unix://`).

    Any OSError or RpcError leaves it to be closed and dialled anew.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self._socket = socket(AF_UNIX, SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._timeout = timeout
        self._state = ClientConnection()
        try:
            self._socket.connect(address.removeprefix("unix://"))
        except OSError:
            self._socket.close()
            raise

    def call(self, service: str, method: str, payload: bytes, metadata: dict[str, str]) -> bytes:
        """Return the response's payload. Raises RpcError for the peer's refusal, OSError when the connection fails."""
        stream, out = self._state.request(
            service, method, payload, timeout_nano=int(self._timeout * 1e9), metadata=metadata
        )
        while out:
            out = out[self._socket.send(out, MSG_NOSIGNAL) :]
        while True:
            data = self._socket.recv(RECEIVE)
            if not data:
                raise ConnectionResetError("the peer closed the connection")
            try:
                answers = self._state.receive(data)
            except DecodeError as error:
                raise ConnectionResetError(f"the peer sent no ttrpc: {error}") from error
            for answered, response in answers:
                if answered == stream:
                    if response.status and response.status.code:
                        raise RpcError(response.status.message, response.status.code)
                    return response.payload

    def close(self) -> None:
        self._socket.close()
