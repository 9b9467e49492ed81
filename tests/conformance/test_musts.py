"""Every sentence of runtime-spec 1.3 with MUST has a test that names it.

`sentences.tsv` has them all, one a line, without markup, of the documents that concern a runtime for Linux (copyright The
Linux Foundation and the authors, Apache License 2.0). A test of this folder names a
sentence by quoting it, or a good part of it ("..." leaves something out); what other tests hold, or what cannot concern
LiteBox, stands in the tables below.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bundles
from oci_spec.validate import check_config
from runtime import mount_options
from runtime.errors import InvalidSpec, LiteboxError
from runtime.plan.make import make
from runtime.plan.model import HostFacts
from runtime.seccomp import translate

Bundle = Callable[..., Path]
HERE = Path(__file__).parent
#: A quote is long enough to mean one thing.
SHORTEST = 25

# (words of the sentence, the file and the test that holds it)
ELSEWHERE = (
    ("This MUST be unique across all containers on this host", "unit/runtime/test_lifecycle.py", "test_two_creates_of_one_id"),
    ("generating an error MUST leave the state of the environment as if the operation were never attempted", "unit/runtime/test_crash.py", "test_create"),
    ("The container MUST be destroyed by undoing the steps performed during create phase", "unit/runtime/test_crash.py", "test_delete"),
    ("The entity using a runtime to create a container MUST be able to use the operations", "unit/runtime/test_lifecycle.py", "test_a_whole_life"),
    ("runtimes MUST support the following operations", "unit/runtime/test_lifecycle.py", "test_a_whole_life"),
    ("This operation MUST return the state of a container", "unit/runtime/test_lifecycle.py", "test_a_whole_life"),
    ("This operation MUST create a new container", "unit/runtime/test_lifecycle.py", "test_a_whole_life"),
    ("The runtime MUST run the user-specified program", "unit/runtime/test_lifecycle.py", "test_a_whole_life"),
    ("The container's runtime environment MUST be created according to the configuration", "unit/runtime/test_plan.py", "test_the_process"),
    ("All of the properties configured in config.json except for process MUST be applied", "unit/runtime/test_plan.py", "test_the_process"),
    ("If the runtime is unable to create the environment", "unit/runtime/test_plan.py", "test_what_cannot_be_done_is_refused_with_its_path"),
    ("Runtimes MUST generate an error when invalid or unsupported values are encountered", "unit/oci_spec/test_models.py", "test_what_the_official_schemas_refuse_is_refused"),
    ("hooks MUST be invoked by the runtime", "unit/runtime/test_lifecycle.py", "test_hooks_run_in_order_with_the_state"),
    ("hooks' path MUST resolve in the container namespace", "unit/runtime/test_lifecycle.py", "test_start_container_hooks_run_inside"),
    ("hooks' path MUST resolve in the runtime namespace", "unit/runtime/test_view.py", "test_create_container_hooks"),
    ("Keys MUST NOT be an empty string", "unit/oci_spec/test_models.py", "test_names_are_not_empty"),
    ("MUST otherwise ignore them", "unit/oci_spec/test_models.py", "test_unknown_properties_do_not_matter"),
    ("Runtimes MUST handle unknown annotation keys like any other unknown property", "unit/oci_spec/test_models.py", "test_unknown_properties_do_not_matter"),
    ("the runtime MUST take the path to be relative to the cgroups mount point", "unit/runtime/test_pure.py", "test_cgroup_paths"),
    ("the runtime MUST consistently attach to the same place", "unit/runtime/test_pure.py", "test_cgroup_paths"),
    ("check if the container cgroup is fit for purpose", "unit/runtime/test_lifecycle.py", "test_a_cgroup_that_was_there_stays"),
    ("The OCI runtime MUST ensure that the needed cgroup controllers are enabled", "unit/runtime/test_lifecycle.py", "test_cgroup_limits"),
    ("Configuration unknown to the runtime MUST still be written to the relevant file", "unit/runtime/test_pure.py", "test_settings_of_cgroup_v2"),
    ("when the configuration refers to a cgroup controller that is not present", "unit/runtime/test_lifecycle.py", "test_cgroup_limits"),
    ("If the conversion is not possible the runtime MUST generate an error", "unit/runtime/test_pure.py", "test_settings_of_cgroup_v2"),
    ("The null value MUST NOT be confused with an empty value", "unit/runtime/test_plan.py", "test_nulls_of_go_programs_are_absent_values"),
    ("runtimes MUST still set this value to true", "unit/oci_spec/test_models.py", "test_state_and_features"),
    ("All configuration JSON MUST be encoded in UTF-8", "unit/runtime/test_pure.py", "test_bad_json"),
    ("it MUST continue as if the warning had not been logged", "unit/runtime/test_plan.py", "test_namespaces_of_the_vmm"),
)  # fmt: skip

REFUSED = {
    "netDevices": {"netDevices": {"eth0": {"name": "e"}}},
    "intelRdt": {"intelRdt": {"closID": "x", "l3CacheSchema": "L3:0=f"}},
    "memoryPolicy": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}},
    "rdma": {"resources": {"rdma": {"mlx5_1": {"hcaHandles": 3}}}},
    "SCMP_ACT_NOTIFY": {"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}},
}
# Words of sentences about what is refused as a whole (`test_what_is_refused_as_a_whole`), by what that is.
OF_WHAT_IS_REFUSED = {
    "netDevices": ("network device", "network interface", "interface's lifecycle", "move the interface", "In that case, the runtime MUST allow the move"),
    "intelRdt": ("resctrl", "closID", "CLOS", "Schema", "schemata", "MON group", "MUST NOT contain newlines", "rules on parameters", "from start"),
    "memoryPolicy": ("memoryPolicy",),
    "rdma": ("hcaHandles",),
    "SCMP_ACT_NOTIFY": ("socket", "sendmsg", "container process state", "The connection MUST NOT be reused"),
}  # fmt: skip

# (words of the sentence, why it cannot fail here)
NOT_OURS = (
    ("When supplied, while these artifacts MUST all be present in a single directory", "of whoever makes the bundle"),
    ("they MUST be used to represent new runtime states", "there are no more states than the specification's"),
    ("Hyper-V", "Windows"),
    ("On Windows", "Windows"),
    ("(e.g., c:\\\\foo", "Windows"),
    ("Windows: runtimes MUST", "Windows"),
    ("if the target platform of this spec is windows", "Windows"),
    ("Keys MUST be strings", "JSON has no others"),
    ("The annotation value MUST have a valid value", "of whoever converts an image"),
    ("annotations using keys in this namespace MUST be as described", "of whoever converts an image"),
    ("MUST NOT be used by subsequent specifications", "of the specification's editors"),
    ("Runtimes MUST NOT fail in this scenario, and SHOULD change the ownership", "the guest has a cgroup file system of its own"),
    ("If the /sys/kernel/cgroup/delegate file does not exist", "the guest has a cgroup file system of its own"),
    ("The runtime MUST apply entries in the listed order", "the guest has the devices that config.json lists, and no others"),
    ("If enabled (true), runtime MAY check if a new memory limit", "MAY: it is not checked"),
    ("MUST be no smaller than burst", "of whoever writes the configuration; the kernel checks"),
    ("MUST be no larger than any positive quota", "of whoever writes the configuration; the kernel checks"),
    ("JSON objects MUST NOT include duplicate names", "of whoever writes the configuration"),
)  # fmt: skip


def words(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def quotes() -> set[tuple[str, ...]]:
    """What the tests of this folder quote: each a row of parts that follow each other."""
    found = set()
    for path in HERE.glob("test_*.py"):
        if path == Path(__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "MUST" in node.value:
                for quote in (*re.findall(r'"([^"]*)"', node.value), node.value):
                    parts = tuple(filter(None, map(words, re.split(r"\[?\.\.\.\]?", quote))))
                    if "MUST" in quote and len(" ".join(parts)) >= SHORTEST:
                        found.add(parts)
    for node in ast.walk(ast.parse(Path(__file__).read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found |= {(words(quote),) for quote in re.findall(r'"([^"]*)"', ast.get_docstring(node) or "")}
    return found


def says(quote: tuple[str, ...], sentence: str) -> bool:
    at = 0
    for part in quote:
        at = sentence.find(part, at)
        if at < 0:
            return sentence in " ".join(quote)
        at += len(part)
    return True


def test_every_sentence_has_a_test() -> None:
    quoted = quotes()
    known = [text for text, *_ in (*ELSEWHERE, *NOT_OURS)]
    known += [text for texts in OF_WHAT_IS_REFUSED.values() for text in texts]
    sentences = [line.split("\t")[1] for line in (HERE / "sentences.tsv").read_text().splitlines()]
    assert len(sentences) > 190
    missing = [
        sentence
        for sentence in sentences
        if not any(says(quote, words(sentence)) for quote in quoted) and not any(text in sentence for text in known)
    ]
    assert missing == []
    # No entry outlives its sentence.
    assert [text for text in known if not any(text in sentence for sentence in sentences)] == []


def test_the_tests_elsewhere_exist() -> None:
    for _, file, name in ELSEWHERE:
        assert f"def {name}(" in (bundles.REPOSITORY / "tests" / file).read_text(), (file, name)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_as_a_whole(config: dict[str, Any], name: str) -> None:
    config["linux"] |= REFUSED[name]
    assert check_config(config) == []
    with pytest.raises(LiteboxError, match=name):
        make(config, "c1", "/bundle", HostFacts(memory=1 << 30, cpus=1))


@pytest.mark.parametrize("command", ["state", "create", "start", "kill", "delete"])
def test_operations_need_an_id(litebox: Any, bundle: Bundle, command: str) -> None:
    """ "This operation MUST generate an error if it is not provided the container ID." """
    assert litebox(command, ok=False, cwd=bundle()).returncode != 0
    assert litebox.leftovers() == []


def test_a_container_needs_a_process(litebox: Any, bundle: Bundle) -> None:
    """ "This operation MUST generate an error if process was not set.": create says so, as runc's does."""
    done = litebox("create", "--bundle", str(bundle(changes={"process": None})), "c1", ok=False)
    assert done.returncode != 0
    assert "process" in done.stderr
    assert litebox.leftovers() == []


def test_what_is_created_is_what_is_started(litebox: Any, bundle: Bundle, tmp_path: Path) -> None:
    """ "Any updates to config.json after this step MUST NOT affect the container." "process.args MUST NOT be applied until
    triggered by the start operation." "While the resources requested in the config.json MUST be created, the
    user-specified program (from process) MUST NOT be run at this time."
    """
    shared = tmp_path / "shared"
    shared.mkdir()
    mounts = [*bundles.MOUNTS, {"destination": "/shared", "type": "bind", "source": str(shared), "options": ["bind"]}]
    folder = bundle(["sh", "-c", "echo first > /shared/said; sleep 1000"], {"mounts": mounts})
    litebox("create", "--bundle", str(folder), "c1")
    document = json.loads((folder / "config.json").read_text())
    document["process"]["args"][2] = "echo second > /shared/said; sleep 1000"
    (folder / "config.json").write_text(json.dumps(document))
    assert list(shared.iterdir()) == []
    litebox("start", "c1")
    litebox("exec", "c1", "sh", "-c", "until test -s /shared/said; do sleep 0.01; done")
    assert (shared / "said").read_text() == "first\n"


MUST_OPTIONS = (
    "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec noiversion nolazytime "
    "norelatime nostrictatime nosuid private rbind relatime remount ro rprivate rshared rslave runbindable rw shared silent slave "
    "strictatime suid sync unbindable"
).split()
SHOULD_OPTIONS = (
    "nosymfollow ratime rdev rdiratime rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow rro rrw rrelatime "
    "rstrictatime rsuid rsymfollow symfollow idmap ridmap tmpcopyup mand nomand"
).split()


@pytest.mark.parametrize("option", [*MUST_OPTIONS, *SHOULD_OPTIONS])
def test_mount_options(option: str) -> None:
    """The table of config.md, "Linux mount options": "The "MUST" options correspond to mount(8)." None of them may reach a file
    system as an option of its own."""
    assert mount_options.parse([option], "mounts[0].options").data == []


def test_idmapped_mounts(config: dict[str, Any]) -> None:
    """ "Indicates that the mount MUST have an idmapping applied." "If uidMappings or gidMappings are specified for the mount, the
    runtime MUST use those values for the mount's mapping." "If they are not specified, the runtime MAY use the container's
    user namespace mapping, otherwise an error MUST be returned." "If specified, it MUST be specified along with uidMappings."
    "This SHOULD be implemented using mount_setattr(MOUNT_ATTR_IDMAP)" "Indicates that the mount MUST have an idmapping
    applied, and the mapping is applied recursively"
    """
    mapping = [{"containerID": 0, "hostID": 1000, "size": 1}]
    mount: dict[str, Any] = {"destination": "/m", "type": "bind", "source": "/", "options": ["rbind", "ridmap"]}

    def planned(**changes: Any) -> Any:
        return make({**config, "mounts": [mount | changes]}, "c1", "/bundle", HostFacts(memory=1 << 30, cpus=1)).trees[
            -1
        ]

    assert planned(uidMappings=mapping, gidMappings=mapping).id_mappings == (mapping, mapping)
    assert planned(uidMappings=mapping, gidMappings=mapping).recursive_idmap
    for changes in ({}, {"uidMappings": mapping}, {"gidMappings": mapping}):
        with pytest.raises(LiteboxError, match=r"mounts\[0\]"):
            planned(**changes)


def test_devices_that_are_something_else(litebox: Any, bundle: Bundle) -> None:
    """ "If a file already exists at path that does not match the requested device, the runtime MUST generate an error." """
    null = {"type": "c", "major": 1, "minor": 3}
    assert litebox(
        "run", "--bundle", str(bundle(["true"], {"linux": {"devices": [null | {"path": "/dev/null"}]}})), "c1"
    )
    for path, device in (("/bin/busybox", null), ("/dev/zero", null), ("/dev/null", null | {"type": "b"})):
        changes = {"linux": {"devices": [device | {"path": path}]}}
        done = litebox("run", "--bundle", str(bundle(["true"], changes)), "c1", ok=False)
        assert done.returncode != 0
        assert path in done.stderr
        assert litebox.leftovers() == []


@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_LOG", "SCMP_ACT_TRAP"])
def test_errnos_of_seccomp(action: str) -> None:
    """ "When the action doesn't support an errno, the runtime MUST print and error and fail." """
    rule = {"names": ["read"], "action": action, "errnoRet": 1}
    for profile in (
        {"defaultAction": action, "defaultErrnoRet": 1},
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]},
    ):
        with pytest.raises(InvalidSpec, match="errno"):
            translate(profile)


def test_metadata_without_a_listener() -> None:
    """ "This field MUST NOT be set if listenerPath is not set." """
    with pytest.raises(InvalidSpec, match="listenerMetadata"):
        translate({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "m"})


def test_the_name_of_the_configuration(litebox: Any, bundle: Bundle) -> None:
    """ "This REQUIRED file MUST reside in the root of the bundle directory and MUST be named config.json." """
    folder = bundle(["true"])
    litebox("run", "--bundle", str(folder), "c1")
    (folder / "config.json").rename(folder / "other.json")
    assert "config.json" in litebox("run", "--bundle", str(folder), "c1", ok=False).stderr
