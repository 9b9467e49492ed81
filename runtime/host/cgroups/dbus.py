"""As much of D-Bus as a call to systemd takes: one connection to its private socket, which needs no bus.

D-Bus specification, "Type system", "Marshaling (wire format)", "Message protocol", "Authentication protocol".
"""

from __future__ import annotations

import _socket

from runtime.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _SIGNATURE = 1, 2, 3, 4, 5, 8
_ALIGNMENT = {"y": 1, "g": 1, "v": 1, "b": 4, "u": 4, "i": 4, "s": 4, "o": 4, "a": 4, "t": 8, "x": 8, "(": 8, "{": 8}
_SIZES = {"y": 1, "b": 4, "u": 4, "i": 4, "t": 8, "x": 8}
_MAX_MESSAGE = 1 << 20


class CallError(HostError):
    """The other side's answer is an error; `name` is D-Bus's."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"systemd: {message or name}")
        self.name = name


def split(signature: str) -> list[str]:
    """The complete types of a signature."""
    types = []
    while signature:
        end = 0
        while signature[end] == "a":
            end += 1
        if signature[end] in "({":
            depth = 0
            for index in range(end, len(signature)):
                depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(signature[index], 0)
                if depth == 0:
                    end = index
                    break
        types.append(signature[: end + 1])
        signature = signature[end + 1 :]
    return types


def marshal(signature: str, values: Sequence[Any]) -> bytes:
    """Little-endian; a variant is (signature, value)."""
    out = bytearray()
    for kind, value in zip(split(signature), values, strict=True):
        _put(out, kind, value)
    return bytes(out)


def _pad(out: bytearray, to: int) -> None:
    out += bytes(-len(out) % to)


def _put(out: bytearray, kind: str, value: Any) -> None:
    first = kind[0]
    _pad(out, _ALIGNMENT[first])
    if first in _SIZES:
        out += int(value).to_bytes(_SIZES[first], "little", signed=first in "ix")
    elif first in "so":
        data = value.encode()
        out += len(data).to_bytes(4, "little") + data + b"\0"
    elif first == "g":
        out += bytes([len(value)]) + value.encode() + b"\0"
    elif first == "v":
        _put(out, "g", value[0])
        _put(out, value[0], value[1])
    elif first == "a":
        at = len(out)
        out += bytes(4)
        _pad(out, _ALIGNMENT[kind[1]])
        start = len(out)
        for item in value:
            _put(out, kind[1:], item)
        out[at : at + 4] = (len(out) - start).to_bytes(4, "little")
    else:
        for member, item in zip(split(kind[1:-1]), value, strict=True):
            _put(out, member, item)


class Reader:
    """Takes values out of a message."""

    def __init__(self, data: bytes, order: str = "little", at: int = 0) -> None:
        self.data = data
        self.order: Any = order
        self.at = at

    def values(self, signature: str) -> list[Any]:
        """One of each type."""
        return [self._take(kind) for kind in split(signature)]

    def align(self, to: int) -> None:
        self.at += -self.at % to

    def _bytes(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise HostError("systemd: a message ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def _take(self, kind: str) -> Any:
        first = kind[0]
        self.align(_ALIGNMENT[first])
        if first in _SIZES:
            return int.from_bytes(self._bytes(_SIZES[first]), self.order, signed=first in "ix")
        if first in "sog":
            size = int.from_bytes(self._bytes(1 if first == "g" else 4), self.order)
            return self._bytes(size + 1)[:-1].decode("utf-8", "replace")
        if first == "v":
            return self._take(self._take("g"))
        if first == "a":
            end = int.from_bytes(self._bytes(4), self.order)
            self.align(_ALIGNMENT[kind[1]])
            end += self.at
            items = []
            while self.at < end:
                items.append(self._take(kind[1:]))
            return items
        return self.values(kind[1:-1])


class Connection:
    """To one service's own socket. Calls one at a time; signals that arrive meanwhile are kept."""

    def __init__(self, path: str, timeout: float) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._received = b""
        self._serial = 0
        self._signals: list[tuple[str, list[Any]]] = []
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
            # Who we are, the socket says.
            self._socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
            if self._line() != b"DATA" or not self._line().startswith(b"OK "):
                raise HostError(f"{path}: authentication was refused")
        except OSError as error:
            self.close()
            raise HostError(f"{path}: {error.strerror or error}", error.errno or 0) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def call(self, path: str, interface: str, member: str, signature: str = "", *values: Any) -> list[Any]:
        """Call a method, and wait for its answer."""
        self._serial += 1
        fields = [(_PATH, ("o", path)), (_INTERFACE, ("s", interface)), (_MEMBER, ("s", member))]
        if signature:
            fields.append((_SIGNATURE, ("g", signature)))
        body = marshal(signature, values)
        head = bytearray(marshal("yyyyuua(yv)", (ord("l"), _CALL, 0, 1, len(body), self._serial, fields)))
        _pad(head, 8)
        try:
            self._socket.sendall(bytes(head) + body)
        except OSError as error:
            raise HostError(f"systemd: {error.strerror or error}", error.errno or 0) from error
        while True:
            kind, found, content = self._message()
            if kind == _SIGNAL:
                self._signals.append((found.get(_MEMBER, ""), content))
            elif found.get(_REPLY_SERIAL) == self._serial:
                if kind == _ERROR:
                    raise CallError(found.get(_ERROR_NAME, ""), str(content[0]) if content else "")
                return content

    def signal(self) -> tuple[str, list[Any]]:
        """The next signal: its member and its values."""
        while not self._signals:
            kind, found, content = self._message()
            if kind == _SIGNAL:
                self._signals.append((found.get(_MEMBER, ""), content))
        return self._signals.pop(0)

    def _message(self) -> tuple[int, dict[int, Any], list[Any]]:
        head = self._exactly(16)
        order = "little" if head[:1] == b"l" else "big"
        kind = head[1]
        body_size, _, fields_size = Reader(head, order, 4).values("uuu")
        padded = fields_size + -fields_size % 8
        if padded + body_size > _MAX_MESSAGE:
            raise HostError("systemd: found a message of more than a megabyte")
        head += self._exactly(padded)
        fields = dict(Reader(head, order, 12).values("a(yv)")[0])
        body = Reader(self._exactly(body_size), order)
        return kind, fields, body.values(fields.get(_SIGNATURE, ""))

    def _line(self) -> bytes:
        while b"\r\n" not in self._received:
            self._receive()
        line, _, self._received = self._received.partition(b"\r\n")
        return line

    def _exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        data, self._received = self._received[:count], self._received[count:]
        return data

    def _receive(self) -> None:
        try:
            piece = self._socket.recv(65536)
        except OSError as error:
            raise HostError(f"systemd: {error.strerror or 'no answer in time'}", error.errno or 0) from error
        if not piece:
            raise HostError("systemd: the connection ended")
        self._received += piece
