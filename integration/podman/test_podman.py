"""podman with LiteBox as its runtime: what a user types, through conmon."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import images, installed
from integration.terminal import talk

IMAGE = "localhost/busybox:test"


class Podman:
    """The podman on PATH, with its own storage and state."""

    def __init__(self, folder: Path, litebox: Path) -> None:
        self.folder = folder
        self.litebox = litebox

    def command(self, *args: str | Path) -> list[str]:
        places = [f"--{name}={self.folder / name}" for name in ("root", "runroot", "tmpdir")]
        return ["podman", *places, "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=file",
                f"--runtime={self.litebox}", *map(str, args)]  # fmt: skip

    def __call__(self, *args: str | Path, code: int | None = 0) -> str:
        done = subprocess.run(
            self.command(*args),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.stderr = done.stderr
        return done.stdout

    def run(self, *args: str | Path, code: int | None = 0) -> str:
        return self("run", "--rm", "--network=none", *args, code=code)


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    if os.geteuid():
        pytest.skip("the tests of podman need root")
    for program in ("podman", "conmon"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (apt-get install podman conmon)")
    if not os.access("/dev/kvm", os.W_OK):
        pytest.skip("no /dev/kvm")
    folder = installed.programs()
    if folder is None or not (folder / "litebox").exists():
        pytest.skip("litebox is not built: run make build")
    if why := images.missing():
        pytest.skip(why)
    # conmon's sockets below it have 108 bytes.
    tool = Podman(Path(tempfile.mkdtemp(prefix="lb-", dir="/tmp")), folder / "litebox")
    layer = tmp_path_factory.mktemp("image") / "layer.tar"
    layer.write_bytes(images.busybox_layer())
    tool("import", layer, IMAGE)
    yield tool
    tool("rm", "--all", "--force", "--time=0", code=None)
    with contextlib.suppress(OSError):
        shutil.rmtree(tool.folder)


@pytest.fixture
def container(podman: Podman) -> Iterator[str]:
    name = f"c{time.monotonic_ns()}"
    podman("run", "--detach", "--name", name, "--network=none", IMAGE, "sh", "-c", "echo started; exec sleep 1000")
    yield name
    podman("rm", "--force", "--time=0", name)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["nonesuch"], 127),
        (["/etc"], 126),
    ],
)
def test_exit_codes(podman: Podman, args: list[str], code: int) -> None:
    podman.run(IMAGE, *args, code=code)


def test_output(podman: Podman) -> None:
    assert podman.run(IMAGE, "sh", "-c", "echo out; echo err >&2") == "out\n"
    assert podman.stderr == "err\n"


def test_environment_user_and_folder(podman: Podman) -> None:
    out = podman.run(
        "--env=A=5",
        "--user=65534:65534",
        "--workdir=/tmp",
        "--hostname=h",
        IMAGE,
        "sh",
        "-c",
        "echo $A $(id -u) $(pwd) $(hostname)",
    )
    assert out == "5 65534 /tmp h\n"


def test_volumes(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello\n")
    out = podman.run(f"--volume={tmp_path}:/data", IMAGE, "sh", "-c", "cat /data/in; echo back > /data/out")
    assert (out, (tmp_path / "out").read_text()) == ("hello\n", "back\n")
    podman.run(f"--volume={tmp_path}:/data:ro", IMAGE, "sh", "-c", "! touch /data/x")
    assert not (tmp_path / "x").exists()


def test_read_only_root(podman: Podman) -> None:
    podman.run("--read-only", IMAGE, "sh", "-c", "! touch /x && touch /tmp/x")


def test_limits_are_seen_inside(podman: Podman) -> None:
    out = podman.run("--memory=96m", "--cpus=1", IMAGE, "sh", "-c", "nproc; grep MemTotal /proc/meminfo")
    cpus, memory = out.splitlines()
    assert cpus == "1"
    assert int(memory.split()[1]) <= 96 << 10


def test_terminal(podman: Podman) -> None:
    command = podman.command(
        "run", "--rm", "--network=none", "-it", IMAGE, "sh", "-c", "tty; stty size; read line; echo got $line"
    )
    output, code = talk(command, b"typed\n")
    assert code == 0, output
    assert b"/dev/pts/" in output or b"/dev/console" in output
    assert b"got typed" in output


def test_exec(podman: Podman, container: str) -> None:
    assert podman("exec", "--env=X=3", container, "sh", "-c", "echo $X") == "3\n"
    podman("exec", container, "sh", "-c", "exit 9", code=9)
    podman("exec", container, "nonesuch", code=127)
    podman("exec", "--detach", container, "touch", "/detached")
    for _ in range(50):
        if "detached" in podman("exec", container, "ls", "/"):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("the detached exec did nothing")


def test_logs_ps_and_inspect(podman: Podman, container: str) -> None:
    end = time.monotonic() + 10
    while not (said := podman("logs", container)) and time.monotonic() < end:
        time.sleep(0.05)
    assert said == "started\n"
    assert container in podman("ps", "--format={{.Names}}")
    assert podman("inspect", "--format={{.State.Status}}", container) == "running\n"


def test_stop_start_kill(podman: Podman, container: str) -> None:
    podman("stop", "--time=1", container)
    assert podman("inspect", "--format={{.State.Status}}", container) == "exited\n"
    podman("start", container)
    podman("kill", "--signal=KILL", container)
    podman("wait", container)
    assert podman("inspect", "--format={{.State.ExitCode}}", container) == "137\n"


def test_pause(podman: Podman, container: str) -> None:
    podman("pause", container)
    assert podman("inspect", "--format={{.State.Status}}", container) == "paused\n"
    podman("unpause", container)
    assert podman("exec", container, "echo", "x") == "x\n"


def test_a_paused_container_is_killed_when_it_runs_on(podman: Podman, container: str) -> None:
    podman("pause", container)
    podman("kill", "--signal=TERM", container, code=None)
    podman("unpause", container)
    podman("kill", "--signal=KILL", container, code=None)
    podman("wait", container)


def test_process_namespaces(podman: Podman, container: str) -> None:
    """The host's is left out of config.json; another container's cannot be joined (docs/decisions/0011)."""
    assert podman.run("--pid=host", IMAGE, "sh", "-c", "echo $$") != ""
    podman.run(f"--pid=container:{container}", IMAGE, "true", code=126)
    assert "pid namespaces cannot be joined" in podman.stderr


def test_copies(podman: Podman, container: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    podman("exec", container, "cat", "/copied", code=1)
    podman("cp", tmp_path / "file", f"{container}:/copied")
    assert podman("exec", container, "cat", "/copied") == "content\n"
    podman("exec", container, "sh", "-c", "echo inside > /made")
    podman("cp", f"{container}:/made", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "inside\n"


def test_health(podman: Podman) -> None:
    name = f"h{time.monotonic_ns()}"
    podman(
        "run",
        "--detach",
        "--name",
        name,
        "--network=none",
        "--health-cmd=test -e /healthy",
        "--health-interval=disable",
        IMAGE,
        "sleep",
        "1000",
    )
    podman("healthcheck", "run", name, code=1)
    podman("exec", name, "touch", "/healthy")
    podman("healthcheck", "run", name)
    podman("rm", "--force", "--time=0", name)


def test_update_of_limits(podman: Podman, container: str) -> None:
    identifier = podman("inspect", "--format={{.Id}}", container).strip()
    subprocess.run([podman.litebox, "update", "--memory", "64m", identifier], check=True, timeout=30)


def test_pods_share_a_network(podman: Podman) -> None:
    name = f"p{time.monotonic_ns()}"
    infra = ["--infra-image", IMAGE, "--infra-command", "sleep 1000"]
    podman("pod", "create", "--name", name, "--network=none", *infra)
    try:
        server = "echo from the other | nc -l -p 5000 127.0.0.1"
        podman("run", "--detach", "--pod", name, IMAGE, "sh", "-c", server)
        for _ in range(50):
            if podman("run", "--rm", "--pod", name, IMAGE, "nc", "127.0.0.1", "5000", code=None) == "from the other\n":
                break
            time.sleep(0.1)
        else:
            raise AssertionError("one container of the pod did not reach the other")
    finally:
        podman("pod", "rm", "--force", "--time=0", name)


def test_nothing_is_left(podman: Podman) -> None:
    for _ in range(3):
        podman.run(IMAGE, "true")
    assert podman("ps", "--all", "--quiet", "--filter=status=created") == ""
    states = Path("/run/litebox")
    running = podman("ps", "--all", "--quiet", "--no-trunc").split()
    mine = {path.name for path in states.iterdir()} if states.is_dir() else set()
    assert all(len(name) != 64 or name in running for name in mine)
