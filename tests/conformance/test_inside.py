"""MUST sentences of runtime-spec 1.3 about what a program finds in its container, each quoted by the test that holds it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oci_spec.validate import check_config
from runtime.errors import InvalidSpec, Unsupported
from runtime.plan.make import make
from runtime.plan.model import HostFacts

Bundle = Callable[..., Path]


def output(litebox: Any, bundle: Bundle, script: str, changes: dict[str, Any] | None = None) -> str:
    """Of a shell script in a container."""
    return str(litebox("run", "--bundle", str(bundle(["sh", "-c", script], changes)), "c1").stdout)


def test_rlimits(litebox: Any, bundle: Bundle) -> None:
    """config.md: "For each entry in rlimits, a getrlimit(3) on type MUST succeed."

    "rlim.rlim_cur MUST match the configured value." "rlim.rlim_max MUST match the configured value."
    """
    limits = {"NOFILE": (100, 200), "CPU": (7, 9), "AS": (1 << 32, 1 << 33), "NPROC": (50, 60), "MEMLOCK": (4096, 8192)}
    rlimits = [{"type": f"RLIMIT_{name}", "soft": soft, "hard": hard} for name, (soft, hard) in limits.items()]
    text = output(litebox, bundle, "cat /proc/self/limits", {"process": {"rlimits": rlimits}})
    shown = {line[:26].strip(): tuple(line[26:].split()[:2]) for line in text.splitlines()[1:]}
    titles = {"NOFILE": "Max open files", "CPU": "Max cpu time", "AS": "Max address space", "NPROC": "Max processes",
              "MEMLOCK": "Max locked memory"}  # fmt: skip
    assert {name: shown[titles[name]] for name in limits} == {
        name: (str(soft), str(hard)) for name, (soft, hard) in limits.items()
    }


@pytest.mark.parametrize("value", [None, 123])
def test_oom_score(litebox: Any, bundle: Bundle, value: int | None) -> None:
    """config.md: "If oomScoreAdj is set, the runtime MUST set oom_score_adj to the given value."

    "If oomScoreAdj is not set, the runtime MUST NOT change the value of oom_score_adj."
    """
    before = Path("/proc/self/oom_score_adj").read_text().strip()
    changes = {"process": {"oomScoreAdj": value}}
    litebox("create", "--bundle", str(bundle(changes=changes)), "c1")
    pid = json.loads(litebox("state", "c1").stdout)["pid"]
    wanted = before if value is None else str(value)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == wanted
    litebox("delete", "--force", "c1")
    if value is not None:
        assert output(litebox, bundle, "cat /proc/self/oom_score_adj", changes) == f"{value}\n"


def test_console_size_without_a_terminal(litebox: Any, bundle: Bundle) -> None:
    """config.md: "Runtimes MUST ignore consoleSize if terminal is false or unset." """
    changes = {"process": {"consoleSize": {"height": 10, "width": 20}}}
    assert output(litebox, bundle, "test -t 0 || echo none", changes) == "none\n"


def test_mounts_in_order(litebox: Any, bundle: Bundle) -> None:
    """config.md: "The runtime MUST mount entries in the listed order."

    "For compatibility with old tools and configurations, it MAY be a relative path, in which case it MUST be interpreted
    as relative to "/"."
    """
    mounts = [
        {"destination": destination, "type": "tmpfs", "source": "t"} for destination in ("/m", "/m/inner", "relative")
    ]
    mounts.insert(0, {"destination": "/proc", "type": "proc", "source": "proc"})
    script = "awk '$5 ~ /^.(m|relative)/ {print $5}' /proc/self/mountinfo"
    assert output(litebox, bundle, script, {"mounts": mounts}).split() == ["/m", "/m/inner", "/relative"]


def test_recursive_and_plain_binds(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    """config.md, options that MUST be implemented: bind, rbind, ro, rw."""
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "below", tree / "below"], check=True)
    try:
        (tree / "below/file").touch()
        binds = [("/plain", ["bind", "ro"]), ("/recursive", ["rbind", "rw"])]
        mounts = [
            {"destination": destination, "type": "bind", "source": str(tree), "options": options}
            for destination, options in binds
        ]
        script = "ls /plain/below; ls /recursive/below; touch /plain/x 2>/dev/null || echo refused; touch /recursive/x"
        assert output(litebox, bundle, script, {"mounts": mounts}) == "file\nrefused\n"
    finally:
        subprocess.run(["umount", tree / "below"], check=True)


def test_mappings_of_mounts(config: dict[str, Any]) -> None:
    """config.md: "If specified, it MUST be specified along with gidMappings." (and with uidMappings)

    "If there are no uidMappings and gidMappings specified and the container isn't using user namespaces, an error MUST be
    returned."
    """
    mapping = [{"containerID": 0, "hostID": 1000, "size": 1}]
    bind = {"destination": "/x", "type": "bind", "source": "/", "options": ["bind"]}
    for mount in (
        {**bind, "uidMappings": mapping},
        {**bind, "gidMappings": mapping},
        {**bind, "options": ["bind", "idmap"]},
    ):
        with pytest.raises((InvalidSpec, Unsupported)):
            make({**config, "mounts": [mount]}, "c1", "/bundle", HostFacts(memory=1 << 30, cpus=1))


def test_devices_and_links(litebox: Any, bundle: Bundle) -> None:
    """config-linux.md: "devices (array of objects, OPTIONAL) lists devices that MUST be available in the container."

    runtime-linux.md: "While creating the container (step 2 in the lifecycle), runtimes MUST create the following symlinks
    if the source file exists after processing mounts": /dev/fd, /dev/stdin, /dev/stdout, /dev/stderr.
    """
    device = {"path": "/dev/mine", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6}
    script = "stat -c '%t %T %a %u %g' /dev/mine; for f in fd stdin stdout stderr; do readlink /dev/$f; done"
    lines = output(litebox, bundle, script, {"linux": {"devices": [device]}}).splitlines()
    assert lines == ["a e5 640 5 6", "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]


@pytest.fixture
def reachable(litebox: Any) -> Iterator[None]:
    """The VMM where any user gets at it: pytest's folders are for their owner only."""
    with tempfile.TemporaryDirectory(prefix="litebox-") as folder:
        Path(folder).chmod(0o755)
        for program in litebox.library.iterdir():
            shutil.copy(program, folder)
        litebox.environment["LITEBOX_LIBDIR"] = folder
        yield


@pytest.mark.usefixtures("reachable")
def test_user_namespace(litebox: Any, bundle: Bundle) -> None:
    """config-linux.md: uidMappings and gidMappings "describe the user namespace uid and gid mappings from the host to the
    container": the program sees them, and the host sees the VMM as the mapped user."""
    mapping = [{"containerID": 0, "hostID": 100_000, "size": 1000}]
    kinds = ("pid", "network", "ipc", "uts", "mount", "user")
    changes = {
        "linux": {"namespaces": [{"type": kind} for kind in kinds], "uidMappings": mapping, "gidMappings": mapping}
    }
    text = output(litebox, bundle, "cat /proc/self/uid_map /proc/self/gid_map; id -u", changes)
    assert [line.split() for line in text.splitlines()] == [["0", "100000", "1000"]] * 2 + [["0"]]


def test_namespaces_of_the_host(litebox: Any, bundle: Bundle) -> None:
    """config-linux.md: "If path is not specified, the runtime MUST create a new container namespace of type type."

    "If a namespace type is not specified in the namespaces array, the container MUST inherit the runtime namespace of that
    type."
    """
    for kinds, new in ((["pid", "mount", "network", "ipc", "uts"], True), (["pid", "mount"], False)):
        changes = {"linux": {"namespaces": [{"type": kind} for kind in kinds]}}
        litebox("create", "--bundle", str(bundle(changes={**changes, "hostname": None})), "c1")
        pid = json.loads(litebox("state", "c1").stdout)["pid"]
        for name in ("net", "ipc", "uts"):
            same = Path(f"/proc/{pid}/ns/{name}").readlink() == Path(f"/proc/self/ns/{name}").readlink()
            assert same != new, name
        litebox("delete", "--force", "c1")


def test_where_hooks_run(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    """config.md, of prestart, createRuntime, poststart and poststop: "The value of path MUST resolve in the runtime
    namespace." "The ... hooks MUST be executed in the runtime namespace." "The prestart hooks MUST be called before the
    createRuntime hooks." "The createContainer hooks MUST be called after the createRuntime hooks."

    Of createContainer: "The value of path MUST resolve in the runtime namespace." "The createContainer hooks MUST be
    executed in the container namespace." Of startContainer: "The value of path MUST resolve in the container namespace."
    "The startContainer hooks MUST be executed in the container namespace." "The startContainer hooks MUST be called before
    the user-specified process is executed as part of the start operation."
    """
    log = tmp_path / "log"
    outside = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"echo {kind} $(readlink /proc/self/ns/net) >> {log}"],
                "env": ["PATH=/usr/bin:/bin"]}]
        for kind in ("poststop", "poststart", "createContainer", "createRuntime", "prestart")
    }  # fmt: skip
    inside = {"path": "/bin/busybox", "args": ["sh", "-c", "test -x /bin/busybox && echo hook >> /shared/said"]}
    shared = tmp_path / "shared"
    shared.mkdir()
    mounts = [{"destination": "/shared", "type": "bind", "source": str(shared), "options": ["bind"]}]
    changes = {"hooks": {**outside, "startContainer": [inside]}, "mounts": mounts}
    litebox("create", "--bundle", str(bundle(["sh", "-c", "echo program >> /shared/said; sleep 1000"], changes)), "c1")
    pid = json.loads(litebox("state", "c1").stdout)["pid"]
    container = str(Path(f"/proc/{pid}/ns/net").readlink())
    host = str(Path("/proc/self/ns/net").readlink())
    assert not (shared / "said").exists(), "the program must not run before start"
    litebox("start", "c1")
    litebox("delete", "--force", "c1")
    assert (shared / "said").read_text().splitlines()[0] == "hook"
    assert log.read_text().splitlines() == [
        f"prestart {host}",
        f"createRuntime {host}",
        f"createContainer {container}",
        f"poststart {host}",
        f"poststop {host}",
    ]


@pytest.mark.parametrize("kind", ["createContainer", "startContainer", "poststart"])
def test_hooks_that_fail(litebox: Any, bundle: Bundle, kind: str) -> None:
    """runtime.md, of each kind: "If any ... hook fails, the runtime MUST generate an error, stop the container, and continue
    the lifecycle at step 12." """
    folder = str(bundle(changes={"hooks": {kind: [{"path": "/bin/false"}]}}))
    done = litebox("create", "--bundle", folder, "c1", ok=False)
    if kind != "createContainer":
        assert done.returncode == 0
        done = litebox("start", "c1", ok=False)
        assert litebox.status("c1") == "stopped"
        litebox("delete", "c1")
    assert done.returncode != 0
    assert f"hooks.{kind}[0]" in done.stderr
    assert [left for left in litebox.leftovers() if not left.startswith("process")] == []


def test_invalid_values_of_the_cgroup(config: dict[str, Any]) -> None:
    """config-linux.md: "You MUST specify at least one of weight or leafWeight in a given entry": an entry without is written
    nowhere. "Runtimes MAY consider certain cgroupsPath values to be invalid, and MUST generate an error if this is the
    case." """
    from runtime.host.cgroups import paths

    with pytest.raises(InvalidSpec, match="cgroupsPath"):
        paths.container_path("../up", "c1")
    assert check_config({**config, "linux": {"cgroupsPath": 5}})
