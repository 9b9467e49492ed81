"""Control groups that the kernel makes, of either version, where this machine has them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import HostError, InvalidSpec, Unsupported
from runtime.host.cgroups import manager

PAGE = "2MB"


def mounted(kind: str) -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, found, options, *_ = line.split()
        if found == kind and (kind == "cgroup2" or "blkio" in options.split(",")):
            return Path(path)
    return None


@pytest.fixture
def process() -> Iterator[int]:
    with subprocess.Popen(["sleep", "100"]) as child:
        yield child.pid
        child.kill()


@pytest.fixture
def unified() -> Iterator[manager.Cgroups]:
    """A cgroup two levels down in cgroup v2; of a hybrid host that has the controllers v1 left."""
    root = mounted("cgroup2")
    if os.geteuid() != 0 or root is None or "hugetlb" not in (root / "cgroup.controllers").read_text():
        pytest.skip("needs root, and cgroup v2 with the hugetlb controller")
    enabled = (root / "cgroup.subtree_control").read_text().split()
    parent = root / f"litebox-test-{os.getpid()}"
    yield manager.Cgroups({"": str(parent / "c1")})
    manager.remove([str(parent / "c1"), str(parent)])
    if "hugetlb" not in enabled:
        (root / "cgroup.subtree_control").write_text("-hugetlb")


def quiet(message: str) -> None:
    raise AssertionError(message)


def test_v2_has_the_limits_and_the_process(unified: manager.Cgroups, process: int) -> None:
    wanted = {"hugepageLimits": [{"pageSize": PAGE, "limit": 4 << 20}], "unified": {"cgroup.max.depth": "3"}}
    folder = Path(unified.directories[""])
    assert manager.missing(unified) == [str(folder)]
    manager.make(unified, manager.settings_for(unified, wanted), may_lack=False, log=quiet)
    assert manager.open_tasks(unified) is None
    manager.move(unified, process, may_lack=False)
    assert (folder / f"hugetlb.{PAGE}.max").read_text() == f"{4 << 20}\n"
    assert (folder / "cgroup.max.depth").read_text() == "3\n"
    assert (folder / "cgroup.procs").read_text() == f"{process}\n"
    manager.remove([str(folder)])  # kills what is in it
    assert not folder.exists()


def test_v2_says_what_it_lacks_and_what_the_kernel_refuses(unified: manager.Cgroups, process: int) -> None:
    with pytest.raises(InvalidSpec, match=r"cgroup\.max\.depth'\]: .* does not take 'deep': Invalid argument"):
        bad = manager.settings_for(unified, {"unified": {"cgroup.max.depth": "deep"}})
        manager.make(unified, bad, may_lack=False, log=quiet)
    with pytest.raises(
        Unsupported, match=r"unified\['cpu\.nonesuch'\]: this host's cpu controller has no cpu\.nonesuch"
    ):
        manager.apply(unified, manager.settings_for(unified, {"unified": {"cpu.nonesuch": "1"}}), may_lack=False, log=quiet)  # fmt: skip


@pytest.fixture
def block_io() -> Iterator[manager.Cgroups]:
    root = mounted("cgroup")
    if os.geteuid() != 0 or root is None:
        pytest.skip("needs root, and cgroup v1 with the blkio controller")
    groups = manager.Cgroups({"blkio": str(root / f"litebox-test-{os.getpid()}")})
    yield groups
    manager.remove(list(groups.directories.values()))


def test_a_process_of_one_thread_moves_itself(block_io: manager.Cgroups) -> None:
    manager.make(block_io, [], may_lack=False, log=quiet)
    (tasks,) = manager.open_tasks(block_io) or []
    script = f"echo 0 >&{tasks}; cat /proc/self/cgroup"
    said = subprocess.run(["bash", "-c", script], pass_fds=[tasks], check=True, capture_output=True, text=True).stdout
    os.close(tasks)
    assert re.search(rf":blkio:.*/{Path(block_io.path_of('blkio') or '').name}$", said, re.MULTILINE)


def test_cgroups_that_are_gone_cannot_be_joined(block_io: manager.Cgroups) -> None:
    with pytest.raises(HostError, match="joining it: No such file"):
        manager.open_tasks(block_io)


def test_weights_of_block_io_are_those_of_bfq_where_there_are_no_others(block_io: manager.Cgroups) -> None:
    manager.make(block_io, [], may_lack=False, log=quiet)
    folder = Path(block_io.directories["blkio"])
    files = [folder / name for name in ("blkio.weight", "blkio.bfq.weight") if (folder / name).exists()]
    if not files:
        pytest.skip("this kernel has no scheduler with weights")
    manager.apply(block_io, manager.settings_for(block_io, {"blockIO": {"weight": 300}}), may_lack=False, log=quiet)
    assert files[0].read_text().split()[-1] == "300"
