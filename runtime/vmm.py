"""The two ends of docs/control-protocol.md that the runtime holds: launching litebox-vmm, and talking to it.

Ownership: `launch` gives the child every descriptor the plan names and keeps none; the caller closes its own. The child
is the caller's to reap. `_socket` instead of `socket` saves 6 ms of imports (enum, selectors).
"""

from __future__ import annotations

import _socket
import errno as errno_module
import os
import sys

from runtime import fastjson
from runtime.errors import ExecFailed, HostError, NotFound, VmmError, WrongState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Json = dict[str, Any]

MAX_MESSAGE = 128 << 10
MAX_PLAN = 4 << 20
#: What the VMM is given of our environment: nothing of it is the container's.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
#: ENOENT, EACCES, ENOEXEC, ENOTDIR, ELOOP, EISDIR, ENAMETOOLONG, ETXTBSY, EPERM, E2BIG, ELIBBAD, EINVAL
_EXEC_ERRNOS = (2, 13, 8, 20, 40, 21, 36, 26, 1, 7, 80, 22)


def library_directory() -> str:
    """Where litebox-vmm and litebox-kernel are: LITEBOX_LIBDIR, with litebox.pyc, ../lib/litebox, or in the source."""
    candidates = []
    if "LITEBOX_LIBDIR" in os.environ:
        candidates.append(os.environ["LITEBOX_LIBDIR"])
    else:
        program = os.path.dirname(os.path.realpath(sys.argv[0]))
        source = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        candidates += [program, os.path.join(os.path.dirname(program), "lib", "litebox")]
        candidates.append(os.path.join(source, "build", "lib", "litebox"))
        candidates.append(os.path.dirname(source))  # installed: lib/litebox/packages/runtime
    for candidate in candidates:
        if os.access(os.path.join(candidate, "litebox-vmm"), os.X_OK):
            return candidate
    raise HostError(
        f"litebox-vmm was not found in {' or '.join(candidates)}: run `make build`, or set LITEBOX_LIBDIR to its folder"
    )


def open_kvm() -> int:
    """A descriptor of /dev/kvm, or an error that says what to do."""
    try:
        return os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        advice = {
            errno_module.ENOENT: "load kvm-intel or kvm-amd (modprobe), and enable virtualization in the firmware",
            errno_module.EACCES: "add yourself to the group kvm, or run as root",
            errno_module.EPERM: "the device cgroup forbids it: allow c 10:232 rw",
        }.get(error.errno or 0, "is KVM available here?")
        raise HostError(f"/dev/kvm: {error.strerror}; {advice}", error.errno or 0) from error


def listen(directory_fd: int, name: str) -> _socket.socket:
    """A listening control socket at `name` in a directory (whose path may be longer than a socket address can be)."""
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        control.bind(f"/proc/self/fd/{directory_fd}/{name}")
        control.listen(128)
    except OSError:
        control.close()
        raise
    return control


def launch(
    plan: Json,
    *,
    inherited: Sequence[int],
    before_exec: Callable[[], None] | None = None,
    new_session: bool = True,
    controlling_terminal: int | None = None,
) -> int:
    """Start litebox-vmm on a launch plan; returns its process id.

    `before_exec` runs in the child: what it raises ends the child, with the reason on the plan's `ready` pipe.
    """
    text = _plan_text(plan)
    vmm = os.path.join(os.path.dirname(plan["kernel"]), "litebox-vmm")
    plan_fd = _memfd("litebox-plan", text)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                if new_session:
                    os.setsid()
                if controlling_terminal is not None:
                    _take_terminal(controlling_terminal)
                _reset_signals(keyboard_ignored=not new_session)
                if before_exec:
                    before_exec()
                if "log" in plan and 2 not in inherited:
                    # Whoever reads our caller's stderr to its end shall not have to wait for the container's.
                    os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
                for fd in (plan_fd, *inherited):
                    os.set_inheritable(fd, True)
                os.execve(vmm, ["litebox-vmm", "run", "--plan", str(plan_fd)], _ENVIRONMENT)
            except BaseException as error:  # noqa: BLE001 - nothing may return into the caller's stack
                _report(plan.get("ready"), f"starting {vmm}: {error}")
            finally:
                os._exit(125)
        return pid
    finally:
        os.close(plan_fd)


#: The launcher's variable: process id and descriptor.
AHEAD = "LITEBOX_AHEAD"


class Ahead:
    """A VMM that was started before its plan was known (kernel_lib/launcher), so that both get ready side by side."""

    #: Descriptors of one message: SCM_MAX_FD of Linux.
    _MOST = 253

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self._has_plan = False
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        os.set_inheritable(fd, False)

    def launch(
        self, plan: Json, inherited: Sequence[int], cgroups: list[int], *, new_session: bool, terminal: int | None
    ) -> bool:
        """Hand it the plan and copies of what it names. False: it could not get ready."""
        plan = {**plan, "session": {"new": new_session, "terminal": terminal, "cgroups": cgroups}}
        numbers = list(dict.fromkeys([*inherited, *cgroups, *([] if terminal is None else [terminal])]))
        plan_fd = _memfd("litebox-plan", _plan_text(plan))
        numbers.append(plan_fd)
        try:
            while numbers:
                part, numbers = numbers[: self._MOST], numbers[self._MOST :]
                message: Json = {"descriptors": part}
                if not numbers:
                    message["plan"] = plan_fd
                self._socket.sendmsg([fastjson.dumps(message).encode()], [_rights(part)])
        except (BrokenPipeError, ConnectionResetError):
            return False
        finally:
            os.close(plan_fd)
        self._has_plan = True
        return True

    def close(self) -> None:
        """Let go of it; without a plan it ends."""
        self._socket.close()
        if not self._has_plan:
            os.waitpid(self.pid, 0)


def guard_ahead() -> None:
    """Keep its socket from the processes that are started before it is taken."""
    if value := os.environ.get(AHEAD):
        os.set_inheritable(int(value.partition(" ")[2]), False)


def take_ahead() -> Ahead | None:
    """The VMM that waits for a plan, if there is one; the caller closes it."""
    pid, _, fd = os.environ.pop(AHEAD, "").partition(" ")
    return Ahead(int(pid), int(fd)) if pid else None


def _plan_text(plan: Json) -> bytes:
    text = fastjson.dumps(plan).encode()
    if len(text) > MAX_PLAN:
        raise VmmError(f"the launch plan is {len(text)} bytes; litebox-vmm takes at most {MAX_PLAN}")
    return text


def _memfd(name: str, text: bytes) -> int:
    """A file in memory, to be read from its beginning."""
    fd = os.memfd_create(name)
    os.write(fd, text)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _rights(fds: Sequence[int]) -> tuple[int, int, bytes]:
    return _socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)


def spawn_proxy(arguments: Sequence[str], connection: int, terminal: int | None) -> int:
    """Start the proxy of an exec'd process, with the connection and nothing else of ours; returns its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if terminal is not None:
                _take_terminal(terminal)
                os.set_inheritable(terminal, True)
            _reset_signals(keyboard_ignored=False)
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.set_inheritable(connection, True)
            os.execve(arguments[0], list(arguments), _ENVIRONMENT)
        finally:
            os._exit(255)
    return pid


def _take_terminal(slave: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def _reset_signals(*, keyboard_ignored: bool) -> None:
    """Python ignores SIGPIPE and SIGXFSZ, and exec keeps that. The keyboard's signals are forwarded by our parent."""
    import _signal as signal  # type: ignore[import-not-found]  # signal itself builds enums for 4 ms

    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if keyboard_ignored else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _report(fd: int | None, message: str) -> None:
    if fd is not None:
        os.write(fd, fastjson.dumps({"error": message, "kind": "launch"}).encode() + b"\n")


def wait_ready(fd: int) -> None:
    """Until the guest is ready to be started. VmmError with its reason when it is not going to be."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(fd, 65536)
        if not piece:
            break
        line += piece
    if not line:
        raise VmmError("litebox-vmm ended before the guest was ready; its log may say why")
    answer = fastjson.loads(line)
    if not answer.get("ok"):
        raise VmmError(str(answer.get("error") or "litebox-vmm could not start the guest"))


class Control:
    """One connection to a VMM. Not for use by several threads at once."""

    def __init__(self, directory_fd: int, name: str, timeout: float | None = 30.0) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        self._next_id = 1
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(f"/proc/self/fd/{directory_fd}/{name}")
        except OSError as error:
            self._socket.close()
            if error.errno in (errno_module.ENOENT, errno_module.ECONNREFUSED, errno_module.EPIPE):
                raise WrongState("the container is not running") from error
            raise HostError(f"control socket: {error.strerror or error}", error.errno or 0) from error

    def __enter__(self) -> Control:  # noqa: PYI034 - Self lives in typing, whose import costs 7 ms
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def set_timeout(self, timeout: float | None) -> None:
        """For each later send and receive; None: wait for ever."""
        self._socket.settimeout(timeout)

    def close(self) -> None:
        self._socket.close()

    def detach(self) -> int:
        """Give the descriptor away."""
        return self._socket.detach()

    def send(self, op: str, fds: Sequence[int] = (), **fields: Any) -> int:
        """Send a request; returns its id."""
        number = self._next_id
        self._next_id += 1
        message = fastjson.dumps({"v": 1, "id": number, "op": op, **fields}).encode()
        attached = list(fds)
        memfd = -1
        if len(message) > MAX_MESSAGE:
            memfd = _memfd("litebox-message", message)
            attached.insert(0, memfd)
            message = b'{"v":1,"memfd":true}'
        ancillary = []
        if attached:
            ancillary.append(_rights(attached))
        try:
            self._socket.sendmsg([message], ancillary)
        except OSError as error:
            raise self._gone(error) from error
        finally:
            if memfd >= 0:
                os.close(memfd)
        return number

    def receive(self) -> Json:
        """The next message, answer or event. VmmError when the VMM has gone."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(MAX_MESSAGE, 64)
        except OSError as error:
            raise self._gone(error) from error
        if not data:
            raise VmmError("the VMM closed the connection", errno_module.ECONNRESET)
        fds = [
            int.from_bytes(packed[at : at + 4], sys.byteorder)
            for level, kind, packed in ancillary
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS
            for at in range(0, len(packed) - 3, 4)
        ]
        message: Json = fastjson.loads(data)
        if message.get("memfd") and fds:
            with open(fds.pop(0), "rb") as file:
                message = fastjson.loads(file.read())
        for fd in fds:
            os.close(fd)
        return message

    def request(self, op: str, fds: Sequence[int] = (), **fields: Any) -> Json:
        """Send and wait for the answer."""
        return self.answer_to(self.send(op, fds, **fields), op)

    def answer_to(self, number: int, op: str) -> Json:
        """Of one request; events that arrive before it are dropped."""
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                break
        if answer.get("ok"):
            return answer
        code = int(answer.get("errno") or 0)
        text = str(answer.get("error") or os.strerror(code))
        if op in ("start", "exec") and code in _EXEC_ERRNOS:
            raise ExecFailed(text, code)
        if op == "kill" and code == errno_module.ESRCH:
            raise NotFound(text)
        raise VmmError(f"{op}: {text}", code)

    @staticmethod
    def _gone(error: OSError) -> VmmError:
        if isinstance(error, TimeoutError) or error.errno in (errno_module.EAGAIN, errno_module.ETIMEDOUT):
            return VmmError("the VMM did not answer in time", errno_module.ETIMEDOUT)
        return VmmError(f"the VMM went away: {error.strerror or error}", error.errno or 0)


class Asked:
    """A request on a connection of its own, whose answer is heard later."""

    def __init__(self, control: Control, op: str) -> None:
        self._control = control
        self._op = op
        self._number = control.send(op)

    def answer(self) -> Json:
        """As `Control.request` returns or raises it."""
        with self._control:
            return self._control.answer_to(self._number, self._op)

    def close(self) -> None:
        self._control.close()


def exit_code(wait_status: int) -> int:
    """A wait(2) status as a shell has it: 128+n for a signal."""
    signal = wait_status & 0x7F
    return 128 + signal if signal else (wait_status >> 8) & 0xFF
