"""The command line containerd calls a shim with, in the way Go's `flag` package reads one.

`SHIM [flags] start|delete`: flags come first, with one dash or two, values behind `=` or as the next word, booleans
alone. Source: containerd pkg/shim/shim.go, `parseFlags`; https://pkg.go.dev/flag#hdr-Command_line_flag_syntax.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEXT = ("namespace", "id", "address", "publish-binary", "bundle", "socket", "debug-socket")
SWITCHES = ("debug", "v", "version", "info")


class UsageError(Exception):
    """The command line cannot be understood."""


class Invocation:
    """What this call of the shim is about."""

    __slots__ = (
        "action",
        "address",
        "bundle",
        "debug",
        "id",
        "info",
        "namespace",
        "publish_binary",
        "ttrpc_address",
        "version",
    )

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        text, switches, rest = parse_flags(arguments)
        self.action = rest[0] if rest else ""
        self.id = text.get("id", "")
        self.namespace = text.get("namespace", "") or environment.get("NAMESPACE", "")
        self.address = text.get("address", "") or environment.get("GRPC_ADDRESS", "")
        self.publish_binary = text.get("publish-binary", "")
        self.bundle = text.get("bundle", "")
        self.ttrpc_address = environment.get("TTRPC_ADDRESS", "")
        self.debug = "debug" in switches
        self.version = bool({"v", "version"} & switches)
        self.info = "info" in switches


def parse_flags(arguments: Sequence[str]) -> tuple[dict[str, str], set[str], list[str]]:
    """Split a command line into values, switches and what follows the flags."""
    text: dict[str, str] = {}
    switches: set[str] = set()
    words = list(arguments)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        if name in SWITCHES:
            if value not in ("", "true", "false", "1", "0"):
                raise UsageError(f"invalid boolean value {value!r} for -{name}")
            if value not in ("false", "0"):
                switches.add(name)
        elif name in TEXT:
            if not equals:
                if not words:
                    raise UsageError(f"flag needs an argument: -{name}")
                value = words.pop(0)
            text[name] = value
        else:
            raise UsageError(f"flag provided but not defined: -{name}")
    return text, switches, words
