"""Every assertion of the runtime-tools validation suite that holds for runc holds for LiteBox."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from integration.oci import runtime_tools

# What a test asserts, in part, that cannot hold: the test's name, words of the assertion, why.
DIFFERENT = (
    ("", "pids limit is set correctly", "the VMM's own threads come on top of the limit, in its cgroup on the host"),
    ("", "memory limit is set correctly", "what the VM needs beside the guest comes on top, in its cgroup on the host"),
    ("", "memory swap is set correctly", "what the VM needs beside the guest comes on top, in its cgroup on the host"),
    ("linux_ns_itype", "inherit namespace mnt", "the VMM has a mount namespace of its own in any case"),
    ("linux_ns_nopath", "create namespace cgroup", "the guest's own, which the host does not see"),
    ("linux_ns_nopath", "create namespace pid", "the guest's own, which the host does not see"),
    ("linux_ns_path", "set mnt namespace by path", "the guest has its own"),
    ("linux_ns_path", "set pid namespace by path", "the guest has its own: refused"),
)  # fmt: skip
# It sends its signals to a shell that has just been started, and hopes that `start`, `state` and `kill` together take
# longer than the shell takes to come to its `trap`: PID 1 does not get a signal that it does not handle yet. With a
# runtime that is as fast as its program, `start` has to give the shell its time.
HURRIES = {"killsig"}
UNHURRIED = """#!/bin/sh
{litebox} "$@"
status=$?
[ "$1" != start ] || sleep 0.5
exit $status
"""


@pytest.fixture(scope="session")
def suite() -> Path:
    if os.geteuid():
        pytest.skip("the validation suite needs root")
    for program in ("go", "runc"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    return runtime_tools.build()


@pytest.fixture
def unhurried(litebox: Path, tmp_path: Path) -> Path:
    """A runtime that is LiteBox and whose `start` returns when the program has had time to begin."""
    script = tmp_path / "litebox"
    script.write_text(UNHURRIED.format(litebox=litebox / "litebox"))
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("name", (runtime_tools.HERE / "tests.txt").read_text().split())
def test_what_holds_for_runc_holds_here(suite: Path, litebox: Path, unhurried: Path, name: str) -> None:
    theirs = runtime_tools.run(suite, name, "runc")
    ours = runtime_tools.run(suite, name, str(unhurried if name in HURRIES else litebox / "litebox"))
    known = [words for test, words, _ in DIFFERENT if test in ("", name)]
    lost = [
        assertion
        for assertion, held in theirs.items()
        if held and not ours.get(assertion) and not any(words in assertion for words in known)
    ]
    assert lost == []
