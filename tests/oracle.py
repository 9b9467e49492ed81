"""What the guest programs are, which of their cases are known to differ, and how their output divides into cases."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import bundles

GUEST = bundles.REPOSITORY / "tests/guest"
CASE = re.compile(r"^CASE\((\w+)\)", re.MULTILINE)
DYNAMIC = re.compile(r"^DYNAMIC = (.*)$", re.MULTILINE)
VOLUME = "/volume"
#: A volume with a file `f` that can only be read.
READONLY = "/readonly"
# Programs that run once more in another folder: besides the root file system on the tmpfs of /tmp and on a volume of the host.
ELSEWHERE = {
    f"{name}.{kind}": (name, folder)
    for kind, folder in (("tmpfs", "/tmp"), ("volume", VOLUME))
    for name in ("files", "names", "locks", "inotify", "memory", "code")
}

Sections = dict[str, str]


@functools.cache
def cases() -> dict[str, list[str]]:
    """The programs and the names of their cases, in the order of the source."""
    found: dict[str, list[str]] = {}
    made = DYNAMIC.search((GUEST / "Makefile").read_text())
    dynamic = made[1].split() if made else []
    for source in sorted(GUEST.glob("*.c")):
        if names := CASE.findall(source.read_text()):
            found[source.stem] = names
            if source.stem in dynamic:
                found[f"{source.stem}.dyn"] = names
            found |= {name: names for name, (program, _) in ELSEWHERE.items() if program == source.stem}
    return found


def deviations(runtime: str) -> dict[tuple[str, str], str]:
    """The cases that differ under a runtime, with the reason."""
    table = tomllib.loads((GUEST / "deviations.toml").read_text())
    return {(entry["program"], entry["case"]): entry["reason"] for entry in table.get(runtime, [])}


def parameters(programs: Sequence[str], known: dict[tuple[str, str], str]) -> Iterator[object]:
    """One pytest parameter (program, case) a case; what is known to differ must differ."""
    for program in programs:
        for case in cases()[program]:
            reason = known.get((program, case))
            marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
            yield pytest.param(program, case, id=f"{program}-{case}", marks=marks)


def sections(output: bytes) -> Sections:
    """The output of each case: from its `== NAME` line up to the next."""
    found: Sections = {}
    name = ""
    for line in output.decode(errors="backslashreplace").splitlines(keepends=True):
        if line.startswith("== "):
            name = line[3:].strip()
        found[name] = found.get(name, "") + line
    return found


PROGRAM_SECONDS = 120
RESTARTS = 5


def runner(
    side: bundles.Native | bundles.Runtime, folder: Callable[[], Path]
) -> Callable[[str], tuple[bundles.Completed, Sections]]:
    """Runs a program, once however often it is asked for. `folder` makes a folder for a bundle.

    A program that hangs or dies in a case is started again with the cases after it, so that one bad case spoils itself
    only. What is returned of the program itself is its first run.
    """
    programs = bundles.build_guest_programs()

    def run(program: str, selected: Sequence[str]) -> tuple[bundles.Completed, Sections]:
        name, cwd = ELSEWHERE.get(program, (program, "/work"))
        bundle = bundles.busybox_bundle(folder(), [programs / name])
        volume = bundle.path / "volume"
        volume.mkdir()
        readonly = bundle.path / "readonly"
        readonly.mkdir()
        (readonly / "f").write_text("content")
        mounts = [
            {"destination": VOLUME, "type": "bind", "source": str(volume), "options": ["rbind"]},
            {"destination": READONLY, "type": "bind", "source": str(readonly), "options": ["rbind", "ro"]},
        ]
        bundle.configure([f"/bin/{name}", *selected], cwd=cwd, mounts=mounts)
        completed = side.run(bundle, timeout=PROGRAM_SECONDS)
        return completed, sections(completed.stdout)

    @functools.cache
    def execute(program: str) -> tuple[bundles.Completed, Sections]:
        first, found = run(program, [])
        for _ in range(RESTARTS):
            last = max((index for index, case in enumerate(cases()[program]) if case in found), default=0)
            rest = cases()[program][last + 1 :]
            if not rest:
                break
            found |= run(program, rest)[1]
        return first, found

    return execute
