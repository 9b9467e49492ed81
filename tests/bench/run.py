"""The benchmark table: every row natively, under runc and under LiteBox, interleaved, medians, with its goal.

    PYTHONPATH=tests python -m bench.run [--rounds N] [--minutes M] [--with runsc=PATH] [--only ROW]... [GROUP]...

Times on a shared machine drift; the ratios of one interleaved run count. A row that misses its goal says MISS, and the
counters of what served it follow the table. A row that fails or hangs says so, and is not tried again. When the minutes
are over, the rows that are left are measured once each.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import bundles
import debian
from bench import engine as engines
from bench import operations as ops
from bench import pods as cri
from bench.lifecycle import Lifecycle
from bench.rows import ENGINE, LIFECYCLE, OPERATIONS, PODS, PROGRAMS, Row

HERE = Path(__file__).parent
COMMON = HERE / "programs/common.sh"
SHOWN_COUNTERS = 12
#: Not counters of work, or counted otherwise already.
SIZES = ("_bytes", "_total", "_free", "handles", "tasks", "server_threads", "cpu_ns")
OPERATION_SECONDS, PROGRAM_SECONDS = 30.0, 90.0
#: Times the rounds asked for, while there is time: a start takes 30 ms, and varies by half.
LIFECYCLE_ROUNDS = 5

Side = bundles.Native | bundles.Runtime
Measures = Mapping[str, Callable[[], float]]


@dataclasses.dataclass
class Table:
    """Values by row and side; prints itself as it fills."""

    sides: list[str]
    values: dict[str, dict[str, list[float]]] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, row: str, side: str, value: float) -> None:
        self.values.setdefault(row, {}).setdefault(side, []).append(value)

    def medians(self, row: str) -> dict[str, float]:
        return {side: statistics.median(found) for side, found in self.values.get(row, {}).items()}

    def header(self, title: str) -> None:
        columns = "".join(f"{side:>11}" for side in self.sides)
        print(f"\n{title:<38}{columns}{'x native':>10}{'x runc':>9}  goal", flush=True)

    def line(self, row: Row) -> bool:
        """Prints a row; whether it met its goal (a row that was not measured did not miss)."""
        medians = self.medians(row.name)
        columns = "".join(
            f"{medians[side]:>11,.{_digits(medians[side])}f}" if side in medians else f"{'-':>11}"
            for side in self.sides
        )
        ratios = "".join(
            f"{medians['litebox'] / medians[of]:>{width}.2f}"
            if "litebox" in medians and medians.get(of)
            else " " * (width - 1) + "-"
            for of, width in (("native", 10), ("runc", 9))
        )
        verdict, sign = "", ">=" if row.rate else "<="
        met = True
        if "litebox" in medians:
            met = not row.missed(medians["litebox"], medians)
            verdict = "ok" if met else "MISS"
        if why := self.failures.get(row.name):
            verdict = (
                f"{verdict} {why}".lstrip() if why.startswith("not measured") else f"{verdict} FAILED: {why}".lstrip()
            )
        print(f"{row.title + ', ' + row.unit:<38}{columns}{ratios}  {sign} {row.goal!s:<12} {verdict}", flush=True)
        return met


def _digits(value: float) -> int:
    return 0 if value >= 100 else 1


def _sides(extra: Sequence[str], state: Path) -> list[Side]:
    found: list[Side] = [bundles.Native()]
    for name in ("runc", *extra, "litebox"):
        label, _, program = name.partition("=")
        runtime = bundles.runtime_named(label, state / label)
        if isinstance(runtime, bundles.Runtime) and program:
            runtime.program = program
        if why := runtime.missing():
            print(f"{label} is left out: {why}")
        else:
            found.append(runtime)
    return found


class Budget:
    """The time there is, shared out evenly to what is left to do."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def rounds(self, most: int, left: int) -> Iterator[int]:
        """The rounds of the next of `left` parts: one at least."""
        now = time.monotonic()
        until = now + (self._end - now) / left
        for turn in range(most):
            if turn and time.monotonic() > until:
                return
            yield turn


def _why(ended: bundles.Completed) -> str:
    """Why a command failed: the last line that it wrote about it."""
    lines = [line for line in ended.stderr.decode(errors="replace").splitlines() if line.strip()]
    return f"exit {ended.code} {lines[-1] if lines else ''}"[:100].strip()


def operations(sides: list[Side], rows: Sequence[Row], rounds: int, budget: Budget, work: Path) -> Table:
    """The rows of ops.c: a container each time, the operation measured inside."""
    table = Table([side.name for side in sides])
    bundle = bundles.busybox_bundle(work / "ops", [ops.build()])
    table.header("One operation")
    missed = []
    for index, row in enumerate(rows):
        for _ in budget.rounds(rounds, len(rows) - index):
            for side in sides:
                if row.name in table.failures and side.name == "litebox":
                    continue
                bundle.configure(["/bin/ops", row.name], cwd="/work")
                ended = side.run(bundle, timeout=OPERATION_SECONDS)
                if ended.code == 0 and ended.text:
                    table.add(row.name, side.name, float(ended.text.split()[0]))
                elif side.name == "litebox":
                    table.failures[row.name] = _why(ended)
        if not table.line(row):
            missed.append(row)
    litebox = next((side for side in sides if side.name == "litebox"), None)
    if isinstance(litebox, bundles.Runtime):
        for row in (row for row in missed if row.name not in table.failures):
            print(f"\n{row.title}: {', '.join(_counters(litebox, bundle, row))}", flush=True)
    return table


def _counters(runtime: bundles.Runtime, bundle: bundles.Bundle, row: Row) -> Iterator[str]:
    """What served the row: the counters of a container that measured it, per operation if those are counted."""
    bundle.configure(["/bin/ops", row.name, "hold"], cwd="/work")
    identifier = f"bench-{os.getpid()}-{row.name}"
    command = runtime.command("run", "--bundle", str(bundle.path), identifier)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            select.select([process.stdout], [], [], OPERATION_SECONDS)
            words = os.read(process.stdout.fileno(), 100).split()
            command = runtime.command("events", "--stats", identifier)
            stats = subprocess.run(command, capture_output=True, timeout=OPERATION_SECONDS, check=True).stdout
            process.stdin.close()
            process.wait(OPERATION_SECONDS)
        except (subprocess.SubprocessError, OSError) as error:
            yield f"no counters: {error}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                command = runtime.command("delete", "--force", identifier)
                subprocess.run(command, capture_output=True, timeout=OPERATION_SECONDS, check=False)
            process.kill()
            return
    counters = json.loads(stats)["data"]["litebox"]
    total = int(words[1]) if len(words) > 1 else 0
    found = {name: number for name, number in _flatten(counters) if not name.endswith(SIZES)}
    for name, number in sorted(found.items(), key=lambda entry: -entry[1])[:SHOWN_COUNTERS]:
        yield f"{name} {number / total:.3g}" if total else f"{name} {number:,}"


def _flatten(value: object, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{name}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{prefix}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool) and value:
        yield prefix, value


def lifecycle(sides: list[Side], rows: Sequence[Row], rounds: int, budget: Budget, work: Path) -> Table:
    """The rows of the command line. `run` natively is a fork and an execution: not a row."""
    runtimes = [side for side in sides if isinstance(side, bundles.Runtime)]
    measures = {runtime.name: Lifecycle(runtime, work / runtime.name).rows() for runtime in runtimes}
    return _turns("Start, stop, size", measures, rows, LIFECYCLE_ROUNDS * rounds, budget)


def engine(sides: list[Side], rows: Sequence[Row], rounds: int, budget: Budget, work: Path) -> Table:
    """The rows through containerd. The runtimes are those that it has a shim for."""
    title, names = "Through containerd", [side.name for side in sides if side.name in engines.RUNTIMES]
    if why := engines.missing():
        return _not_measured(title, names, rows, why)
    work.mkdir()
    with engines.containerd(work) as daemon:
        measures = {name: engines.Engine(daemon, name).rows() for name in names}
        return _turns(title, measures, rows, rounds, budget)


def pods(sides: list[Side], rows: Sequence[Row], rounds: int, budget: Budget, work: Path) -> Table:
    """The rows of pods, as a kubelet has them made."""
    title, names = "Pods through CRI", [side.name for side in sides if side.name in engines.RUNTIMES]
    if why := cri.missing():
        return _not_measured(title, names, rows, why)
    work.mkdir()
    with cri.client(work) as client:
        measures = {name: cri.Pods(client, name).rows() for name in names}
        return _turns(title, measures, rows, rounds, budget)


def _not_measured(title: str, sides: list[str], rows: Sequence[Row], why: str) -> Table:
    table = Table(sides, failures={row.name: f"not measured: {why}" for row in rows})
    table.header(title)
    for row in rows:
        table.line(row)
    return table


def _turns(title: str, measures: Mapping[str, Measures], rows: Sequence[Row], rounds: int, budget: Budget) -> Table:
    """Each row by each runtime in turn, in changing order: one that comes after another may find what that one has just waited for."""
    table = Table(list(measures))
    table.header(title)
    for index, row in enumerate(rows):
        for turn in budget.rounds(rounds if row.unit in ("ms", "MB/s") else 1, len(rows) - index):
            for name, of_runtime in list(measures.items())[:: -1 if turn % 2 else 1]:
                if not (name == "litebox" and row.name in table.failures):
                    _measure(table, row, name, of_runtime[row.name])
        table.line(row)
    return table


def _measure(table: Table, row: Row, side: str, measure: Callable[[], float]) -> None:
    try:
        table.add(row.name, side, measure())
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        if side == "litebox":
            table.failures[row.name] = str(error).partition("\n")[0][:100]


def programs(sides: list[Side], rows: Sequence[Row], rounds: int, budget: Budget, work: Path) -> Table:
    """The rows of programs/: each script prints lines `ROW VALUE`."""
    table = Table([side.name for side in sides])
    wanted = {row.name: row for row in rows}
    table.header("Programs")
    printing = {
        script: [name for name in _stated(script, "rows") if name in wanted]
        for script in sorted((HERE / "programs").glob("*.sh"))
    }
    scripts = [script for script, names in printing.items() if names]
    for index, script in enumerate(scripts):
        mine = printing[script]
        try:
            debian.root(_stated(script, "packages"))
        except OSError as error:
            table.failures.update(dict.fromkeys(mine, str(error).partition("\n")[0]))
        for turn in budget.rounds(rounds, len(scripts) - index):
            for side in sides:
                if not table.failures.keys().isdisjoint(mine):
                    continue
                ended = _script(side, script, work / f"{script.stem}-{side.name}-{turn}")
                found = dict(line.split() for line in ended.text.splitlines() if len(line.split()) == 2)
                for name in mine:
                    if name in found:
                        table.add(name, side.name, float(found[name]))
                    elif side.name == "litebox":
                        table.failures[name] = _why(ended)
        for name in mine:
            table.line(wanted[name])
    return table


def _stated(script: Path, what: str) -> tuple[str, ...]:
    found = re.search(rf"^# {what}: (.*)$", script.read_text(), re.MULTILINE)
    return tuple(found[1].split()) if found else ()


def _script(side: Side, script: Path, work: Path) -> bundles.Completed:
    with debian.overlay_bundle(work, _stated(script, "packages")) as bundle:
        for file in (COMMON, script):
            shutil.copy2(file, bundle.rootfs / "work" / file.name)
        command = f". /work/{COMMON.name}; . /work/{script.name}"
        bundle.configure(["/bin/bash", "-c", command], cwd="/work")
        return side.run(bundle, timeout=PROGRAM_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each row and side (default: 3)")
    parser.add_argument("--minutes", type=float, default=12, help="time for rounds beyond the first (default: 12)")
    parser.add_argument(
        "--with", dest="extra", action="append", default=[], metavar="NAME=PATH", help="another runtime"
    )
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="rows by name")
    parser.add_argument("groups", nargs="*", help="operations, lifecycle, engine, pods, programs (default: all)")
    options = parser.parse_args()
    # With their shares of the time.
    groups = {
        "operations": (operations, OPERATIONS, 2),
        "lifecycle": (lifecycle, LIFECYCLE, 1),
        "engine": (engine, ENGINE, 1),
        "pods": (pods, PODS, 1),
        "programs": (programs, PROGRAMS, 7),
    }
    chosen = options.groups or list(groups)
    if unknown := set(chosen) - groups.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    started = time.monotonic()
    # State is kept in memory, as in /run: on a disk, deleting a file may wait for its blocks to be discarded.
    with (
        tempfile.TemporaryDirectory(prefix="litebox-bench-") as folder,
        tempfile.TemporaryDirectory(prefix="litebox-bench-", dir="/dev/shm") as state,
    ):
        work = Path(folder)
        sides = _sides(options.extra, Path(state))
        for name in chosen:
            measure, rows, share = groups[name]
            picked = [row for row in rows if not options.only or row.name in options.only]
            seconds = options.minutes * 60 * share / sum(groups[other][2] for other in chosen)
            measure(sides, picked, options.rounds, Budget(seconds), work / name)
    print(f"\n{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
