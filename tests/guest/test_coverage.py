"""Every system call that the table claims (docs/compatibility.md) succeeds in some case of the guest programs and fails in another."""

from __future__ import annotations

import collections
import json
import re
import subprocess
import time
from pathlib import Path

import pytest

import bundles
import oracle

ROW = re.compile(r"^\| (\d+) \| `(\w+)` \| (?:full|partial) \|", re.MULTILINE)
SECONDS = 120

#: They have no error, or none that a program can bring about on purpose.
NEVER_FAIL = {
    "alarm", "brk", "exit", "exit_group", "fork", "getegid", "geteuid", "getgid", "getpgrp", "getpid", "getppid", "gettid", "getuid",
    "inotify_init", "munlockall", "personality", "restart_syscall", "rt_sigreturn", "sched_yield", "set_tid_address", "setfsgid",
    "setfsuid", "sync", "umask", "vfork",
}  # fmt: skip
#: They do not return, or only because of a signal.
NEVER_RETURN = {"exit", "exit_group", "pause", "restart_syscall", "rt_sigsuspend"}
#: Refused to the guest programs' container, which has no CAP_SYS_ADMIN and no CAP_SYSLOG, and on a CPU without protection keys;
#: and there is no request under way that io_cancel could find.
NEVER_ALLOWED = {
    "io_cancel", "mount", "pivot_root", "pkey_alloc", "pkey_free", "setdomainname", "sethostname", "syslog", "umount2",
}  # fmt: skip


def claimed() -> dict[int, str]:
    """Number and name of every system call that is full or partial."""
    page = (bundles.REPOSITORY / "docs/compatibility.md").read_text()
    return {int(number): name for number, name in ROW.findall(page)}


def counters(runtime: bundles.Runtime, path: Path, program: str) -> dict[str, dict[str, int]]:
    """How often each system call was made and failed, by number, while a guest program ran all of its cases."""
    bundle = bundles.busybox_bundle(path, [bundles.GUEST_PROGRAMS / program])
    volume = path / "volume"
    volume.mkdir()
    mount = {"destination": oracle.VOLUME, "type": "bind", "source": str(volume), "options": ["rbind"]}
    script = f"/bin/{program} >/dev/null; touch {oracle.VOLUME}/ended; exec sleep {SECONDS}"
    bundle.configure(["/bin/sh", "-c", script], cwd="/work", mounts=[mount])
    identifier = f"coverage-{program}"
    subprocess.run(
        runtime.command("run", "--detach", "--bundle", str(path), identifier),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=SECONDS,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + SECONDS
        while not (volume / "ended").exists():
            assert time.monotonic() < deadline, f"{program} does not end"
            time.sleep(0.05)
        shown = subprocess.run(
            runtime.command("events", "--stats", identifier), capture_output=True, check=True, timeout=SECONDS
        )
        found: dict[str, dict[str, int]] = json.loads(shown.stdout)["data"]["litebox"]
        return found
    finally:
        subprocess.run(runtime.command("delete", "--force", identifier), check=True, timeout=SECONDS)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_call_succeeds_and_fails(
    runtime: bundles.Native | bundles.Runtime, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not isinstance(runtime, bundles.Runtime) or runtime.name != "litebox":
        pytest.skip("only LiteBox counts system calls")
    bundles.build_guest_programs()
    made: collections.Counter[int] = collections.Counter()
    failed: collections.Counter[int] = collections.Counter()
    programs = {name for name in oracle.cases() if "." not in name}  # the others are the same cases again
    for program in sorted(programs):
        found = counters(runtime, tmp_path_factory.mktemp("coverage"), program)
        made.update({int(number): count for number, count in found["syscalls"].items()})
        failed.update({int(number): count for number, count in found["syscalls_failed"].items()})
    table = claimed()
    unsuccessful = {name for number, name in table.items() if made[number] == failed[number]}
    unfailing = {name for number, name in table.items() if failed[number] == 0}
    assert (unsuccessful - NEVER_RETURN - NEVER_ALLOWED, unfailing - NEVER_FAIL) == (set(), set())
