"""OCI bundles for the tests, and the three ways to run them: LiteBox, another OCI runtime, natively.

A bundle is a folder with ``config.json`` and ``rootfs``. The native way (``native.py``) sets up the namespaces, mounts
and capabilities that the same ``config.json`` asks for and executes the program in a chroot: nothing but the host's
kernel serves it, which makes it the oracle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / "build"
GUEST_PROGRAMS = BUILD / "guest"

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "TERM": "xterm", "LC_ALL": "C.UTF-8"}

# What containerd and docker give a container by default.
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
)  # fmt: skip

MOUNTS: tuple[dict[str, Any], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
)

RLIMITS = {
    "RLIMIT_NOFILE": (1024, 4096),
    "RLIMIT_CORE": (0, 0),
    "RLIMIT_STACK": (8 << 20, 64 << 20),
}


@dataclasses.dataclass(frozen=True)
class Completed:
    """What came out of a run. ``code`` is an exit status as a shell has it: 128 + n for signal n."""

    stdout: bytes
    stderr: bytes
    code: int

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.text}\n{self.stderr.decode(errors='replace')}"


def configuration(args: Sequence[str], **changes: Any) -> dict[str, Any]:
    """A config.json. ``changes``: cwd, env, uid, gid, terminal, hostname, mounts (added), readonly, memory,
    capabilities (added)."""
    environment = {**ENVIRONMENT, **changes.pop("env", {})}
    mounts = [*MOUNTS, *changes.pop("mounts", ())]
    resources: dict[str, Any] = {}
    if memory := changes.pop("memory", None):
        resources["memory"] = {"limit": memory}
    capabilities = [*CAPABILITIES, *changes.pop("capabilities", ())]
    document = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": changes.pop("terminal", False),
            "user": {"uid": changes.pop("uid", 0), "gid": changes.pop("gid", 0)},
            "args": list(args),
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": changes.pop("cwd", "/"),
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "rlimits": [{"type": kind, "soft": soft, "hard": hard} for kind, (soft, hard) in RLIMITS.items()],
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs", "readonly": changes.pop("readonly", False)},
        "hostname": changes.pop("hostname", "litebox-test"),
        "mounts": mounts,
        "linux": {
            "resources": resources,
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        },
    }
    if changes:
        raise TypeError(f"unknown changes: {', '.join(changes)}")
    return document


@dataclasses.dataclass(frozen=True)
class Bundle:
    path: Path

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    def configure(self, args: Sequence[str], **changes: Any) -> None:
        document = configuration(args, **changes)
        (self.path / "config.json").write_text(json.dumps(document, indent=1))


def make_tree(root: Path) -> None:
    """The folders and account files that any root file system has."""
    for folder in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var", "work", "lib64", "usr/bin", "home/user"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\ntty:x:5:\nuser:x:1000:\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    os.chown(root / "home/user", 1000, 1000)


def busybox() -> Path:
    """The host's statically linked busybox."""
    found = shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("busybox is missing: apt-get install busybox-static")
    return Path(found).resolve()


@functools.cache
def applets() -> tuple[str, ...]:
    listing = subprocess.run([busybox(), "--list"], capture_output=True, text=True, check=True)
    return tuple(listing.stdout.split())


def libraries(program: Path) -> list[Path]:
    """The shared libraries of a dynamically linked program, its loader included; none for a static one."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    words = listing.stdout.split() if listing.returncode == 0 else []
    return [Path(word) for word in words if word.startswith("/")]


def busybox_bundle(path: Path, programs: Sequence[Path] = ()) -> Bundle:
    """A bundle of busybox with all applets, and the given programs (with their libraries) in /bin."""
    bundle = Bundle(path)
    make_tree(bundle.rootfs)
    shutil.copy2(busybox(), bundle.rootfs / "bin/busybox")
    for applet in applets():
        if applet != "busybox":
            (bundle.rootfs / "bin" / applet).symlink_to("busybox")
    for program in programs:
        target = bundle.rootfs / "bin" / program.name
        target.unlink(missing_ok=True)  # an applet's link
        shutil.copy2(program, target)
        for library in libraries(program):
            target = bundle.rootfs / str(library).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy(library, target)
    return bundle


def build_guest_programs() -> Path:
    """Builds the C programs of tests/guest and returns their folder."""
    command = ["make", "-s", "-j2", "-C", str(REPOSITORY / "tests/guest"), f"OUT={GUEST_PROGRAMS}"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(f"the guest programs do not build:\n{made.stderr}")
    return GUEST_PROGRAMS


def _exit_status(code: int) -> int:
    return 128 - code if code < 0 else code


class Native:
    """Runs a bundle's program on the host's kernel, in the namespaces its configuration asks for."""

    name = "native"

    def missing(self) -> str | None:
        return None if os.geteuid() == 0 else "namespaces and chroot need root"

    def run(self, bundle: Bundle, stdin: bytes = b"", timeout: float = 300) -> Completed:
        command = [sys.executable, "-I", str(REPOSITORY / "tests/native.py"), str(bundle.path)]
        return _communicate(command, stdin, timeout, on_timeout=None)


class Runtime:
    """Runs a bundle through an OCI runtime's command line."""

    _numbers = itertools.count()

    def __init__(self, name: str, program: str, state: Path) -> None:
        self.name = name
        self.program = program
        self._state = state

    def missing(self) -> str | None:
        """Why this runtime cannot run here, if it cannot."""
        if os.geteuid() != 0:
            return "containers need root here"
        return None if shutil.which(self.program) else f"{self.program} is missing"

    def command(self, *args: str) -> list[str]:
        return [self.program, "--root", str(self._state), *args]

    def run(self, bundle: Bundle, stdin: bytes = b"", timeout: float = 300) -> Completed:
        identifier = f"test-{os.getpid()}-{next(self._numbers)}"
        command = self.command("run", "--bundle", str(bundle.path), identifier)
        return _communicate(command, stdin, timeout, on_timeout=self.command("delete", "--force", identifier))


def _communicate(command: Sequence[str], stdin: bytes, timeout: float, on_timeout: Sequence[str] | None) -> Completed:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            stdout, stderr = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            if on_timeout:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    subprocess.run(on_timeout, capture_output=True, timeout=30, check=False)
            process.kill()
            try:
                stdout, stderr = process.communicate(timeout=30)
            except subprocess.TimeoutExpired as error:  # a descendant holds on to the pipes
                stdout, stderr = error.stdout or b"", error.stderr or b""
            return Completed(stdout, stderr + f"\ntimed out after {timeout} s".encode(), 124)
    return Completed(stdout, stderr, _exit_status(process.returncode))


def runtime_named(name: str, state: Path) -> Native | Runtime:
    """``litebox`` is the one that was built here; any other name is a program on PATH; ``native`` is the oracle itself."""
    if name == "native":
        return Native()
    program = str(BUILD / "bin/litebox") if name == "litebox" else name
    return Runtime(Path(name).name, program, state)


def environment_of(document: Mapping[str, Any]) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in document["process"]["env"])
