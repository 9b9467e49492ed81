"""`nerdctl run --runtime io.containerd.litebox.v1`: bridge networks through CNI, published ports, logs, compose."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import installed
from integration.containerd.daemon import IMAGE, RUNTIME, Containerd

HERE = Path(__file__).parent
CNI_PLUGINS = Path("/usr/lib/cni")
WEB = "mkdir -p /www; echo served > /www/index.html; echo started; exec httpd -f -p 80 -h /www"


class Nerdctl:
    """nerdctl on a containerd of its own, in a network namespace of its own."""

    def __init__(self, containerd: Containerd, program: Path, folder: Path) -> None:
        self.containerd = containerd
        options: list[str | Path] = [
            "--address", containerd.socket, "--cni-path", CNI_PLUGINS, "--cni-netconfpath", folder / "cni",
            "--data-root", folder / "nerdctl", "--cgroup-manager", "cgroupfs",
        ]  # fmt: skip
        self.prefix = containerd.inside(program, *options)

    def __call__(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.prefix, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self.containerd.environment,
        )
        assert not check or done.returncode == 0, (arguments, done)
        return done

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self("run", "--runtime", RUNTIME, *arguments, check=check)

    def fetch(self, address: str) -> str:
        """What a web server answers on this containerd's network; empty when there is none."""
        command = self.containerd.inside("busybox", "wget", "-q", "-O", "-", f"http://{address}/")
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout

    def await_answer(self, address: str, answer: str) -> None:
        deadline = time.monotonic() + 15
        while (got := self.fetch(address)) != answer:
            assert time.monotonic() < deadline, got
            time.sleep(0.2)


@pytest.fixture(scope="session")
def nerdctl(litebox: Path, image: Path, scratch: Path) -> Iterator[Nerdctl]:
    programs = list(installed.engines("nerdctl").values())
    engines = [program for program in installed.engines("containerd").values() if program.with_name("ctr").exists()]
    if not programs or not engines or not CNI_PLUGINS.is_dir():
        pytest.skip("containerd, nerdctl (make engines) and CNI plugins are not all installed")
    folder = scratch / "nerdctl"
    folder.mkdir()
    with Containerd(engines[0], litebox, folder, network=True) as containerd:
        subprocess.run(containerd.inside("ip", "link", "set", "lo", "up"), check=True)
        client = Nerdctl(containerd, programs[0], folder)
        client("load", "--input", image)
        yield client
        names = client("ps", "--all", "--quiet", check=False).stdout.split()
        if names:
            client("rm", "--force", *names, check=False)


@pytest.fixture
def web(nerdctl: Nerdctl) -> Iterator[str]:
    name = f"w{time.monotonic_ns()}"
    nerdctl.run("--detach", "--name", name, "--publish", "127.0.0.1:18080:80", IMAGE, "sh", "-c", WEB)
    yield name
    nerdctl("rm", "--force", name, check=False)


def test_output_and_exit_code(nerdctl: Nerdctl) -> None:
    ran = nerdctl.run("--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (ran.returncode, ran.stdout) == (7, "out\n")
    assert "err\n" in ran.stderr


def test_a_published_port(nerdctl: Nerdctl, web: str) -> None:
    nerdctl.await_answer("127.0.0.1:18080", "served\n")
    address = nerdctl("inspect", "--format", "{{.NetworkSettings.IPAddress}}", web).stdout.strip()
    assert nerdctl.fetch(address) == "served\n"
    other = nerdctl.run("--rm", IMAGE, "wget", "-q", "-O", "-", f"http://{address}/")
    assert other.stdout == "served\n"


def test_logs_exec_and_stop(nerdctl: Nerdctl, web: str) -> None:
    deadline = time.monotonic() + 10
    while nerdctl("logs", web).stdout != "started\n":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert nerdctl("exec", web, "cat", "/www/index.html").stdout == "served\n"
    assert "exit code 4" in nerdctl("exec", web, "sh", "-c", "exit 4", check=False).stderr
    nerdctl("stop", "--time", "1", web)
    assert nerdctl("inspect", "--format", "{{.State.Status}}", web).stdout == "exited\n"
    nerdctl("start", web)
    nerdctl.await_answer("127.0.0.1:18080", "served\n")


def test_copies(nerdctl: Nerdctl, web: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    nerdctl("cp", tmp_path / "in", f"{web}:/copied")
    assert nerdctl("exec", web, "cat", "/copied").stdout == "from the host\n"
    nerdctl("exec", web, "sh", "-c", "echo inside > /made")
    nerdctl("cp", f"{web}:/made", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "inside\n"


def test_compose(nerdctl: Nerdctl) -> None:
    project = ("compose", "--file", HERE / "compose.yaml")
    try:
        nerdctl(*project, "up", "--detach")
        nerdctl.await_answer("127.0.0.1:18081", "composed\n")
        deadline = time.monotonic() + 20
        while "composed" not in nerdctl(*project, "logs", "--no-color", "client").stdout:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        nerdctl(*project, "down")
    assert nerdctl("ps", "--all", "--quiet").stdout == ""
