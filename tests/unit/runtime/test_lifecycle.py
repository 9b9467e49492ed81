"""The command line and the life of a container."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Bundle = Callable[..., Path]


def network(pid: int | str) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def test_a_whole_life(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    litebox("create", "--bundle", str(bundle()), "--pid-file", str(pid_file), "c1")
    state = json.loads(litebox("state", "c1").stdout)
    assert state["status"] == "created"
    assert state["pid"] == int(pid_file.read_text())
    assert state["bundle"] == str(bundle())
    assert network(state["pid"]) != network("self")
    litebox("start", "c1")
    assert litebox.status("c1") == "running"
    assert litebox("list", "--quiet").stdout == "c1\n"
    assert [row["id"] for row in json.loads(litebox("list", "--format", "json").stdout)] == ["c1"]
    assert "c1" in litebox("list").stdout
    assert json.loads(litebox("ps", "--format", "json", "c1").stdout) == [1]
    assert "sleep" in litebox("ps", "c1").stdout
    litebox("kill", "c1", "KILL")
    litebox.wait_for("c1", "stopped")
    assert json.loads(litebox("state", "c1").stdout)["pid"] == 0
    litebox("delete", "c1")
    assert litebox.leftovers() == []


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -TERM $$; exit 4"], 4),  # PID 1 hears only the signals that it handles
        (["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"], 143),
        (["nonesuch"], 127),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
    ],
)
def test_exit_codes_of_run(litebox: Any, bundle: Bundle, args: list[str], code: int) -> None:
    done = litebox("run", "--bundle", str(bundle(args)), "c1", ok=False)
    assert done.returncode == code, done.stderr
    assert litebox.leftovers() == []
    if code in (126, 127):
        assert args[0] in done.stderr
        assert done.stderr.count("\n") == 1, "one clear line"


def test_streams(litebox: Any, bundle: Bundle) -> None:
    done = litebox("run", "--bundle", str(bundle(["sh", "-c", "cat; echo err >&2"])), "c1", stdin="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "err\n")


def test_signals_reach_the_program(litebox: Any, bundle: Bundle) -> None:
    script = "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    command = litebox.command("run", "--bundle", str(bundle(["sh", "-c", script])), "c1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=litebox.environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "got\n"
        assert process.wait(10) == 7


def test_exec(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    litebox("run", "--detach", "--bundle", str(bundle()), "c1")
    done = litebox(
        "exec",
        "--env",
        "X=5",
        "--cwd",
        "/tmp",
        "--user",
        "1000:1000",
        "c1",
        "sh",
        "-c",
        "echo $X; pwd; id -u; exit 4",
        ok=False,
    )
    assert (done.stdout, done.returncode) == ("5\n/tmp\n1000\n", 4)
    assert litebox("exec", "c1", "nonesuch", ok=False).returncode == 127
    pid_file = tmp_path / "pid"
    litebox("exec", "--detach", "--pid-file", str(pid_file), "c1", "sleep", "1000")
    command = Path(f"/proc/{int(pid_file.read_text())}/cmdline")
    deadline = time.monotonic() + 10
    while b"proxy" not in command.read_bytes():  # between its fork and its execve
        assert time.monotonic() < deadline
        time.sleep(0.01)
    document = tmp_path / "process.json"
    document.write_text(json.dumps({"args": ["sh", "-c", "exit 9"], "cwd": "/", "user": {"uid": 0, "gid": 0}}))
    assert litebox("exec", "--process", str(document), "c1", ok=False).returncode == 9
    document.write_text('{"args": ["true"], "cwd": "x"}')
    assert "cwd: found 'x'" in litebox("exec", "--process", str(document), "c1", ok=False).stderr
    litebox("pause", "c1")
    assert "paused" in litebox("exec", "c1", "true", ok=False).stderr


def test_exec_of_a_process_object(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    """Engines make it from the container's own. The launcher starts such a one as Python would, which gets what has a flag more."""
    folder = bundle()
    config = json.loads((folder / "config.json").read_text())
    process = config["process"]
    process["env"] = [variable for variable in process["env"] if not variable.startswith("HOME=")]
    (folder / "config.json").write_text(json.dumps(config))
    litebox("run", "--detach", "--bundle", str(folder), "c1")
    show = "env | sort; id; pwd; umask; ulimit -a; grep -E '^(Cap|NoNew)' /proc/self/status"
    process |= {"args": ["sh", "-c", show], "cwd": "/tmp"}
    document = tmp_path / "process.json"
    for user in (
        {"uid": 0, "gid": 0},
        {"uid": 0, "gid": 5, "additionalGids": [7], "umask": 0o27},
        {"uid": 1000, "gid": 1000},
    ):
        document.write_text(json.dumps(process | {"user": user}))
        of_launcher, of_python = (
            litebox("exec", *more, "--env", "A=1", "--process", str(document), "c1").stdout
            for more in ((), ("--ignore-paused",))
        )
        assert of_launcher == of_python
        assert "A=1\nHOME=/" in of_launcher
    fifo, pid_file = tmp_path / "fifo", tmp_path / "pid"
    os.mkfifo(fifo)
    document.write_text(json.dumps(process | {"args": ["sh", "-c", "cat; exit 6"]}))
    command = litebox.command("exec", "--process", str(document), "--detach", "--pid-file", str(pid_file), "c1")
    with subprocess.Popen(["sh", "-c", '"$@" <"$0"', fifo, *command], env=litebox.environment) as process_:
        with fifo.open("w"):
            assert process_.wait(10) == 0
            proxy = os.pidfd_open(int(pid_file.read_text()))
            assert not select.select([proxy], [], [], 0)[0]
        assert select.select([proxy], [], [], 10)[0]
        os.close(proxy)


def test_hundreds_of_execs_at_once(litebox: Any, bundle: Bundle) -> None:
    litebox("run", "--detach", "--bundle", str(bundle()), "c1")
    (vmm,) = litebox.processes()
    litebox("exec", "c1", "true")
    before = len(list(Path(f"/proc/{vmm}/fd").iterdir()))
    command = litebox.command("exec", "c1", "sh", "-c")
    running = [subprocess.Popen([*command, f"exit {n}"], env=litebox.environment) for n in range(200)]
    assert [process.wait(30) for process in running] == list(range(200))
    assert json.loads(litebox("ps", "--format", "json", "c1").stdout) == [1]
    deadline = time.monotonic() + 5
    # It closes them when it sees the connections end; some stay for what many processes need, as another vCPU.
    while len(list(Path(f"/proc/{vmm}/fd").iterdir())) > before + 10:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    litebox("delete", "--force", "c1")
    assert litebox.leftovers() == []


def test_an_exec_passes_signals_on(litebox: Any, bundle: Bundle) -> None:
    litebox("run", "--detach", "--bundle", str(bundle()), "c1")
    script = "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    command = litebox.command("exec", "c1", "sh", "-c", script)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=litebox.environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "got\n"
        assert process.wait(10) == 7


@pytest.mark.parametrize(
    "args",
    [
        ["state", "c1"],
        ["exec", "-e", "X=1", "--env=Y=2", "--cwd", "/tmp", "c1", "sh", "-c", "env | sort; pwd; ulimit -n; ulimit -u; id; exit 3"],
        ["exec", "c1", "grep", "-E", "Cap|NoNew|Seccomp", "/proc/self/status"],
        ["exec", "c1", "nonesuch"],
        ["exec", "c1", "/tmp"],
        ["exec", "--cwd", "/nonesuch", "c1", "true"],
    ],
    ids=lambda args: "-".join(args)[:24],
)  # fmt: skip
def test_what_the_launcher_does_itself_is_what_python_would_do(litebox: Any, bundle: Bundle, args: list[str]) -> None:
    changes = {"annotations": {"a": "b"}, "process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 200}]}}
    litebox("run", "--detach", "--bundle", str(bundle(changes=changes)), "c1")
    done = litebox(*args, ok=False)
    command = [litebox.python, "-IS", litebox.module, *litebox.command(*args)[1:]]
    python = subprocess.run(command, check=False, capture_output=True, text=True, env=litebox.environment, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (python.returncode, python.stdout, python.stderr)
    assert done.stdout or done.returncode


def test_exec_finds_home_where_the_container_has_it(litebox: Any, bundle: Bundle, rootfs: Path) -> None:
    changes = {"process": {"env": ["PATH=/bin"]}}
    litebox("create", "--bundle", str(bundle(changes=changes)), "c1")
    users = {
        fields[2]: fields[5] for line in (rootfs / "etc/passwd").read_text().splitlines() if (fields := line.split(":"))
    }
    for user in ("0", "65533"):
        said = litebox("exec", "--user", user, "c1", "sh", "-c", "echo $HOME").stdout
        assert said == users.get(user, "/") + "\n"
    assert litebox("exec", "--cgroup", "memory:/", "c1", "true").returncode == 0
    refused = litebox("exec", "--cgroup", "sub", "c1", "true", ok=False)
    assert refused.returncode == 255
    assert "--cgroup sub" in refused.stderr


def test_update_and_stats(litebox: Any, bundle: Bundle) -> None:
    litebox(
        "run",
        "--detach",
        "--bundle",
        str(bundle(changes={"linux": {"resources": {"memory": {"limit": 64 << 20}}}})),
        "c1",
    )
    much = ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null"]
    assert litebox("exec", "c1", *much, ok=False).returncode == 137
    litebox("update", "--memory", "1g", "c1")
    assert litebox("exec", "c1", "grep", "MemTotal", "/proc/meminfo").stdout.split()[1] == str(1 << 20)
    litebox("exec", "c1", *much)
    litebox("update", "--memory", "128m", "--pids-limit", "50", "--cpu-quota", "50000", "--cpu-period", "100000", "c1")
    stats = json.loads(litebox("events", "--stats", "c1").stdout)
    assert (stats["type"], stats["id"]) == ("stats", "c1")
    assert stats["data"]["memory"]["usage"]["limit"] == 128 << 20
    assert stats["data"]["memory"]["usage"]["usage"] > 0
    assert stats["data"]["cpu"]["usage"]["total"] > 0
    assert stats["data"]["pids"] == {"current": 1, "limit": 50}
    assert stats["data"]["cpuset"]["cpus"] == sorted(os.sched_getaffinity(0))
    assert stats["data"]["memory"]["swap"].keys() >= {"limit", "failcnt"}
    assert sum(stats["data"]["cpu"]["usage"].get("percpu", [1])) > 0
    assert all(count > 0 for count in stats["data"]["litebox"]["requests"].values())
    done = litebox("update", "--resources", "-", "c1", stdin='{"pids":{"limit":"x"}}', ok=False)
    assert "pids.limit: found 'x'" in done.stderr


def test_pause_and_resume(litebox: Any, bundle: Bundle) -> None:
    litebox("run", "--detach", "--bundle", str(bundle()), "c1")
    litebox("pause", "c1")
    assert litebox.status("c1") == "paused"
    assert "paused" in litebox("pause", "c1", ok=False).stderr
    litebox("resume", "c1")
    assert litebox.status("c1") == "running"
    assert litebox("resume", "c1", ok=False).returncode == 1


def test_a_paused_container_does_later_what_it_is_told(litebox: Any, bundle: Bundle) -> None:
    litebox(
        "run",
        "--detach",
        "--bundle",
        str(bundle(["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done"])),
        "c1",
    )
    litebox("pause", "c1")
    began = time.monotonic()
    assert "paused" in litebox("ps", "c1", ok=False).stderr
    litebox("update", "--pids-limit", "40", "c1")
    assert json.loads(litebox("events", "--stats", "c1").stdout)["data"]["pids"]["limit"] == 40
    litebox("kill", "c1", "TERM")
    assert time.monotonic() - began < 4, "nobody waits for the guest"
    assert litebox.status("c1") == "paused"
    litebox("resume", "c1")
    litebox.wait_for("c1", "stopped")


def test_operations_in_the_wrong_state(litebox: Any, bundle: Bundle) -> None:
    for command in ("start", "state", "kill", "delete", "ps", "pause", "resume", "events"):
        done = litebox(command, "none", ok=False)
        assert done.returncode == 1
        assert "'none' does not exist" in done.stderr
    litebox("delete", "--force", "none")
    litebox("create", "--bundle", str(bundle()), "c1")
    assert "already exists" in litebox("create", "--bundle", str(bundle()), "c1", ok=False).stderr
    assert "created" in litebox("delete", "c1", ok=False).stderr
    litebox("exec", "c1", "true")
    litebox("start", "c1")
    assert "running" in litebox("start", "c1", ok=False).stderr
    assert "running" in litebox("delete", "c1", ok=False).stderr
    assert litebox("kill", "c1", "NOPE", ok=False).returncode == 1
    litebox("delete", "--force", "c1")
    assert litebox.leftovers() == []


def test_a_created_container_can_be_killed(litebox: Any, bundle: Bundle) -> None:
    litebox("create", "--bundle", str(bundle()), "c1")
    litebox("kill", "c1", "KILL")
    litebox.wait_for("c1", "stopped")
    litebox("kill", "--all", "c1", "KILL")
    done = litebox("kill", "c1", "KILL", ok=False)
    assert (done.returncode, "container not running" in done.stderr) == (1, True), "containerd looks for these words"
    assert litebox("ps", "--format", "json", "c1").stdout == "[]\n"
    assert litebox("exec", "c1", "true", ok=False).returncode == 255


def test_two_creates_of_one_id(litebox: Any, bundle: Bundle) -> None:
    slow = [{"path": "/bin/sleep", "args": ["sleep", "0.5"]}]
    folder = str(bundle(changes={"hooks": {"createRuntime": slow}}))
    logs = [litebox.folder / f"log{n}" for n in range(4)]
    running = [
        subprocess.Popen(
            litebox.command("--log", str(log), "create", "--bundle", folder, "c1"),
            env=litebox.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for log in logs
    ]
    codes = [process.wait(30) for process in running]
    assert sorted(codes) == [0, 1, 1, 1]
    assert all("already exists" in log.read_text() for log, code in zip(logs, codes, strict=True) if code)
    litebox("delete", "--force", "c1")
    assert litebox.leftovers() == []


HOOK = """\
#!/bin/sh
cat > "$OUT/$NAME.state"; echo "$NAME" >> "$OUT/order"; readlink /proc/self/ns/net > "$OUT/$NAME.net"; env > "$OUT/$NAME.env"
exit ${CODE:-0}
"""


@pytest.fixture
def hook(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    script = tmp_path / "hook"
    script.write_text(HOOK)
    script.chmod(0o755)

    def make(name: str, **environment: str) -> dict[str, Any]:
        variables = {"PATH": "/usr/bin:/bin", "OUT": str(tmp_path), "NAME": name} | environment
        return {"path": str(script), "args": ["hook", "arg"], "env": [f"{k}={v}" for k, v in variables.items()]}

    return make


def test_hooks_run_in_order_with_the_state(litebox: Any, bundle: Bundle, hook: Any, tmp_path: Path) -> None:
    kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    hooks = {kind: [hook(kind), hook(kind + "2")] for kind in kinds}
    folder = bundle(changes={"hooks": hooks, "annotations": {"a": "b"}})
    litebox("create", "--bundle", str(folder), "c1")
    pid = json.loads(litebox("state", "c1").stdout)["pid"]
    net = network(pid)
    assert (tmp_path / "order").read_text().split() == [n for kind in kinds[:3] for n in (kind, kind + "2")]
    state = json.loads((tmp_path / "prestart.state").read_text())
    assert (state["id"], state["status"], state["pid"], state["bundle"]) == ("c1", "creating", pid, str(folder))
    assert (state["annotations"], state["ociVersion"]) == ({"a": "b"}, "1.3.0")
    assert (tmp_path / "createRuntime.net").read_text().strip() == network("self")
    assert (tmp_path / "createContainer.net").read_text().strip() == net
    assert "LITEBOX" not in (tmp_path / "prestart.env").read_text(), "nothing of our environment"
    litebox("start", "c1")
    assert json.loads((tmp_path / "poststart.state").read_text())["status"] == "running"
    litebox("delete", "--force", "c1")
    assert (tmp_path / "order").read_text().split()[-2:] == ["poststop", "poststop2"]
    assert json.loads((tmp_path / "poststop.state").read_text())["status"] == "stopped"


def test_what_does_not_stop_a_container_is_warned_of(litebox: Any, bundle: Bundle, hook: Any) -> None:
    changes = {
        "hooks": {"poststop": [hook("poststop", CODE="3")]},
        "process": {"capabilities": {"bounding": ["CAP_X"]}},
    }
    done = litebox("run", "--bundle", str(bundle(["echo", "ran"], changes)), "c1")
    assert done.stdout == "ran\n"
    warnings = [line for line in done.stderr.splitlines() if "level=warning" in line]
    assert ["CAP_X" in warnings[0], "hooks.poststop[0]" in warnings[-1], len(done.stderr.splitlines())] == [
        True,
        True,
        2,
    ]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failing_hook_destroys_the_container(
    litebox: Any, bundle: Bundle, hook: Any, tmp_path: Path, kind: str
) -> None:
    folder = bundle(changes={"hooks": {kind: [hook(kind, CODE="3"), hook("never")], "poststop": [hook("poststop")]}})
    done = litebox("create", "--bundle", str(folder), "c1", ok=False)
    assert f"hooks.{kind}[0]" in done.stderr
    assert "exit status 3" in done.stderr
    assert (tmp_path / "order").read_text().split() == [kind, "poststop"]
    assert litebox.leftovers() == []


def test_hooks_have_time_limits(litebox: Any, bundle: Bundle) -> None:
    hooks = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "sleep 60 & sleep 60"], "timeout": 1}]}
    began = time.monotonic()
    done = litebox("create", "--bundle", str(bundle(changes={"hooks": hooks})), "c1", ok=False)
    assert "still running after 1 seconds" in done.stderr
    assert time.monotonic() - began < 20
    assert litebox.leftovers() == []


def test_a_failing_poststart_hook_ends_the_container(litebox: Any, bundle: Bundle, hook: Any) -> None:
    litebox("create", "--bundle", str(bundle(changes={"hooks": {"poststart": [hook("p", CODE="1")]}})), "c1")
    assert "hooks.poststart[0]" in litebox("start", "c1", ok=False).stderr
    assert litebox.status("c1") == "stopped"


def test_start_container_hooks_run_inside(litebox: Any, bundle: Bundle) -> None:
    inside = {
        "path": "/bin/sh",
        "args": ["sh", "-c", "cat > /dev/null; test -e /bin/busybox || exit 5; exit ${CODE:-0}"],
    }
    litebox("create", "--bundle", str(bundle(changes={"hooks": {"startContainer": [inside]}})), "c1")
    litebox("start", "c1")
    litebox("delete", "--force", "c1")
    litebox(
        "create", "--bundle", str(bundle(changes={"hooks": {"startContainer": [{**inside, "env": ["CODE=6"]}]}})), "c1"
    )
    assert "hooks.startContainer[0] (/bin/sh): exit status 6" in litebox("start", "c1", ok=False).stderr
    assert litebox.status("c1") == "stopped"


def test_sysctls_of_the_network_namespace(litebox: Any, bundle: Bundle) -> None:
    before = Path("/proc/sys/net/core/somaxconn").read_text()
    litebox("create", "--bundle", str(bundle(changes={"linux": {"sysctl": {"net.core.somaxconn": "77"}}})), "c1")
    pid = str(json.loads(litebox("state", "c1").stdout)["pid"])
    seen = subprocess.run(
        ["nsenter", "-t", pid, "-n", "cat", "/proc/sys/net/core/somaxconn"], capture_output=True, text=True, check=True
    )
    assert seen.stdout == "77\n"
    assert Path("/proc/sys/net/core/somaxconn").read_text() == before


def test_cgroup_limits(litebox: Any, bundle: Bundle) -> None:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("cgroup v2")
    name = f"litebox-test-{os.getpid()}"
    resources = {"pids": {"limit": 5}, "cpu": {"shares": 512}, "memory": {"limit": 64 << 20}}
    folder = bundle(changes={"linux": {"cgroupsPath": f"/{name}/c1", "resources": resources}})
    litebox("create", "--bundle", str(folder), "c1")
    pid = json.loads(litebox("state", "c1").stdout)["pid"]
    assert f"/{name}/c1" in Path(f"/proc/{pid}/cgroup").read_text()
    assert Path(f"/sys/fs/cgroup/cpu/{name}/c1/cpu.shares").read_text() == "512\n"
    litebox("delete", "--force", "c1")
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{name}/c1"))
    for path in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        path.rmdir()


def test_a_cgroup_that_was_there_stays(litebox: Any, bundle: Bundle) -> None:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("cgroup v2")
    ours = Path(f"/sys/fs/cgroup/pids/litebox-test-{os.getpid()}-kept")
    ours.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as other:
        try:
            (ours / "cgroup.procs").write_text(str(other.pid))
            litebox("run", "--bundle", str(bundle(["true"], {"linux": {"cgroupsPath": f"/{ours.name}"}})), "c1")
            assert other.poll() is None, "a process of somebody else was killed"
            assert ours.is_dir()
        finally:
            other.kill()
            other.wait()
            time.sleep(0.1)
            ours.rmdir()


def test_the_console_socket_gets_a_terminal(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        size = {"terminal": True, "consoleSize": {"height": 33, "width": 44}}
        litebox(
            "create",
            "--bundle",
            str(bundle(["sh", "-c", "stty size; test -t 0 && echo tty"], {"process": size})),
            "--console-socket",
            str(path),
            "c1",
        )
        connection, _ = listener.accept()
        with connection:
            name, fds, _, _ = socket.recv_fds(connection, 1000, 1)
    assert name.startswith(b"/dev/")
    litebox("start", "c1")
    output = b""
    while b"tty" not in output:
        output += os.read(fds[0], 1000)
    assert output.startswith(b"33 44")
    os.close(fds[0])


def test_terminals_that_nobody_gets(litebox: Any, bundle: Bundle) -> None:
    folder = str(bundle(changes={"process": {"terminal": True}}))
    assert "--console-socket" in litebox("create", "--bundle", folder, "c1", ok=False).stderr
    assert "terminal" in litebox("run", "--bundle", folder, "c1", ok=False).stderr
    folder = str(bundle())
    assert "--console-socket" in litebox("create", "--bundle", folder, "--console-socket", "/x", "c1", ok=False).stderr
    assert litebox.leftovers() == []


def test_preserved_descriptors(litebox: Any, bundle: Bundle) -> None:
    assert (
        "descriptor 3 is not open"
        in litebox("run", "--preserve-fds", "1", "--bundle", str(bundle(["true"])), "c1", ok=False).stderr
    )


def test_the_log_file_has_json_lines(litebox: Any, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    done = litebox("--log", str(log), "--log-format", "json", "start", "none", ok=False)
    assert done.returncode == 1
    (line,) = log.read_text().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["msg"]) == ("error", "container 'none' does not exist")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", entry["time"])
    assert done.stderr == "litebox: container 'none' does not exist\n"


def test_a_failed_vmm_says_why(litebox: Any, bundle: Bundle) -> None:
    kernel = litebox.library / "litebox-kernel"
    kernel.unlink()
    kernel.write_bytes(b"no ELF image")
    done = litebox("run", "--bundle", str(bundle()), "c1", ok=False)
    assert done.stderr == "litebox: guest image: not a static x86-64 ELF executable\n"
    assert litebox.leftovers() == []


def test_a_vmm_that_was_killed_leaves_a_stopped_container(litebox: Any, bundle: Bundle) -> None:
    litebox("run", "--detach", "--bundle", str(bundle()), "c1")
    os.kill(json.loads(litebox("state", "c1").stdout)["pid"], signal.SIGKILL)
    litebox.wait_for("c1", "stopped")
    litebox("delete", "c1")
    assert [found for found in litebox.leftovers() if not found.startswith("process")] == []


def test_a_vmm_that_stands_still_can_be_killed(litebox: Any, bundle: Bundle) -> None:
    litebox("create", "--bundle", str(bundle()), "c1")
    os.kill(json.loads(litebox("state", "c1").stdout)["pid"], signal.SIGSTOP)
    litebox("delete", "--force", "c1")
    assert litebox.leftovers() == []


def test_version_help_and_completion(litebox: Any) -> None:
    assert re.match(r"litebox version \d+\.\d+\.\d+\nspec: 1\.3\.0\n", litebox("--version").stdout)
    overview = litebox("--help").stdout
    for (
        name
    ) in "create start run exec state list kill delete ps pause resume update events spec features do trace".split():
        assert re.search(rf"^  {name} ", overview, re.MULTILINE)
        assert f"usage: litebox {name}" in litebox(name, "--help").stdout
    assert "complete -c litebox" in litebox("completion", "fish").stdout
    assert "not supported" in litebox("checkpoint", "x", ok=False).stderr


def test_bash_completes(litebox: Any, bundle: Bundle) -> None:
    litebox("create", "--bundle", str(bundle()), "c1")
    script = litebox("completion", "bash").stdout
    script += """
        try() {
            COMP_WORDS=(litebox "$@") COMP_CWORD=$#; COMPREPLY=()
            _litebox
            echo "${COMPREPLY[*]}"
        }
        try st; try --roo; try --log-format ""
        try list --format ""; try do --net h; try exec --cw; try update --cpu-q
        try completion ""; try help res; try kill c1 TE
        try --root "$STATE" kill ""; try --root "$STATE" exec -e A=1 ""
        """
    environment = {"PATH": f"{litebox.program.parent}:/usr/bin:/bin", "STATE": str(litebox.state)}
    said = subprocess.run(["bash"], input=script, text=True, check=True, stdout=subprocess.PIPE, env=environment).stdout
    assert said.splitlines() == [
        "start state", "--root --rootless", "text json",
        "table json", "host", "--cwd", "--cpu-quota",
        "bash zsh fish", "resume", "TERM",
        "c1", "c1",
    ]  # fmt: skip


def test_spec_and_features(litebox: Any, tmp_path: Path) -> None:
    from oci_spec.config import Config
    from oci_spec.features import Features

    litebox("spec", cwd=tmp_path)
    assert Config.model_validate_json((tmp_path / "config.json").read_text()).process
    assert "exists" in litebox("spec", cwd=tmp_path, ok=False).stderr
    (tmp_path / "rootless").mkdir()
    litebox("spec", "--rootless", "--bundle", str(tmp_path / "rootless"))
    assert "uidMappings" in (tmp_path / "rootless/config.json").read_text()
    Features.model_validate_json(litebox("features").stdout)


def test_do(litebox: Any, tmp_path: Path) -> None:
    done = litebox(
        "do", "--env", "X=1", "--hostname", "h", "--", "sh", "-c", "echo $X $PWD; exit 6", ok=False, cwd=tmp_path
    )
    assert (done.stdout, done.returncode) == (f"1 {tmp_path}\n", 6)
    assert litebox("do", "nonesuch", ok=False).returncode == 127
    assert "vCPUs" in litebox("do", "--verbose", "true").stderr
    assert litebox.processes() == []
    assert litebox("do", "--tty", "true", ok=False).returncode == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--volume", "/nonesuch:/x"], "--volume: found '/nonesuch': No such file or directory"),
        (["--volume", ":/x"], "--volume: found ':/x'"),
        (["--root", "/nonesuch"], "--root: found '/nonesuch': No such file or directory"),
        (["--root", "/etc/passwd"], "--root: found '/etc/passwd', which is not a folder"),
        (["--net", "bridge"], "--net: found 'bridge'; allowed: none, host"),
        (["--memory", "1k"], "--memory: found '1k'; allowed: at least 4m"),
        (["--memory", "much"], "--memory: found 'much'"),
        (["--cpus", "1.5"], "--cpus: found '1.5'; allowed: a whole number"),
        (["--user", "nonesuch"], "--user: found 'nonesuch', which is not in /etc/passwd"),
        (["--env", "=x"], "--env: found '=x'"),
        (["--workdir", "x"], "--workdir: found 'x'; allowed: an absolute path"),
    ],
)
def test_do_names_the_flag_that_is_wrong(litebox: Any, flags: list[str], message: str) -> None:
    done = litebox("do", *flags, "--", "true", ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert message in done.stderr


def test_do_shows_the_vmm_nothing_of_the_machines_kernel(litebox: Any) -> None:
    """Whatever a hostile guest makes its VMM look up."""
    command = litebox.command("do", "--", "sh", "-c", "echo ready; sleep 100")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=litebox.environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (vmm,) = litebox.processes()
        root = Path(f"/proc/{vmm}/root")
        assert (root / "etc/passwd").exists()
        assert [name for name in ("proc", "sys", "dev", "run") if list((root / name).iterdir())] == []
        for line in Path(f"/proc/{vmm}/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            if right.split()[0] in ("proc", "sysfs", "cgroup", "cgroup2", "devtmpfs"):
                seen = root / left.split()[4].lstrip("/")
                assert not seen.exists() or list(seen.iterdir()) == [], line
        os.kill(vmm, signal.SIGKILL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "found list; allowed: an object"),
        ("{}", "ociVersion: found nothing"),
        ('{"ociVersion":"0.9.0"}', "ociVersion: found '0.9.0'"),
        ('{"ociVersion":"1.0.0"}', "root.path"),
        ('{"ociVersion":"1.0.0","process":{"cwd":"/","args":[1]}}', "process.args[0]: found 1; allowed: a string"),
        ('{"ociVersion":"1.0.0","process":{"cwd":"/","args":["a\\u0000b"]}}', "NUL"),
        ('{"ociVersion":"1.0.0","hostname":{"a":' + '{"a":' * 90 + "1" + "}" * 92, "hostname"),
        ('{"ociVersion":"1.0.0","x":"' + "y" * (17 << 20) + '"}', "at most 16 MiB"),
    ],
    ids=str,
)
def test_bad_configs(litebox: Any, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    done = litebox("create", "--bundle", str(tmp_path), "c1", ok=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert litebox.leftovers() == []


def test_bundles_that_are_not_there(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    assert "a bundle is a folder" in litebox("create", "--bundle", "/nonesuch", "c1", ok=False).stderr
    folder = bundle(changes={"root": {"path": "gone"}})
    assert "root.path: found" in litebox("create", "--bundle", str(folder), "c1", ok=False).stderr
    (folder / "gone").touch()
    assert "not a directory" in litebox("create", "--bundle", str(folder), "c1", ok=False).stderr
    folder = bundle(changes={"mounts": [{"destination": "/x", "type": "bind", "source": "/nonesuch"}]})
    assert "mounts[0].source: found '/nonesuch'" in litebox("create", "--bundle", str(folder), "c1", ok=False).stderr
    os.mkfifo(tmp_path / "config.json")
    assert litebox("create", "--bundle", str(tmp_path), "c1", ok=False).returncode == 1
    for name in ("a/b", "..", "x" * 300, ""):
        assert "container id" in litebox("create", "--bundle", str(folder), name, ok=False).stderr
    assert litebox.leftovers() == []


def test_mount_points_are_made_inside_the_root_only(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/sleep").touch(0o755)
    (root / "link").symlink_to("../../../../../../" + str(outside))
    (root / "absolute").symlink_to(outside)
    mounts = [
        {"destination": f"/{name}/made/deep", "type": "tmpfs", "source": "x"}
        for name in ("link", "absolute", "plain", "../..")
    ]
    litebox("create", "--bundle", str(bundle(changes={"root": {"path": str(root)}, "mounts": mounts})), "c1")
    assert list(outside.iterdir()) == [], "a symbolic link of the bundle led out of it"
    assert (root / "plain/made/deep").is_dir()
    assert (root / "made/deep").is_dir()


def test_programs_that_are_missing_are_reported_by_create(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    for args, code, said in (
        (["nonesuch"], 127, 'exec: "nonesuch": executable file not found in $PATH'),
        (["/bin/nonesuch"], 127, 'exec: "/bin/nonesuch": no such file or directory'),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
    ):
        done = litebox("create", "--bundle", str(bundle(args)), "c1", ok=False)
        assert (done.returncode, done.stderr) == (code, f"litebox: {said}\n")
        assert litebox.leftovers() == []
    volume = {"mounts": [{"destination": "/bin", "type": "bind", "source": str(tmp_path), "options": ["rbind"]}]}
    litebox("create", "--bundle", str(bundle(["nonesuch"], volume)), "c1")  # who knows what the volume holds at start
