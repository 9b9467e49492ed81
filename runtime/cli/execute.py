"""exec: another process in a running container."""

from __future__ import annotations

import os
import sys

from runtime import fastjson, vmm
from runtime.cli import foreground, terminals
from runtime.cli.lifecycle import runtime_of
from runtime.descriptors import check_files, write_pid_file
from runtime.errors import ExecFailed, InvalidArgument, InvalidSpec, LiteboxError, Unsupported, WrongState
from runtime.processes import Exec, Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.cli.flags import Parsed
    from runtime.cli.main import Context
    from runtime.container import Container

    Json = dict[str, Any]


#: As runc exits when the process was never started; not 126 or 127, which speak of its program.
_NOT_STARTED = 255


def exec_command(context: Context, parsed: Parsed) -> int:
    """Its exit code; 0 at once with --detach."""
    try:
        return _exec(context, parsed)
    except LiteboxError as error:
        if not isinstance(error, ExecFailed):
            error.exit_code = _NOT_STARTED
        raise


def _exec(context: Context, parsed: Parsed) -> int:
    for path in parsed.list("cgroup"):
        if path.rpartition(":")[2].strip("/") not in ("", "."):
            raise Unsupported(f"--cgroup {path}: processes of a guest are in the container's own cgroup, and no other")
    container = runtime_of(context).load(parsed.args[0])
    status = container.status()
    if status == "paused" and not parsed.on("ignore-paused"):
        raise WrongState(f"container {container.id!r} is paused: resume it first, or use --ignore-paused")
    process = _process(container, parsed)
    files = tuple(range(3, 3 + parsed.integer("preserve-fds")))
    check_files(files)
    detached = parsed.on("detach")
    socket = parsed.text("console-socket")
    if process.get("terminal") and socket:
        return _with_console(container, process, files, socket, parsed)
    if process.get("terminal") and detached:
        raise InvalidArgument("--tty with --detach needs --console-socket, to say who gets the terminal")
    if socket:
        raise InvalidArgument("--console-socket: the process has no terminal; add --tty")
    if detached:
        started = container.exec(process, Stdio(0, 1, 2), preserve_fds=files)
        _leave_proxy(started, parsed.text("pid-file"), None)
        return 0
    return _in_foreground(container, process, files, parsed.text("pid-file"))


def _in_foreground(container: Container, process: Json, files: tuple[int, ...], pid_file: str) -> int:
    terminal = None
    if process.get("terminal"):
        terminal = foreground.terminal_fd()
        if terminal is None:
            raise InvalidArgument("--tty: none of standard input, output and error is a terminal")
        rows, columns = foreground.window_size(terminal)
        process["consoleSize"] = {"height": rows, "width": columns}
    stdio = Stdio(0, 1, 2) if terminal is None else Stdio(terminal, terminal, terminal)
    with foreground.RawTerminal(terminal):
        started = container.exec(process, stdio, preserve_fds=files)

        def kill(number: int) -> None:
            try:
                started.kill(number)
            except LiteboxError:
                return

        foreground.forward_signals(kill, started.resize, terminal)
        if pid_file:
            write_pid_file(pid_file, os.getpid())
        code = started.wait()
    return 255 if code is None else code


def _with_console(container: Container, process: Json, files: tuple[int, ...], socket: str, parsed: Parsed) -> int:
    pty = terminals.Pty(process.get("consoleSize"))
    try:
        pty.send_master(socket)
        stdio = Stdio(pty.slave, pty.slave, pty.slave)
        started = container.exec(process, stdio, preserve_fds=files)
        child = _leave_proxy(started, parsed.text("pid-file"), pty.slave)
    finally:
        pty.close()
    if parsed.on("detach"):
        return 0
    _, status = os.waitpid(child, 0)
    return vmm.exit_code(status)


def _leave_proxy(started: Exec, pid_file: str, terminal: int | None) -> int:
    """A process that ends as the guest's process ends, for callers who wait for a process id. It is 1 MiB small."""
    proxy = os.path.join(vmm.library_directory(), "litebox-vmm")
    number, pid = started.number, started.pid
    connection = started.detach()
    arguments = [proxy, "proxy", "--socket", str(connection), "--exec", str(number), "--pid", str(pid)]
    if terminal is not None:
        arguments += ["--terminal", str(terminal)]
    child = vmm.spawn_proxy(arguments, connection, terminal)
    os.close(connection)
    if pid_file:
        write_pid_file(pid_file, child)
    return child


def _process(container: Container, parsed: Parsed) -> Json:
    """The OCI process: from --process, or PID 1's with what the flags change."""
    if parsed.text("process"):
        process = _read_process(parsed.text("process"))
    else:
        if len(parsed.args) < 2:
            raise InvalidArgument("usage: litebox exec ID COMMAND [ARG...]; or --process FILE")
        process = dict(container.process)
        process["args"] = parsed.args[1:]
        process["terminal"] = False
        process.pop("consoleSize", None)
    if parsed.on("tty"):
        process["terminal"] = True
    if parsed.text("cwd"):
        process["cwd"] = parsed.text("cwd")
    if parsed.list("env"):
        process["env"] = [*(process.get("env") or []), *parsed.list("env")]
    user = dict(process.get("user") or {})
    if parsed.text("user"):
        user_text, colon, group_text = parsed.text("user").partition(":")
        if not user_text.isdigit() or (colon and not group_text.isdigit()):
            raise InvalidArgument(f"--user: found {parsed.text('user')!r}; allowed: UID or UID:GID, as numbers")
        user["uid"] = int(user_text)
        if colon:
            user["gid"] = int(group_text)
    groups = parsed.list("additional-gids")
    if groups:
        if not all(text.isdigit() for text in groups):
            raise InvalidArgument(f"--additional-gids: found {' '.join(groups)!r}; allowed: numbers")
        user["additionalGids"] = [*(user.get("additionalGids") or []), *(int(text) for text in groups)]
    process["user"] = user
    if parsed.on("no-new-privs"):
        process["noNewPrivileges"] = True
    if parsed.list("cap"):
        capabilities = {kind: list(names or []) for kind, names in (process.get("capabilities") or {}).items()}
        for kind in ("bounding", "effective", "permitted"):
            capabilities[kind] = [*capabilities.get(kind, []), *parsed.list("cap")]
        process["capabilities"] = capabilities
    return process


def _read_process(path: str) -> Json:
    from oci_spec.validate import check_process

    try:
        if path == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                data = file.read()
        process = fastjson.loads(data)
    except OSError as error:
        raise InvalidArgument(f"--process {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidSpec(f"--process {path} is not JSON: {error}") from error
    problems = check_process(process)
    if problems:
        raise InvalidSpec(f"--process {path}: {problems[0]}")
    return dict(process)
