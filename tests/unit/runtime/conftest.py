"""`litebox` and its VMM, with a state directory of the test's own."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import bundles

LIBRARY = bundles.BUILD / "lib/litebox"


def cgroup_of(folder: Path) -> str:
    """Of the test's containers, below the root."""
    return f"litebox-test-{os.getpid()}-{folder.name}"


def link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


class Litebox:
    """Runs the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        #: A folder of our own tells this test's VMMs from those of others (`processes`).
        self.library = folder / "lib"
        self.library.mkdir()
        for name in ("litebox-vmm", "litebox-kernel"):
            link_or_copy(LIBRARY / name, self.library / name)
        self.program = bundles.BUILD / "bin/litebox"
        #: What the launcher executes.
        self.python, self.module = LIBRARY / "python", LIBRARY / "litebox.pyc"
        self.environment = {"PATH": os.environ["PATH"], "LITEBOX_LIBDIR": str(self.library)}

    def command(self, *args: str) -> list[str]:
        return [str(self.program), "--root", str(self.state), *args]

    def __call__(
        self, *args: str, ok: bool = True, stdin: str = "", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Output goes to files: a container that runs on would keep a pipe open, and its reader waiting."""
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as given:
            given.write(stdin.encode())
            given.seek(0)
            process = subprocess.Popen(
                self.command(*args),
                stdin=given,
                stdout=said,
                stderr=errors,
                cwd=cwd or self.folder,
                env=self.environment,
            )
            try:
                code = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            texts = []
            for file in (said, errors):
                file.seek(0)
                texts.append(file.read().decode())
        assert not ok or code == 0, texts[1]
        return subprocess.CompletedProcess(process.args, code, texts[0], texts[1])

    def status(self, name: str) -> str:
        return str(json.loads(self("state", name).stdout)["status"])

    def wait_for(self, name: str, status: str) -> None:
        for _ in range(200):
            if self.status(name) == status:
                return
            time.sleep(0.02)
        raise AssertionError(f"{name} is {self.status(name)}, not {status}")

    def processes(self) -> list[int]:
        """VMMs and proxies of this test, in whatever namespaces they are."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if (entry / "exe").readlink().is_relative_to(self.library):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def leftovers(self) -> list[str]:
        """What is there though nothing should be."""
        found = [f"process {pid}" for pid in self.processes()]
        if self.state.is_dir():
            found += [f"state {path.name}" for path in self.state.iterdir()]
        # One level deep, for v1's hierarchies: deeper is what other processes make and remove all the time.
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{cgroup_of(self.folder)}")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(cgroup_of(self.folder))]
        found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(self.folder) in line]
        return found


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox root file system."""
    if os.geteuid() != 0:
        pytest.skip("mounts and cgroups need root")
    if not os.access("/dev/kvm", os.W_OK):
        pytest.skip("/dev/kvm is not available")
    if not LIBRARY.is_dir():
        pytest.skip("the VMM is not built: make build")
    return bundles.busybox_bundle(tmp_path_factory.mktemp("bundle")).rootfs


@pytest.fixture
def litebox(tmp_path: Path, rootfs: Path) -> Iterator[Litebox]:
    tool = Litebox(tmp_path)
    yield tool
    for path in tool.state.iterdir() if tool.state.is_dir() else ():
        tool("delete", "--force", path.name, ok=False)
    for pid in tool.processes():
        os.kill(pid, 9)


@pytest.fixture
def bundle(tmp_path: Path, rootfs: Path) -> Callable[..., Path]:
    """Writes a bundle; arguments are the program, changes are merged into config.json (None removes)."""

    def write(args: Sequence[str] = ("sleep", "1000"), changes: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / "bundle"
        folder.mkdir(exist_ok=True)
        document = bundles.configuration(list(args))
        document["root"]["path"] = str(rootfs)
        document["linux"]["cgroupsPath"] = f"/{cgroup_of(tmp_path)}"
        merge(document, changes or {})
        (folder / "config.json").write_text(json.dumps(document))
        return folder

    return write


@pytest.fixture
def config() -> dict[str, Any]:
    """A plain config.json."""
    return copy.deepcopy(bundles.configuration(["true"]))


def merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


USER = "65534"
# A /dev/kvm that the user may open, for this test's mount namespace only.
PREPARE = f"""\
mount -t tmpfs -o mode=755 tmpfs /mnt && mknod /mnt/kvm c 10 232 && chmod 666 /mnt/kvm && mount --bind /mnt/kvm /dev/kvm &&
exec setpriv --reuid {USER} --regid {USER} --clear-groups "$@"
"""


class User:
    """An ordinary user with access to /dev/kvm, and a root file system."""

    def __init__(self, litebox: Litebox) -> None:
        self.litebox = litebox
        #: Command that executes another one.
        self.inside: list[str] = []
        self.folder: Path = litebox.folder / "user"
        self.folder.mkdir()
        os.chown(self.folder, int(USER), int(USER))
        for path in (self.folder, *self.folder.parents):
            if str(path).startswith("/tmp/"):
                path.chmod(path.stat().st_mode | 0o055)

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.litebox.environment, "XDG_RUNTIME_DIR": str(self.folder)}
        # Without the launcher: Python may be in root's home folder, into which setpriv can still look.
        program = [str(self.litebox.python), "-IS", str(self.litebox.module)]
        command = [*self.inside, "unshare", "--mount", "sh", "-c", PREPARE, "sh", *program, *args]
        return subprocess.run(
            command,
            env=environment,
            cwd=self.folder,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )


@pytest.fixture
def user(litebox: Litebox, rootfs: Path) -> User:
    for program in ("unshare", "setpriv"):
        if not shutil.which(program):
            pytest.skip(f"{program} is missing")
    made = User(litebox)
    if made("--version").returncode:
        pytest.skip("Python cannot be run by another user here")
    shutil.copytree(rootfs, made.folder / "rootfs", symlinks=True)
    for path in (made.folder / "rootfs").rglob("*"):
        os.chown(path, int(USER), int(USER), follow_symlinks=False)
    os.chown(made.folder / "rootfs", int(USER), int(USER))
    return made
