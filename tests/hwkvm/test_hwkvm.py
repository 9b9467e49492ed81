"""The guest programs in litebox-vmm on hardware-faithful KVM: the same output as natively.

One machine boots and runs them all, each in a micro-VM of its own; then every case is compared as in tests/guest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import bundles
import oracle
import plans
from hwkvm import machine

Runner = Callable[[str], tuple[bundles.Completed, oracle.Sections]]

# Programs whose cases depend on how fast the machine is, or that take minutes of emulated time, are left out.
PROGRAMS = (
    "processes", "exec", "wait", "tracing", "attaching", "threads", "memory", "stack", "sharing", "code", "signals", "exceptions", "files", "names", "locks",
    "pipes", "unixsockets", "events", "inotify", "terminals", "inet", "procfs", "credentials", "misc",
)  # fmt: skip
VMM = bundles.BUILD / "lib/litebox/litebox-vmm"
KERNEL = bundles.BUILD / "lib/litebox/litebox-kernel"
SECONDS = 1000
pytestmark = pytest.mark.timeout(SECONDS + 300)


@pytest.fixture(scope="session")
def ended(tmp_path_factory: pytest.TempPathFactory) -> machine.Ended:
    """The machine, after it ran everything."""
    if why := machine.missing():
        pytest.skip(why)
    if not VMM.exists() or not KERNEL.exists():
        pytest.skip("litebox-vmm is not built: make build")
    work = tmp_path_factory.mktemp("hwkvm")
    folder = bundles.build_guest_programs()
    bundle = bundles.busybox_bundle(work / "bundle", [folder / program for program in PROGRAMS])
    files = {"bin/litebox-vmm": VMM, "lib/litebox-kernel": KERNEL, "container": bundle.rootfs}
    commands = {}
    for program in PROGRAMS:
        (work / f"{program}.json").write_text(json.dumps(plans.plan([f"/bin/{program}"], Path("/lib/litebox-kernel"))))
        files[f"plans/{program}.json"] = work / f"{program}.json"
        # The cases need a fresh /work each time; the container's file system is a folder of the machine's tmpfs.
        commands[program] = (
            f"rm -rf /container/work; mkdir /container/work; "
            f"timeout 120 litebox-vmm run --plan 8 8< /plans/{program}.json 9< /container"
        )
    try:
        return machine.run(commands, files, work, timeout=SECONDS)
    except OSError as error:
        pytest.skip(f"no kernel for the machine: {error}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        known = oracle.deviations("litebox") | oracle.deviations("hwkvm")
        metafunc.parametrize(("program", "case"), list(oracle.parameters(PROGRAMS, known)))


@pytest.mark.slow
def test_case(ended: machine.Ended, natively: Runner, program: str, case: str) -> None:
    assert program in ended.commands, f"the machine did not get to it:\n{ended.console[-3000:]}"
    completed = ended.commands[program]
    found = oracle.sections(completed.stdout)
    assert case in found, f"the program did not get to this case: exit {completed.code}\n{ended.console[-3000:]}"
    assert found[case] == natively(program)[1][case]
