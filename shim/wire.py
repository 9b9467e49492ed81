"""The protobuf wire format, as far as containerd's messages need it.

Source: https://protobuf.dev/programming-guides/encoding/. A record is a varint tag (field number << 3 | wire type) and
a value. Pure functions over bytes, and no import at all.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

_MASK64 = (1 << 64) - 1


class DecodeError(ValueError):
    """The bytes are no message: the sender's fault, answered with InvalidArgument."""


def put_varint(out: bytearray, value: int) -> None:
    """Append `value`; a negative one as its 64-bit two's complement, as protobuf does for int32 and int64."""
    value &= _MASK64
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def put_bytes(out: bytearray, number: int, data: bytes) -> None:
    """Append field `number` holding `data` (a string, bytes or an embedded message)."""
    put_varint(out, number << 3 | LENGTH)
    put_varint(out, len(data))
    out += data


def get_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at `at` and the offset behind it."""
    value = shift = 0
    while True:
        try:
            byte = data[at]
        except IndexError:
            raise DecodeError("truncated varint") from None
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK64, at
        shift += 7
        if shift > 63:
            raise DecodeError("varint longer than 64 bits")


def records(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield (field number, wire type, value) of every record: an int for VARINT, bytes for the other types."""
    at, end = 0, len(data)
    while at < end:
        tag, at = get_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise DecodeError(f"field number {number}")
        if kind == VARINT:
            value, at = get_varint(data, at)
            yield number, kind, value
            continue
        if kind == LENGTH:
            size, at = get_varint(data, at)
        elif kind == FIXED64:
            size = 8
        elif kind == FIXED32:
            size = 4
        else:
            raise DecodeError(f"field {number} has wire type {kind}")  # groups: no message of containerd's has one
        if size > end - at:
            raise DecodeError(f"field {number} is truncated")
        yield number, kind, data[at : at + size]
        at += size
