"""What this call of the shim is about, as the launcher passes it on (kernel_lib/launcher/src/shim/flags.rs)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Invocation:
    """The command line and environment of the shim."""

    __slots__ = ("action", "address", "bundle", "debug", "id", "namespace", "publish_binary", "rest", "ttrpc_address")

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        flags: dict[str, str] = {}
        rest = iter(words)
        for word in rest:
            if not word.startswith("-"):
                self.action = word
                break
            flags[word] = "" if word == "-debug" else next(rest)
        self.rest = list(rest)
        self.id = flags.get("-id", "")
        self.namespace = flags.get("-namespace", "")
        self.address = flags.get("-address", "")
        self.publish_binary = flags.get("-publish-binary", "")
        self.bundle = flags.get("-bundle", "")
        self.debug = "-debug" in flags
        self.ttrpc_address = environment.get("TTRPC_ADDRESS", "")
