"""Every case of every guest program gives the same output natively and in the micro-VM.

A program runs once natively and once under the runtime; each of its cases is then a test of its own. A case that is
known to differ stands in deviations.toml with its reason, and must differ as long as it stands there.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bundles

HERE = Path(__file__).parent
CASE = re.compile(r"^CASE\((\w+)\)", re.MULTILINE)
DYNAMIC = re.search(r"^DYNAMIC = (.*)$", (HERE / "Makefile").read_text(), re.MULTILINE)

# Programs that run once more in another folder: on the tmpfs of /tmp besides the root file system.
ELSEWHERE = {f"{name}.tmpfs": (name, "/tmp") for name in ("files", "names", "locks", "inotify", "memory")}

Sections = dict[str, str]


def programs() -> Iterator[tuple[str, list[str]]]:
    """Names of the programs and of their cases, in the order of the source."""
    dynamic = DYNAMIC[1].split() if DYNAMIC else []
    for source in sorted(HERE.glob("*.c")):
        if cases := CASE.findall(source.read_text()):
            yield source.stem, cases
            if source.stem in dynamic:
                yield f"{source.stem}.dyn", cases
            yield from ((name, cases) for name, (program, _) in ELSEWHERE.items() if program == source.stem)


def deviations(runtime: str) -> dict[tuple[str, str], str]:
    table = tomllib.loads((HERE / "deviations.toml").read_text())
    return {(entry["program"], entry["case"]): entry["reason"] for entry in table.get(runtime, [])}


def sections(output: bytes) -> Sections:
    """The output of each case: from its `== NAME` line up to the next."""
    found: Sections = {}
    name = ""
    for line in output.decode(errors="backslashreplace").splitlines(keepends=True):
        if line.startswith("== "):
            name = line[3:].strip()
        found[name] = found.get(name, "") + line
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    known = deviations(metafunc.config.getoption("--runtime"))
    metafunc.parametrize(
        ("program", "case"),
        [
            pytest.param(
                program,
                case,
                id=f"{program}-{case}",
                marks=[pytest.mark.xfail(strict=True, reason=known[program, case])] if (program, case) in known else [],
            )
            for program, cases in programs()
            for case in cases
        ],
    )


@pytest.fixture(scope="session")
def executed(
    oracle: bundles.Native, runtime: bundles.Native | bundles.Runtime, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[bundles.Completed, Sections]]:
    """Runs a program natively or under the runtime, once."""
    folder = bundles.build_guest_programs()

    @functools.cache
    def execute(side: str, program: str) -> tuple[bundles.Completed, Sections]:
        name, cwd = ELSEWHERE.get(program, (program, "/work"))
        bundle = bundles.busybox_bundle(tmp_path_factory.mktemp(side), [folder / name])
        bundle.configure([f"/bin/{name}"], cwd=cwd)
        completed = (oracle if side == "native" else runtime).run(bundle)
        return completed, sections(completed.stdout)

    return execute


def test_case(executed: Callable[[str, str], tuple[bundles.Completed, Sections]], program: str, case: str) -> None:
    _, expected = executed("native", program)
    assert "-- " in expected.get(case, ""), f"no native output of {program} {case}"
    completed, found = executed("runtime", program)
    assert case in found, f"the program did not get to this case: exit {completed.code}\n{completed.stderr[-2000:]!r}"
    assert found[case] == expected[case]


@pytest.mark.parametrize("program", [name for name, _ in programs()])
def test_exit_status(executed: Callable[[str, str], tuple[bundles.Completed, Sections]], program: str) -> None:
    expected, _ = executed("native", program)
    completed, _ = executed("runtime", program)
    assert completed.code == expected.code
