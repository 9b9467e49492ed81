"""`start`: find or make the shim process of a pod and tell containerd its socket.

The process that containerd runs binds the socket, forks, prints the address and ends; the child becomes the shim. So
the socket is listening before containerd reads its address, and the shim is spared an interpreter's start of its own.

Three rules, each of which hangs or breaks containerd when violated:
- containerd reads stdout and stderr of this process together, until both are closed: nothing but the address may be
  written, and the
  child must not keep them. It puts its standard streams on /dev/null first, and then stderr on the bundle's FIFO `log`.
- The address must not exceed 106 bytes (sockaddr_un), so it holds a hash: SOCKET_DIR/<sha256 of
  address/namespace/group>.
- Containers with the same group share a shim: when the socket is already served, its address is the answer.

The answer to a containerd that sends BootstrapParams (2.3 and newer) is JSON that says version 3: it then connects
further containers of a pod without calling `start` for each. Others get the bare address, which all of them take for
"task API v2 over ttrpc": 1.7 refuses version 3, and nothing in its call tells it from 2.0 to 2.2.

gRPC (`dev.litebox.transport`) is for containerd 1.7: 2.0 to 2.4 take every shim that speaks it for gone as soon as they
have dialled (shim.go, `grpcDialContext`: grpc.NewClient begins idle, which it takes for the end of the connection).
Source: containerd core/runtime/v2/{README.md,binary.go,shim.go}, pkg/shim/util_unix.go, cmd/containerd-shim-
runc-v2/manager.

Imports here are paid for by every container and held down by a test: `_socket` instead of `socket` spares 7 ms, a hash
without OpenSSL 3 MiB of memory for as long as the pod lives.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_STREAM, socket

from runtime import fastjson
from shim.wire import LENGTH, DecodeError, records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from shim.invocation import Invocation

GROUP_ANNOTATIONS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
TRANSPORT, TTRPC, GRPC = "dev.litebox.transport", "ttrpc", "grpc"
READY = b"+"
SOCKET_DIR = "/run/containerd/s"
SOCKET_PATH_LIMIT = 106
STDIN_LIMIT = 10 << 20


class StartError(Exception):
    """Told to containerd, which shows it to the user."""


class Params:
    """What containerd says on stdin: `BootstrapParams` from 2.3 on, before that an `Any` of options, or nothing."""

    __slots__ = ("grpc_address", "knows_version_3", "options", "socket_dir", "ttrpc_address")

    def __init__(self) -> None:
        self.knows_version_3 = False
        self.socket_dir = ""
        self.ttrpc_address = ""
        self.grpc_address = ""
        self.options = b""


def parse_stdin(data: bytes, container_id: str, namespace: str) -> Params:
    """Tell the two messages apart: an Any parses as BootstrapParams too, only not as one with our id and namespace."""
    params = Params()
    try:
        fields = [
            (number, value) for number, wire, value in records(data) if wire == LENGTH and isinstance(value, bytes)
        ]
    except DecodeError as error:
        raise StartError(f"stdin is neither BootstrapParams nor options: {error}") from error
    first = dict(reversed(fields))
    if first.get(1) != container_id.encode() or first.get(2) != namespace.encode():
        params.options = data
        return params
    params.knows_version_3 = True
    params.ttrpc_address = first.get(5, b"").decode()
    params.grpc_address = first.get(6, b"").decode()
    params.socket_dir = first.get(9, b"").decode()
    for number, value in fields:
        if number == 8:  # Extension { Any value = 1 }; the first is the runtime's options
            params.options = next(
                (inner for n, wire, inner in records(value) if n == 1 and isinstance(inner, bytes)), b""
            )
            break
    return params


def read_annotations(path: str) -> dict[str, str]:
    """Those of a config.json; a sandbox of containerd's sandbox API comes without one."""
    try:
        with open(path, "rb") as file:
            return fastjson.loads(file.read()).get("annotations") or {}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise StartError(f"{path}: {error}") from error


def group_of(annotations: dict[str, str], container_id: str) -> str:
    """The name of the shim that serves this container: its pod's, or its own."""
    return next((annotations[name] for name in GROUP_ANNOTATIONS if annotations.get(name)), container_id)


def transport_of(annotations: dict[str, str], options: bytes) -> str:
    """What the shim is to be called by: as the container says, else as the configuration file does, else ttrpc."""
    transport = annotations.get(TRANSPORT)
    if transport is None:
        transport = _configured(options) or TTRPC
    if transport not in (TTRPC, GRPC):
        raise StartError(f"annotations[{TRANSPORT!r}]: found {transport!r}; allowed: {TTRPC}, {GRPC}")
    return transport


def _configured(options: bytes) -> str:
    """The file is parsed by the first Create, and only here when it has to be."""
    from runtime.errors import LiteboxError
    from runtime.settings import load_apart, path_in_use

    try:
        path = path_in_use(config_path(options))
    except DecodeError as error:
        raise StartError(f"options: {error}") from error
    try:
        with open(path, "rb") as file:
            if b"transport" not in file.read():
                return ""
    except OSError:  # there is none, or Create will say what is wrong with it
        return ""
    try:
        return load_apart(path).defaults.get("transport") or ""
    except LiteboxError as error:
        raise StartError(str(error)) from error


def config_path(options: bytes) -> str:
    """`config_path` of `runtimeoptions.v1.Options`, if that is what the `Any` in `options` holds."""
    any_of = {number: value for number, _, value in records(options) if isinstance(value, bytes)}
    if any_of.get(1, b"").rpartition(b"/")[2] != b"runtimeoptions.v1.Options":
        return ""
    fields = {number: value for number, _, value in records(any_of.get(2, b"")) if isinstance(value, bytes)}
    return fields.get(2, b"").decode()


def socket_path(directory: str, address: str, namespace: str, group: str) -> str:
    """The path of a shim's socket (pkg/shim/util_unix.go, CreateSocketAddress)."""
    path = f"{directory}/{sha256(f'{address}/{namespace}/{group}'.encode())}"
    if len(path) > SOCKET_PATH_LIMIT:
        raise StartError(f"{path!r}: unix socket path too long (> {SOCKET_PATH_LIMIT})")
    return path


def sha256(data: bytes) -> str:
    try:
        from _sha2 import sha256 as digest  # type: ignore[import-not-found]
    except ImportError:
        try:
            from _sha256 import sha256 as digest  # type: ignore[import-not-found]
        except ImportError:
            from hashlib import sha256 as digest
    return str(digest(data).hexdigest())


def listen(path: str) -> socket | None:
    """Listen on `path`, or None when a shim already does. A socket without a listener is a dead shim's: it is replaced.

    Bound under a passing name and linked into place once it listens, so that a second container of the pod that starts
    at the same time never finds a socket that refuses it.
    """
    directory = os.path.dirname(path)
    passing = f"{directory}/.{os.getpid()}"
    listener = socket(AF_UNIX, SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        try:
            listener.bind(passing)
        except FileNotFoundError:
            os.umask(mask)
            os.makedirs(directory, mode=0o711, exist_ok=True)
            os.umask(0o177)
            listener.bind(passing)
        listener.listen(128)
        for _attempt in range(3):
            try:
                os.link(passing, path)
            except FileExistsError:
                if connects(path):
                    listener.close()
                    return None
                remove(path)
            else:
                return listener
        raise StartError(f"cannot listen on {path}: it is taken again and again")
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(mask)
        remove(passing)


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def connects(path: str) -> bool:
    client = socket(AF_UNIX, SOCK_STREAM)
    client.settimeout(1.0)
    try:
        client.connect(path)
    except BlockingIOError:  # its backlog is full: busy, but there
        return True
    except OSError:
        return False
    finally:
        client.close()
    return True


def start(invocation: Invocation) -> None:
    """Do what containerd asks of `start`.

    Returns in the process that containerd waits for; the shim does not return.
    """
    if not invocation.namespace or not invocation.id:
        raise StartError("-namespace and -id are required")
    params = parse_stdin(read_all(0, STDIN_LIMIT), invocation.id, invocation.namespace)
    invocation.ttrpc_address = params.ttrpc_address or invocation.ttrpc_address
    invocation.address = params.grpc_address or invocation.address
    annotations = read_annotations("config.json")
    group = group_of(annotations, invocation.id)
    transport = transport_of(annotations, params.options)
    path = socket_path(params.socket_dir or SOCKET_DIR, invocation.address, invocation.namespace, group)
    if listener := listen(path):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            _become_shim(invocation, listener, path, write_end, transport)
        os.close(write_end)
        adjust_oom_score(pid)
        said = os.read(read_end, 4096)  # the child has let go of our stdout and is in its own session
        if said != READY:
            remove(path)
            raise StartError(said.decode(errors="replace") or "the shim process ended while starting")
    address = f"unix://{path}"
    # containerd 1.6 and 1.7 find running shims by this file after a restart.
    replace_file("address", answer(address, transport, knows_version_3=False))
    os.write(1, answer(address, transport, knows_version_3=params.knows_version_3).encode())


def answer(address: str, transport: str, *, knows_version_3: bool) -> str:
    """What `start` prints."""
    version = 3 if knows_version_3 else 2
    if (transport, version) == (TTRPC, 2):
        return address
    if transport == GRPC:  # containerd dials what it is told, and puts the scheme in front by itself
        address = address.removeprefix("unix://")
    return fastjson.dumps({"version": version, "address": address, "protocol": transport})


def _become_shim(invocation: Invocation, listener: socket, path: str, ready: int, transport: str) -> NoReturn:
    """The child's life. Never returns into `start`, whatever happens."""
    status = 1
    told = False

    def tell(what: bytes) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(ready, what)
            os.close(ready)

    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        open_log("log")
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(b"litebox-shim")
        if transport == TTRPC:
            tell(READY)  # the socket listens already: containerd need not wait for what we import
        from shim.daemon import serve

        status = serve(invocation, listener, path, transport, lambda: tell(READY))
    except BaseException as error:
        from shim import log

        log.exception("shim", error)
        tell(f"the shim process ended while starting: {error}".encode())
    finally:
        os._exit(status)


def open_log(path: str) -> None:
    """Put descriptor 2 on the bundle's log FIFO, which containerd reads.

    Opened for both directions: it never blocks or breaks.
    """
    try:
        fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return
    os.dup2(fifo, 2)
    os.close(fifo)


def adjust_oom_score(pid: int) -> None:
    """The shim is to be killed before containerd, so one above it.

    Without CAP_SYS_RESOURCE that may fail, and is not worth failing for.
    """
    try:
        with open(f"/proc/{os.getppid()}/oom_score_adj") as file:
            score = min(int(file.read()) + 1, 1000)
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(str(score))
    except OSError:
        pass


def replace_file(path: str, text: str) -> None:
    temporary = f".{path}.{os.getpid()}"
    with open(temporary, "w") as file:
        file.write(text)
    os.rename(temporary, path)


def read_all(fd: int, limit: int) -> bytes:
    data = bytearray()
    while len(data) < limit:
        block = os.read(fd, 65536)
        if not block:
            break
        data += block
    return bytes(data)
