"""`start` and `delete` as containerd calls them: what they read, what they answer, and what they cost."""

from __future__ import annotations

import json
import os
import select
import signal
import site
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shim import bootstrap
from shim.api.bootstrap import BootstrapParams, Extension
from shim.api.options import Options
from shim.api.task import ConnectRequest, ConnectResponse, DeleteResponse, ShutdownRequest, StateRequest
from shim.api.well_known import Any
from shim.cleanup import response
from shim.invocation import Invocation, UsageError, parse_flags
from shim.ttrpc.client import Client

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = Any(type_url="runtimeoptions.v1.Options", value=b"\x12\x01/")


def test_flags_as_go_reads_them() -> None:
    words = ["-namespace", "ns", "--id=a", "-debug", "-address", "", "-publish-binary=/bin/c d", "start", "-v"]
    text, switches, rest = parse_flags(words)
    assert text == {"namespace": "ns", "id": "a", "address": "", "publish-binary": "/bin/c d"}
    assert switches == {"debug"}
    assert rest == ["start", "-v"]
    assert parse_flags(["-debug=false", "-v=true"])[1] == {"v"}


@pytest.mark.parametrize("words", [["-nonsense"], ["-id"], ["-debug=maybe"]])
def test_bad_flags(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_flags(words)


def test_the_environment_fills_in() -> None:
    call = Invocation(["-id", "a", "start"], {"NAMESPACE": "n", "GRPC_ADDRESS": "/g", "TTRPC_ADDRESS": "/t"})
    assert (call.id, call.namespace, call.address, call.ttrpc_address, call.action) == ("a", "n", "/g", "/t", "start")


def test_options_before_2_3() -> None:
    params = bootstrap.parse_stdin(OPTIONS.encode(), "a", "ns")
    assert params.options == OPTIONS.encode()
    assert bootstrap.parse_stdin(b"", "a", "ns").options == b""


def test_params_from_2_3_on() -> None:
    message = BootstrapParams(
        instance_id="a",
        namespace="ns",
        log_level=-4,
        containerd_ttrpc_address="/t",
        containerd_grpc_address="/g",
        extensions=[Extension(value=OPTIONS)],
        socket_dir="/s",
    )
    params = bootstrap.parse_stdin(message.encode(), "a", "ns")
    assert (params.ttrpc_address, params.grpc_address, params.socket_dir) == ("/t", "/g", "/s")
    assert params.options == OPTIONS.encode()
    other = bootstrap.parse_stdin(message.encode(), "b", "ns")
    assert (other.options, other.socket_dir) == (message.encode(), "")


def test_garbage_on_stdin_is_an_error() -> None:
    with pytest.raises(bootstrap.StartError):
        bootstrap.parse_stdin(b"\xff\xff", "a", "ns")


@pytest.mark.parametrize(
    "annotations, group",
    [
        ({}, "me"),
        ({"io.kubernetes.cri.sandbox-id": "pod"}, "pod"),
        ({"io.containerd.runc.v2.group": "g", "io.kubernetes.cri.sandbox-id": "pod"}, "g"),
        ({"other": "io.kubernetes.cri.sandbox-id"}, "me"),
    ],
)
def test_grouping(annotations: dict[str, str], group: str) -> None:
    assert bootstrap.group_of(annotations, "me") == group


def test_socket_paths_are_those_of_containerd() -> None:
    # sha256("/run/containerd/containerd.sock/default/c1")
    path = bootstrap.socket_path("/run/containerd/s", "/run/containerd/containerd.sock", "default", "c1")
    assert path.rpartition("/")[0] == "/run/containerd/s"
    assert len(path) == 82
    assert path == bootstrap.socket_path("/run/containerd/s", "/run/containerd/containerd.sock", "default", "c1")
    with pytest.raises(bootstrap.StartError, match="too long"):
        bootstrap.socket_path("/" + "d" * 60, "a", "n", "i")


def test_a_dead_socket_is_replaced_and_a_live_one_left(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "s")
    first = bootstrap.listen(path)
    assert first
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert bootstrap.listen(path) is None
    first.close()
    second = bootstrap.listen(path)
    assert second
    second.close()
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["s"]


class Bundle:
    """A bundle with its log FIFO, held open as containerd does."""

    def __init__(self, path: Path, annotations: dict[str, str]) -> None:
        self.path = path
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "annotations": annotations}))
        os.mkfifo(path / "log")
        self.log = os.open(path / "log", os.O_RDWR | os.O_NONBLOCK)

    def call(self, action: str, stdin: bytes, *flags: str, container: str = "c1") -> subprocess.CompletedProcess[bytes]:
        code = (
            "import sys, atexit\n"
            f"sys.path[:0] = {[str(ROOT), *site.getsitepackages()]!r}\n"
            "from shim.main import main\n"
            "status = main()\n"
            "open('modules', 'w').write('\\n'.join(sorted(sys.modules)))\n"
            "sys.exit(status)\n"
        )
        arguments = [sys.executable, "-I", "-S", "-c", code, "-namespace", "ns", "-id", container, *flags, action]
        environment = {"TTRPC_ADDRESS": "/nonexistent/t"}
        return subprocess.run(
            arguments, cwd=self.path, input=stdin, capture_output=True, env=environment, timeout=20, check=False
        )

    def modules(self) -> list[str]:
        return (self.path / "modules").read_text().split()

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
    deadline = time.monotonic() + 5
    while list(socket_dir.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(socket_dir.iterdir()) == []
    for bundle in (first, second):
        assert "error" not in bundle.logged()
        bundle.close()


def test_older_containerds_get_the_bare_address() -> None:
    assert bootstrap.answer("unix:///run/s", "ttrpc", knows_version_3=False) == "unix:///run/s"
    grpc = json.loads(bootstrap.answer("unix:///run/s", "grpc", knows_version_3=False))
    assert grpc == {"version": 2, "address": "/run/s", "protocol": "grpc"}


def test_the_transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.yaml"
    options = Any(
        type_url="runtimeoptions.v1.Options", value=Options(type_url="x", config_path=str(file)).encode()
    ).encode()
    monkeypatch.setenv("LITEBOX_CONFIG", str(tmp_path / "none"))
    assert bootstrap.transport_of({}, b"") == "ttrpc"
    file.write_text("defaults: {transport: grpc}\n")
    assert bootstrap.transport_of({}, options) == "grpc"
    assert bootstrap.transport_of({"dev.litebox.transport": "ttrpc"}, options) == "ttrpc"
    assert (
        bootstrap.transport_of({}, Any(type_url="containerd.runc.v1.Options", value=b"\x12\x01/").encode()) == "ttrpc"
    )
    with pytest.raises(bootstrap.StartError, match="allowed: ttrpc, grpc"):
        bootstrap.transport_of({"dev.litebox.transport": "smoke"}, b"")
    file.write_text("defaults:\n  transport: smoke\n")
    with pytest.raises(bootstrap.StartError, match=r"config\.yaml:2"):
        bootstrap.transport_of({}, options)


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
    deadline = time.monotonic() + 5
    while list(socket_dir.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(socket_dir.iterdir()) == []
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


# What may be imported. These are counts of modules, not times: a machine's mood does not change them. Raise them only
# knowingly: every container pays, 0.2 ms and 50 KiB for a small module.
START_MODULES = 45
DELETE_MODULES = 48
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


def test_start_and_delete_import_little(tmp_path: Path, socket_dir: Path) -> None:
    bundle = Bundle(tmp_path / "state" / "tasks" / "ns" / "c1", {"io.kubernetes.cri.sandbox-id": "pod"})
    answer = json.loads(bundle.call("start", params(socket_dir)).stdout)
    started = bundle.modules()
    shut_down(answer)
    deleted = bundle.call("delete", b"", "-bundle", str(bundle.path))
    assert deleted.returncode == 0
    response = DeleteResponse.decode(deleted.stdout)
    assert response.exit_status == 128 + signal.SIGKILL
    assert response.exited_at
    for modules, budget in ((started, START_MODULES), (bundle.modules(), DELETE_MODULES)):
        assert not HEAVY & set(modules)
        assert len(modules) <= budget, modules
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


def test_the_hand_made_delete_response() -> None:
    answer = DeleteResponse.decode(response(7, 137, 1_000_000_002))
    assert answer.exited_at
    assert (answer.pid, answer.exit_status, answer.exited_at.seconds, answer.exited_at.nanos) == (7, 137, 1, 2)


def test_version_and_info(tmp_path: Path) -> None:
    from shim.api.types import RuntimeInfo

    bundle = Bundle(tmp_path / "c1", {})
    assert b"containerd-shim-litebox-v1" in bundle.call("", b"", "-v").stdout
    info = RuntimeInfo.decode(bundle.call("", b"", "-info").stdout)
    assert info.name == "io.containerd.litebox.v1"
    assert info.features
    assert json.loads(info.features.value)["ociVersionMax"]
    bundle.close()
