"""`ctr` against LiteBox: everything a container goes through, on every containerd that is installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.containerd.daemon import IMAGE, RUNTIME, Containerd
from integration.terminal import COLUMNS, ROWS, talk

SLEEP = ("/bin/sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done")


@pytest.fixture(autouse=True)
def tidy(containerd: Containerd) -> Iterator[None]:
    """What a failed test leaves does not trouble the next."""
    yield
    for line in containerd.ctr("task", "list").stdout.decode().splitlines()[1:]:
        containerd.ctr("task", "delete", "--force", line.split()[0], check=False)
    for name in containerd.ctr("container", "list", "--quiet").stdout.decode().split():
        containerd.ctr("container", "delete", name, check=False)


@pytest.fixture
def asleep(containerd: Containerd) -> Iterator[str]:
    """The name of a running container."""
    name = f"s{time.monotonic_ns()}"
    containerd.run(name, *SLEEP, flags=("-d", "--null-io"), check=True)
    yield name
    containerd.ctr("task", "delete", "--force", name, check=False)
    containerd.ctr("container", "delete", name, check=False)


def test_output_and_exit_code(containerd: Containerd) -> None:
    ran = containerd.run("t1", "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ran.returncode, ran.stdout) == (7, b"out\n")
    assert b"err\n" in ran.stderr
    assert containerd.status("t1") == ""


def test_a_container_that_ends_at_once_keeps_its_code(containerd: Containerd) -> None:
    assert [containerd.run(f"q{n}", "/bin/sh", "-c", f"exit {n}").returncode for n in range(10)] == list(range(10))


def test_stdin(containerd: Containerd) -> None:
    assert containerd.run("i1", "/bin/cat", stdin=b"hello\n" * 1000).stdout == b"hello\n" * 1000
    assert containerd.run("i2", "/bin/wc", "-c", stdin=bytes(3_000_000)).stdout.strip() == b"3000000"


def test_no_output_is_lost(containerd: Containerd) -> None:
    ran = containerd.run("o1", "/bin/sh", "-c", "head -c 30000000 /dev/zero; echo end")
    assert len(ran.stdout) == 30_000_004
    assert ran.stdout.endswith(b"end\n")


LOGGER = """\
#!/bin/sh
test "$1 $2" = "--to {folder}" || exit 1
exec 5<&-
cat <&3 > {folder}/$CONTAINER_NAMESPACE-$CONTAINER_ID.out &
cat <&4 > {folder}/$CONTAINER_NAMESPACE-$CONTAINER_ID.err
wait
"""


def logged(containerd: Containerd, name: str, uri: str) -> subprocess.CompletedProcess[bytes]:
    """Run a container with `ctr run --detach --log-uri`, until it has ended and is gone."""
    script = "head -c 1000000 /dev/zero; echo out; echo err >&2"
    ran = containerd.run(name, "/bin/sh", "-c", script, flags=("-d", "--log-uri", uri))
    if ran.returncode == 0:
        containerd.await_status(name, "STOPPED")
        containerd.ctr("task", "delete", name)
    containerd.ctr("container", "delete", name)
    return ran


def test_a_log_file(containerd: Containerd) -> None:
    file = containerd.folder / "new" / "log"
    for number in (1, 2):
        assert logged(containerd, f"lf{number}", f"file://{file}").returncode == 0
        text = file.read_bytes()
        assert len(text) == number * 1_000_008
        assert text.count(b"out\n") == text.count(b"err\n") == number


def test_a_logger(containerd: Containerd) -> None:
    program = containerd.folder / "logger"
    program.write_text(LOGGER.format(folder=containerd.folder))
    program.chmod(0o755)
    uri = f"binary://{program}?--to={containerd.folder}"
    assert logged(containerd, "lb1", uri).returncode == 0
    assert (containerd.folder / "default-lb1.out").read_bytes() == bytes(1_000_000) + b"out\n"
    assert (containerd.folder / "default-lb1.err").read_bytes() == b"err\n"


def test_a_logger_that_is_not_there(containerd: Containerd) -> None:
    refused = logged(containerd, "ln1", "binary:///nonexistent/logger?a=b")
    assert refused.returncode
    assert b"/nonexistent/logger" in refused.stderr
    settle(containerd)


def test_a_logger_that_dies_stops_no_container(containerd: Containerd) -> None:
    program = containerd.folder / "dies"
    program.write_text("#!/bin/sh\nexec 5<&-\n")
    program.chmod(0o755)
    assert logged(containerd, "ld1", f"binary://{program}").returncode == 0
    settle(containerd)


def test_a_program_that_is_not_there(containerd: Containerd) -> None:
    ran = containerd.run("m1", "/bin/nonesuch")
    assert ran.returncode
    assert b"nonesuch" in ran.stderr
    assert b"no such file or directory" in ran.stderr
    containerd.ctr("container", "delete", "m1", check=False)
    assert containerd.status("m1") == ""


def test_kill_and_delete(containerd: Containerd) -> None:
    containerd.run("k1", *SLEEP, flags=("-d", "--null-io"), check=True)
    assert containerd.status("k1") == "RUNNING"
    time.sleep(0.3)
    containerd.ctr("task", "kill", "--signal", "SIGTERM", "k1")
    containerd.await_status("k1", "STOPPED")
    deleted = containerd.ctr("task", "delete", "k1", check=False)
    assert deleted.returncode == 3 or b"exit code 3" in deleted.stderr
    containerd.ctr("container", "delete", "k1")


def test_kill_with_sigkill(containerd: Containerd) -> None:
    containerd.run("k2", *SLEEP, flags=("-d", "--null-io"), check=True)
    containerd.ctr("task", "kill", "--signal", "SIGKILL", "k2")
    containerd.await_status("k2", "STOPPED")
    assert b"137" in containerd.ctr("task", "delete", "k2", check=False).stderr
    containerd.ctr("container", "delete", "k2")


def test_exec(containerd: Containerd, asleep: str) -> None:
    def execute(name: str, *command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return containerd.ctr("task", "exec", "--exec-id", name, asleep, *command, stdin=stdin, check=False)

    ran = execute("e1", "/bin/sh", "-c", "echo inside; exit 5")
    assert (ran.returncode, ran.stdout) == (5, b"inside\n")
    assert execute("e2", "/bin/cat", stdin=b"in").stdout == b"in"
    missing = execute("e3", "/bin/nonesuch")
    assert missing.returncode
    assert b"no such file or directory" in missing.stderr
    assert containerd.status(asleep) == "RUNNING"


def test_many_execs_at_once(containerd: Containerd, asleep: str) -> None:
    results: dict[int, subprocess.CompletedProcess[bytes]] = {}

    def one(number: int) -> None:
        command = ("/bin/sh", "-c", f"echo {number}; exit {number}")
        results[number] = containerd.ctr("task", "exec", "--exec-id", f"x{number}", asleep, *command, check=False)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: (ran.returncode, ran.stdout) for n, ran in results.items()} == {n: (n, b"%d\n" % n) for n in range(8)}


def test_a_terminal(containerd: Containerd) -> None:
    # ctr says the size once the process runs.
    script = 'tty; until size=$(stty size) && test "$size"; do sleep 0.1; done; echo $size; '
    script += "read word; echo got-$word; exit 4"
    arguments = ("run", "--rm", "--tty", "--runtime", RUNTIME, IMAGE, "tty1", "/bin/sh", "-c", script)
    out, code = talk(containerd.command(*arguments), b"word\n", environment=containerd.environment)
    assert b"got-word" in out
    assert b"/dev/pts/0" in out or b"/dev/console" in out
    assert b"%d %d" % (ROWS, COLUMNS) in out
    assert code == 4


def test_exec_on_a_terminal(containerd: Containerd, asleep: str) -> None:
    script = 'until size=$(stty size) && test "$size"; do sleep 0.1; done; echo $size; '
    script += "read word; echo got-$word; test -t 0 && exit 6"
    arguments = ("task", "exec", "--tty", "--exec-id", "t", asleep, "/bin/sh", "-c", script)
    out, code = talk(containerd.command(*arguments), b"x\n", environment=containerd.environment)
    assert b"got-x" in out
    assert b"%d %d" % (ROWS, COLUMNS) in out
    assert code == 6


def test_pause_and_resume(containerd: Containerd, asleep: str) -> None:
    containerd.ctr("task", "pause", asleep)
    assert containerd.status(asleep) == "PAUSED"
    containerd.ctr("task", "resume", asleep)
    assert containerd.status(asleep) == "RUNNING"
    assert containerd.ctr("task", "exec", "--exec-id", "p", asleep, "/bin/echo", "back").stdout == b"back\n"


def test_metrics_are_real(containerd: Containerd, asleep: str) -> None:
    time.sleep(0.5)
    rows = dict(
        line.split()[:2]
        for line in containerd.ctr("task", "metrics", asleep).stdout.decode().splitlines()
        if len(line.split()) == 2
    )
    memory = int(rows.get("memory.usage_in_bytes") or rows["memory.usage"])
    assert memory > 100_000
    cpu = int(rows.get("cpuacct.usage") or rows["cpu.usage_usec"])
    assert cpu > 0


def test_metrics_are_those_of_the_guest(containerd: Containerd) -> None:
    """Not of the VMM, whose threads and memory are on top."""
    containerd.run("m1", "/bin/sleep", "100", flags=("-d", "--null-io", "--memory-limit", "50000000"), check=True)
    shown = json.loads(containerd.ctr("task", "metrics", "--format", "json", "m1").stdout)
    assert (shown["pids"]["current"], shown["pids"].get("limit", 0)) == (1, 0)
    usage = shown["memory"].get("usage_limit") or shown["memory"]["usage"]["limit"]
    assert int(usage) == 50_000_000


def test_ps(containerd: Containerd, asleep: str) -> None:
    pids = [int(line.split()[0]) for line in containerd.ctr("task", "ps", asleep).stdout.decode().splitlines()[1:]]
    assert pids
    assert Path(f"/proc/{pids[0]}").exists()


def test_the_configuration_file(containerd: Containerd) -> None:
    file = containerd.folder / "litebox.yaml"
    file.write_text("defaults:\n  trace: true\nallow: [vcpus]\n")
    named = ("--rm", "--runtime-config-path", str(file))
    assert containerd.run("cf1", "/bin/echo", "traced", flags=named).stdout == b"traced\n"
    assert 'write(1, "traced' in containerd.log().replace("\\", "")
    refused = containerd.run("cf2", "/bin/true", flags=(*named, "--annotation", "dev.litebox.memory=1g"))
    assert refused.returncode
    assert b"litebox.yaml does not allow it; allowed: dev.litebox.vcpus" in refused.stderr
    file.write_text("defaults:\n  cores: 2\n")
    wrong = containerd.run("cf3", "/bin/true", flags=named)
    assert b"litebox.yaml:2: defaults.cores: unknown" in wrong.stderr


def test_events_come_in_order(containerd: Containerd) -> None:
    listener = containerd.popen("events", stdout=subprocess.PIPE)
    time.sleep(0.5)
    assert containerd.run("ev1", "/bin/true").returncode == 0
    time.sleep(0.5)
    listener.terminate()
    out, _ = listener.communicate(timeout=10)
    topics = [
        word
        for line in out.decode().splitlines()
        if "ev1" in line
        for word in line.split()
        if word.startswith("/tasks/")
    ]
    assert topics == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]


def test_containers_survive_a_restart_of_containerd(containerd: Containerd) -> None:
    containerd.run("r1", *SLEEP, flags=("-d", "--null-io"), check=True)
    containerd.run("r2", "/bin/sh", "-c", "sleep 1; exit 9", flags=("-d", "--null-io"), check=True)
    containerd.stop(signal.SIGKILL)
    time.sleep(1.5)  # r2 ends while nobody listens
    containerd.start()
    assert containerd.status("r1") == "RUNNING"
    assert containerd.status("r2") == "STOPPED"
    assert containerd.ctr("task", "exec", "--exec-id", "e", "r1", "/bin/echo", "alive").stdout == b"alive\n"
    containerd.ctr("task", "kill", "--signal", "SIGTERM", "r1")
    containerd.await_status("r1", "STOPPED")
    for name, code in (("r1", b"3"), ("r2", b"9")):
        assert code in containerd.ctr("task", "delete", name, check=False).stderr
        containerd.ctr("container", "delete", name)


def test_a_shim_that_is_killed_leaves_nothing(containerd: Containerd) -> None:
    containerd.run("f1", *SLEEP, flags=("-d", "--null-io"), check=True)
    (shim,) = containerd.shims("f1")
    os.kill(shim, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while containerd.status("f1") == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.1)
    containerd.ctr("task", "delete", "--force", "f1", check=False)
    containerd.ctr("container", "delete", "f1")
    settle(containerd)


def test_a_vmm_that_is_killed_is_an_exit(containerd: Containerd) -> None:
    containerd.run("f2", *SLEEP, flags=("-d", "--null-io"), check=True)
    line = next(line for line in containerd.ctr("task", "list").stdout.decode().splitlines() if line.startswith("f2"))
    os.kill(int(line.split()[1]), signal.SIGKILL)
    containerd.await_status("f2", "STOPPED")
    assert b"137" in containerd.ctr("task", "delete", "f2", check=False).stderr
    containerd.ctr("container", "delete", "f2")
    settle(containerd)


def test_twenty_at_once_leave_nothing(containerd: Containerd) -> None:
    results: dict[int, int] = {}

    def one(number: int) -> None:
        results[number] = containerd.run(f"n{number}", "/bin/sh", "-c", f"exit {number}").returncode

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: number for number in range(20)}
    settle(containerd)
    assert not containerd.sockets(f"n{number}" for number in results)


def settle(containerd: Containerd) -> None:
    """No process, no mount and no bundle is left of the containers that are gone."""
    tasks = {line.split()[0] for line in containerd.ctr("task", "list").stdout.decode().splitlines()[1:]}
    assert not tasks
    deadline = time.monotonic() + 10
    while (left := containerd.processes() or containerd.mounts()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    state = containerd.state / "litebox" / "default"
    assert not state.exists() or not [entry for entry in state.iterdir() if entry.is_dir()]
