"""Nearly all system calls come in by patched code: a trap each would make programs some times slower, and nothing else wrong."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import bundles

SECONDS = 60
SOURCE = Path(__file__).parent / "calls.c"


@pytest.fixture(scope="module", params=["static", "dynamic"])
def program(request: pytest.FixtureRequest) -> Path:
    made = bundles.BUILD / "cli" / f"calls-{request.param}"
    made.parent.mkdir(parents=True, exist_ok=True)
    linking = ["-static"] if request.param == "static" else []
    subprocess.run(["gcc", "-O2", "-pthread", *linking, "-o", made, SOURCE], check=True)
    return made


# Of a round: the system calls at least, and those that may trap (a thread's exit is called where no jump fits in, and so are
# one or two calls at the start of a program).
@pytest.mark.parametrize(("way", "rounds", "calls", "trapped"), [
    ("calls", 500, 20, 0), ("threads", 200, 8, 2), ("programs", 50, 15, 3),
])  # fmt: skip
def test_system_calls_are_patched(
    runtime: bundles.Native | bundles.Runtime,
    program: Path,
    tmp_path: Path,
    way: str,
    rounds: int,
    calls: int,
    trapped: int,
) -> None:
    if not isinstance(runtime, bundles.Runtime) or runtime.name != "litebox":
        pytest.skip("how the library OS is entered")
    bundle = bundles.busybox_bundle(tmp_path / "bundle", [program])
    bundle.configure([f"/bin/{program.name}", way, str(rounds)])
    command = runtime.command("run", "--bundle", str(bundle.path), "patched")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as container:
        assert container.stdin
        assert container.stdout
        try:
            assert container.stdout.readline() == "done\n"
            command = runtime.command("events", "--stats", "patched")
            shown = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
            container.stdin.close()
            assert container.wait(SECONDS) == 0
        finally:
            container.kill()
            subprocess.run(runtime.command("delete", "--force", "patched"), capture_output=True, check=False)
    counters = json.loads(shown.stdout)["data"]["litebox"]
    total = sum(counters["syscalls"].values())
    assert total >= calls * rounds, counters
    # What is done once or twice is not worth a patch.
    assert total - counters["syscalls_patched"] <= trapped * rounds + 150, counters
