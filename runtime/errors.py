"""What can go wrong, as types.

`exit_code` is what the command line exits with; `kind` is a stable word for callers that translate errors
(the containerd shim maps it to a gRPC code). Messages are for people: what was asked, what was found, what to do.
"""

from __future__ import annotations


class LiteboxError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1
    kind = "unknown"


class InvalidArgument(LiteboxError):
    """The caller asked for something malformed: a bad id, flag, signal name."""

    kind = "invalid_argument"


class InvalidSpec(InvalidArgument):
    """config.json (or a process or resources document) is not what runtime-spec allows."""


class Unsupported(LiteboxError):
    """Well-formed, but this runtime or this host cannot carry it out."""

    kind = "unimplemented"


class NotFound(LiteboxError):
    """No such container, process or file."""

    kind = "not_found"


class AlreadyExists(LiteboxError):
    """The container id is taken."""

    kind = "already_exists"


class WrongState(LiteboxError):
    """The operation is not legal in the container's present state."""

    kind = "failed_precondition"


class HostError(LiteboxError):
    """A system call or a file of the host failed."""

    kind = "internal"

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class HookFailed(LiteboxError):
    """A hook of config.json failed, or took too long."""

    kind = "internal"


class VmmError(LiteboxError):
    """litebox-vmm failed, or answered an error. `errno` is the guest's, when there is one."""

    kind = "internal"

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class ExecFailed(VmmError):
    """The program could not be started: 127 when it was not found, 126 when it could not be executed."""

    kind = "invalid_argument"

    def __init__(self, message: str, errno: int) -> None:
        super().__init__(message, errno)
        self.exit_code = 127 if errno in (2, 20) else 126  # ENOENT, ENOTDIR
