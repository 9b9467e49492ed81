"""A guest that attacks cannot crash the VMM, outlive a kill, exceed its limits or leave anything behind."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

import bundles

HERE = Path(__file__).parent
ABUSE = bundles.BUILD / "abuse"
WAYS, EXHAUSTS = (
    re.findall(r'\{"(\w+)", \w+\}', table)
    for table in (HERE / "abuse.c").read_text().split("} ways[]")[1].split("} exhausts[]")
)
ATTACK_SECONDS = 2.0
LIMIT = 128 << 20
# What the VMM itself and the library OS may need beside the container's limit.
OVERHEAD = 96 << 20


@pytest.fixture(scope="session")
def program() -> Path:
    ABUSE.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-O1", "-static", "-pthread", "-mfsgsbase", "-o", str(ABUSE), str(HERE / "abuse.c")]
    subprocess.run(command, check=True)
    return ABUSE


def resident(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) << 10 if found else 0


@pytest.mark.parametrize("way", [*WAYS, *EXHAUSTS])
def test_attack(runtime: bundles.Native | bundles.Runtime, program: Path, tmp_path: Path, way: str) -> None:
    if not isinstance(runtime, bundles.Runtime) or runtime.name != "litebox":
        pytest.skip("about the micro-VM's boundary")
    bundle = bundles.busybox_bundle(tmp_path / "bundle", [program])
    bundle.configure(["/bin/abuse", way], memory=LIMIT)
    identifier = f"abuse-{os.getpid()}-{way}"
    command = runtime.command("run", "--bundle", str(bundle.path), identifier)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            shown = subprocess.run(runtime.command("state", identifier), capture_output=True, check=False)
            vmm = int(json.loads(shown.stdout)["pid"]) if shown.returncode == 0 else 0
            try:
                watch = os.pidfd_open(vmm) if vmm else -1
            except ProcessLookupError:
                vmm = 0  # it has just destroyed itself
            deadline = time.monotonic() + ATTACK_SECONDS
            while vmm and time.monotonic() < deadline:
                if select.select([watch], [], [], 0.1)[0]:
                    break  # it destroyed itself
                assert resident(vmm) < LIMIT + OVERHEAD
            subprocess.run(runtime.command("kill", identifier, "KILL"), capture_output=True, timeout=20, check=False)
            if vmm:
                assert select.select([watch], [], [], 20)[0], "the VMM outlives a kill"
                os.close(watch)
            _, errors = process.communicate(timeout=20)
            said = process.returncode
        finally:
            subprocess.run(
                runtime.command("delete", "--force", identifier), capture_output=True, timeout=60, check=False
            )
            process.kill()
    # 137: killed. Below 125 or 128 and a signal: the guest ended itself. A crash of the VMM would show as a signal of
    # our own child, which no exit status of a container is.
    assert said >= 0
    if way in EXHAUSTS:
        assert (said, errors) == (137, b""), "the container ended before it was killed"
    listing = subprocess.run(runtime.command("list", "-q"), capture_output=True, text=True, check=True)
    assert identifier not in listing.stdout


def test_descriptors_are_left_for_clients(
    runtime: bundles.Native | bundles.Runtime, program: Path, tmp_path: Path
) -> None:
    """A guest that opens all that it can does not keep others from `exec` and `kill`."""
    if not isinstance(runtime, bundles.Runtime) or runtime.name != "litebox":
        pytest.skip("about the micro-VM's boundary")
    bundle = bundles.busybox_bundle(tmp_path / "bundle", [program])
    bundle.configure(["/bin/abuse", "descriptors"])
    identifier = f"abuse-{os.getpid()}-full"
    command = ["prlimit", "--nofile=600", *runtime.command("run", "--bundle", str(bundle.path), identifier)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() + process.stdout.readline() == b"ready\nfull\n"
            for _ in range(20):
                # The guest answers; that nobody in it can open a program any more is its own doing.
                command = runtime.command("exec", identifier, "true")
                refused = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
                assert "too many open files in system" in refused.stderr
            subprocess.run(runtime.command("kill", identifier, "KILL"), check=True, timeout=20)
            assert process.wait(timeout=20) == 128 + 9
        finally:
            subprocess.run(
                runtime.command("delete", "--force", identifier), capture_output=True, timeout=60, check=False
            )
            process.kill()
