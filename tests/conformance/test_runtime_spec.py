"""Sentences of the OCI runtime specification 1.3 with MUST, each beside the test that holds the runtime to it.

`clause` names the document and quotes the sentence. What needs a guest (what a program sees of its mounts, limits, ids)
is held by the guest programs and by integration/; here is what the runtime owes its callers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from oci_spec.state import State
from oci_spec.validate import check_config
from runtime.errors import InvalidSpec, LiteboxError
from runtime.plan.make import make
from runtime.plan.model import HostFacts, Plan

Bundle = Callable[..., Path]
Test = TypeVar("Test", bound=Callable[..., object])
CLAUSES: list[tuple[str, str, str]] = []


def clause(document: str, sentence: str) -> Callable[[Test], Test]:
    def mark(test: Test) -> Test:
        CLAUSES.append((document, sentence, test.__name__))
        return test

    return mark


def planned(config: dict[str, Any], **changes: Any) -> Plan:
    document = {**config, **changes}
    assert check_config(document) == []
    return make(document, "c1", "/bundle", HostFacts(memory=1 << 30, cpus=2))


# runtime.md


@clause("runtime.md", "ociVersion (string, REQUIRED) is version of the Open Container Initiative Runtime Specification")
@clause("runtime.md", "pid (int, REQUIRED when status is created or running on Linux, OPTIONAL on other platforms)")
@clause("runtime.md", "When serialized in JSON, the format MUST adhere to the JSON Schema schema/state-schema.json.")
@clause("runtime.md", "bundle (string, REQUIRED) is the absolute path to the container's bundle directory.")
def test_state(litebox: Any, bundle: Bundle) -> None:
    litebox("create", "--bundle", str(bundle(changes={"annotations": {"k": "v"}})), "c1")
    for status in ("created", "running"):
        state = State.model_validate_json(litebox("state", "c1").stdout)
        assert (state.id, state.status, state.bundle, state.annotations) == ("c1", status, str(bundle()), {"k": "v"})
        assert state.pid
        os.kill(state.pid, 0)
        if status == "created":
            litebox("start", "c1")


@clause("runtime.md", "This operation MUST generate an error if it is not provided the ID of a container.")
@pytest.mark.parametrize("command", ["state", "create", "start", "kill", "delete"])
def test_operations_need_an_id(litebox: Any, command: str) -> None:
    assert litebox(command, ok=False).returncode != 0


@clause("runtime.md", "Attempting to query a container that does not exist MUST generate an error.")
@clause("runtime.md", "Attempting to delete a container that does not exist MUST generate an error.")
@pytest.mark.parametrize("command", ["state", "start", "kill", "delete"])
def test_containers_that_do_not_exist(litebox: Any, command: str) -> None:
    done = litebox(command, "none", ok=False)
    assert done.returncode != 0
    assert "does not exist" in done.stderr


@clause("runtime.md", "If the ID provided is not unique across all containers within the scope of the runtime, [...] "
        "the implementation MUST generate an error and a new container MUST NOT be created.")  # fmt: skip
def test_ids_are_unique(litebox: Any, bundle: Bundle) -> None:
    litebox("create", "--bundle", str(bundle()), "c1")
    before = litebox("state", "c1").stdout
    assert litebox("create", "--bundle", str(bundle()), "c1", ok=False).returncode != 0
    assert litebox("state", "c1").stdout == before


@clause(
    "runtime.md",
    "This operation MUST generate an error if it is not provided a path to the bundle and the container ID",
)
@clause("runtime.md", "If the runtime cannot apply a property as specified in the configuration, it MUST generate an error and a new "
        "container MUST NOT be created.")  # fmt: skip
def test_what_cannot_be_applied_creates_nothing(litebox: Any, bundle: Bundle) -> None:
    folder = bundle(changes={"linux": {"sysctl": {"net.no.such.setting": "1"}}})
    assert litebox("create", "--bundle", str(folder), "c1", ok=False).returncode != 0
    assert litebox.leftovers() == []


@clause(
    "runtime.md",
    "Any changes made to the config.json file after this operation will not have an effect on the container.",
)
def test_config_is_read_at_create(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    output = tmp_path / "output"
    folder = bundle(["sh", "-c", "echo before; sleep 1000"])
    with output.open("wb") as file:
        command = litebox.command("create", "--bundle", str(folder), "c1")
        subprocess.run(command, stdout=file, stdin=subprocess.DEVNULL, env=litebox.environment, check=True, timeout=30)
    bundle(["sh", "-c", "echo after"])
    litebox("start", "c1")
    for _ in range(100):
        if output.read_text():
            break
        litebox("state", "c1")
    assert output.read_text() == "before\n"
    (folder / "config.json").unlink()
    litebox("delete", "--force", "c1")


@clause(
    "runtime.md",
    "Attempting to start a container that is not created MUST have no effect on the container and MUST generate an error.",
)
def test_start_twice(litebox: Any, bundle: Bundle) -> None:
    litebox("run", "--detach", "--bundle", str(bundle()), "c1")
    before = litebox("state", "c1").stdout
    assert litebox("start", "c1", ok=False).returncode != 0
    assert litebox("state", "c1").stdout == before


@clause("runtime.md", "This operation MUST run the user-specified program as specified by process.")
@clause(
    "config.md",
    "args (array of strings, OPTIONAL) [...] This specification extends the IEEE standard in that at least one entry is REQUIRED",
)
def test_start_runs_the_program(litebox: Any, bundle: Bundle) -> None:
    assert litebox("run", "--bundle", str(bundle(["echo", "a b", "c"])), "c1").stdout == "a b c\n"
    assert litebox("create", "--bundle", str(bundle(changes={"process": {"args": []}})), "c1", ok=False).returncode != 0
    assert "process" in litebox("create", "--bundle", str(bundle(changes={"process": None})), "c1", ok=False).stderr


@clause("runtime.md", "Attempting to send a signal to a container that is neither created nor running MUST have no effect on the container "
        "and MUST generate an error.")  # fmt: skip
@clause("runtime.md", "This operation MUST send the specified signal to the container process.")
def test_kill(litebox: Any, bundle: Bundle) -> None:
    folder = bundle(["sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.02; done"])
    command = litebox.command("run", "--keep", "--bundle", str(folder), "c1")
    with subprocess.Popen(command, env=litebox.environment, stdin=subprocess.DEVNULL) as process:
        while litebox("state", "c1", ok=False).returncode or litebox.status("c1") != "running":
            pass
        subprocess.run(["sleep", "0.3"], check=True)
        litebox("kill", "c1", "USR1")
        assert process.wait(20) == 5
    litebox.wait_for("c1", "stopped")
    assert litebox("kill", "c1", str(int(signal.SIGTERM)), ok=False).returncode != 0
    assert litebox.status("c1") == "stopped"


@clause(
    "runtime.md",
    "Attempting to delete a container that is not stopped MUST have no effect on the container and MUST generate an error.",
)
@clause("runtime.md", "Deleting a container MUST delete the resources that were created during the create step.")
@clause(
    "runtime.md",
    "Note that resources associated with the container, but not created by this container, MUST NOT be deleted.",
)
@clause("runtime.md", "Once a container is deleted its ID MAY be used by a subsequent container.")
def test_delete(litebox: Any, bundle: Bundle, rootfs: Path) -> None:
    litebox("run", "--detach", "--bundle", str(bundle()), "c1")
    assert litebox("delete", "c1", ok=False).returncode != 0
    assert litebox.status("c1") == "running"
    litebox("kill", "c1", "KILL")
    litebox.wait_for("c1", "stopped")
    litebox("delete", "c1")
    assert [found for found in litebox.leftovers() if not found.startswith("process")] == []
    assert (rootfs / "bin/busybox").exists()
    assert (bundle() / "config.json").exists()
    litebox("create", "--bundle", str(bundle()), "c1")


# config.md


@clause(
    "config.md",
    "ociVersion (string, REQUIRED) MUST be in SemVer v2.0.0 format and specifies the version of the specification",
)
@pytest.mark.parametrize("version", [None, "", "1", "one", "0.9.0", "2.0.0"])
def test_version(config: dict[str, Any], version: str | None) -> None:
    config["ociVersion"] = version
    assert check_config(config)


@clause(
    "config.md",
    "path (string, REQUIRED) Specifies the path to the root filesystem [...] A directory MUST exist at the path declared by the field.",
)
def test_root_must_be_a_directory(litebox: Any, bundle: Bundle) -> None:
    for path in ("gone", "config.json"):
        done = litebox("create", "--bundle", str(bundle(changes={"root": {"path": path}})), "c1", ok=False)
        assert "root.path" in done.stderr


@clause(
    "config.md",
    "readonly (bool, OPTIONAL) If true then the root filesystem MUST be read-only inside the container, defaults to false.",
)
def test_read_only_root(litebox: Any, bundle: Bundle) -> None:
    script = ["sh", "-c", "touch /x && exit 7; exit 0"]
    litebox("run", "--bundle", str(bundle(script, {"root": {"readonly": True}})), "c1")
    assert (
        litebox("run", "--bundle", str(bundle([*script[:2], "touch /tmp/x && exit 7"])), "c1", ok=False).returncode == 7
    )


@clause("config.md", "mounts (array of objects, OPTIONAL) [...] The runtime MUST mount entries in the listed order.")
@clause("config.md", "destination (string, REQUIRED) Destination of mount point: path inside container.")
def test_mounts_keep_their_order(config: dict[str, Any]) -> None:
    names = ["/z", "/a", "/z/b", "/m"]
    config["mounts"] = [{"destination": name, "type": "tmpfs"} for name in names]
    made = [spec["destination"] for spec in planned(config).container["mounts"]]
    assert [name for name in made if name in names] == names


@clause("config.md", "Runtimes MUST/SHOULD/MAY implement the following option strings for Linux")
def test_options_of_the_table(config: dict[str, Any]) -> None:
    options = (
        "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec noiversion nolazytime "
        "norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec "
        "rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable "
        "rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable"
    ).split()
    for option in options:
        config["mounts"] = [{"destination": "/a", "type": "bind", "source": "/b", "options": ["bind", option]}]
        tree = planned(config).trees[1]
        assert tree.data == [], f"{option} was taken for data of a file system"


@clause(
    "config.md",
    "cwd (string, REQUIRED) is the working directory that will be set for the executable. This value MUST be an absolute path.",
)
def test_cwd(config: dict[str, Any]) -> None:
    for cwd in ("", "relative", None, 5):
        config["process"]["cwd"] = cwd
        assert any(problem.startswith("process.cwd") for problem in check_config(config))
    del config["process"]["cwd"]
    assert check_config(config) == ["process.cwd: found nothing; allowed: an absolute path"]


@clause("config.md", "type (string, REQUIRED) the platform resource being limited. [...] The runtime MUST generate an error for any values which "
        "cannot be mapped to a relevant kernel interface.")  # fmt: skip
@clause("config.md", "If rlimits contains duplicated entries with same type, the runtime MUST generate an error.")
def test_rlimits(config: dict[str, Any]) -> None:
    for rlimits in (
        [{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}],
        [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}],
    ):
        config["process"]["rlimits"] = rlimits
        with pytest.raises(InvalidSpec, match=r"process\.rlimits"):
            planned(config)


@clause("config.md", "Any value which cannot be mapped to a relevant kernel interface, or cannot be granted otherwise, MUST be logged as a warning "
        "by the runtime. Runtimes SHOULD NOT fail if the container configuration requests capabilities that cannot be granted")  # fmt: skip
def test_unknown_capabilities_are_warned_about(config: dict[str, Any]) -> None:
    config["process"]["capabilities"] = {"bounding": ["CAP_MADE_UP"]}
    assert any("CAP_MADE_UP" in warning for warning in planned(config).warnings)


@clause("config.md", "path (string, REQUIRED) with similar semantics to IEEE Std 1003.1-2008 execv's path. [...] This specification extends the "
        "IEEE standard in that path MUST be absolute.")  # fmt: skip
@clause(
    "config.md",
    "timeout (int, OPTIONAL) is the number of seconds before aborting the hook. If set, timeout MUST be greater than zero.",
)
def test_hooks_are_checked(config: dict[str, Any]) -> None:
    for hook in ({"path": "relative"}, {"path": "/x", "timeout": 0}, {"path": "/x", "timeout": -1}, {}):
        assert check_config({**config, "hooks": {"poststop": [hook]}})


@clause(
    "config.md",
    "The state of the container MUST be passed to hooks over stdin so that they may do work appropriate to the current state",
)
@clause("config.md", "Hooks MUST be called in the listed order.")
@clause(
    "config.md",
    "The prestart hooks MUST be called as part of the create operation after the runtime environment has been created",
)
@clause(
    "config.md",
    "The createRuntime hooks MUST be called as part of the create operation after the runtime environment has been created",
)
@clause(
    "config.md",
    "The createContainer hooks MUST be called as part of the create operation after the runtime environment has been created",
)
@clause(
    "config.md",
    "The poststart hooks MUST be called after the user-specified process is executed but before the start operation returns.",
)
@clause(
    "config.md",
    "The poststop hooks MUST be called after the container is deleted but before the delete operation returns.",
)
def test_hooks(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    def hook(name: str) -> dict[str, Any]:
        script = f'echo {name} $(sed \'s/.*"status":"\\([a-z]*\\)".*/\\1/\') >> {tmp_path}/said'
        return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}

    kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    hooks = {kind: [hook(kind + "-1"), hook(kind + "-2")] for kind in kinds}
    litebox("create", "--bundle", str(bundle(changes={"hooks": hooks})), "c1")
    created = (tmp_path / "said").read_text().splitlines()
    assert created == [f"{kind}-{n} creating" for kind in kinds[:3] for n in (1, 2)]
    litebox("start", "c1")
    assert (tmp_path / "said").read_text().splitlines()[6:] == ["poststart-1 running", "poststart-2 running"]
    litebox("delete", "--force", "c1")
    assert (tmp_path / "said").read_text().splitlines()[8:] == ["poststop-1 stopped", "poststop-2 stopped"]


@clause(
    "runtime.md",
    "If any prestart hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.",
)
@clause(
    "runtime.md",
    "If any createRuntime hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.",
)
@clause(
    "runtime.md",
    "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle continue",
)
def test_hooks_that_fail(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    last = {"path": "/bin/sh", "args": ["sh", "-c", f"echo last >> {tmp_path}/said"]}
    for kind in ("prestart", "createRuntime"):
        hooks = {kind: [{"path": "/bin/false"}], "poststop": [{"path": "/bin/false"}, last]}
        assert litebox("create", "--bundle", str(bundle(changes={"hooks": hooks})), "c1", ok=False).returncode != 0
        assert litebox.leftovers() == []
    assert (tmp_path / "said").read_text() == "last\nlast\n"
    log = tmp_path / "log"
    hooks = {"poststop": [{"path": "/bin/false"}, last]}
    litebox("create", "--bundle", str(bundle(changes={"hooks": hooks})), "c1")
    litebox("--log", str(log), "--log-format=json", "delete", "--force", "c1")
    assert [json.loads(line)["level"] for line in log.read_text().splitlines()] == ["warning"]


@clause(
    "config.md",
    "Runtimes MUST NOT generate an error if they encounter an unknown property [...] Instead, they MUST ignore unknown properties.",
)
@clause(
    "config.md",
    "Implementations that are reading/processing this configuration file MUST NOT generate an error if they encounter an unknown annotation key.",
)
def test_extensibility(litebox: Any, bundle: Bundle) -> None:
    changes = {"unknown": {"x": 1}, "linux": {"unknown": True}, "annotations": {"org.example.unknown": "x"}}
    litebox("run", "--bundle", str(bundle(["true"], changes)), "c1")


@clause(
    "config.md",
    "Runtimes that are reading this configuration file MUST generate an error when invalid or unsupported values are encountered.",
)
@pytest.mark.parametrize(
    "changes",
    [
        {"mounts": {}},
        {"process": {"user": {"uid": -1}}},
        {"linux": {"namespaces": [{"type": "galaxy"}]}},
        {"hostname": 5},
        {"annotations": {"a": 1}},
    ],
)
def test_invalid_values(litebox: Any, bundle: Bundle, changes: dict[str, Any]) -> None:
    done = litebox("create", "--bundle", str(bundle(changes=changes)), "c1", ok=False)
    assert done.returncode != 0
    assert "found" in done.stderr
    assert "allowed" in done.stderr


# config-linux.md


@clause(
    "config-linux.md",
    "If a namespaces field contains duplicated namespaces with same type, the runtime MUST generate an error.",
)
@clause("config-linux.md", "This value MUST be an absolute path in the runtime mount namespace.")
def test_namespaces(config: dict[str, Any]) -> None:
    for namespaces in ([{"type": "ipc"}, {"type": "ipc"}], [{"type": "ipc", "path": "relative"}]):
        config["linux"]["namespaces"] = namespaces
        with pytest.raises(LiteboxError, match=r"linux\.namespaces"):
            planned(config)


@clause(
    "config-linux.md", "The runtime MUST generate an error if path is not associated with a namespace of type type."
)
@clause("config-linux.md", "The runtime MUST place the container process in the namespace associated with that path.")
def test_joined_namespaces(litebox: Any, bundle: Bundle) -> None:
    wrong = {"linux": {"namespaces": [{"type": "network", "path": "/proc/self/ns/uts"}]}}
    assert (
        "is not a network namespace" in litebox("create", "--bundle", str(bundle(changes=wrong)), "c1", ok=False).stderr
    )
    gone = {"linux": {"namespaces": [{"type": "network", "path": "/nonesuch"}]}}
    assert "/nonesuch" in litebox("create", "--bundle", str(bundle(changes=gone)), "c1", ok=False).stderr


@clause("config-linux.md", "path (string, REQUIRED) - full path to device inside container.")
@clause("config-linux.md", "major, minor (int64, REQUIRED unless type is p) - major, minor numbers for the device.")
def test_devices(config: dict[str, Any]) -> None:
    config["linux"]["devices"] = [{"path": "/dev/x", "type": "c"}]
    with pytest.raises(InvalidSpec, match=r"linux\.devices\[0\]"):
        planned(config)
    config["linux"]["devices"] = [{"path": "/dev/x", "type": "p"}]
    assert planned(config).container["devices"][0]["kind"] == "p"
    assert check_config({**config, "linux": {"devices": [{"path": "dev", "type": "c", "major": 1, "minor": 3}]}})


@clause(
    "config-linux.md",
    "In addition to any devices configured with this setting, the runtime MUST also supply: /dev/null, /dev/zero, /dev/full, ...",
)
def test_default_devices(config: dict[str, Any]) -> None:
    config["mounts"] = []
    assert {"/dev": "devtmpfs"}.items() <= {
        m["destination"]: m["kind"] for m in planned(config).container["mounts"]
    }.items()


@clause("config-linux.md", "cgroupsPath (string, OPTIONAL) path to the cgroups. It can be used to either control the cgroups hierarchy for containers "
        "or to run a new process in an existing container. The value of cgroupsPath MUST be either an absolute path or a relative path.")  # fmt: skip
def test_cgroups_path(litebox: Any, bundle: Bundle) -> None:
    assert (
        litebox(
            "create", "--bundle", str(bundle(changes={"linux": {"cgroupsPath": "../../x"}})), "c1", ok=False
        ).returncode
        != 0
    )


@clause("config-linux.md", "The values MUST be absolute paths in the container namespace.")
@clause(
    "config-linux.md", "rootfsPropagation [...] The following values are legal: shared, slave, private or unbindable."
)
def test_paths_and_propagation(config: dict[str, Any]) -> None:
    for key in ("maskedPaths", "readonlyPaths"):
        with pytest.raises(InvalidSpec, match=key):
            planned(config, linux={**config["linux"], key: ["proc/kcore"]})
    assert check_config({**config, "linux": {"rootfsPropagation": "sideways"}})
    bits = {
        value: planned(config, linux={**config["linux"], "rootfsPropagation": value}).trees[0].propagation
        for value in ("shared", "slave", "private", "unbindable")
    }
    assert len(set(bits.values())) == 4


@clause(
    "config-linux.md",
    "names (array of strings, REQUIRED) - the names of the syscalls. names MUST contain at least one entry.",
)
@clause("config-linux.md", "defaultAction (string, REQUIRED) - the default action for seccomp.")
def test_seccomp(config: dict[str, Any]) -> None:
    assert check_config({**config, "linux": {"seccomp": {}}})
    assert check_config(
        {
            **config,
            "linux": {
                "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]}
            },
        }
    )


@clause(
    "config-linux.md",
    "intelRdt [...] If intelRdt is set, the runtime MUST write [...] / and MUST generate an error where that is not possible",
)
def test_intel_rdt_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(LiteboxError, match="intelRdt"):
        planned(config, linux={**config["linux"], "intelRdt": {"closID": "x", "l3CacheSchema": "L3:0=f"}})


def test_every_clause_is_told_apart() -> None:
    assert len({(document, sentence) for document, sentence, _ in CLAUSES}) == len(CLAUSES)
