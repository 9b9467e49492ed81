"""Command-line flags as Go's flag package (so runc) reads them: -f and --flag alike, `--flag v` and `--flag=v`.

A parser of our own since argparse costs 6 ms of import, and since callers rely on Go's rules: options end at the first
argument for commands that run another command line, `--` ends them anywhere.
"""

from __future__ import annotations

from runtime.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Flag:
    """One flag: its names, and what it takes (no metavar: it is a switch)."""

    __slots__ = ("default", "help", "hidden", "metavar", "names", "repeat")

    def __init__(
        self,
        names: str,
        metavar: str = "",
        help: str = "",
        *,
        default: str = "",
        repeat: bool = False,
        hidden: bool = False,
    ) -> None:
        #: Long name first; the first is the key in `Parsed`.
        self.names = names.split()
        self.metavar = metavar
        self.help = help
        self.default = default
        self.repeat = repeat
        #: Accepted for runc's sake, without effect.
        self.hidden = hidden


class Parsed:
    """Flags by long name, and the arguments."""

    __slots__ = ("args", "lists", "switches", "texts")

    def __init__(self) -> None:
        self.switches: dict[str, bool] = {}
        self.texts: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.args: list[str] = []

    def on(self, name: str) -> bool:
        """A switch."""
        return self.switches.get(name, False)

    def text(self, name: str) -> str:
        """A value, the flag's default when not given."""
        return self.texts.get(name, "")

    def list(self, name: str) -> list[str]:
        """The values of a repeatable flag."""
        return self.lists.get(name, [])

    def integer(self, name: str, default: int = 0) -> int:
        """A value that must be a number."""
        text = self.texts.get(name, "")
        if not text:
            return default
        try:
            return int(text, 0)
        except ValueError:
            raise InvalidArgument(f"--{name}: found {text!r}; allowed: a number") from None


_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


def parse(argv: Sequence[str], flags: Sequence[Flag], *, interspersed: bool) -> Parsed:
    """Read flags and arguments. `interspersed`: flags may follow arguments, else the first argument ends them."""
    table = {name: flag for flag in flags for name in flag.names}
    parsed = Parsed()
    for flag in flags:
        if flag.default:
            parsed.texts[flag.names[0]] = flag.default
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            parsed.args += rest
            break
        if len(word) < 2 or word[0] != "-":
            parsed.args.append(word)
            if not interspersed:
                parsed.args += rest
                break
            continue
        name, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        found = table.get(name)
        if found is None:
            raise InvalidArgument(f"flag provided but not defined: {word.partition('=')[0]}")
        key = found.names[0]
        if not found.metavar:
            if equals and value not in _TRUE | _FALSE:
                raise InvalidArgument(f"--{key}: found {value!r}; allowed: true or false")
            parsed.switches[key] = value not in _FALSE
            continue
        if not equals:
            if not rest:
                raise InvalidArgument(f"flag needs an argument: {word}")
            value = rest.pop(0)
        if found.repeat:
            parsed.lists.setdefault(key, []).append(value)
        else:
            parsed.texts[key] = value
    return parsed
