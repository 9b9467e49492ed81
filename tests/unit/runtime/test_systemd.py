"""systemd as the maker of cgroups: the protocol by itself, then a real systemd that serves this test alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import InvalidSpec
from runtime.host.cgroups import dbus, paths, resources, systemd
from unit.runtime.conftest import USER, User, cgroup_of

Bundle = Callable[..., Path]
SLICE = "litebox-test.slice"


def test_signatures_are_split() -> None:
    assert dbus.split("ssa(sv)a(sa(sv))") == ["s", "s", "a(sv)", "a(sa(sv))"]
    assert dbus.split("aasa{sv}(yv)u") == ["aas", "a{sv}", "(yv)", "u"]
    assert dbus.split("") == []


def test_what_is_marshalled_reads_the_same() -> None:
    signature = "yba(sv)xtasog"
    values = [7, True, [["a", ("au", [1, 2])], ["bc", ("s", "text")]], -5, 2**63, ["x", ""], "/o", "a(sv)"]
    data = dbus.marshal(signature, values)
    read = dbus.Reader(data).values(signature)
    assert read == [7, True, [["a", [1, 2]], ["bc", "text"]], -5, 2**63, ["x", ""], "/o", "a(sv)"]
    # D-Bus specification, "Valid signatures": an example of its own, "foo" and "+" behind it.
    assert dbus.marshal("ss", ["foo", "+"]) == b"\3\0\0\0foo\0\1\0\0\0+\0"


@pytest.mark.parametrize("path", ["x:y:z", "a--b.slice:y:z", ":y:", "/abs", "a:b"])
def test_bad_units(path: str) -> None:
    with pytest.raises(InvalidSpec):
        paths.expand_slice(paths.split_systemd(path)[0])


def test_limits_have_names() -> None:
    wanted = {
        "memory": {"limit": 64 << 20},
        "cpu": {"quota": 25_500, "period": 100_000, "shares": 1024},
        "pids": {"limit": -1},
    }
    memory = resources.memory_with_overhead(64 << 20)
    assert dict(systemd.limits(resources.settings_v1(wanted))) == {
        "MemoryLimit": ("t", memory),
        "TasksMax": ("t", 2**64 - 1),
        "CPUShares": ("t", 1024),
        "CPUQuotaPeriodUSec": ("t", 100_000),
        "CPUQuotaPerSecUSec": ("t", 260_000),
    }
    assert dict(systemd.limits(resources.settings_v2(wanted)))["MemoryMax"] == ("t", memory)
    assert dict(systemd.limits(resources.settings_v2(wanted)))["CPUQuotaPerSecUSec"] == ("t", 260_000)


def test_without_systemd_the_flag_is_an_error(litebox: Any, bundle: Bundle) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here")
    folder = str(bundle(changes={"linux": {"cgroupsPath": f"{SLICE}:litebox:c1"}}))
    done = litebox("--systemd-cgroup", "create", "--bundle", folder, "c1", ok=False)
    assert done.returncode == 1
    assert "systemd does not run on this host" in done.stderr
    assert litebox.leftovers() == []


def hierarchies() -> list[Path]:
    base = Path("/sys/fs/cgroup")
    return [path for path in (base, *base.iterdir()) if (path / "cgroup.procs").exists()]


class Systemd:
    """A manager with /run/systemd, a mount namespace and a cgroup of its own."""

    def __init__(self, process: subprocess.Popen[bytes], root: str, runtime: str, user: str) -> None:
        self.process = process
        self.root = root
        self.user = user
        self.environment = os.environ | {"XDG_RUNTIME_DIR": runtime}

    def inside(self, *command: str | Path) -> list[str]:
        return ["nsenter", "--target", str(self.process.pid), "--mount", *map(str, command)]

    def property(self, unit: str, name: str) -> str:
        owner = ("setpriv", "--reuid", self.user, "--clear-groups")
        command = self.inside(*owner, "systemctl", "--user", "show", "--value", f"--property={name}", unit)
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()


@contextlib.contextmanager
def started(folder: Path, runtime: str = "/run", user: str = "0") -> Iterator[Systemd]:
    if not shutil.which("systemd") or not shutil.which("nsenter"):
        pytest.skip("systemd is not installed")
    root = f"{cgroup_of(folder)}-systemd"
    # In a cgroup of its own: at the root it would move every process of the machine into its init.scope.
    for hierarchy in hierarchies():
        (hierarchy / root).mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / file).exists() and hierarchy.name == "cpuset":
                (hierarchy / root / file).write_text((hierarchy / file).read_text())
        if hierarchy.name in ("cgroup", "systemd", "unified"):  # those that systemd gives to a user's manager
            for path in (hierarchy / root, *(hierarchy / root).glob("cgroup.*")):
                os.chown(path, int(user), int(user))
    script = f"""
        for path in {" ".join(str(path) for path in hierarchies())}; do echo $$ > $path/{root}/cgroup.procs; done
        mount -t tmpfs none /run/systemd && mkdir /run/systemd/system
        exec setpriv --reuid {user} --regid {user} --clear-groups systemd --user --log-target=console --unit=basic.target
    """
    command = ["unshare", "--mount", "sh", "-ec", script]
    with (folder / "systemd.log").open("wb") as log:
        environment = os.environ | {"XDG_RUNTIME_DIR": runtime}
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not Path(f"/proc/{process.pid}/root/{runtime}/systemd/private").exists():
            assert process.poll() is None, (folder / "systemd.log").read_text()
            assert time.monotonic() < deadline, "systemd does not come up"
            time.sleep(0.05)
        yield Systemd(process, root, runtime, user)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for hierarchy in hierarchies():
            for name, _, _ in os.walk(hierarchy / root, topdown=False):
                with contextlib.suppress(OSError):
                    Path(name).rmdir()


@pytest.fixture
def manager(tmp_path: Path, rootfs: Path) -> Iterator[Systemd]:
    with started(tmp_path) as found:
        yield found


def test_a_scope_of_systemd(litebox: Any, bundle: Bundle, manager: Systemd, tmp_path: Path) -> None:
    def run(*args: str) -> str:
        """Output goes to a file, which the container may keep open."""
        command = manager.inside("env", *(f"{k}={v}" for k, v in litebox.environment.items()), *litebox.command(*args))
        with (tmp_path / "output").open("w+b") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, timeout=60
            )
            text = (tmp_path / "output").read_text()
        assert done.returncode == 0, text
        return text

    wanted = {"memory": {"limit": 64 << 20}, "cpu": {"quota": 50_000, "period": 100_000}, "pids": {"limit": 30}}
    changes = {"linux": {"cgroupsPath": f"{SLICE}:litebox:c1", "resources": wanted}}
    run("--systemd-cgroup", "create", "--bundle", str(bundle(changes=changes)), "c1")
    run("start", "c1")
    pid = json.loads(run("state", "c1"))["pid"]
    unit = "litebox-c1.scope"
    where = f"/{manager.root}/litebox.slice/{SLICE}/{unit}"
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert {line.rpartition(":")[2] for line in lines if not line.startswith("0:") or len(lines) == 1} == {where}
    assert manager.property(unit, "ActiveState") == "active"
    assert (manager.property(unit, "Slice"), manager.property(unit, "Delegate")) == (SLICE, "yes")
    memory = str(resources.memory_with_overhead(64 << 20))
    assert memory in (manager.property(unit, "MemoryMax"), manager.property(unit, "MemoryLimit"))
    assert manager.property(unit, "CPUQuotaPerSecUSec") == "500ms"
    assert manager.property(unit, "TasksMax") == str(30 + resources.VMM_THREADS)
    run("update", "--pids-limit", "40", "c1")
    assert manager.property(unit, "TasksMax") == str(40 + resources.VMM_THREADS)
    run("delete", "--force", "c1")
    assert manager.property(unit, "ActiveState") == "inactive"
    assert litebox.leftovers() == []


def test_a_scope_of_a_users_manager(user: User) -> None:
    """Without root's rights: the manager of the user's session makes it."""
    assert user("spec", "--rootless").returncode == 0
    path = user.folder / "config.json"
    document = json.loads(path.read_text())
    document["process"].update(terminal=False, args=["sh", "-c", "exit 3"])
    document["linux"].update(cgroupsPath=f"{SLICE}:litebox:c1")
    show = 'cat /proc/$(sed "s/.*pid.:\\([0-9]*\\).*/\\1/")/cgroup >cgroups'
    document["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", show]}]}
    path.write_text(json.dumps(document))
    with started(user.folder, str(user.folder), USER) as manager:
        # Of its session's programs: others may not be moved by it.
        enter = [f"echo $$ >{path}/{manager.root}/cgroup.procs" for path in hierarchies()]
        user.inside = manager.inside("sh", "-c", "; ".join([*enter, 'cd "$0" && exec "$@"']), user.folder)
        done = user("--systemd-cgroup", "run", "c1")
        assert done.returncode == 3, done.stderr
        where = f"/{manager.root}/litebox.slice/{SLICE}/litebox-c1.scope\n"
        assert where in (user.folder / "cgroups").read_text()
        assert manager.property("litebox-c1.scope", "ActiveState") == "inactive"
