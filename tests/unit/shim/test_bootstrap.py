"""`start` and `delete` as containerd calls them: what they read, what they answer, and what they cost."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shim.api.bootstrap import BootstrapParams, Extension
from shim.api.options import Options
from shim.api.task import ConnectRequest, ConnectResponse, DeleteResponse, ShutdownRequest, StateRequest
from shim.api.well_known import Any
from shim.ttrpc.client import Client

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "build/bin/containerd-shim-litebox-v1"


class Bundle:
    """A bundle with its log FIFO, held open as containerd does."""

    def __init__(self, path: Path, annotations: dict[str, str]) -> None:
        self.path = path
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "annotations": annotations}))
        os.mkfifo(path / "log")
        self.log = os.open(path / "log", os.O_RDWR | os.O_NONBLOCK)

    def call(
        self, action: str, stdin: bytes, *flags: str, container: str = "c1", program: Path = PROGRAM
    ) -> subprocess.CompletedProcess[bytes]:
        arguments = [str(program), "-namespace", "ns", "-id", container, *flags, action]
        environment = {"TTRPC_ADDRESS": "/nonexistent/t"}
        return subprocess.run(
            arguments, cwd=self.path, input=stdin, capture_output=True, env=environment, timeout=20, check=False
        )

    def logged(self) -> str:
        return os.read(self.log, 65536).decode() if select.select([self.log], [], [], 0)[0] else ""

    def close(self) -> None:
        os.close(self.log)


def params(socket_dir: Path, container: str = "c1") -> bytes:
    return BootstrapParams(instance_id=container, namespace="ns", socket_dir=str(socket_dir)).encode()


def shut_down(answer: dict[str, str]) -> None:
    client = Client(answer["address"], 5)
    client.call("containerd.task.v2.Task", "Shutdown", ShutdownRequest(id="c1").encode(), {})
    client.close()


def await_empty(socket_dir: Path) -> None:
    deadline = time.monotonic() + 5
    while list(socket_dir.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(socket_dir.iterdir()) == []


@pytest.fixture
def socket_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


def test_start_serves_shares_and_shuts_down(tmp_path: Path, socket_dir: Path) -> None:
    pod = {"io.kubernetes.cri.sandbox-id": "pod"}
    first, second = Bundle(tmp_path / "c1", pod), Bundle(tmp_path / "c2", pod)
    started = first.call("start", params(socket_dir))
    assert (started.returncode, started.stderr) == (0, b"")
    answer = json.loads(started.stdout)
    assert (answer["version"], answer["protocol"]) == (3, "ttrpc")
    assert answer["address"] == (first.path / "address").read_text()
    assert answer["address"].startswith(f"unix://{socket_dir}/")
    assert json.loads(second.call("start", params(socket_dir, "c2"), container="c2").stdout) == answer
    shut_down(answer)
    await_empty(socket_dir)
    for bundle in (first, second):
        assert "error" not in bundle.logged()
        bundle.close()


def test_the_transport_of_the_configuration_file(tmp_path: Path, socket_dir: Path) -> None:
    bundle = Bundle(tmp_path / "c1", {})
    file = tmp_path / "config.yaml"
    options = Any(type_url="runtimeoptions.v1.Options", value=Options(config_path=str(file)).encode())
    request = BootstrapParams(
        instance_id="c1", namespace="ns", socket_dir=str(socket_dir), extensions=[Extension(value=options)]
    ).encode()
    file.write_text("defaults:\n  transport: smoke\n")
    refused = bundle.call("start", request)
    assert refused.returncode
    assert b"config.yaml:2" in refused.stderr
    file.write_text("defaults: {transport: ttrpc}\n")
    answer = json.loads(bundle.call("start", request).stdout)
    assert answer["protocol"] == "ttrpc"
    shut_down(answer)
    bundle.close()


def test_start_over_grpc(tmp_path: Path, socket_dir: Path) -> None:
    import grpc  # type: ignore[import-untyped]

    bundle = Bundle(tmp_path / "c1", {"dev.litebox.transport": "grpc"})
    answer = json.loads(bundle.call("start", params(socket_dir)).stdout)
    assert (answer["version"], answer["protocol"]) == (3, "grpc")
    assert Path(answer["address"]).stat().st_mode & 0o777 == 0o600
    with grpc.insecure_channel(f"unix:{answer['address']}") as channel:

        def call(method: str, request: bytes) -> bytes:
            return bytes(channel.unary_unary(f"/containerd.task.v3.Task/{method}")(request, timeout=5))

        assert ConnectResponse.decode(call("Connect", ConnectRequest(id="c1").encode())).shim_pid
        for method, request, code in (
            ("State", StateRequest(id="none").encode(), grpc.StatusCode.NOT_FOUND),
            ("State", b"\x0a\xff", grpc.StatusCode.INVALID_ARGUMENT),
            ("Dance", b"", grpc.StatusCode.UNIMPLEMENTED),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(method, request)
            assert caught.value.code() == code
        call("Shutdown", ShutdownRequest(id="c1").encode())
    await_empty(socket_dir)
    assert "error" not in bundle.logged()
    bundle.close()


def test_start_tells_errors(tmp_path: Path, socket_dir: Path) -> None:
    bundle = Bundle(tmp_path / "c1", {})
    (bundle.path / "config.json").write_text("{")
    failed = bundle.call("start", params(socket_dir))
    assert failed.returncode == 1
    assert b"config.json" in failed.stderr
    assert bundle.call("dance", b"").returncode == 1
    bundle.close()


# What a shim may import before its first call. A count of modules, not a time: a machine's mood does not change it. Raise
# it only knowingly: every container pays, 0.2 ms and 50 KiB for a small module.
SERVE_MODULES = 95
HEAVY = {
    "re",
    "enum",
    "socket",
    "json",
    "typing",
    "signal",
    "logging",
    "subprocess",
    "ctypes",
    "pydantic",
    "google",
    "grpc",
    "hashlib",
}


def test_a_shim_imports_little() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import shim.main, shim.daemon; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-IS", "-c", code], text=True).split()
    assert not HEAVY & set(modules)
    assert len(modules) <= SERVE_MODULES, modules


def test_a_clean_delete_needs_no_python(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path / "state" / "tasks" / "ns" / "c1", {})
    (bundle.path / "init.pid").write_text("7")
    alone = Path(shutil.copy(PROGRAM, tmp_path))
    deleted = bundle.call("delete", b"", "-bundle", str(bundle.path), program=alone)
    assert (deleted.returncode, deleted.stderr) == (0, b"")
    response = DeleteResponse.decode(deleted.stdout)
    assert (response.pid, response.exit_status) == (7, 128 + signal.SIGKILL)
    assert response.exited_at
    assert abs(response.exited_at.seconds - time.time()) < 60
    (bundle.path / "shm").mkdir()  # of a sandbox
    assert b"cannot delete" in bundle.call("delete", b"", program=alone).stderr
    assert bundle.call("delete", b"").returncode == 0
    bundle.close()


@pytest.mark.parametrize("said", ["unix://{}", '{{"version":2,"address":"{}","protocol":"grpc"}}'])
def test_delete_removes_a_dead_shims_socket(tmp_path: Path, socket_dir: Path, said: str) -> None:
    bundle = Bundle(tmp_path / "state" / "tasks" / "ns" / "c1", {})
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(socket_dir / "dead"))
    dead.close()
    (bundle.path / "address").write_text(said.format(socket_dir / "dead"))
    assert bundle.call("delete", b"", "-bundle", str(bundle.path)).returncode == 0
    assert list(socket_dir.iterdir()) == []
    bundle.close()


def test_version_and_info(tmp_path: Path) -> None:
    from shim.api.types import RuntimeInfo

    bundle = Bundle(tmp_path / "c1", {})
    assert b"containerd-shim-litebox-v1" in bundle.call("", b"", "-v").stdout
    info = RuntimeInfo.decode(bundle.call("", b"", "-info").stdout)
    assert info.name == "io.containerd.litebox.v1"
    assert info.features
    assert json.loads(info.features.value)["ociVersionMax"]
    bundle.close()
