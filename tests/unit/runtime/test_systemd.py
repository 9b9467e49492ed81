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
from unit.runtime.conftest import cgroup_of

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


class Systemd:
    """A manager with /run/systemd, a mount namespace and a cgroup of its own."""

    def __init__(self, process: subprocess.Popen[bytes], root: str) -> None:
        self.process = process
        self.root = root

    def inside(self, *command: str | Path) -> list[str]:
        return ["nsenter", "--target", str(self.process.pid), "--mount", *map(str, command)]

    def property(self, unit: str, name: str) -> str:
        command = self.inside("systemctl", "--user", "show", "--value", f"--property={name}", unit)
        environment = os.environ | {"XDG_RUNTIME_DIR": "/run"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()


@pytest.fixture
def manager(tmp_path: Path, rootfs: Path) -> Iterator[Systemd]:
    if not shutil.which("systemd") or not shutil.which("nsenter"):
        pytest.skip("systemd is not installed")
    root = f"{cgroup_of(tmp_path)}-systemd"
    hierarchies = [
        path for path in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()) if (path / "cgroup.procs").exists()
    ]
    # In a cgroup of its own: at the root it would move every process of the machine into its init.scope.
    for hierarchy in hierarchies:
        (hierarchy / root).mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / file).exists() and hierarchy.name == "cpuset":
                (hierarchy / root / file).write_text((hierarchy / file).read_text())
    script = f"""
        for path in {" ".join(str(path) for path in hierarchies)}; do echo $$ > $path/{root}/cgroup.procs; done
        mount -t tmpfs none /run/systemd && mkdir /run/systemd/system
        exec systemd --user --log-target=console --unit=basic.target
    """
    command = ["unshare", "--mount", "sh", "-ec", script]
    environment = os.environ | {"XDG_RUNTIME_DIR": "/run"}
    with (tmp_path / "systemd.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    found = Systemd(process, root)
    try:
        deadline = time.monotonic() + 20
        while not Path(f"/proc/{process.pid}/root/run/systemd/private").exists():
            assert process.poll() is None, (tmp_path / "systemd.log").read_text()
            assert time.monotonic() < deadline, "systemd does not come up"
            time.sleep(0.05)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for hierarchy in hierarchies:
            for folder, _, _ in os.walk(hierarchy / root, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()


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
