"""System calls that Python's os module lacks, by number (x86-64).

Built on _ctypes rather than ctypes: defining ctypes' thirty classes costs 2.4 ms, three are enough here. Integers are
passed as C long, bytes and writable buffers as pointers.
"""

from __future__ import annotations

import _ctypes
import os

from runtime.errors import HostError

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_NO_AUTOMOUNT = 0x800
AT_SYMLINK_NOFOLLOW = 0x100

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = 0o2000000

MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

FSOPEN_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 1

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

MS_RDONLY = 1
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_SYS_MOUNT = 165
_SYS_UMOUNT2 = 166
_SYS_PRCTL = 157
_SYS_IOPRIO_SET = 251
_SYS_UNSHARE = 272
_SYS_SETNS = 308
_SYS_SCHED_SETATTR = 314
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Function(_ctypes.CFuncPtr):
    _flags_ = 0x1 | 0x8  # FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Long


_syscall = _Function(_ctypes.dlsym(_ctypes.dlopen(None, 0), "syscall"))  # type: ignore[arg-type]  # None: libc


def syscall(number: int, *args: int | bytes | None) -> int:
    """syscall(2); raises OSError."""
    result: int = _syscall(_Long(number), *[_Long(arg) if isinstance(arg, int) else arg for arg in args])
    if result == -1:
        errno = _ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result


def open_tree(path: str, flags: int, dirfd: int = AT_FDCWD) -> int:
    """A descriptor of a mount (or, with OPEN_TREE_CLONE, of a detached copy of it)."""
    return syscall(_SYS_OPEN_TREE, dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)


def mount_setattr(
    fd: int, *, set: int = 0, clear: int = 0, propagation: int = 0, userns_fd: int = 0, recursive: bool = False
) -> None:
    """Change the attributes of the mount `fd` is the root of (and of all below it)."""
    attr = b"".join(field.to_bytes(8, "little") for field in (set, clear, propagation, userns_fd))
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(_SYS_MOUNT_SETATTR, fd, b"", flags, attr, len(attr))


def move_mount(from_fd: int, to_path: str, to_dirfd: int = AT_FDCWD) -> None:
    """Attach a detached mount."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (MOVE_MOUNT_T_EMPTY_PATH if not to_path else 0)
    syscall(_SYS_MOVE_MOUNT, from_fd, b"", to_dirfd, os.fsencode(to_path), flags)


def new_mount(fstype: str, source: str, options: list[str], attr: int) -> int:
    """Mount a file system, detached. The error carries the kernel's own message when it left one."""
    fs = syscall(_SYS_FSOPEN, fstype.encode(), FSOPEN_CLOEXEC)
    try:
        try:
            if source:
                _fsconfig(fs, FSCONFIG_SET_STRING, "source", source)
            for option in options:
                key, equals, value = option.partition("=")
                if equals:
                    _fsconfig(fs, FSCONFIG_SET_STRING, key, value)
                else:
                    _fsconfig(fs, FSCONFIG_SET_FLAG, key, None)
            syscall(_SYS_FSCONFIG, fs, FSCONFIG_CMD_CREATE, None, None, 0)
            return syscall(_SYS_FSMOUNT, fs, FSMOUNT_CLOEXEC, attr)
        except OSError as error:
            raise HostError(
                f"mounting {fstype} from {source!r}: {error.strerror}{_fs_log(fs)}", error.errno or 0
            ) from error
    finally:
        os.close(fs)


def _fsconfig(fs: int, command: int, key: str, value: str | None) -> None:
    syscall(_SYS_FSCONFIG, fs, command, key.encode(), None if value is None else os.fsencode(value), 0)


def _fs_log(fs: int) -> str:
    """The kernel's messages about a file-system context, each "e why", "w why" or "i why"."""
    lines = []
    try:
        while True:
            lines.append(os.read(fs, 1024).decode("utf-8", "replace").strip())
    except OSError:
        return f" ({'; '.join(lines)})" if lines else ""


def openat2(dirfd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """open(2) with a say in how names resolve."""
    how = b"".join(field.to_bytes(8, "little") for field in (flags | os.O_CLOEXEC, mode, resolve))
    return syscall(_SYS_OPENAT2, dirfd, os.fsencode(path), how, len(how))


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    syscall(_SYS_MOUNT, os.fsencode(source), os.fsencode(target), fstype.encode(), flags, data.encode())


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), lazily unless told otherwise."""
    syscall(_SYS_UMOUNT2, os.fsencode(target), flags)


def unshare(flags: int) -> None:
    """unshare(2)."""
    syscall(_SYS_UNSHARE, flags)


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    syscall(_SYS_SETNS, fd, kind)


def prctl(option: int, arg: int) -> None:
    """prctl(2) with one argument."""
    syscall(_SYS_PRCTL, option, arg, 0, 0, 0)


def ioprio_set(pid: int, value: int) -> None:
    """ioprio_set(2) for one process."""
    syscall(_SYS_IOPRIO_SET, 1, pid, value)


def sched_setattr(pid: int, attr: bytes) -> None:
    """sched_setattr(2); `attr` is a packed struct sched_attr."""
    syscall(_SYS_SCHED_SETATTR, pid, attr, 0)
