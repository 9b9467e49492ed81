"""The benchmark table: every row natively, under runc and under LiteBox, interleaved, medians, with its goal.

    PYTHONPATH=tests python -m bench.run [--rounds N] [--with runsc=PATH] [--only NAME...] [operations] [lifecycle] [programs]

Times on a shared machine drift; the ratios of one interleaved run count. A row that misses its goal says MISS, and the
counters of what served it follow the table.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import bundles
import debian
from bench.lifecycle import Lifecycle
from bench.rows import LIFECYCLE, OPERATIONS, PROGRAMS, Row

HERE = Path(__file__).parent
OPS = bundles.BUILD / "bench/ops"
SHOWN_COUNTERS = 12

Side = bundles.Native | bundles.Runtime


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
        elif row.name in self.failures:
            verdict = "failed: " + self.failures[row.name]
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


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")[:100]


def operations(sides: list[Side], rows: Iterable[Row], rounds: int, work: Path) -> Table:
    """The rows of ops.c: a container each time, the operation measured inside."""
    table = Table([side.name for side in sides])
    OPS.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", OPS, HERE / "ops.c"], check=True)
    bundle = bundles.busybox_bundle(work / "ops", [OPS])
    table.header("One operation")
    missed = []
    for row in rows:
        for _ in range(rounds):
            for side in sides:
                if row.name in table.failures and side.name == "litebox":
                    continue
                bundle.configure(["/bin/ops", row.name], cwd="/work")
                ended = side.run(bundle, timeout=60)
                if ended.code == 0:
                    table.add(row.name, side.name, float(ended.text))
                elif side.name == "litebox":
                    table.failures[row.name] = f"exit {ended.code} {_first_line(ended.stderr.decode(errors='replace'))}"
        if not table.line(row):
            missed.append(row)
    litebox = next((side for side in sides if side.name == "litebox"), None)
    if isinstance(litebox, bundles.Runtime):
        for row in missed:
            print(f"\n{row.title}: what it took")
            for line in _counters(litebox, bundle, row):
                print(f"    {line}")
    return table


def _counters(runtime: bundles.Runtime, bundle: bundles.Bundle, row: Row) -> Iterator[str]:
    """The counters of the container after one measurement of the row, the largest first."""
    bundle.configure(["/bin/ops", row.name, "hold"], cwd="/work")
    identifier = f"bench-counters-{row.name}"
    command = runtime.command("run", "--bundle", str(bundle.path), identifier)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        stats = subprocess.run(
            runtime.command("events", "--stats", identifier), capture_output=True, text=True, timeout=30, check=False
        )
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
    try:
        numbers = dict(_flatten(json.loads(stats.stdout)))
    except ValueError:
        yield f"no counters: {_first_line(stats.stderr)}"
        return
    for name, number in sorted(numbers.items(), key=lambda entry: -entry[1])[:SHOWN_COUNTERS]:
        yield f"{name} {number:,}"


def _flatten(value: object, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{name}".lstrip("."))
    elif isinstance(value, int | float) and not isinstance(value, bool) and value:
        yield prefix, value


def lifecycle(sides: list[Side], rows: Iterable[Row], rounds: int, work: Path) -> Table:
    """The rows of the command line. `run` natively is a fork and an execution: not a row."""
    runtimes = [side for side in sides if isinstance(side, bundles.Runtime)]
    table = Table([side.name for side in runtimes])
    measures = {runtime.name: Lifecycle(runtime, work / runtime.name).rows() for runtime in runtimes}
    table.header("Start, stop, size")
    for row in rows:
        for _ in range(rounds if row.unit == "ms" else 1):
            for name, of_runtime in measures.items():
                if not (name == "litebox" and row.name in table.failures):
                    _measure(table, row, name, of_runtime[row.name])
        table.line(row)
    return table


def _measure(table: Table, row: Row, side: str, measure: Callable[[], float]) -> None:
    try:
        table.add(row.name, side, measure())
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        if side == "litebox":
            table.failures[row.name] = _first_line(str(error))


def programs(sides: list[Side], rows: Iterable[Row], rounds: int, work: Path) -> Table:
    """The rows of programs/: each script prints lines `ROW VALUE`."""
    table = Table([side.name for side in sides])
    wanted = {row.name: row for row in rows}
    table.header("Programs")
    for script in sorted((HERE / "programs").glob("*.sh")):
        printed = re.search(r"^# rows: (.*)$", script.read_text(), re.MULTILINE)
        mine = [name for name in (printed[1].split() if printed else []) if name in wanted]
        if not mine:
            continue
        for turn in range(rounds):
            for side in sides:
                with debian.overlay_bundle(work / f"{script.stem}-{side.name}-{turn}") as bundle:
                    shutil.copy2(script, bundle.rootfs / "work/bench.sh")
                    bundle.configure(["/bin/bash", "/work/bench.sh"], cwd="/work")
                    ended = side.run(bundle, timeout=300)
                for line in ended.text.splitlines():
                    name, _, value = line.partition(" ")
                    if name in wanted:
                        table.add(name, side.name, float(value))
                if side.name == "litebox" and ended.code:
                    for name in mine:
                        table.failures[name] = f"exit {ended.code} {_first_line(ended.stderr.decode(errors='replace'))}"
        for name in mine:
            table.line(wanted[name])
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each row and side (default: 3)")
    parser.add_argument(
        "--with", dest="extra", action="append", default=[], metavar="NAME=PATH", help="another runtime"
    )
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="rows by name")
    parser.add_argument("groups", nargs="*", help="operations, lifecycle, programs (default: all)")
    options = parser.parse_args()
    groups = {
        "operations": (operations, OPERATIONS),
        "lifecycle": (lifecycle, LIFECYCLE),
        "programs": (programs, PROGRAMS),
    }
    chosen = options.groups or list(groups)
    if unknown := set(chosen) - groups.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="litebox-bench-") as folder:
        work = Path(folder)
        sides = _sides(options.extra, work / "state")
        for name in chosen:
            measure, rows = groups[name]
            picked = [row for row in rows if not options.only or row.name in options.only]
            measure(sides, picked, options.rounds, work / name)
    print(f"\n{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
