"""Real programs give the same output natively and in the micro-VM.

Every script below busybox/ and debian/ is a test: it is copied to /work of a fresh root file system (busybox alone, or a
Debian one), executed there natively and under the runtime, and must print the same and end with the same status. Lines
`# slow`, `# timeout SECONDS`, `# memory MIB` and `# needs PROGRAM` at the head of a script say what it is like; a folder
NAME.d beside NAME.sh goes to /work too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import bundles
import debian

pytestmark = pytest.mark.timeout(900)  # the first one waits for the root file system
HERE = Path(__file__).parent
HEADER = re.compile(r"^(?:#|//) (slow|timeout|memory|needs)\b ?(.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Program:
    script: Path
    headers: dict[str, str]

    @property
    def family(self) -> str:
        return self.script.parent.name

    @property
    def name(self) -> str:
        return f"{self.family}/{self.script.stem}"


def programs() -> list[Program]:
    scripts = sorted([*HERE.glob("busybox/*"), *HERE.glob("debian/*")])
    return [Program(path, dict(HEADER.findall(path.read_text()))) for path in scripts if path.is_file()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    runtime = metafunc.config.getoption("--runtime")
    table = tomllib.loads((HERE / "deviations.toml").read_text()).get(runtime, [])
    known = {entry["program"]: entry["reason"] for entry in table}
    parameters = []
    for program in programs():
        marks: list[pytest.MarkDecorator] = [pytest.mark.slow] if "slow" in program.headers else []
        if program.name in known:
            marks.append(pytest.mark.xfail(strict=True, reason=known[program.name]))
        parameters.append(pytest.param(program, id=program.name, marks=marks))
    metafunc.parametrize("program", parameters)


@functools.cache
def go_program(name: str) -> Path:
    """Builds go/NAME.go: statically without cgo, or dynamically linked if it imports "C"."""
    source = HERE / "go" / f"{name}.go"
    target = bundles.BUILD / "programs" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    cgo = 'import "C"' in source.read_text()
    command = ["go", "build", "-trimpath", "-o", str(target), str(source)]
    environment = {**os.environ, "CGO_ENABLED": str(int(cgo))}
    subprocess.run(command, env=environment, check=True)
    return target


@contextlib.contextmanager
def bundle_for(program: Program, folder: Path) -> Iterator[bundles.Bundle]:
    with contextlib.ExitStack() as stack:
        if program.family == "busybox":
            bundle = bundles.busybox_bundle(folder)
        else:
            bundle = stack.enter_context(debian.overlay_bundle(folder))
        work = bundle.rootfs / "work"
        shutil.copy2(program.script, work)
        (work / program.script.name).chmod(0o755)
        companions = program.script.with_suffix(".d")
        if companions.is_dir():
            shutil.copytree(companions, work, dirs_exist_ok=True)
        if program.headers.get("needs") == "go":
            shutil.copy2(go_program(program.script.stem), work / "program")
        bundle.configure([f"/work/{program.script.name}"], cwd="/work", memory=memory_of(program))
        yield bundle


def memory_of(program: Program) -> int | None:
    return int(program.headers["memory"]) << 20 if "memory" in program.headers else None


def run(side: bundles.Native | bundles.Runtime, program: Program, folder: Path) -> bundles.Completed:
    with bundle_for(program, folder) as bundle:
        return side.run(bundle, timeout=float(program.headers.get("timeout", "120")))


def test_program(
    program: Program, native: bundles.Native, runtime: bundles.Native | bundles.Runtime, tmp_path: Path
) -> None:
    if (needed := program.headers.get("needs")) and shutil.which(needed) is None:
        pytest.skip(f"{needed} is missing")
    expected = run(native, program, tmp_path / "native")
    assert expected.code == 0, f"it does not even run natively: {expected}"
    found = run(runtime, program, tmp_path / "runtime")
    assert (found.text, found.code) == (expected.text, expected.code), found.stderr.decode(errors="replace")[-3000:]
