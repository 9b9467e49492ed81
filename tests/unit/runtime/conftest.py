"""`litebox` over a stand-in for litebox-vmm (fake_vmm.py), with a state directory of the test's own."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import bundles

HERE = Path(__file__).parent
LAUNCHER = """\
#!{python} -IS
import sys
sys.path[:0] = [{root!r}]
from runtime.cli import main
sys.exit(main())
"""


def cgroup_of(folder: Path) -> str:
    """Of the test's containers, below our own."""
    return f"litebox-test-{os.getpid()}-{folder.name}"


class Litebox:
    """Runs the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.library = folder / "lib"
        self.library.mkdir()
        vmm = self.library / "litebox-vmm"
        vmm.write_text((HERE / "fake_vmm.py").read_text())
        vmm.chmod(0o755)
        (self.library / "litebox-kernel").touch()
        self.program = folder / "litebox"
        self.program.write_text(LAUNCHER.format(python=sys.executable, root=str(bundles.REPOSITORY)))
        self.program.chmod(0o755)
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
        """Of the stand-in, wherever they are."""
        found = []
        needle = str(self.library).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if needle in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def leftovers(self) -> list[str]:
        """What is there though nothing should be."""
        found = [f"process {pid}" for pid in self.processes()]
        if self.state.is_dir():
            found += [f"state {path.name}" for path in self.state.iterdir()]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{cgroup_of(self.folder)}")]
        found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(self.folder) in line]
        return found


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox root file system."""
    if os.geteuid() != 0:
        pytest.skip("mounts and cgroups need root")
    if not os.access("/dev/kvm", os.W_OK):
        pytest.skip("/dev/kvm is not available")
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
        document["linux"]["cgroupsPath"] = cgroup_of(tmp_path)
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
