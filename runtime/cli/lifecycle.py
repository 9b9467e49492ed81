"""create, run, start, kill, delete, pause, resume."""

from __future__ import annotations

import os

from runtime.cli import foreground, terminals
from runtime.errors import InvalidArgument, LiteboxError, NotFound
from runtime.lifecycle import Runtime
from runtime.linux_tables import signal_number
from runtime.processes import Stdio
from runtime.settings import load, path_in_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.cli.flags import Parsed
    from runtime.cli.main import Context
    from runtime.container import Container

    Json = dict[str, Any]


def runtime_of(context: Context) -> Runtime:
    """As the global flags say."""
    options = context.options
    return Runtime(
        context.root,
        systemd_cgroup=options.on("systemd-cgroup"),
        rootless=context.rootless,
        debug=options.on("debug"),
        log=context.log.warning,
    )


def _bundle(parsed: Parsed) -> str:
    return parsed.text("bundle") or "."


def _create(context: Context, parsed: Parsed, *, detached: bool, start: bool) -> tuple[Container, int | None]:
    """The container, and the user's terminal when the container has it in the foreground."""
    from runtime.create import read_config

    config = read_config(os.path.abspath(_bundle(parsed)))
    if file := path_in_use():
        load(file).apply(config)
    process: Json = config["process"] if isinstance(config.get("process"), dict) else {}
    wants_terminal = process.get("terminal") is True
    socket = parsed.text("console-socket")
    runtime = runtime_of(context)
    common: Json = {
        "config": config,
        "pid_file": parsed.text("pid-file") or None,
        "preserve_fds": parsed.integer("preserve-fds"),
        "log_fd": context.log.fd,
    }
    name, bundle = parsed.args[0], _bundle(parsed)
    if not wants_terminal:
        if socket:
            raise InvalidArgument("--console-socket: process.terminal in config.json is not true")
        return runtime.create(name, bundle, Stdio(0, 1, 2), new_session=detached, start=start, **common), None
    if socket:
        pty = terminals.Pty(process.get("consoleSize"))
        if context.log.fd is None:
            common["log_fd"] = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        try:
            container = runtime.create(
                name, bundle, Stdio(pty.slave, pty.slave, pty.slave), controlling_terminal=pty.slave, **common
            )
            try:
                pty.send_master(socket)
            except BaseException:
                container.delete(force=True)
                raise
            return container, None
        finally:
            pty.close()
    if detached:
        raise InvalidArgument(
            "process.terminal is true and nobody waits: --console-socket must say who gets the terminal"
        )
    terminal = foreground.terminal_fd()
    if terminal is None:
        raise InvalidArgument("process.terminal is true, but none of standard input, output and error is a terminal")
    window = foreground.window_size(terminal)
    made = runtime.create(name, bundle, Stdio(terminal, terminal, terminal), new_session=False, window=window, **common)
    return made, terminal


def create_command(context: Context, parsed: Parsed) -> int:
    """Everything but the program."""
    _create(context, parsed, detached=True, start=False)
    return 0


def run_command(context: Context, parsed: Parsed) -> int:
    """create, start, wait, delete."""
    detached = parsed.on("detach")
    container, terminal = _create(context, parsed, detached=detached, start=True)
    try:
        with foreground.RawTerminal(terminal):
            if not detached:
                _forward(container, terminal)
            container.start()
            if detached:
                return 0
            code = container.wait()
    except BaseException:
        _discard(container)
        raise
    if not parsed.on("keep"):
        _discard(container)
    return 255 if code is None else code


def _discard(container: Container) -> None:
    try:
        container.delete(force=True)
    except NotFound:
        pass  # Somebody else has deleted it meanwhile.


def _forward(container: Container, terminal: int | None) -> None:
    def kill(number: int) -> None:
        try:
            container.kill(number)
        except LiteboxError:
            return

    def resize(rows: int, columns: int) -> None:
        try:
            container.resize(rows, columns)
        except LiteboxError:
            return

    foreground.forward_signals(kill, resize, terminal)


def start_command(context: Context, parsed: Parsed) -> int:
    """Run the program."""
    runtime_of(context).load(parsed.args[0]).start()
    return 0


def kill_command(context: Context, parsed: Parsed) -> int:
    """Send a signal."""
    text = parsed.args[1] if len(parsed.args) > 1 else "SIGTERM"
    number = signal_number(text)
    if number is None:
        raise InvalidArgument(f"unknown signal {text!r}; allowed: names like TERM or SIGTERM, and numbers to 64")
    container = runtime_of(context).load(parsed.args[0])
    everything = parsed.on("all")
    if everything and container.status() == "stopped":
        return 0
    container.kill(number, all=everything)
    return 0


def delete_command(context: Context, parsed: Parsed) -> int:
    """Free it."""
    runtime = runtime_of(context)
    forced = parsed.on("force")
    try:
        runtime.load(parsed.args[0]).delete(force=forced)
    except NotFound:
        if not runtime.clean(parsed.args[0]) and not forced:
            raise
    return 0


def pause_command(context: Context, parsed: Parsed) -> int:
    """Stop its CPUs."""
    runtime_of(context).load(parsed.args[0]).pause()
    return 0


def resume_command(context: Context, parsed: Parsed) -> int:
    """Let it run again."""
    runtime_of(context).load(parsed.args[0]).resume()
    return 0
