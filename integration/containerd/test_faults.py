"""What is left after a process was killed in the middle of something, or after many lives: nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from integration.containerd.daemon import IMAGE, RUNTIME, Containerd, children

LIVES = 200
SLEEP = ("/bin/sh", "-c", "while :; do sleep 0.1; done")
#: Seconds for which a shim waits for a containerd that has forgotten it.
ALONE_SECONDS = 10.0
STARTED: list[str] = []
#: Milliseconds after a command's start at which something is killed: before, in and after each of its parts.
MOMENTS = (10, 40, 80, 120, 160, 200, 250, 300, 400)


def start(containerd: Containerd, name: str, *flags: str) -> None:
    STARTED.append(name)
    containerd.run(name, *SLEEP, flags=("-d", "--null-io", *flags), check=True)


def cgroups(name: str) -> list[Path]:
    """The cgroup folders of a container, in every hierarchy."""
    # Others come and go meanwhile, which glob() does not forgive.
    return [
        Path(folder, name)
        for folder, names, _ in os.walk("/sys/fs/cgroup")
        if name in names and folder.endswith("/default")
    ]


@pytest.fixture(autouse=True)
def nothing_is_left(containerd: Containerd) -> Iterator[None]:
    """After each test: no process, mount, bundle, state or socket more than before."""
    STARTED.clear()
    yield
    for name in containerd.ctr("container", "list", "--quiet").stdout.decode().split():
        remove(containerd, name)
    deadline = time.monotonic() + ALONE_SECONDS + 5  # for a shim that containerd forgot
    while (left := remains(containerd)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if containerd.sockets(STARTED):  # of a shim that died before containerd had connected, which then tells nobody
        start(containerd, "next")
        remove(containerd, "next")
        left = remains(containerd)
    assert not left


def remains(containerd: Containerd) -> list[object]:
    states = containerd.state / "litebox" / "default"
    bundles = containerd.bundle("")
    found: list[object] = [*containerd.processes().items(), *containerd.mounts(), *containerd.sockets(STARTED)]
    for folder in (states, bundles):
        found += [entry for entry in folder.iterdir() if entry.is_dir()] if folder.exists() else []
    return found


def remove(containerd: Containerd, name: str) -> None:
    """As a user who cleans up."""
    containerd.ctr("task", "delete", "--force", name, check=False)
    containerd.ctr("container", "delete", name)
    deadline = time.monotonic() + ALONE_SECONDS + 5  # for a shim that containerd forgot
    while (left := cgroups(name)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def victims(containerd: Containerd, kind: str, name: str) -> list[int]:
    """The processes of a container. Its machine is a child of the shim, and soon in a cgroup of its own."""
    shims = containerd.shims(name)
    if kind == "shim":
        return shims
    found = {child for pid in shims for child in children(pid)}
    lists = [path / "cgroup.procs" for path in cgroups(name)]
    return sorted(found | {int(word) for path in lists if path.exists() for word in path.read_text().split()})


def kill_one(containerd: Containerd, kind: str, name: str) -> None:
    """SIGKILL one of them. A containerd is started again."""
    if kind == "containerd":
        containerd.stop(signal.SIGKILL)
        containerd.start()
        return
    for pid in victims(containerd, kind, name):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def interrupted(containerd: Containerd, kind: str, name: str, *command: str) -> None:
    """Run a command of ctr, and kill something at some moment of it."""
    moment = random.choice(MOMENTS) / 1000
    quiet = subprocess.DEVNULL
    process = containerd.popen(*command, stdin=quiet, stdout=quiet, stderr=quiet)
    time.sleep(moment)
    kill_one(containerd, kind, name)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"ctr {' '.join(command)} hangs after {kind} was killed at {moment} s") from None


@pytest.mark.parametrize("kind", ["shim", "vmm", "containerd"])
def test_killed_while_it_starts(containerd: Containerd, kind: str) -> None:
    for number in range(len(MOMENTS)):
        name = f"start-{kind}-{number}"
        STARTED.append(name)
        interrupted(containerd, kind, name, "run", "--runtime", RUNTIME, "-d", "--null-io", IMAGE, name, *SLEEP)
        if name in containerd.ctr("container", "list", "--quiet").stdout.decode().split():
            remove(containerd, name)


@pytest.mark.parametrize("kind", ["shim", "vmm", "containerd"])
@pytest.mark.parametrize("step", ["exec", "kill", "delete"])
def test_killed_in_the_middle(containerd: Containerd, kind: str, step: str) -> None:
    for number in range(3):
        name = f"{step}-{kind}-{number}"
        start(containerd, name)
        if step == "delete":
            containerd.ctr("task", "kill", "--signal", "SIGKILL", name)
            containerd.await_status(name, "STOPPED")
        command = {
            "exec": ("task", "exec", "--exec-id", "e", name, "/bin/sleep", "0.2"),
            "kill": ("task", "kill", "--signal", "SIGTERM", name),
            "delete": ("task", "delete", name),
        }[step]
        interrupted(containerd, kind, name, *command)
        if step == "exec" and kind != "containerd":
            deadline = time.monotonic() + 15
            while containerd.status(name) == "RUNNING" and time.monotonic() < deadline:
                time.sleep(0.1)
            assert containerd.status(name) != "RUNNING"
        remove(containerd, name)


def test_a_full_disk_is_an_error_and_the_shim_serves_on(containerd: Containerd) -> None:
    group = ("--annotation", "io.containerd.runc.v2.group=full")
    states = containerd.state / "litebox" / "default"
    states.mkdir(parents=True, exist_ok=True)
    subprocess.run(containerd.inside("mount", "-t", "tmpfs", "-o", "size=128k", "none", states), check=True)
    try:
        start(containerd, "full", *group)
        subprocess.run(containerd.inside("dd", "if=/dev/zero", f"of={states}/file"), check=False, capture_output=True)
        refused = containerd.run("more", *SLEEP, flags=("-d", "--null-io", *group))
        assert b"No space left on device" in refused.stderr
        remove(containerd, "more")
        assert containerd.ctr("task", "exec", "--exec-id", "e", "full", "/bin/echo", "in").stdout == b"in\n"
        subprocess.run(containerd.inside("rm", f"{states}/file"), check=True)
        start(containerd, "more", *group)
        for name in ("more", "full"):
            remove(containerd, name)
    finally:
        subprocess.run(containerd.inside("umount", "--lazy", states), check=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_lives_in_one_shim(containerd: Containerd) -> None:
    """A pod whose containers come and go: its shim's threads, descriptors and memory stay what they were."""
    group = ("--annotation", "io.containerd.runc.v2.group=lives")
    start(containerd, "first", *group)
    (shim,) = containerd.shims("first")
    sizes = []
    for number in range(LIVES):
        if number in (LIVES // 5, LIVES - 1):
            sizes.append(size(shim))
        start(containerd, "life", *group)
        ran = containerd.ctr("task", "exec", "--exec-id", "e", "life", "/bin/echo", "in")
        assert ran.stdout == b"in\n"
        containerd.ctr("task", "kill", "--signal", "SIGKILL", "life")
        containerd.await_status("life", "STOPPED")
        containerd.ctr("task", "delete", "life", check=False)
        containerd.ctr("container", "delete", "life")
    assert containerd.shims("life") == []
    early, late = sizes
    assert late["descriptors"] <= early["descriptors"] + 2
    assert late["threads"] <= early["threads"] + 2
    assert late["kib"] <= early["kib"] + 1024


def size(pid: int) -> dict[str, int]:
    proc = Path(f"/proc/{pid}")
    smaps = (line.split() for line in (proc / "smaps_rollup").read_text().splitlines())
    return {
        "descriptors": len(list((proc / "fd").iterdir())),
        "threads": len(list((proc / "task").iterdir())),
        "kib": next(int(words[1]) for words in smaps if words[0] == "Pss:"),
    }
