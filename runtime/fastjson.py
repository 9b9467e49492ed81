"""JSON without the import cost.

The standard library's json imports `re` for its whitespace pattern: 6 ms that every command would pay. The C scanner
and encoder underneath need none of it. Errors are re-raised through the real module, for its message and position.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Objects nested deeper than this are refused before the recursion limit is (a hostile config.json).
MAX_DEPTH = 200

_accelerator: Any
try:
    import _json as _accelerator
except ImportError:  # another Python than CPython
    _accelerator = None


class _Context:
    """What `_json.make_scanner` and its Python twin read their settings from."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int

    def __init__(self) -> None:
        self.memo: dict[str, str] = {}

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")


def loads(text: str | bytes) -> Any:
    """Parse one JSON document. ValueError with line and column when it is not one."""
    if isinstance(text, bytes):
        # Not "utf-8-sig": that codec is a module of its own, for three bytes that few files begin with.
        text = text.removeprefix(b"\xef\xbb\xbf").decode()
    if _accelerator is None:
        return _slow_loads(text)
    stripped = text.lstrip(" \t\n\r")
    try:
        value, end = _accelerator.make_scanner(_Context())(stripped, 0)
    except StopIteration:
        return _slow_loads(text)
    except RecursionError:
        raise ValueError(f"JSON is nested more than {MAX_DEPTH} levels deep") from None
    except (ValueError, SystemError):  # SystemError: it found no json.decoder.JSONDecodeError to raise
        return _slow_loads(text)
    if stripped[end:].strip(" \t\n\r"):
        return _slow_loads(text)
    return value


def _slow_loads(text: str) -> Any:
    import json

    try:
        return json.loads(text, parse_constant=_Context.parse_constant)
    except RecursionError:
        raise ValueError(f"JSON is nested more than {MAX_DEPTH} levels deep") from None


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not JSON")


def dumps(value: Any) -> str:
    """One line of JSON, ASCII only, no spaces."""
    if _accelerator is None:
        import json

        return json.dumps(value, separators=(",", ":"))
    encoder = _accelerator.make_encoder(
        {}, _refuse, _accelerator.encode_basestring_ascii, None, ":", ",", False, False, False
    )
    return "".join(encoder(value, 0))
