"""Runs the process of an OCI bundle on the host's kernel without a container runtime: ``native.py BUNDLE``.

Fresh mount, pid, network, ipc and uts namespaces, the mounts of the bundle's ``config.json``, a chroot, the
capabilities and resource limits asked for, and the program as process 1. The exit status is the program's.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x20000000,
    0x40000000,
)
PR_CAPBSET_DROP, PR_SET_PDEATHSIG = 24, 1
SYS_RT_SIGACTION = 13
# The C library keeps these two to itself and lets nobody change them, but a parent without it may have them ignored.
LIBC_SIGNALS = (32, 33)
# Bit numbers of linux/capability.h, in order.
CAPABILITIES = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
]
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def loopback_up() -> None:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 1
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(query, siocgifflags, request), 16)
        fcntl.ioctl(query, siocsifflags, struct.pack("16sH14x", b"lo", flags | iff_up))


@contextlib.contextmanager
def own_cgroup() -> Iterator[None]:
    """A CPU control group of its own, as a container has: the scheduler shares the CPUs among groups, so that a
    comparison on a busy machine is fair. Does without where none can be made."""
    top = Path("/sys/fs/cgroup/cpu")
    top = top if top.is_dir() else Path("/sys/fs/cgroup")
    made = top / f"litebox-native-{os.getpid()}"
    try:
        made.mkdir()
        (made / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        made = top
    try:
        yield
    finally:
        if made != top:
            with contextlib.suppress(OSError):
                (top / "cgroup.procs").write_text(str(os.getpid()))
                made.rmdir()


def set_up_mounts(root: Path, document: dict[str, Any]) -> None:
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", root, root], check=True)
    for entry in document["mounts"]:
        target = root / entry["destination"].lstrip("/")
        source = Path(entry["source"])
        if entry.get("type") == "bind" and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        else:
            target.mkdir(parents=True, exist_ok=True)
        options = ",".join(entry["options"])
        kind = ["--bind"] if entry.get("type") == "bind" else ["-t", entry["type"]]
        subprocess.run(["mount", *kind, "-o", options, entry["source"], target], check=True)
    os.umask(0)
    for name, (major, minor) in DEVICES.items():
        os.mknod(root / "dev" / name, 0o020666, os.makedev(major, minor))
    for name, link in LINKS.items():
        (root / "dev" / name).symlink_to(link)
    (root / "dev/ptmx").symlink_to("pts/ptmx")


def execute(document: dict[str, Any], root: Path) -> None:
    process = document["process"]
    set_up_mounts(root, document)
    socket.sethostname(document["hostname"])
    loopback_up()
    for entry in process["rlimits"]:
        resource.setrlimit(getattr(resource, entry["type"]), (entry["soft"], entry["hard"]))
    kept = {name.removeprefix("CAP_").lower() for name in process["capabilities"]["bounding"]}
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    os.chroot(root)
    os.chdir(process["cwd"])
    os.umask(0o022)
    os.setpriority(os.PRIO_PROCESS, 0, 0)  # where a micro-VM's first process is, however nice its VMM is
    for number in range(last + 1):
        if number >= len(CAPABILITIES) or CAPABILITIES[number] not in kept:
            check(libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), "PR_CAPBSET_DROP")
    os.setgroups([])
    os.setgid(process["user"]["gid"])
    os.setuid(process["user"]["uid"])
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP) and signal.getsignal(number) is not None:
            signal.signal(number, signal.SIG_DFL)
    for number in LIBC_SIGNALS:
        libc.syscall(SYS_RT_SIGACTION, number, bytes(32), None, 8)
    os.closerange(3, 256)
    environment = dict(entry.split("=", 1) for entry in process["env"])
    os.execvpe(process["args"][0], process["args"], environment)


def main() -> int:
    bundle = Path(sys.argv[1])
    document = json.loads((bundle / "config.json").read_text())
    root = (bundle / document["root"]["path"]).resolve()
    with own_cgroup():
        return run(document, root)


def run(document: dict[str, Any], root: Path) -> int:
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS), "unshare")
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        try:
            execute(document, root)
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            os._exit(127)
        except OSError as error:
            print(error, file=sys.stderr)
            os._exit(126)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
