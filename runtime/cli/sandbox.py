"""`litebox do`: a command in a sandbox over this machine's files, thrown away at the end."""

from __future__ import annotations

import os
import stat
import sys
import time

from runtime import launcher, sandbox, vmm
from runtime.cli import foreground
from runtime.errors import HostError, InvalidArgument, LiteboxError
from runtime.host import facts, rootless
from runtime.plan.make import make
from runtime.store import default_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

    from runtime.cli.flags import Parsed
    from runtime.cli.main import Context

    Json = dict[str, Any]


def do_command(context: Context, parsed: Parsed) -> int:
    """The command's exit code."""
    return run(context, _request(parsed), verbose=parsed.on("verbose"))


def _request(parsed: Parsed) -> sandbox.Request:
    try:
        cwd = os.getcwd()
    except OSError as error:
        raise HostError(f"the working directory is gone: {error.strerror}", error.errno or 0) from error
    request = sandbox.Request(parsed.args, cwd, os.environ)
    request.root = os.path.abspath(parsed.text("root") or "/")
    _check_there("--root", request.root, folder=True)
    request.volumes = parsed.list("volume")
    for source in filter(None, (text.partition(":")[0] for text in request.volumes)):
        _check_there("--volume", source, folder=False)
    request.network = parsed.text("net") or "none"
    request.memory = parsed.text("memory")
    request.cpus = parsed.text("cpus")
    request.variables = parsed.list("env")
    request.workdir = parsed.text("workdir")
    request.hostname = parsed.text("hostname") or "litebox"
    request.terminal = parsed.on("tty")
    if request.workdir and not request.workdir.startswith("/"):
        raise InvalidArgument(f"--workdir: found {request.workdir!r}; allowed: an absolute path")
    if parsed.text("user"):
        etc = os.path.join(request.root, "etc")
        request.uid, request.gid = sandbox.find_user(parsed.text("user"), _read(f"{etc}/passwd"), _read(f"{etc}/group"))
    elif os.geteuid() == 0:
        request.uid, request.gid = 0, os.getegid()
    if request.root == "/":
        request.resolv_conf = os.path.realpath("/etc/resolv.conf")
        if not os.path.isfile(request.resolv_conf):
            request.resolv_conf = ""
    return request


def _check_there(flag: str, path: str, *, folder: bool) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InvalidArgument(f"{flag}: found {path!r}: {error.strerror}") from error
    if folder and not stat.S_ISDIR(mode):
        raise InvalidArgument(f"{flag}: found {path!r}, which is not a folder")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def run(context: Context, request: sandbox.Request, *, verbose: bool = False, trace: bool = False) -> int:
    """Boot, start, wait. What the sandbox needs is thrown away with this process."""
    began = time.monotonic()
    terminal = None
    if request.terminal:
        terminal = foreground.terminal_fd()
        if terminal is None:
            raise InvalidArgument("--tty: none of standard input, output and error is a terminal")
    folder = default_root()
    if rootless.needed(context.rootless):
        rootless.enter()
    made = make(sandbox.config(request), f"do-{os.getpid()}", "/", facts.gather())
    made.trees[0].hidden = sandbox.HIDDEN
    made.debug = context.options.on("debug")
    made.container["trace"] = trace
    if terminal is not None:
        rows, columns = foreground.window_size(terminal)
        made.container["process"]["rows"], made.container["process"]["columns"] = rows, columns
    control, connections = _control(folder, 3 if trace or verbose else 2)
    stdio = (terminal, terminal, terminal) if terminal is not None else (0, 1, 2)
    follower = None
    with foreground.RawTerminal(terminal):
        boot = launcher.boot(
            made, stdio, control=control, log=context.log.debug, log_fd=context.log.fd, new_session=False
        )
        control.close()
        ended = False
        try:
            boot.wait_ready()
            if trace or verbose:
                from runtime.follow import Follower

                follower = Follower(connections[2], trace_to=2 if trace else None)
                follower.start()
            _forward(connections[1], terminal)
            connections[0].request("start")
            started = time.monotonic()
            _, status = os.waitpid(boot.pid, 0)
            ended = True
        finally:
            boot.close()
            if not ended:
                os.kill(boot.pid, 9)
                os.waitpid(boot.pid, 0)
    if follower:
        from runtime.follow import summary

        follower.join(timeout=2)
        if verbose:
            spent = (started - began) * 1000
            print("\n".join(summary(follower.final_stats, made.vcpus, made.memory, spent)), file=sys.stderr)
    return vmm.exit_code(status)


def _control(folder: str, count: int) -> tuple[_socket.socket, list[vmm.Control]]:
    """A listening socket with `count` connections to it, already made; it has no name any more."""
    directory = os.path.join(folder, f".do-{os.getpid()}-{time.monotonic_ns()}")
    try:
        os.makedirs(directory, 0o700)
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{directory}: {error.strerror}", error.errno or 0) from error
    try:
        control = vmm.listen(fd, "control.sock")
        connections = [vmm.Control(fd, "control.sock") for _ in range(count)]
        os.unlink("control.sock", dir_fd=fd)
        os.rmdir(directory)
    finally:
        os.close(fd)
    return control, connections


def _forward(connection: vmm.Control, terminal: int | None) -> None:
    def kill(number: int) -> None:
        try:
            connection.request("kill", signal=number, pid=0, all=False)
        except LiteboxError:
            return

    def resize(rows: int, columns: int) -> None:
        try:
            connection.request("resize", rows=rows, columns=columns)
        except LiteboxError:
            return

    foreground.forward_signals(kill, resize, terminal)
