"""The codec of shim.message against Google's protobuf, message by message, and the generated modules against their source."""

from __future__ import annotations

import contextlib
import importlib
import random
from pathlib import Path
from typing import Any

import pytest

from shim.message import BOOL, BYTES, DOUBLE, INT, MESSAGE, STRING, STRING_MAP, UINT, Field, Message
from shim.wire import DecodeError

SHIM = Path(importlib.import_module("shim").__file__ or "").parent
MODULES = sorted(path.stem for path in SHIM.glob("api/*.py") if path.stem != "__init__")


def messages() -> list[type[Message]]:
    found: dict[str, type[Message]] = {}
    for name in MODULES:
        for value in vars(importlib.import_module(f"shim.api.{name}")).values():
            if isinstance(value, type) and issubclass(value, Message) and value is not Message:
                found[value.NAME] = value
    return list(found.values())


def randomly(rng: random.Random, cls: type[Message], depth: int = 0) -> Message:
    """A message with a random half of its fields set."""
    message = cls()
    for field in cls.FIELDS:
        if rng.random() < 0.5:
            continue
        value: Any
        if field.kind == STRING_MAP:
            value = {f"k{rng.randrange(9)}": "v" * rng.randrange(3) for _ in range(3)}
        elif field.repeated:
            value = [scalar(rng, field, depth) for _ in range(rng.randrange(4))]
        else:
            value = scalar(rng, field, depth)
        setattr(message, field.name, value)
    return message


def scalar(rng: random.Random, field: Field, depth: int) -> Any:
    if field.kind == MESSAGE:
        assert field.message
        return randomly(rng, field.message, depth + 1)
    values: dict[int, list[Any]] = {
        STRING: ["", "ascii", "é\u20ac\U0001f600", "x" * 300],
        BYTES: [b"", b"\0\xff", b"y" * 200],
        UINT: [0, 1, 127, 128, (1 << 32) - 1],
        INT: [0, 1, 5],
        BOOL: [False, True],
        DOUBLE: [0.0, 1.5, -2.25],
    }
    return rng.choice(values[field.kind])


@pytest.fixture(scope="module")
def google() -> Any:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]

    from shim.proto.generate import descriptors

    pool = descriptor_pool.DescriptorPool()
    for file in descriptors().file:
        pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


@pytest.mark.parametrize("cls", messages(), ids=lambda cls: cls.NAME)
def test_both_codecs_read_each_other(cls: type[Message], google: Any) -> None:
    rng = random.Random(cls.NAME)
    theirs = google(cls.NAME)
    for _ in range(30):
        message = randomly(rng, cls)
        parsed = theirs.FromString(message.encode())
        assert cls.decode(parsed.SerializeToString()) == cls.decode(message.encode()) == message


def test_generated_modules_are_fresh() -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    from shim.proto.generate import API, modules

    stale = [name for name, text in modules().items() if (API / name).read_text() != text]
    assert not stale, f"run python -m shim.proto.generate: {stale}"


def test_unknown_fields_are_skipped() -> None:
    from shim.api.task import StartRequest

    data = (
        StartRequest(id="a", exec_id="b").encode()
        + b"\xf8\x06\x01"
        + b"\xfa\x06\x02hi"
        + b"\xfd\x06abcd"
        + b"\xf9\x06abcdefgh"
    )
    assert StartRequest.decode(data) == StartRequest(id="a", exec_id="b")


def test_an_embedded_message_sent_twice_is_merged() -> None:
    from shim.api.task import WaitResponse

    data = bytes.fromhex("1202 0801".replace(" ", "")) + bytes.fromhex("1202 1002".replace(" ", ""))
    stamp = WaitResponse.decode(data).exited_at
    assert stamp
    assert (stamp.seconds, stamp.nanos) == (1, 2)


@pytest.mark.parametrize(
    "data",
    [b"\x0a", b"\x0a\x05abc", b"\x08\x01", b"\x0b", b"\x00\x00", b"\x0a\x02\xff\xfe", b"\x80" * 11],
    ids=["no length", "truncated", "wire type", "group", "field 0", "not UTF-8", "long varint"],
)
def test_malformed_messages_are_refused(data: bytes) -> None:
    from shim.api.task import StartRequest

    with pytest.raises(DecodeError):
        StartRequest.decode(data)


def test_any_bytes_decode_or_are_refused() -> None:
    from shim.api.task import CreateTaskRequest

    rng = random.Random(5)
    base = CreateTaskRequest(id="a", bundle="/b", terminal=True).encode()
    for _ in range(3000):
        data = bytearray(base)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(DecodeError):
            CreateTaskRequest.decode(bytes(data))
