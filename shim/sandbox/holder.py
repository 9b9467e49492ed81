"""The process that holds a pod's namespaces, where a pause container would: containers join them by its /proc/PID/ns.

It is cat(1) on a pipe whose other end only the shim has. So it costs next to nothing and ends with the shim, however
that ends; PR_SET_PDEATHSIG would not do, as it follows the thread that forked.
"""

from __future__ import annotations

import os
from _socket import sethostname
from fcntl import ioctl

from runtime.host import linux
from runtime.host.namespaces import enter_user
from shim.errors import RpcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PROGRAM = "cat"
NS_GET_USERNS = 0xB701  # ioctl_ns(2)


def hold(netns_path: str, *, own_users: bool, own_ipc: bool, hostname: str) -> tuple[int, int]:
    """Start it in the network namespace at `netns_path` ("": the host's, with which comes the host's name).

    `own_users`: and in the user namespace that owns it, which containerd has made and mapped for the pod.
    Returns its pid and the descriptor that keeps it alive.
    """
    program = _find()
    network = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC) if netns_path else -1
    users = ioctl(network, NS_GET_USERNS) if own_users else -1
    stdin, keeper = os.pipe2(os.O_CLOEXEC)
    report, told = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _become(program, users, network, linux.CLONE_NEWIPC if own_ipc else 0, hostname, stdin, told)
    except BaseException:
        os.close(keeper)
        os.close(report)
        raise
    finally:
        for fd in (stdin, told, network, users):
            if fd >= 0:
                os.close(fd)
    with open(report, "rb") as file:
        failure = file.read()  # nothing once the program runs
    if failure:
        os.close(keeper)
        os.waitpid(pid, 0)
        raise RpcError(f"cannot hold the pod's namespaces: {failure.decode()}")
    return pid, keeper


def _find() -> str:
    """Before the fork: in a user namespace Python may not be able to read the modules that os.execvp imports."""
    for folder in os.environ.get("PATH", os.defpath).split(":"):
        if os.access(f"{folder}/{PROGRAM}", os.X_OK):
            return f"{folder}/{PROGRAM}"
    raise RpcError(f"cannot hold the pod's namespaces: no {PROGRAM} on PATH")


def _become(program: str, users: int, network: int, flags: int, hostname: str, stdin: int, told: int) -> NoReturn:
    """The child's life. Never returns."""
    try:
        if users >= 0:
            enter_user(users)
        if network >= 0:
            linux.setns(network, linux.CLONE_NEWNET)
            flags |= linux.CLONE_NEWUTS
        linux.unshare(flags)
        if network >= 0:
            sethostname(hostname)
        null = os.open(os.devnull, os.O_WRONLY)
        for fd, source in enumerate((stdin, null, null)):
            os.dup2(source, fd)
        os.execv(program, [PROGRAM])
    except BaseException as error:
        os.write(told, str(error).encode())
    finally:
        os._exit(1)
