"""SIGKILL of `litebox` at its steps: whatever was done so far, `delete --force` leaves nothing, and the id is free again.

strace(1) kills the process as it enters the n-th of those system calls that change something outside of it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Bundle = Callable[..., Path]
STEPS = tuple(
    "mkdir mkdirat rename renameat unlink unlinkat rmdir bind listen connect sendmsg recvmsg sendto recvfrom clone clone3 fork vfork flock "
    "open_tree mount_setattr kill pidfd_open wait4 memfd_create pipe2 openat2 poll".split()
)

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing")


def strace(litebox: Any, options: Sequence[str], *args: str) -> int:
    done = subprocess.run(["strace", *options, *litebox.command(*args)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, env=litebox.environment, check=False, timeout=60)  # fmt: skip
    return done.returncode


def killed_at(litebox: Any, call: str, nth: int, *args: str) -> bool:
    """Whether the command was killed; False when it makes that call less often."""
    inject = ["-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={nth}"]
    return strace(litebox, inject, *args) in (-9, 137)


def calls_of(litebox: Any, *args: str) -> Counter[str]:
    """How often an undisturbed run makes each of the calls."""
    log = litebox.folder / "strace"
    assert strace(litebox, ["-o", str(log), "-e", f"trace={','.join(STEPS)}"], *args) == 0
    return Counter(re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE))


def assert_nothing_is_left(litebox: Any, step: str) -> None:
    litebox("delete", "--force", "c1")
    for _ in range(100):
        left = litebox.leftovers()
        if not left:
            return
        time.sleep(0.02)
    raise AssertionError(f"after SIGKILL at {step}: {left}")


def every_step(litebox: Any, *args: str, prepare: Callable[[], object]) -> int:
    """How many steps the command was killed at."""
    prepare()
    calls = calls_of(litebox, *args)
    assert_nothing_is_left(litebox, "its end")
    steps = 0
    for call, count in calls.items():
        for nth in range(1, count + 1):
            prepare()
            steps += killed_at(litebox, call, nth, *args)
            assert_nothing_is_left(litebox, f"{call} {nth}")
    return steps


def test_create(litebox: Any, bundle: Bundle) -> None:
    folder = str(bundle(["true"], {"hooks": {"createRuntime": [{"path": "/bin/true"}]}}))
    assert every_step(litebox, "create", "--bundle", folder, "c1", prepare=lambda: None) > 20
    litebox("run", "--bundle", folder, "c1")


def test_run(litebox: Any, bundle: Bundle) -> None:
    folder = str(bundle(["true"]))
    assert every_step(litebox, "run", "--bundle", folder, "c1", prepare=lambda: None) > 30


def test_start(litebox: Any, bundle: Bundle) -> None:
    folder = str(bundle())
    assert every_step(litebox, "start", "c1", prepare=lambda: litebox("create", "--bundle", folder, "c1")) > 3


def test_exec(litebox: Any, bundle: Bundle) -> None:
    folder = str(bundle())
    prepare = lambda: litebox("run", "--detach", "--bundle", folder, "c1")  # noqa: E731
    assert every_step(litebox, "exec", "c1", "true", prepare=prepare) > 3


def test_delete(litebox: Any, bundle: Bundle) -> None:
    folder = str(bundle())
    prepare = lambda: litebox("run", "--detach", "--bundle", folder, "c1")  # noqa: E731
    assert every_step(litebox, "delete", "--force", "c1", prepare=prepare) > 10


def test_a_crashed_create_is_cleaned_by_the_next(litebox: Any, bundle: Bundle) -> None:
    folder = str(bundle(["true"]))
    for call, nth in (("bind", 1), ("clone", 1), ("rename", 1), ("rename", 2), ("mkdir", 3)):
        if killed_at(litebox, call, nth, "create", "--bundle", folder, "c1"):
            assert litebox("list", "--format", "json").stdout == "null\n", "a leftover is no container"
        else:
            litebox("delete", "--force", "c1")
        litebox("run", "--bundle", folder, "c1")
        assert litebox.leftovers() == []
