"""The Debian root file system of the program tests: made once by mmdebstrap, cached, and seen through overlays."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bundles import Bundle

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    "bash", "bc", "bzip2", "ca-certificates", "curl", "diffutils", "file", "findutils", "gawk", "gcc", "gdb", "git", "iproute2",
    "less", "libc6-dev", "make", "nginx-light", "nodejs", "openjdk-17-jdk-headless", "patch", "perl", "procps", "python3",
    "redis-server", "redis-tools", "sqlite3", "strace", "time", "wrk", "xz-utils",
)  # fmt: skip
OPTIONS = (
    "--variant=minbase",
    "--mode=root",
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    '--essential-hook=mkdir -p "$1/usr/share/man/man1"',  # openjdk's installation links a page there
)


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "litebox"


def root(extra: tuple[str, ...] = ()) -> Path:
    """The root file system's folder, with extra packages; made now if it is not there. Not to be written to."""
    packages = PACKAGES + extra
    name = hashlib.sha256(repr((SUITE, packages, OPTIONS)).encode()).hexdigest()[:12]
    made = cache() / f"debian-{name}"
    if made.is_dir():
        return made
    if shutil.which("mmdebstrap") is None:
        raise FileNotFoundError("mmdebstrap is missing: apt-get install mmdebstrap")
    made.parent.mkdir(parents=True, exist_ok=True)
    partial = made.with_name(f"{made.name}.{os.getpid()}")
    command = ["mmdebstrap", *OPTIONS, f"--include={','.join(packages)}", SUITE, str(partial), MIRROR]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise OSError(f"mmdebstrap failed:\n{ended.stderr[-2000:]}")
        with contextlib.suppress(OSError):  # another run may have been faster
            partial.rename(made)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


@contextlib.contextmanager
def overlay_bundle(path: Path, extra: tuple[str, ...] = ()) -> Iterator[Bundle]:
    """A bundle whose root file system is the Debian one (see `root`) under a writable layer of its own."""
    lower = root(extra)
    bundle = Bundle(path)
    upper, work = path / "upper", path / "work"
    for folder in (bundle.rootfs, upper, work):
        folder.mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", bundle.rootfs], check=True)
    try:
        (bundle.rootfs / "work").mkdir()
        (bundle.rootfs / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
        yield bundle
    finally:
        subprocess.run(["umount", "--lazy", bundle.rootfs], check=False)
        shutil.rmtree(path, ignore_errors=True)
