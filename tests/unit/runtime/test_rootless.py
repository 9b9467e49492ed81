"""As an ordinary user with access to /dev/kvm: user namespaces, no cgroup rights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

USER = "65534"
# A /dev/kvm that the user may open, for this test's mount namespace only.
PREPARE = f"""\
mount -t tmpfs -o mode=755 tmpfs /mnt && mknod /mnt/kvm c 10 232 && chmod 666 /mnt/kvm && mount --bind /mnt/kvm /dev/kvm &&
exec setpriv --reuid {USER} --regid {USER} --clear-groups "$@"
"""


class User:
    def __init__(self, litebox: Any) -> None:
        self.litebox = litebox
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
        command = ["unshare", "--mount", "sh", "-c", PREPARE, "sh", *program, *args]
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
def user(litebox: Any, rootfs: Path) -> User:
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


def test_run(user: User) -> None:
    assert user("spec", "--rootless").returncode == 0
    path = user.folder / "config.json"
    document = json.loads(path.read_text())
    document["process"].update(terminal=False, args=["sh", "-c", "id -u; touch /made; exit 3"])
    document["root"]["readonly"] = False
    path.write_text(json.dumps(document))
    done = user("run", "c1")
    assert (done.stdout, done.returncode) == ("0\n", 3), done.stderr
    assert (user.folder / "rootfs/made").stat().st_uid == int(USER)
    assert list((user.folder / "litebox").iterdir()) == []


def test_do(user: User) -> None:
    done = user("do", "--", "sh", "-c", "id -u; exit 4")
    assert (done.stdout, done.returncode) == ("0\n", 4), done.stderr
