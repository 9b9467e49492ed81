"""`run` from a shell's point of view: exit codes, streams, the process's attributes, terminals, signals, bad input."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import bundles

SECONDS = 30


@pytest.fixture
def bundle(tmp_path: Path) -> bundles.Bundle:
    return bundles.busybox_bundle(tmp_path / "bundle")


@pytest.fixture
def run(contained: bundles.Runtime, bundle: bundles.Bundle) -> Callable[..., bundles.Completed]:
    def execute(*args: str, stdin: bytes = b"", **changes: Any) -> bundles.Completed:
        bundle.configure(args, **changes)
        return contained.run(bundle, stdin=stdin, timeout=SECONDS)

    return execute


def only_litebox(contained: bundles.Runtime) -> None:
    if contained.name != "litebox":
        pytest.skip("another runtime's own choice")


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("exit 256", 0)])
def test_exit_code(run: Callable[..., bundles.Completed], script: str, code: int) -> None:
    assert run("sh", "-c", script).code == code


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "USR1"])
def test_death_by_signal_is_128_and_its_number(run: Callable[..., bundles.Completed], name: str) -> None:
    # Process 1 ignores its own signals unless it handles them, so its child dies and it reports that.
    number = signal.Signals[f"SIG{name}"].value
    assert run("sh", "-c", f"sh -c 'kill -{name} $$'; exit $?").code == 128 + number


def test_streams_are_apart(run: Callable[..., bundles.Completed]) -> None:
    ended = run("sh", "-c", "echo out; echo err >&2")
    assert (ended.stdout, ended.stderr) == (b"out\n", b"err\n")


def test_much_data_in_and_out(run: Callable[..., bundles.Completed]) -> None:
    data = os.urandom(1 << 20) * 20
    assert run("cat", stdin=data).stdout == data


def test_end_of_input(run: Callable[..., bundles.Completed]) -> None:
    assert run("wc", "-c").text.strip() == "0"


def test_output_that_nobody_reads(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    bundle.configure(["yes"])
    command = contained.command("run", "--bundle", str(bundle.path), "nobody-reads")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait(SECONDS) != 0


def test_the_host_sees_the_oom_score(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    document = bundles.configuration(["sleep", "100"])
    document["process"]["oomScoreAdj"] = 500
    (bundle.path / "config.json").write_text(json.dumps(document))
    subprocess.run(contained.command("create", "--bundle", str(bundle.path), "scored"), timeout=SECONDS, check=True)
    try:
        shown = subprocess.run(contained.command("state", "scored"), capture_output=True, timeout=SECONDS, check=True)
        assert Path(f"/proc/{json.loads(shown.stdout)['pid']}/oom_score_adj").read_text() == "500\n"
    finally:
        subprocess.run(contained.command("delete", "--force", "scored"), timeout=SECONDS, check=True)


def test_deleted_by_somebody_else(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    bundle.configure(["sh", "-c", "echo runs; exec sleep 100"])
    command = contained.command("run", "--bundle", str(bundle.path), "deleted")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"runs\n"
        subprocess.run(contained.command("delete", "--force", "deleted"), timeout=SECONDS, check=True)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGKILL
    assert errors == b""


@pytest.mark.parametrize(
    ("changes", "script", "expected"),
    [
        ({"cwd": "/tmp"}, "pwd", "/tmp"),
        ({"env": {"NAME": "a value"}}, 'echo "$NAME"', "a value"),
        ({"uid": 1000, "gid": 1000}, "id -u; id -g", "1000\n1000"),
        ({"hostname": "box"}, "hostname", "box"),
        ({"readonly": True}, "touch /x 2>/dev/null || echo refused; touch /tmp/x && echo allowed", "refused\nallowed"),
        ({}, "grep CapEff /proc/self/status | cut -f2", "00000000a80425fb"),
        ({}, "ulimit -n; ulimit -c", "1024\n0"),
        ({}, "echo $$", "1"),
        ({}, "echo $(ls /proc/self/fd)", "0 1 2 3"),  # 3 is the folder that ls reads
    ],
    ids=["cwd", "env", "user", "hostname", "readonly", "capabilities", "rlimits", "pid", "descriptors"],
)
def test_attributes(run: Callable[..., bundles.Completed], changes: dict[str, Any], script: str, expected: str) -> None:
    assert run("sh", "-c", script, **changes).text.strip() == expected


def test_volume(run: Callable[..., bundles.Completed], tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "in").write_text("from the host\n")
    mounts = [
        {"destination": "/data", "type": "bind", "source": str(shared), "options": ["rbind", "rw"]},
        {"destination": "/fixed", "type": "bind", "source": str(shared), "options": ["rbind", "ro"]},
        {"destination": "/etc/one", "type": "bind", "source": str(shared / "in"), "options": ["bind", "ro"]},
    ]
    script = "cat /data/in /etc/one; echo back > /data/out; echo no 2>/dev/null > /fixed/x || echo refused"
    assert run("sh", "-c", script, mounts=mounts).text == "from the host\nfrom the host\nrefused\n"
    assert (shared / "out").read_text() == "back\n"


def update(volume: Path) -> None:
    """Replace a file as a kubelet does in a ConfigMap's volume, and change others in every other way."""
    (volume / "..new").mkdir()
    (volume / "..new" / "word").write_text("second")
    (volume / "..data_tmp").symlink_to("..new")
    (volume / "..data_tmp").rename(volume / "..data")
    shutil.rmtree(volume / "..old")
    with (volume / "written").open("a") as file:
        file.write("more")
    (volume / "written").chmod(0o600)
    (volume / "written").unlink()
    (volume / "end").touch()


def test_what_the_host_changes_in_a_volume_is_noticed(contained: bundles.Runtime, tmp_path: Path) -> None:
    program = bundles.build_guest_programs() / "inotify"
    volume = tmp_path / "volume"
    (volume / "..old").mkdir(parents=True)
    (volume / "..data").symlink_to("..old")
    (volume / "written").touch()
    bundle = bundles.busybox_bundle(tmp_path / "bundle", [program])
    mount = {"destination": "/volume", "type": "bind", "source": str(volume), "options": ["rbind", "ro"]}
    bundle.configure(["/bin/inotify", "@follow", "/volume"], mounts=[mount])
    inside = contained.command("run", "--bundle", str(bundle.path), "follows")
    natively = [str(program), "@follow", str(volume)]
    with (
        subprocess.Popen(inside, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as follower,
        subprocess.Popen(natively, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as native,
    ):
        assert follower.stdout
        assert native.stdout
        assert follower.stdout.readline() == native.stdout.readline() == "watching\n"
        update(volume)
        assert follower.communicate(timeout=SECONDS) == native.communicate(timeout=SECONDS)


def test_a_full_disk(contained: bundles.Runtime, tmp_path: Path) -> None:
    program = bundles.build_guest_programs() / "memory"
    bundle = bundles.busybox_bundle(tmp_path / "bundle", [program])
    said = []
    for inside in (False, True):
        volume = tmp_path / f"volume-{inside}"
        volume.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=20", "tmpfs", volume], check=True)
        try:
            if inside:
                mount = {"destination": "/volume", "type": "bind", "source": str(volume), "options": ["rbind", "rw"]}
                bundle.configure(["/bin/memory", "@full", "/volume"], mounts=[mount])
                said.append(contained.run(bundle, timeout=SECONDS).text)
            else:
                natively = subprocess.run([program, "@full", volume], capture_output=True, text=True, check=True)
                said.append(natively.stdout)
        finally:
            subprocess.run(["umount", "--lazy", volume], check=True)
    assert said[0] == said[1]


def test_what_it_writes_is_in_the_bundle(run: Callable[..., bundles.Completed], bundle: bundles.Bundle) -> None:
    run("sh", "-c", "echo kept > /work/file; mkdir /work/folder; ln -s file /work/link; chown 1000 /work/file")
    work = bundle.rootfs / "work"
    assert (work / "file").read_text() == "kept\n"
    assert (work / "file").stat().st_uid == 1000
    assert (work / "link").readlink() == Path("file")
    assert (work / "folder").is_dir()


LOOKS = """
look() { cat /new /etc/new /etc/old /folder/new; ls /etc /folder; stat -c %s /etc/old; }
mkdir /folder; echo old > /etc/old
look > /dev/null 2>&1; touch /folder/made; look > /dev/null 2>&1
echo ready; read -r line
sleep 1.1
look
"""


def test_what_is_copied_into_a_running_container_is_seen(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    """Names that were missed, listed and read before, as `docker cp` changes them: below the root filesystem."""
    bundle.configure(["sh", "-c", LOOKS])
    command = contained.command("run", "--bundle", str(bundle.path), "copied-into")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as inside:
        assert inside.stdin
        assert inside.stdout
        assert inside.stdout.readline() == "ready\n"
        root = bundle.rootfs
        for name in ("new", "etc/new", "folder/new"):
            (root / name).write_text(f"{name}\n")
        (root / "etc" / "old").unlink()
        (root / "etc" / "old").write_text("replaced\n")
        after = inside.communicate("\n", SECONDS)[0].split()
    assert after[:4] == ["new", "etc/new", "replaced", "folder/new"]
    assert after[-1] == "9"
    assert after.count("new") == 3
    assert "made" in after


CHANGES = """
i=0; while [ $i -lt 50 ]; do echo $i > /work/f$i; rm -f /work/f$((i - 1)); i=$((i + 1)); done
echo ready; read -r line
exec 3> /work/late; rm /work/f49; echo late >&3
while :; do :; done
"""


def test_what_it_changes_is_seen_outside(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    """At once by whoever hears of it; else in a moment, even when the program makes no system call any more."""
    bundle.configure(["sh", "-c", CHANGES])
    command = contained.command("run", "--bundle", str(bundle.path), "seen-outside")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as inside:
        assert inside.stdin
        assert inside.stdout
        work = bundle.rootfs / "work"
        try:
            assert inside.stdout.readline() == "ready\n"
            assert [(file.name, file.read_text()) for file in work.iterdir()] == [("f49", "49\n")]
            inside.stdin.write("\n")
            inside.stdin.flush()
            deadline = time.monotonic() + SECONDS
            while [(file.name, file.read_text()) for file in work.iterdir()] != [("late", "late\n")]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            subprocess.run(contained.command("kill", "seen-outside", "KILL"), check=False)


def test_a_full_root(contained: bundles.Runtime, tmp_path: Path) -> None:
    """No error of a write is lost, however the writes reach the host."""
    path = tmp_path / "bundle"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path], check=True)
    try:
        bundle = bundles.busybox_bundle(path)
        fill = "dd if=/dev/zero of=/big bs=4096 count=4096 2>&1 | grep -c 'No space left'"
        bundle.configure(["sh", "-c", f"{fill}; rm /big; echo fits > /small; cat /small"])
        said = contained.run(bundle, timeout=SECONDS).text.splitlines()
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
    assert said == ["1", "fits"]


class Terminal:
    """The command's terminal, from the user's side."""

    def __init__(self, command: Sequence[str], rows: int = 24, columns: int = 80) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            self.resize(rows, columns, 0)
            os.execvp(command[0], list(command))
        self.text = ""

    def resize(self, rows: int, columns: int, fd: int | None = None) -> None:
        import fcntl
        import termios

        fcntl.ioctl(self.fd if fd is None else fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, wanted: str) -> str:
        deadline = time.monotonic() + SECONDS
        while wanted not in self.text:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.fd], [], [], max(left, 0))
            assert ready, f"{wanted!r} did not come; so far: {self.text!r}"
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            assert data, f"the terminal closed before {wanted!r}; so far: {self.text!r}"
            self.text += data.decode(errors="replace")
        before, _, self.text = self.text.partition(wanted)
        return before + wanted

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def code(self) -> int:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.fd], [], [], 0.05)
            try:
                if ready and not os.read(self.fd, 65536):
                    break
            except OSError:
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


SCRIPT = """
tty; stty size
trap 'echo resized; stty size' WINCH
trap 'echo interrupted; read line; echo "got $line"; exit 7' INT
echo ready
while :; do sleep 0.1; done
"""


def test_terminal(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    bundle.configure(["sh", "-c", SCRIPT], terminal=True)
    terminal = Terminal(contained.command("run", "--bundle", str(bundle.path), "terminal"), 33, 99)
    try:
        said = terminal.until("ready\r\n")
        assert "/dev/" in said
        assert "\r\n33 99\r\n" in said
        terminal.resize(40, 120)
        terminal.until("resized\r\n40 120\r\n")
        terminal.type("\x03")
        terminal.until("interrupted\r\n")
        terminal.type("lime\x7f\x7fne\n")
        terminal.until("got line\r\n")
        assert terminal.code() == 7
    finally:
        subprocess.run(contained.command("delete", "--force", "terminal"), capture_output=True, check=False)


@pytest.mark.parametrize("name", ["TERM", "INT", "USR1"])
def test_signals_are_handed_on(contained: bundles.Runtime, bundle: bundles.Bundle, name: str) -> None:
    bundle.configure(["sh", "-c", f"trap 'echo caught; exit 9' {name}; echo ready; while :; do sleep 0.1; done"])
    command = contained.command("run", "--bundle", str(bundle.path), f"signal-{name}")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.Signals[f"SIG{name}"])
        assert process.stdout.readline() == "caught\n"
        assert process.wait(SECONDS) == 9


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("absent", 127),
        ("/absent", 127),
        ("/etc/passwd", 126),
        ("/etc", 126),
        ("/work/text", 126),
        ("/work/arm", 126),
        ("/work/cut", 126),
        ("/work/loop", 126),
        ("/work/nobody", 127),
    ],
)
def test_what_cannot_be_executed(
    contained: bundles.Runtime, bundle: bundles.Bundle, run: Callable[..., bundles.Completed], program: str, code: int
) -> None:
    only_litebox(contained)
    work = bundle.rootfs / "work"
    elf = bytearray((bundle.rootfs / "bin/busybox").read_bytes()[:4096])
    elf[18:20] = (183).to_bytes(2, "little")  # EM_AARCH64
    for name, data in {
        "text": b"no program\n",
        "arm": bytes(elf),
        "cut": bytes(elf[:40]),
        "loop": b"#!/work/loop\n",
        "nobody": b"#!/absent/interpreter\n",
    }.items():
        (work / name).write_bytes(data)
        (work / name).chmod(0o755)
    ended = run(program)
    assert ended.code == code
    assert ended.stderr
    assert ended.stdout == b""


def _remove_rootfs(document: dict[str, Any]) -> None:
    document["root"]["path"] = "elsewhere"


def _relative_cwd(document: dict[str, Any]) -> None:
    document["process"]["cwd"] = "not/absolute"


def _no_arguments(document: dict[str, Any]) -> None:
    document["process"]["args"] = []


def _wrong_type(document: dict[str, Any]) -> None:
    document["process"]["user"]["uid"] = "root"


def _absent_source(document: dict[str, Any]) -> None:
    document["mounts"].append({"destination": "/x", "type": "bind", "source": "/absent/source", "options": ["rbind"]})


def _too_little_memory(document: dict[str, Any]) -> None:
    document["linux"]["resources"] = {"memory": {"limit": 4096}}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_remove_rootfs, "elsewhere"),
        (_relative_cwd, "cwd"),
        (_no_arguments, "args"),
        (_wrong_type, "uid"),
        (_absent_source, "/absent/source"),
        (_too_little_memory, "memory limit, 4 KiB"),
    ],
)
def test_bad_configuration(
    contained: bundles.Runtime, bundle: bundles.Bundle, spoil: Callable[[dict[str, Any]], None], said: str
) -> None:
    only_litebox(contained)
    document = bundles.configuration(["true"])
    spoil(document)
    (bundle.path / "config.json").write_text(json.dumps(document))
    ended = contained.run(bundle, timeout=SECONDS)
    assert ended.code != 0
    assert said in ended.stderr.decode()
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"ociVersion": 1}'])
def test_malformed_bundle(contained: bundles.Runtime, bundle: bundles.Bundle, text: str | None) -> None:
    only_litebox(contained)
    if text is not None:
        (bundle.path / "config.json").write_text(text)
    ended = contained.run(bundle, timeout=SECONDS)
    assert ended.code != 0
    assert b"config.json" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_nothing_is_left_behind(contained: bundles.Runtime, run: Callable[..., bundles.Completed]) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    run("true")
    run("absent")
    assert Path("/proc/self/mountinfo").read_text() == before
    listing = subprocess.run(contained.command("list", "-q"), capture_output=True, text=True, check=True)
    assert listing.stdout == ""


@pytest.mark.parametrize("room", ["size=4k", "nr_inodes=2"])
def test_a_full_state_directory(contained: bundles.Runtime, bundle: bundles.Bundle, tmp_path: Path, room: str) -> None:
    only_litebox(contained)
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", room, "tmpfs", state], check=True)
    try:
        (state / "filler").write_bytes(bytes(4096))
        bundle.configure(["true"])
        ended = bundles.runtime_named("litebox", state).run(bundle, timeout=SECONDS)
        assert [path.name for path in state.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", "--lazy", state], check=True)
    assert ended.code != 0
    assert b"No space left on device" in ended.stderr
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("limit", [15 << 20, 64 << 20])
def test_memory_limit(contained: bundles.Runtime, run: Callable[..., bundles.Completed], limit: int) -> None:
    only_litebox(contained)
    # The shell survives; the child that outgrows the limit is killed.
    ended = run(
        "sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; echo $?; echo alive", memory=limit
    )
    assert ended.text == "137\nalive\n"


def test_trace(contained: bundles.Runtime) -> None:
    only_litebox(contained)
    command = contained.command("trace", "--", "sh", "-c", "echo traced")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert ended.stdout == "traced\n"
    assert '[1] write(1, "traced\\n", 7) = 7' in ended.stderr.splitlines()


def test_live_counters(contained: bundles.Runtime, bundle: bundles.Bundle) -> None:
    only_litebox(contained)
    bundle.configure(["sh", "-c", "while :; do cat /absent 2>/dev/null; sleep 0.02; done"])
    subprocess.run(contained.command("run", "--detach", "--bundle", str(bundle.path), "counted"), check=True)

    def counters() -> dict[str, Any]:
        shown = subprocess.run(contained.command("events", "--stats", "counted"), capture_output=True, check=True)
        found: dict[str, Any] = json.loads(shown.stdout)["data"]["litebox"]
        return found

    try:
        clone, openat = "56", "257"
        first = counters()["syscalls"].get(clone, 0)
        deadline = time.monotonic() + SECONDS
        while (later := counters())["syscalls"].get(clone, 0) < first + 4:
            assert time.monotonic() < deadline, f"the shell's forks are not counted: {later}"
        assert later["syscalls_failed"][openat] > 0
        assert 0 < later["frames_free"] < later["frames_total"]
        assert later["exits"] > 0
        assert later["requests"]["walk"] > 0
    finally:
        subprocess.run(contained.command("delete", "--force", "counted"), check=True)
