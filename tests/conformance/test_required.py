"""What runtime-spec 1.3 calls REQUIRED, or promises of each element of a list, as tables: one sentence a row."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from oci_spec.features import Features
from oci_spec.state import State
from oci_spec.validate import check_config
from runtime.features import features_document
from runtime.plan.make import make
from runtime.plan.model import HostFacts

MAPPING = [{"containerID": 0, "hostID": 1000, "size": 1}]
DEVICE = {"major": 8, "minor": 0}

# (document, sentence, where the property stands)
REQUIRED: tuple[tuple[str, str, tuple[str | int, ...]], ...] = (
    ("config.md", "ociVersion (string, REQUIRED) MUST be in SemVer v2.0.0 format", ("ociVersion",)),
    ("config.md", "path (string, REQUIRED) Specifies the path to the root filesystem for the container.", ("root", "path")),
    ("config.md", "destination (string, REQUIRED) Destination of mount point: path inside container.", ("mounts", 0, "destination")),
    ("config.md", "cwd (string, REQUIRED) is the working directory that will be set for the executable.", ("process", "cwd")),
    ("config.md", "height (uint, REQUIRED)", ("process", "consoleSize", "height")),
    ("config.md", "width (uint, REQUIRED)", ("process", "consoleSize", "width")),
    ("config.md", "type (string, REQUIRED) the platform resource being limited.", ("process", "rlimits", 0, "type")),
    ("config.md", "soft (uint64, REQUIRED) the value of the limit enforced for the corresponding resource.", ("process", "rlimits", 0, "soft")),
    ("config.md", "hard (uint64, REQUIRED) the ceiling for the soft limit that could be set by an unprivileged process.", ("process", "rlimits", 0, "hard")),
    ("config.md", "policy (string, REQUIRED) represents the scheduling policy.", ("process", "scheduler", "policy")),
    ("config.md", "class (string, REQUIRED) specifies the I/O scheduling class.", ("process", "ioPriority", "class")),
    ("config.md", "path (string, REQUIRED) with similar semantics to IEEE Std 1003.1-2008 execv's path.", ("hooks", "poststop", 0, "path")),
    ("config-linux.md", "type (string, REQUIRED) - namespace type.", ("linux", "namespaces", 0, "type")),
    ("config-linux.md", "containerID (uint32, REQUIRED) - is the starting uid/gid in the container.", ("linux", "uidMappings", 0, "containerID")),
    ("config-linux.md", "hostID (uint32, REQUIRED) - is the starting uid/gid on the host to be mapped to containerID.", ("linux", "uidMappings", 0, "hostID")),
    ("config-linux.md", "size (uint32, REQUIRED) - is the number of ids to be mapped.", ("linux", "uidMappings", 0, "size")),
    ("config-linux.md", "type (string, REQUIRED) - type of device", ("linux", "devices", 0, "type")),
    ("config-linux.md", "path (string, REQUIRED) - full path to device inside container.", ("linux", "devices", 0, "path")),
    ("config-linux.md", "allow (boolean, REQUIRED) - whether the entry is allowed or denied.", ("linux", "resources", "devices", 0, "allow")),
    ("config-linux.md", "major, minor (int64, REQUIRED) - major, minor numbers for device.", ("linux", "resources", "blockIO", "weightDevice", 0, "major")),
    ("config-linux.md", "rate (uint64, REQUIRED) - bandwidth rate limit in bytes per second for the device", ("linux", "resources", "blockIO", "throttleReadBpsDevice", 0, "rate")),
    ("config-linux.md", "rate (uint64, REQUIRED) - IO rate limit for the device", ("linux", "resources", "blockIO", "throttleReadIOPSDevice", 0, "rate")),
    ("config-linux.md", "pageSize (string, REQUIRED) - hugepage size.", ("linux", "resources", "hugepageLimits", 0, "pageSize")),
    ("config-linux.md", "limit (uint64, REQUIRED) - limit in bytes of hugepagesize HugeTLB reservations", ("linux", "resources", "hugepageLimits", 0, "limit")),
    ("config-linux.md", "name (string, REQUIRED) - interface name in runtime network namespace", ("linux", "resources", "network", "priorities", 0, "name")),
    ("config-linux.md", "priority (uint32, REQUIRED) - priority applied to the interface", ("linux", "resources", "network", "priorities", 0, "priority")),
    ("config-linux.md", "action (string, REQUIRED) - the action for seccomp rules.", ("linux", "seccomp", "syscalls", 0, "action")),
    ("config-linux.md", "index (uint, REQUIRED) - the index for syscall arguments in seccomp.", ("linux", "seccomp", "syscalls", 0, "args", 0, "index")),
    ("config-linux.md", "value (uint64, REQUIRED) - the value for syscall arguments in seccomp.", ("linux", "seccomp", "syscalls", 0, "args", 0, "value")),
    ("config-linux.md", "op (string, REQUIRED) - the operator for syscall arguments in seccomp.", ("linux", "seccomp", "syscalls", 0, "args", 0, "op")),
    ("config-linux.md", "domain (string, REQUIRED) - the execution domain.", ("linux", "personality", "domain")),
)  # fmt: skip


@pytest.fixture
def everything(config: dict[str, Any]) -> dict[str, Any]:
    """All that the table names, and legal."""
    config["process"] |= {
        "consoleSize": {"height": 24, "width": 80},
        "scheduler": {"policy": "SCHED_OTHER"},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
    }
    config["hooks"] = {"poststop": [{"path": "/bin/true"}]}
    config["linux"] |= {
        "uidMappings": copy.deepcopy(MAPPING),
        "gidMappings": copy.deepcopy(MAPPING),
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
        "personality": {"domain": "LINUX"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {
                    "names": ["chmod"],
                    "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
        "resources": {
            "devices": [{"allow": False}],
            "blockIO": {
                "weightDevice": [{**DEVICE, "weight": 100}],
                "throttleReadBpsDevice": [{**DEVICE, "rate": 1}],
                "throttleReadIOPSDevice": [{**DEVICE, "rate": 1}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
            "network": {"priorities": [{"name": "eth0", "priority": 1}]},
        },
    }
    assert check_config(config) == []
    return config


@pytest.mark.parametrize(("document", "sentence", "path"), REQUIRED)
def test_what_is_required_is_missed(
    everything: dict[str, Any], document: str, sentence: str, path: tuple[str | int, ...]
) -> None:
    holder: Any = everything
    for step in path[:-1]:
        holder = holder[step]
    del holder[path[-1]]
    (problem, *_) = check_config(everything)
    assert str(path[-1]) in problem


# (document, sentence, property of the features document, what makes a configuration of one element)
RECOGNISED: tuple[tuple[str, str, str, Any], ...] = (
    ("features.md", "The runtime MUST support the elements in this array as the hooks property of config.json.", "hooks",
     lambda kind: {"hooks": {kind: [{"path": "/bin/true"}]}}),
    ("features.md", "The runtime MUST recognize the elements in this array as the options of mounts objects in config.json.", "mountOptions",
     lambda option: {"mounts": [{"destination": "/x", "type": "bind", "source": "/", "options": ["bind", option],
                                 "uidMappings": MAPPING, "gidMappings": MAPPING}]}),
    ("features-linux.md", "The runtime MUST recognize the elements in this array as the type of linux.namespaces objects in config.json.",
     "linux.namespaces", lambda kind: {"linux": {"namespaces": [{"type": kind}], "uidMappings": MAPPING if kind == "user" else [],
                                                 "gidMappings": MAPPING if kind == "user" else []}}),
    ("features-linux.md", "The runtime MUST recognize the elements in this array in the process.capabilities object of config.json.",
     "linux.capabilities", lambda name: {"process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}, "capabilities": {"bounding": [name]}}}),
    ("features-linux.md", "The runtime MUST recognize the elements in this array in the syscalls[].action property of the linux.seccomp object",
     "linux.seccomp.actions", lambda action: {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_KILL",
                                              "syscalls": [{"names": ["read"], "action": action}]}}}),
    ("features-linux.md", "The runtime MUST recognize the elements in this array in the syscalls[].args[].op property of the linux.seccomp object",
     "linux.seccomp.operators", lambda operator: {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_KILL", "syscalls": [
         {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": operator}]}]}}}),
    ("features-linux.md", "The runtime MUST recognize the elements in this array in the architectures property of the linux.seccomp object",
     "linux.seccomp.archs", lambda name: {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [name]}}}),
    ("features-linux.md", "The runtime MUST recognize the elements in this array in the flags property of the linux.seccomp object",
     "linux.seccomp.knownFlags", lambda flag: {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]}}}),
    ("features-linux.md", "The runtime MUST recognize and support the elements in this array in the flags property of the linux.seccomp object",
     "linux.seccomp.supportedFlags", lambda flag: {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]}}}),
)  # fmt: skip


@pytest.mark.parametrize(("document", "sentence", "name", "changes"), RECOGNISED)
def test_what_features_lists_is_recognised(
    config: dict[str, Any], document: str, sentence: str, name: str, changes: Any
) -> None:
    elements: Any = features_document()
    for step in name.split("."):
        elements = elements[step]
    assert elements
    for element in elements:
        changed = {**config, **changes(element)}
        assert check_config(changed) == [], element
        planned = make(changed, "c1", "/bundle", HostFacts(memory=1 << 30, cpus=1))
        assert not any("unknown" in warning for warning in planned.warnings), element


def test_versions_of_the_features_document(config: dict[str, Any]) -> None:
    """features.md: ociVersionMin, ociVersionMax: "The runtime MUST accept this value as the ociVersion property of config.json."

    "The value MUST NOT be less than the value of the ociVersionMin property." "The Features structure MUST NOT contain
    properties that are not defined in this version of the Open Container Initiative Runtime Specification."
    """
    document = features_document()
    for bound in ("ociVersionMin", "ociVersionMax"):
        assert check_config({**config, "ociVersion": document[bound]}) == []
    assert tuple(map(int, document["ociVersionMin"].split("."))) <= tuple(
        map(int, document["ociVersionMax"].split("."))
    )
    read = Features.model_validate_json(json.dumps(document)).model_dump(by_alias=True, exclude_none=True)

    def unknown(of: Any, known: Any) -> list[str]:
        return [key for key in of if key not in known] + [
            name
            for key, value in of.items()
            if isinstance(value, dict) and key in known
            for name in unknown(value, known[key])
        ]

    assert unknown(document, read) == []


@pytest.mark.parametrize("missing", ["ociVersion", "id", "status", "bundle"])
def test_what_a_state_must_have(missing: str) -> None:
    """runtime.md: "id (string, REQUIRED)", "status (string, REQUIRED)", "bundle (string, REQUIRED)", "ociVersion (string, REQUIRED)"."""
    state = {"ociVersion": "1.3.0", "id": "c1", "status": "running", "pid": 1, "bundle": "/b"}
    State.model_validate(state)
    del state[missing]
    with pytest.raises(ValueError, match=missing):
        State.model_validate(state)


@pytest.mark.parametrize("annotations", [{"key": 1}, ["key"], "key"], ids=str)
def test_annotations_are_a_map_of_strings(config: dict[str, Any], annotations: Any) -> None:
    """config.md: "Annotations MUST be a key-value map." "Values MUST be strings." """
    assert check_config({**config, "annotations": annotations})
