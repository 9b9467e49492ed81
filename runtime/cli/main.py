"""`litebox`: reads the global flags, calls a command, turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys

from runtime.cli.commands import COMMANDS, GLOBAL_FLAGS, REFUSED
from runtime.cli.flags import parse
from runtime.errors import InvalidArgument, LiteboxError
from runtime.log import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.cli.flags import Parsed


class Context:
    """What the global flags say."""

    __slots__ = ("log", "options")

    def __init__(self, options: Parsed, log: Log) -> None:
        self.options = options
        self.log = log

    @property
    def root(self) -> str:
        """The state directory."""
        from runtime.store import default_root

        return self.options.text("root") or default_root()

    @property
    def rootless(self) -> bool | None:
        """True, False, or None: to be found out."""
        text = self.options.text("rootless")
        if text not in ("auto", "true", "false", ""):
            raise InvalidArgument(f"--rootless: found {text!r}; allowed: true, false, auto")
        return None if text in ("auto", "") else text == "true"


def main(argv: Sequence[str] | None = None) -> int:
    """The program. Ends the process itself: tearing the interpreter down costs 2 ms and frees nothing of note."""
    code = _run(sys.argv[1:] if argv is None else argv)
    if "LITEBOX_AHEAD" in os.environ:  # what was asked for came to nothing
        from runtime.vmm import take_ahead

        if ahead := take_ahead():
            ahead.close()
    if argv is not None:
        return code
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 1
    sys.stderr.flush()
    os._exit(code)


def _run(argv: Sequence[str]) -> int:
    log = Log()
    try:
        options = parse(argv, GLOBAL_FLAGS, interspersed=False)
        log.open(options.text("log"), options.text("log-format"), debug=options.on("debug"))
        return _dispatch(options, log)
    except LiteboxError as error:
        log.failure(str(error))
        return error.exit_code
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        log.failure(str(error))
        return 1
    except Exception as error:  # our own bug: say so with where it was, in one line
        if options_debug(argv):
            raise
        log.failure("internal error: " + type(error).__name__ + f": {error}{_place(error)}")
        return 1


def options_debug(argv: Sequence[str]) -> bool:
    """Whether --debug was given, for when reading the flags is what failed."""
    return "--debug" in argv


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})" if trace else ""


def _dispatch(options: Parsed, log: Log) -> int:
    if options.on("version"):
        from runtime.cli import texts

        print(texts.version())
        return 0
    if options.on("help") or not options.args:
        from runtime.cli import texts

        print(texts.overview())
        return 0
    name, *rest = options.args
    command = COMMANDS.get(name)
    if command is None:
        raise InvalidArgument(REFUSED.get(name) or f"{name!r} is no command; `litebox --help` lists them")
    flags = (*command.flags, *(flag for flag in GLOBAL_FLAGS if "help" in flag.names))
    parsed = parse(rest, flags, interspersed=command.interspersed)
    if parsed.on("help"):
        from runtime.cli import texts

        print(texts.of_command(name))
        return 0
    count = len(parsed.args)
    if count < command.minimum or (command.maximum is not None and count > command.maximum):
        raise InvalidArgument(f"usage: litebox {name} {command.arguments}; `litebox {name} --help` says more")
    module = __import__(f"runtime.cli.{command.module}", fromlist=[name])
    code: int = getattr(module, f"{name}_command")(Context(options, log), parsed)
    return code
