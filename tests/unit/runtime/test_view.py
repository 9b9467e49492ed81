"""What the host finds behind the pid that `state` reports: the container's files, as with any runtime; not the VMM's cell."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bundles

Bundle = Callable[..., Path]
CAP_SYS_CHROOT = 18


@pytest.fixture
def volumes(tmp_path: Path) -> list[dict[str, Any]]:
    """A folder, a file below a file system of the guest's, and a folder nobody may write."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/name").write_text("volume\n")
    return [
        *bundles.MOUNTS,
        {"destination": "/data", "type": "bind", "source": str(tmp_path / "data"), "options": ["rbind"]},
        {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
        {
            "destination": "/run/a/name",
            "type": "bind",
            "source": str(tmp_path / "data/name"),
            "options": ["bind", "ro"],
        },
        {"destination": "/fixed", "type": "bind", "source": str(tmp_path / "data"), "options": ["rbind", "ro"]},
    ]


@pytest.fixture
def pid(litebox: Any, bundle: Bundle, volumes: list[dict[str, Any]]) -> int:
    script = "echo before > /made; echo here > /run/mine; exec sleep 1000"
    litebox("create", "--bundle", str(bundle(["sh", "-c", script], {"mounts": volumes})), "c1")
    litebox("start", "c1")
    litebox("exec", "c1", "sh", "-c", "until [ -e /run/mine ]; do sleep 0.01; done")
    return int(json.loads(litebox("state", "c1").stdout)["pid"])


def inside(pid: int, script: str) -> str:
    """Of a shell of the container's, in the mount namespace of its process, run on the host."""
    command = ["nsenter", "--target", str(pid), "--mount", "/bin/busybox", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout


def test_the_root_is_the_containers(litebox: Any, pid: int, tmp_path: Path) -> None:
    root = Path(f"/proc/{pid}/root")
    assert (root / "made").read_text() == "before\n"
    assert (root / "data/name").read_text() == (root / "run/a/name").read_text() == "volume\n"
    (root / "data/new").write_text("by the host\n")
    assert litebox("exec", "c1", "cat", "/data/new").stdout == "by the host\n"
    assert (tmp_path / "data/new").exists()
    for path in ("fixed/new", "run/new", "run/a/name", "proc/new"):
        with pytest.raises(OSError, match="Read-only"):
            (root / path).write_text("")
    assert not (root / "run/mine").exists(), "the guest's own memory"


def test_the_mount_namespace_is_the_containers(pid: int) -> None:
    assert inside(pid, "cat /made /data/name /run/a/name; ls /proc; touch /run/x || echo refused").splitlines() == [
        "before",
        "volume",
        "volume",
        "refused",
    ]
    sources = {line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    assert {"/", "/data", "/run", "/run/a/name", "/fixed", "/proc", "/dev"} <= sources
    assert not any(path.startswith(("/tmp/", "/home/")) for path in sources), "nothing of the host's"


def test_the_uts_namespace_has_the_containers_name(pid: int) -> None:
    command = ["nsenter", "--target", str(pid), "--uts", "hostname"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "litebox-test\n"


def test_what_the_container_mounts_does_not_show_below(
    litebox: Any, bundle: Bundle, volumes: list[dict[str, Any]]
) -> None:
    """The trees that are served are not those in the mount namespace: a mount there is not in the way of umount here."""
    folder = bundle(changes={"mounts": volumes, "process": {"capabilities": capabilities("CAP_SYS_ADMIN")}})
    litebox("create", "--bundle", str(folder), "c1")
    litebox("start", "c1")
    assert litebox("exec", "c1", "sh", "-c", "umount /data && ls /data").stdout == ""


def capabilities(*names: str) -> dict[str, list[str]]:
    return {kind: list(names) for kind in ("bounding", "effective", "permitted")}


def test_only_the_first_thread_has_that_root(pid: int) -> None:
    tasks = {int(task.name): task for task in Path(f"/proc/{pid}/task").iterdir()}
    ours = {number: task for number, task in tasks.items() if not (task / "comm").read_text().startswith("kvm-nx")}
    assert len(ours) > 4
    assert list((ours.pop(pid) / "root").iterdir()) != []
    for task in ours.values():
        assert list((task / "root").iterdir()) == []
        assert str((task / "cwd").readlink()).endswith("fd")
    for task in tasks.values():
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        for kind in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
            assert not int(status[kind], 16) & 1 << CAP_SYS_CHROOT, (task, kind)
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


HOOK = """\
cat {rootfs}/data/name {rootfs}/run/a/name
test -d {folder} && echo "the host's names"
touch {rootfs}/fixed/x 2> /dev/null || echo read-only
pwd
mkdir -p {mark} && mount -t tmpfs none {mark} && echo mounted
"""


@pytest.mark.parametrize("runtime", ["litebox", "runc"])
def test_create_container_hooks(
    litebox: Any, bundle: Bundle, volumes: list[dict[str, Any]], tmp_path: Path, runtime: str
) -> None:
    """The container's namespaces, its mounts below root.path, the host's root still in place; mounts stay with them."""
    rootfs = json.loads((bundle() / "config.json").read_text())["root"]["path"]
    mark = tmp_path / "mark"
    script = HOOK.format(rootfs=rootfs, folder=tmp_path, mark=mark)
    hook = {
        "path": "/bin/sh",
        "args": ["sh", "-c", f"({script}) > {tmp_path}/said 2>&1"],
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
    }
    after = {**hook, "args": ["sh", "-c", f"mountpoint -q {mark} && echo still >> {tmp_path}/said"]}
    folder = bundle(changes={"mounts": volumes, "hooks": {"createContainer": [hook, after]}})
    if runtime == "runc":
        if not shutil.which("runc"):
            pytest.skip("runc is not installed")
        state = ["runc", "--root", str(tmp_path / "runc")]
        quiet = subprocess.DEVNULL
        subprocess.run(
            [*state, "create", "--bundle", str(folder), "c1"], check=True, stdin=quiet, stdout=quiet, stderr=quiet
        )
        subprocess.run([*state, "delete", "--force", "c1"], check=True)
    else:
        litebox("create", "--bundle", str(folder), "c1")
        litebox("delete", "--force", "c1")
    assert (tmp_path / "said").read_text().splitlines() == [
        "volume", "volume", "the host's names", "read-only", rootfs, "mounted", "still",
    ]  # fmt: skip
    assert str(mark) not in Path("/proc/mounts").read_text()
