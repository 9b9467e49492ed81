"""The process that holds a pod's namespaces, where a pause container would: containers join them by its /proc/PID/ns.

It is cat(1) on a pipe whose other end only the shim has. So it costs next to nothing and ends with the shim, however
that ends; PR_SET_PDEATHSIG would not do, as it follows the thread that forked.
"""

from __future__ import annotations

import os
from _socket import sethostname

from runtime.host import linux
from shim.errors import RpcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PROGRAM = "cat"


def hold(netns_path: str, *, own_ipc: bool, hostname: str) -> tuple[int, int]:
    """Start it in the network namespace at `netns_path` ("": the host's, with which comes the host's name).

    Returns its pid and the descriptor that keeps it alive.
    """
    network = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC) if netns_path else -1
    stdin, keeper = os.pipe2(os.O_CLOEXEC)
    report, told = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _become(network, linux.CLONE_NEWIPC if own_ipc else 0, hostname, stdin, told)
    except BaseException:
        os.close(keeper)
        os.close(report)
        raise
    finally:
        for fd in (stdin, told, network):
            if fd >= 0:
                os.close(fd)
    with open(report, "rb") as file:
        failure = file.read()  # nothing once the program runs
    if failure:
        os.close(keeper)
        os.waitpid(pid, 0)
        raise RpcError(f"cannot hold the pod's namespaces: {failure.decode()}")
    return pid, keeper


def _become(network: int, flags: int, hostname: str, stdin: int, told: int) -> NoReturn:
    """The child's life. Never returns."""
    try:
        if network >= 0:
            linux.setns(network, linux.CLONE_NEWNET)
            flags |= linux.CLONE_NEWUTS
        linux.unshare(flags)
        if network >= 0:
            sethostname(hostname)
        null = os.open(os.devnull, os.O_WRONLY)
        for fd, source in enumerate((stdin, null, null)):
            os.dup2(source, fd)
        os.execvp(PROGRAM, [PROGRAM])
    except BaseException as error:
        os.write(told, str(error).encode())
    finally:
        os._exit(1)
