"""As an ordinary user with access to /dev/kvm: user namespaces, no cgroup rights."""

from __future__ import annotations

import json

from unit.runtime.conftest import USER, User


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
