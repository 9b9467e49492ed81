"""`docker run --runtime litebox` on a dockerd of one's own: by the shim, with the daemon.json that a user copies, and
as a program with runc's command line, which is all that a dockerd before 23 can be given (Debian 12's is 20.10)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import images, installed
from integration.containerd.daemon import Containerd
from integration.terminal import talk

HERE = Path(__file__).parent
IMAGE = "busybox:test"
OLDEST = 23  # the first dockerd with `runtimeType`
WEB = "mkdir -p /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www"
SLEEP = ("/bin/sh", "-c", "trap 'exit 3' TERM; echo started; while :; do sleep 0.1; done")


def major(program: Path) -> int:
    """dockerd's version; one that was built without a version counts as new."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    number = said.replace(",", " ").split()[2].partition(".")[0]
    return int(number) if number.isdigit() else 99


class Docker:
    """A docker client, and how to reach its daemon."""

    def __init__(self, prefix: list[str], socket: Path) -> None:
        self.prefix = prefix
        self.environment = os.environ | {"DOCKER_HOST": f"unix://{socket}"}

    def __call__(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [*self.prefix, "docker", *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, (arguments, done)
        return done

    def await_answer(self, address: str, answer: bytes) -> None:
        """Fetch a page from where dockerd runs until it is there."""
        command = [*self.prefix, "busybox", "wget", "-q", "-O", "-", f"http://{address}/"]
        deadline = time.monotonic() + 15
        while (got := subprocess.run(command, capture_output=True, timeout=20, check=False).stdout) != answer:
            assert time.monotonic() < deadline, got
            time.sleep(0.2)

    def run(self, *arguments: str, stdin: bytes = b"", check: bool = False) -> subprocess.CompletedProcess[bytes]:
        return self("run", "--runtime", "litebox", *arguments, stdin=stdin, check=check)


@pytest.fixture(scope="session", params=["shim", "program"])
def docker(request: pytest.FixtureRequest, litebox: Path, scratch: Path) -> Iterator[Docker]:
    daemons = list(installed.engines("dockerd").values())
    configuration: list[str | Path] = ["--add-runtime", f"litebox={litebox / 'litebox'}"]
    if request.param == "shim":
        daemons = [program for program in daemons if major(program) >= OLDEST]
        configuration = ["--config-file", HERE / "daemon.json"]
    engines = [program for program in installed.engines("containerd").values() if program.with_name("ctr").exists()]
    if why := images.missing():
        pytest.skip(why)
    if not daemons or not engines or not shutil.which("docker"):
        pytest.skip(f"dockerd ({OLDEST} or newer for the shim), containerd and docker are not all installed")
    folder = scratch / f"docker-{request.param}"
    folder.mkdir()
    socket = folder / "d.sock"
    with Containerd(engines[0], litebox, folder, network=True) as containerd:
        folders: list[str | Path] = [
            "--data-root",
            folder / "data",
            "--exec-root",
            folder / "exec",
            "--pidfile",
            folder / "pid",
        ]
        sockets: list[str | Path] = ["--host", f"unix://{socket}", "--containerd", containerd.socket, "--group", "root"]
        subprocess.run(containerd.inside("ip", "link", "set", "lo", "up"), check=True)
        network = ["--bip", "10.78.0.1/24", "--ip6tables=false"]
        command = containerd.inside(daemons[0], *configuration, *folders, *sockets, *network)
        # docker-proxy lies beside dockerd.
        path = f"{daemons[0].parent}:{containerd.environment['PATH']}"
        environment = containerd.environment | {"DOCKER_MIN_API_VERSION": "1.24", "PATH": path}
        with (folder / "dockerd.log").open("wb") as log:
            daemon = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        client = Docker(containerd.inside(), socket)
        try:
            deadline = time.monotonic() + 30
            while client("version", check=False).returncode:
                assert daemon.poll() is None, (folder / "dockerd.log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.1)
            client("import", "-", IMAGE, stdin=images.busybox_layer())
            yield client
        finally:
            names = client("ps", "--all", "--quiet", check=False).stdout.decode().split()
            if names:
                client("rm", "--force", *names, check=False)
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()


@pytest.fixture
def asleep(docker: Docker) -> Iterator[str]:
    name = f"s{time.monotonic_ns()}"
    docker.run("--detach", "--name", name, "--network", "none", IMAGE, *SLEEP, check=True)
    yield name
    docker("rm", "--force", name, check=False)


def test_output_and_exit_code(docker: Docker) -> None:
    ran = docker.run("--rm", "--network", "none", IMAGE, "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"out\n", b"err\n")


def test_stdin(docker: Docker) -> None:
    ran = docker.run("--rm", "--interactive", "--network", "none", IMAGE, "/bin/cat", stdin=b"typed\n")
    assert (ran.returncode, ran.stdout) == (0, b"typed\n")


@pytest.mark.parametrize(("program", "code"), [("/bin/nonesuch", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed(docker: Docker, program: str, code: int) -> None:
    assert docker.run("--rm", "--network", "none", IMAGE, program).returncode == code


def test_logs_and_exec(docker: Docker, asleep: str) -> None:
    deadline = time.monotonic() + 5
    while docker("logs", asleep).stdout != b"started\n":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert docker("exec", asleep, "/bin/echo", "inside").stdout == b"inside\n"
    assert docker("exec", asleep, "/bin/sh", "-c", "exit 4", check=False).returncode == 4
    assert docker("exec", "--interactive", asleep, "/bin/cat", stdin=b"in").stdout == b"in"
    # A dockerd before 23 says 126 whatever it was.
    assert docker("exec", asleep, "/bin/nonesuch", check=False).returncode in (126, 127)


def test_terminal(docker: Docker, asleep: str) -> None:
    script = "test -t 0 && test -t 1 && echo terminal; read line; echo got $line; exit 5"
    for arguments in (
        ["run", "--runtime", "litebox", "--rm", "--interactive", "--tty", "--network", "none", IMAGE],
        ["exec", "--interactive", "--tty", asleep],
    ):
        command = [*docker.prefix, "docker", *arguments, "/bin/sh", "-c", script]
        output, code = talk(command, b"typed\n", environment=docker.environment)
        assert code == 5, output
        assert b"terminal" in output
        assert b"got typed" in output


def test_limits_are_seen_inside_and_updated(docker: Docker) -> None:
    name = f"m{time.monotonic_ns()}"
    limits = ["--memory", "96m", "--cpus", "1", "--pids-limit", "50"]
    docker.run("--detach", "--name", name, "--network", "none", *limits, IMAGE, *SLEEP, check=True)

    def seen() -> tuple[int, int]:
        script = "nproc; grep MemTotal /proc/meminfo"
        cpus, memory = docker("exec", name, "/bin/sh", "-c", script).stdout.decode().splitlines()
        return int(cpus), int(memory.split()[1])

    assert seen() == (1, 96 << 10)
    docker("update", "--memory", "64m", "--memory-swap", "64m", name)
    assert seen() == (1, 64 << 10)
    docker("rm", "--force", name)


def test_health(docker: Docker) -> None:
    name = f"h{time.monotonic_ns()}"
    health = ["--health-cmd", "test -e /healthy", "--health-interval", "500ms", "--health-retries", "1"]
    docker.run("--detach", "--name", name, "--network", "none", *health, IMAGE, *SLEEP, check=True)
    deadline = time.monotonic() + 30

    def becomes(wanted: bytes) -> None:
        while (now := docker("inspect", "--format", "{{.State.Health.Status}}", name).stdout.strip()) != wanted:
            assert time.monotonic() < deadline, now
            time.sleep(0.1)

    becomes(b"unhealthy")
    docker("exec", name, "/bin/touch", "/healthy")
    becomes(b"healthy")
    docker("rm", "--force", name)


def test_named_volumes(docker: Docker) -> None:
    volume = f"v{time.monotonic_ns()}"
    run = ("--rm", "--network", "none", "--volume", f"{volume}:/data", IMAGE, "/bin/sh", "-c")
    docker.run(*run, "echo kept > /data/file", check=True)
    assert docker.run(*run, "cat /data/file").stdout == b"kept\n"
    docker("volume", "rm", volume)


def test_stop_and_kill(docker: Docker, asleep: str) -> None:
    state = ("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", asleep)
    docker("stop", asleep)
    assert docker(*state).stdout == b"exited 3\n"
    docker("start", asleep)
    assert docker(*state).stdout == b"running 0\n"
    docker("kill", asleep)
    assert docker("wait", asleep).stdout == b"137\n"


def test_pause(docker: Docker, asleep: str) -> None:
    docker("pause", asleep)
    assert b"(Paused)" in docker("ps").stdout
    docker("unpause", asleep)
    assert docker("exec", asleep, "/bin/echo", "back").stdout == b"back\n"


def test_top_and_stats(docker: Docker, asleep: str) -> None:
    assert len(docker("top", asleep).stdout.splitlines()) >= 2
    memory = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", asleep).stdout.decode().split()[0]
    assert memory not in ("0B", "--")


def test_a_published_port(docker: Docker) -> None:
    """Docker makes the interfaces after Create, through /proc/PID/ns/net of the machine."""
    name = f"w{time.monotonic_ns()}"
    docker.run("--detach", "--name", name, "--publish", "127.0.0.1:18090:80", IMAGE, "/bin/sh", "-c", WEB, check=True)
    try:
        docker.await_answer("127.0.0.1:18090", b"served\n")
        address = (
            docker("inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", name)
            .stdout.decode()
            .strip()
        )
        assert address.startswith("10.78.0.")
        assert address.encode() in docker("exec", name, "ip", "addr").stdout
        ran = docker.run("--rm", IMAGE, "wget", "-q", "-O", "-", f"http://{address}/")
        assert ran.stdout == b"served\n"
    finally:
        docker("rm", "--force", name, check=False)


def test_a_network_with_names(docker: Docker) -> None:
    docker("network", "create", "--subnet", "10.79.0.0/24", "named")
    try:
        docker.run("--detach", "--name", "web", "--network", "named", IMAGE, "/bin/sh", "-c", WEB, check=True)
        script = "for n in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://web/ && break; sleep 0.3; done"
        assert docker.run("--rm", "--network", "named", IMAGE, "/bin/sh", "-c", script).stdout == b"served\n"
    finally:
        docker("rm", "--force", "web", check=False)
        docker("network", "rm", "named", check=False)


def test_a_network_with_ipv6(docker: Docker) -> None:
    docker("network", "create", "--ipv6", "--subnet", "fd00:78::/64", "six")
    try:
        docker.run("--detach", "--name", "web6", "--network", "six", IMAGE, "/bin/sh", "-c", WEB, check=True)
        show = "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}"
        address = docker("inspect", "--format", show, "web6").stdout.decode().strip()
        assert address.startswith("fd00:78::")
        assert f"inet6 {address}/64".encode() in docker("exec", "web6", "ip", "addr").stdout
        script = f"for n in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://[{address}]/ && break; sleep 0.3; done"
        assert docker.run("--rm", "--network", "six", IMAGE, "/bin/sh", "-c", script).stdout == b"served\n"
    finally:
        docker("rm", "--force", "web6", check=False)
        docker("network", "rm", "six", check=False)


def test_copy(docker: Docker, asleep: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("through\n")
    for place in ("/tmp/file", "/etc/missed"):
        missed = docker("exec", asleep, "/bin/sh", "-c", f"ls {place}; ls ${{place%/*}}", check=False)
        assert place not in missed.stdout.decode()
        docker("cp", str(tmp_path / "in"), f"{asleep}:{place}")
        assert docker("exec", asleep, "/bin/cat", place).stdout == b"through\n"
    docker("exec", asleep, "/bin/sh", "-c", "echo back > /tmp/out")
    docker("cp", f"{asleep}:/tmp/out", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "back\n"


def test_settings_reach_the_container(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    tmp_path.chmod(0o755)
    script = "id -u; hostname; cat /v/file; touch /x 2>/dev/null || echo readonly; echo $WORD; pwd"
    ran = docker.run(
        "--rm", "--network", "none", "--user", "65534", "--hostname", "there", "--volume", f"{tmp_path}:/v",
        "--read-only", "--env", "WORD=spoken", "--workdir", "/tmp", IMAGE, "/bin/sh", "-c", script,
    )  # fmt: skip
    assert ran.stdout.decode().splitlines() == ["65534", "there", "of the host", "readonly", "spoken", "/tmp"]
