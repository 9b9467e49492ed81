"""Protobuf messages as plain classes with a table of fields.

Why not Google's library: it adds 5 MiB and 12 ms to a shim whose whole budget is 12 MiB, for a format this small
(docs/decisions/shim-protobuf.md). The classes in `shim/api` are generated from `shim/proto`; a test compares this codec
with Google's library on random messages.

proto3 rules kept here: a scalar at its default is not sent; the last of repeated scalars wins; an embedded message sent
twice is merged; a packed repeated number is also read unpacked; unknown fields are skipped.
"""

from __future__ import annotations

from struct import pack, unpack

from shim.wire import FIXED64, LENGTH, VARINT, DecodeError, get_varint, put_bytes, put_varint, records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any as AnyType
    from typing import Self

# Kinds of field, as the generator writes them into the tables.
STRING, BYTES, UINT, INT, BOOL, DOUBLE, MESSAGE, STRING_MAP = range(8)


class Field:
    """One row of a message's table."""

    __slots__ = ("kind", "message", "name", "number", "repeated")

    def __init__(
        self, number: int, name: str, kind: int, *, repeated: bool = False, message: type[Message] | None = None
    ) -> None:
        self.number = number
        self.name = name
        self.kind = kind
        self.repeated = repeated
        self.message = message


class Message:
    """The base of all messages: subclasses have only slots, a constructor, a table, and a full name."""

    __slots__ = ()
    NAME = ""
    FIELDS: tuple[Field, ...] = ()

    def encode(self) -> bytes:
        out = bytearray()
        for field in self.FIELDS:
            value = getattr(self, field.name)
            if not field.repeated:
                if field.kind == STRING_MAP:
                    for key, item in value.items():
                        entry = bytearray()
                        put_bytes(entry, 1, key.encode())
                        put_bytes(entry, 2, item.encode())
                        put_bytes(out, field.number, bytes(entry))
                elif value if field.kind != MESSAGE else value is not None:
                    _put(out, field, value)
            elif field.kind in (UINT, INT):
                if value:
                    packed = bytearray()
                    for item in value:
                        put_varint(packed, item)
                    put_bytes(out, field.number, bytes(packed))
            else:
                for item in value:
                    _put(out, field, item)
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        message = cls()
        message.merge(data)
        return message

    def merge(self, data: bytes) -> None:
        """Read `data` into this message.

        Raises DecodeError and leaves the message half-read when `data` is malformed.
        """
        rows = {field.number: field for field in self.FIELDS}
        for number, wire, raw in records(data):
            if field := rows.get(number):
                self._take(field, wire, raw)

    def _take(self, field: Field, wire: int, raw: int | bytes) -> None:
        value: AnyType
        name, kind = field.name, field.kind
        if kind in (UINT, INT, BOOL):
            if wire == LENGTH and field.repeated and isinstance(raw, bytes):
                numbers, at = getattr(self, name), 0
                while at < len(raw):
                    number, at = get_varint(raw, at)
                    numbers.append(_signed(number) if kind == INT else number)
                return
            if wire != VARINT or not isinstance(raw, int):
                raise DecodeError(f"{self.NAME}.{name}: wire type {wire}")
            value = bool(raw) if kind == BOOL else _signed(raw) if kind == INT else raw
        elif kind == DOUBLE:
            if wire != FIXED64 or not isinstance(raw, bytes):
                raise DecodeError(f"{self.NAME}.{name}: wire type {wire}")
            value = unpack("<d", raw)[0]
        else:
            if wire != LENGTH or not isinstance(raw, bytes):
                raise DecodeError(f"{self.NAME}.{name}: wire type {wire}")
            if kind == STRING_MAP:
                key, item = _entry(self.NAME, name, raw)
                getattr(self, name)[key] = item
                return
            if kind == MESSAGE and not field.repeated and (inner := getattr(self, name)) is not None:
                inner.merge(raw)
                return
            value = raw if kind == BYTES else _text(self.NAME, name, raw) if kind == STRING else _embedded(field, raw)
        if field.repeated:
            getattr(self, name).append(value)
        else:
            setattr(self, name, value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(getattr(self, f.name) == getattr(other, f.name) for f in self.FIELDS)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in self.FIELDS if getattr(self, field.name))
        return f"{type(self).__name__}({', '.join(shown)})"


def _put(out: bytearray, field: Field, value: AnyType) -> None:
    kind = field.kind
    if kind in (UINT, INT, BOOL):
        put_varint(out, field.number << 3 | VARINT)
        put_varint(out, int(value))
    elif kind == DOUBLE:
        put_varint(out, field.number << 3 | FIXED64)
        out += pack("<d", value)
    elif kind == STRING:
        put_bytes(out, field.number, value.encode(errors="surrogateescape"))
    else:
        put_bytes(out, field.number, value.encode() if kind == MESSAGE else value)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(message: str, name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DecodeError(f"{message}.{name} is not UTF-8") from None


def _entry(message: str, name: str, raw: bytes) -> tuple[str, str]:
    pair = ["", ""]
    for number, wire, value in records(raw):
        if number in (1, 2):
            if wire != LENGTH or not isinstance(value, bytes):
                raise DecodeError(f"{message}.{name}: wire type {wire}")
            pair[number - 1] = _text(message, name, value)
    return pair[0], pair[1]


def _embedded(field: Field, raw: bytes) -> Message:
    if field.message is None:
        raise TypeError(f"{field.name} has no message class")
    return field.message.decode(raw)
