"""What the shim reads from the host and mounts on it: cgroup counters, mount options, paths."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shim.api.metrics_v1 import Metrics as Metrics1
from shim.api.metrics_v2 import Metrics as Metrics2
from shim.errors import InvalidArgumentError, NotFoundError
from shim.litebox import cgroup_of
from shim.paths import state_root
from shim.rootfs import MS_BIND, MS_RDONLY, MS_REC, compact, is_mount, split_options
from shim.spec import read_config
from shim.stats import Inside, metrics


def write(directory: Path, files: dict[str, str]) -> str:
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    return str(directory)


def test_cgroup_v2(tmp_path: Path) -> None:
    directory = write(
        tmp_path / "c",
        {
            "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 1\nunknown 5\n",
            "memory.current": "4096\n",
            "memory.max": "max\n",
            "memory.stat": "anon 1\nfile 2\nzswap 3\n",
            "memory.events": "low 0\noom 2\noom_kill 1\n",
            "pids.current": "3\n",
            "pids.max": "max\n",
            "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n259:1\n",
        },
    )
    got = metrics([("", directory)])
    assert isinstance(got, Metrics2)
    assert got.cpu
    assert (got.cpu.usage_usec, got.cpu.user_usec, got.cpu.system_usec) == (30, 20, 10)
    assert got.memory
    assert (got.memory.usage, got.memory.usage_limit, got.memory.anon, got.memory.file) == (4096, (1 << 64) - 1, 1, 2)
    assert got.memory_events
    assert (got.memory_events.oom, got.memory_events.oom_kill) == (2, 1)
    assert got.pids
    assert (got.pids.current, got.pids.limit) == (3, 0)
    assert got.io
    assert [(entry.major, entry.minor, entry.rbytes, entry.wios) for entry in got.io.usage] == [
        (8, 0, 1, 4),
        (259, 1, 0, 0),
    ]
    assert Metrics2.decode(got.encode()) == got


def test_cgroup_v1(tmp_path: Path) -> None:
    cpu = write(tmp_path / "cpu", {"cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 9\n"})
    account = {"cpuacct.usage": "123\n", "cpuacct.usage_percpu": "100 23 \n", "cpuacct.stat": "user 3\nsystem 4\n"}
    cpuacct = write(tmp_path / "cpuacct", account)
    memory = {
        "memory.usage_in_bytes": "10\n",
        "memory.limit_in_bytes": "20\n",
        "memory.stat": "cache 1\nrss 2\npgfault 3\ntotal_pgmajfault 4\nhierarchical_memsw_limit 5\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n",
    }
    blkio = write(tmp_path / "blkio", {"blkio.throttle.io_service_bytes": "8:0 Read 4\n8:0 Write 5\nTotal 9\n"})
    got = metrics(
        [("cpu", cpu), ("cpuacct", cpuacct), ("memory", write(tmp_path / "memory", memory)), ("blkio", blkio)]
    )
    assert isinstance(got, Metrics1)
    assert got.cpu
    assert got.cpu.usage
    assert (got.cpu.usage.total, got.cpu.usage.user, got.cpu.usage.per_cpu) == (123, 30_000_000, [100, 23])
    stat = got.memory
    assert stat
    assert stat.usage
    assert (stat.usage.usage, stat.usage.limit) == (10, 20)
    assert (stat.cache, stat.rss, stat.pg_fault, stat.total_pg_maj_fault, stat.hierarchical_swap_limit) == (
        1,
        2,
        3,
        4,
        5,
    )
    assert got.memory_oom_control
    assert got.memory_oom_control.oom_kill == 6
    assert got.blkio
    assert [(entry.op, entry.value) for entry in got.blkio.io_service_bytes_recursive] == [("Read", 4), ("Write", 5)]
    assert Metrics1.decode(got.encode()) == got


def test_no_cgroup_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        metrics([])


def test_the_cgroups_of_a_process() -> None:
    if not Path("/sys/fs/cgroup").is_mount():
        pytest.skip("no cgroups are mounted here")
    found = cgroup_of(os.getpid())
    assert found
    assert all(Path(directory).is_dir() for _, directory in found)


def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_NONBLOCK)
    code = "from shim import log\nfor number in range(1000): log.info('x' * 1000, number=number)\nprint('done')"
    root = Path(__file__).resolve().parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=log, timeout=20, check=True
    )
    assert ran.stdout == b"done\n"
    assert b"number=0\n" in os.read(log, 65536)
    os.close(log)


def test_mount_options() -> None:
    assert split_options(["rbind", "ro", "rw", "ro", "index=off", ""]) == (MS_BIND | MS_REC | MS_RDONLY, ["index=off"])


def test_layers_of_an_overlay_are_shortened() -> None:
    layers = [f"/var/lib/snapshots/{number}/fs" for number in range(3)]
    options = ["workdir=/w", "lowerdir=" + ":".join(layers), "upperdir=/u"]
    assert compact(options) == ("/var/lib/snapshots", ["workdir=/w", "lowerdir=0/fs:1/fs:2/fs", "upperdir=/u"])
    assert compact(["lowerdir=/a/b"]) == ("", ["lowerdir=/a/b"])
    assert compact(["lowerdir=/a:/b"]) == ("", ["lowerdir=/a:/b"])


def test_members_of_a_pod_have_their_own_processes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    namespaces = [{"type": "pid", "path": "/proc/7/ns/pid"}, {"type": "network", "path": "/proc/7/ns/net"}]
    config: dict[str, object] = {"linux": {"namespaces": namespaces}}
    for kind in ("sandbox", "container"):
        config["annotations"] = {"io.kubernetes.cri.container-type": kind}
        (tmp_path / "config.json").write_text(json.dumps(config))
        got = read_config(str(tmp_path))["linux"]["namespaces"]
        assert ("path" in got[0]) == (kind == "sandbox")
        assert got[1] == namespaces[1]
        init = read_config(str(tmp_path))["annotations"].get("dev.litebox.init")
        assert init == (None if kind == "sandbox" else "ordinary")
    assert capfd.readouterr().err.count("pid namespace") == 2


def test_members_of_a_pod_have_its_name_and_sysctls(tmp_path: Path) -> None:
    annotations = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod"}
    settings = {"kernel.shm_rmid_forced": "1", "net.core.somaxconn": "99"}
    pod = {"hostname": "web-0", "linux": {"sysctl": settings}}
    for name, config in (("pod", pod), ("c1", {"annotations": annotations}), ("c2", {})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    assert read_config(str(tmp_path / "c1"))["hostname"] == "web-0"
    assert read_config(str(tmp_path / "c1"))["linux"]["sysctl"] == {"kernel.shm_rmid_forced": "1"}
    assert "hostname" not in read_config(str(tmp_path / "c2"))
    (tmp_path / "pod" / "config.json").unlink()
    assert "hostname" not in read_config(str(tmp_path / "c1"))


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_a_config_that_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidArgumentError, match=r"config\.json"):
        read_config(str(tmp_path))


@pytest.mark.parametrize("controllers", ["", "memory"])
def test_the_guest_knows_its_tasks_and_limits(tmp_path: Path, controllers: str) -> None:
    for name in ("memory.max", "memory.limit_in_bytes", "pids.max"):
        (tmp_path / name).write_text("200000000\n")
    got = metrics([(controllers, str(tmp_path))], Inside(3, 1 << 20, 50))
    assert isinstance(got, Metrics1 | Metrics2)
    assert got.pids
    assert (got.pids.current, got.pids.limit) == (3, 50)
    if isinstance(got, Metrics2):
        assert got.memory
        assert got.memory.usage_limit == 1 << 20
    else:
        assert got.memory
        assert got.memory.usage
        assert got.memory.usage.limit == 1 << 20


def test_is_mount(tmp_path: Path) -> None:
    assert is_mount("/proc")
    assert not is_mount(str(tmp_path))
    assert not is_mount(str(tmp_path / "absent"))


def test_each_containerd_has_its_state() -> None:
    assert (
        state_root("/run/containerd/io.containerd.runtime.v2.task/k8s.io/abc", "k8s.io")
        == "/run/containerd/litebox/k8s.io"
    )
