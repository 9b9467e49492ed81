"""The files that a user copies, read by the containerd that they are for."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

from integration import installed

HERE = Path(__file__).parent
PROGRAMS = installed.engines("containerd")


def major(program: Path) -> int:
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()
    return int(next(word for word in words if word.lstrip("v")[:1].isdigit()).lstrip("v").partition(".")[0])


@pytest.mark.parametrize("name", PROGRAMS or ["none"])
def test_the_handler_is_there(name: str, tmp_path: Path) -> None:
    if not PROGRAMS:
        pytest.skip("containerd is not installed (apt-get install containerd)")
    program = PROGRAMS[name]
    config = tmp_path / "config.toml"
    if major(program) == 1:
        config.write_text("version = 2\n" + (HERE / "litebox-v2.toml").read_text())
        section = "io.containerd.grpc.v1.cri"
    else:
        config.write_text(f'version = 3\nimports = ["{HERE}/litebox-v3.toml"]\n')
        section = "io.containerd.cri.v1.runtime"
    dump = subprocess.run([program, "-c", config, "config", "dump"], capture_output=True, text=True, check=True).stdout
    runtimes = tomllib.loads(dump)["plugins"][section]["containerd"]["runtimes"]
    assert runtimes["litebox"]["runtime_type"] == "io.containerd.litebox.v1"
    assert "runc" in runtimes
