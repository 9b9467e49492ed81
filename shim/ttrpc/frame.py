"""ttrpc frames: a 10-byte header (length and stream id big-endian, type, flags), then at most 4 MiB of data. No I/O.

Source: ttrpc PROTOCOL.md, "Message frame". A longer frame is discarded as it arrives, without being stored, and
reported, so that the peer gets ResourceExhausted and the connection lives on.
"""

from __future__ import annotations

from struct import Struct

HEADER = Struct(">IIBB")
MAX_DATA = 4 << 20

REQUEST, RESPONSE, DATA = 1, 2, 3

REMOTE_CLOSED = 0x01  # the sender sends no more on this stream
REMOTE_OPEN = 0x02  # the sender will send more on this stream
NO_DATA = 0x04


class Frame:
    """A whole frame; `oversize` is the announced length of one whose data was thrown away, else 0."""

    __slots__ = ("data", "flags", "kind", "oversize", "stream")

    def __init__(self, stream: int, kind: int, flags: int, data: bytes, oversize: int = 0) -> None:
        self.stream = stream
        self.kind = kind
        self.flags = flags
        self.data = data
        self.oversize = oversize


def pack_frame(stream: int, kind: int, data: bytes, flags: int = 0) -> bytes:
    """Return the frame as it goes over the wire."""
    if len(data) > MAX_DATA:
        raise ValueError(f"{len(data)} bytes exceed a frame")
    return HEADER.pack(len(data), stream, kind, flags) + data


class FrameReader:
    """Cuts a byte stream into frames. Holds at most one frame's bytes and what came with its end."""

    __slots__ = ("_buffer", "_skip", "_skipped")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0
        self._skipped: Frame | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the frames they complete."""
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        buffer = self._buffer
        buffer += data
        frames = []
        at = 0
        while True:
            if self._skipped is not None:
                if self._skip:
                    break
                frames.append(self._skipped)
                self._skipped = None
            if len(buffer) - at < HEADER.size:
                break
            length, stream, kind, flags = HEADER.unpack_from(buffer, at)
            body = at + HEADER.size
            if length > MAX_DATA:
                present = min(length, len(buffer) - body)
                self._skip = length - present
                self._skipped = Frame(stream, kind, flags, b"", oversize=length)
                at = body + present
                continue
            if len(buffer) - body < length:
                break
            at = body + length
            frames.append(Frame(stream, kind, flags, bytes(buffer[body:at])))
        del buffer[:at]
        return frames
