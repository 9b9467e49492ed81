"""The models, the tables compiled from them, and the official schemas agree."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator
from pydantic import ValidationError
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

import bundles
from oci_spec import generate
from oci_spec.config import Config
from oci_spec.features import Features
from oci_spec.process import Process
from oci_spec.resources import Resources
from oci_spec.state import State
from oci_spec.validate import MAX_PROBLEMS, check_config, check_process, check_resources

SCHEMAS = bundles.REPOSITORY / "tests/conformance/schemas"

#: Where a value stands in a document.
Path_ = tuple[Any, ...]
GONE = object()
#: Any name of an object whose names are free.
ANY_KEY = object()
OTHER_PLATFORMS = ("windows", "solaris", "zos", "freebsd", "vm")

# One of everything, all of it legal.
EVERYTHING: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "hostname": "h",
    "domainname": "d",
    "root": {"path": "rootfs", "readonly": True},
    "annotations": {"a": "b"},
    "mounts": [
        {"destination": "/a", "type": "bind", "source": "/b", "options": ["rbind"],
         "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 2}]},
    ],
    "hooks": {kind: [{"path": "/bin/true", "args": ["true"], "env": ["A=B"], "timeout": 5}] for kind in
              ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")},
    "process": {
        "terminal": True, "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3], "username": "u"},
        "args": ["sh"], "commandLine": "c", "env": ["A=B"], "cwd": "/",
        "capabilities": {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
        "rlimits": [{"type": "RLIMIT_CPU", "hard": 2, "soft": 1}],
        "noNewPrivileges": True, "apparmorProfile": "p", "oomScoreAdj": 5, "selinuxLabel": "l",
        "scheduler": {"policy": "SCHED_BATCH", "nice": 1, "priority": 0, "flags": ["SCHED_FLAG_RESET_ON_FORK"], "runtime": 1, "deadline": 2, "period": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0", "final": "0-1"},
    },
    "linux": {
        "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
        "sysctl": {"net.core.somaxconn": "5"},
        "cgroupsPath": "/a", "rootfsPropagation": "shared", "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"], "mountLabel": "m",
        "namespaces": [{"type": kind} for kind in ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")],
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
        "netDevices": {"eth0": {"name": "e"}},
        "intelRdt": {"closID": "c", "schemata": ["L3:0=f"], "l3CacheSchema": "s", "memBwSchema": "MB:0=1", "enableMonitoring": True},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "personality": {"domain": "LINUX", "flags": ["x"]},
        "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}, "boottime": {"secs": 1, "nanosecs": 2}},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/x", "listenerMetadata": "m",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1,
                          "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}]}],
        },
        "resources": {
            "devices": [{"allow": False, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
            "memory": {"limit": 5, "reservation": 4, "swap": 6, "kernel": 1, "kernelTCP": 1, "swappiness": 10, "disableOOMKiller": True, "useHierarchy": True, "checkBeforeUpdate": True},
            "cpu": {"shares": 1, "quota": 2, "burst": 3, "period": 4, "realtimeRuntime": 5, "realtimePeriod": 6, "cpus": "0", "mems": "0", "idle": 1},
            "pids": {"limit": 5},
            "blockIO": {"weight": 10, "leafWeight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 10}],
                        **{f"throttle{kind}Device": [{"major": 8, "minor": 0, "rate": 5}] for kind in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")}},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 5}],
            "network": {"classID": 5, "priorities": [{"name": "eth0", "priority": 5}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}},
            "unified": {"memory.high": "5"},
        },
    },
}  # fmt: skip

# Where the schemas are laxer than the specification's text, or than what any kernel takes.
STRICTER_THAN_THE_SCHEMAS = (
    "ociVersion", "root.path", "destination", "cwd", "hooks.", ".path", "rlimits", "oomScoreAdj", "priority", "swappiness", "access", "names[",
    "resources.devices", "flags", "personality", "rate", "args[0].index", "name", "process.user", "memoryPolicy",
)  # fmt: skip
# Where they are stricter, and why we are not.
LAXER_THAN_THE_SCHEMAS = {
    "linux.devices[0].fileMode above 511": "docker passes the set-user-id, set-group-id and sticky bits of a host's device on",
    "linux.resources.pids.limit gone": "Go's types of 1.3 leave it out for no limit",
    "linux.rootfsPropagation = 'rslave'": "runc takes the recursive ones, and docker sends them",
}


def official(name: str) -> Draft4Validator:
    resources = [
        (path.name, Resource.from_contents(json.loads(path.read_text()), default_specification=DRAFT4))
        for path in SCHEMAS.glob("*.json")
    ]
    schema = json.loads((SCHEMAS / name).read_text())
    return Draft4Validator(schema, registry=Registry().with_resources(resources))


WRONG: tuple[Any, ...] = (7, -7, "", "x", True, [], {}, 2**70, 1.5)


def mutations(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The document with one value, wherever it is, replaced by something wrong (or only odd), or gone."""
    document = copy.deepcopy(value)

    def walk(node: Any, where: str) -> Iterator[tuple[str, Any]]:
        items = list(node.items() if isinstance(node, dict) else enumerate(node))
        for key, child in items:
            here = f"{where}[{key}]" if isinstance(node, list) else f"{where}.{key}".lstrip(".")
            for wrong in WRONG:
                node[key] = wrong
                yield f"{here} = {wrong!r}", document
            node[key] = child
            if isinstance(node, dict):
                del node[key]
                yield f"{here} gone", document
                node.clear()
                node.update(items)
            if isinstance(child, dict | list):
                yield from walk(child, here)

    yield from walk(document, path)


def valid_by_model(model: Any, document: Any) -> bool:
    try:
        model.model_validate(document)
    except ValidationError:
        return False
    return True


def test_the_tables_are_current() -> None:
    assert generate.TABLES.read_text() == generate.render(), "run: python -m oci_spec.generate"


def test_one_of_everything_is_valid() -> None:
    assert check_config(EVERYTHING) == []
    assert list(official("config-schema.json").iter_errors(EVERYTHING)) == []
    again = Config.model_validate(EVERYTHING).model_dump(by_alias=True, exclude_none=True)
    assert again == EVERYTHING


def test_tables_and_models_agree_on_every_mutation() -> None:
    count = 0
    for name, document in mutations(EVERYTHING):
        problems = check_config(document)
        assert (problems == []) == valid_by_model(Config, document), (name, problems)
        count += 1
    assert count > 2000


def test_the_official_schemas_agree_on_every_mutation() -> None:
    validator = official("config-schema.json")
    disagreements = []
    for name, document in mutations(EVERYTHING):
        ours, theirs = check_config(document) == [], validator.is_valid(document)
        if ours == theirs:
            continue
        known = ("linux.resources.pids",) if ours else STRICTER_THAN_THE_SCHEMAS
        if not any(word in name for word in known):
            disagreements.append(("we accept" if ours else "we refuse", name))
    assert disagreements == []


def resolve(schema: dict[str, Any], file: str) -> tuple[dict[str, Any], str]:
    """What a $ref leads to, and the file that its own are relative to."""
    while "$ref" in schema:
        target, _, pointer = schema["$ref"].partition("#")
        file = target or file
        schema = json.loads((SCHEMAS / file).read_text())
        for part in pointer.strip("/").split("/"):
            schema = schema[part]
    return schema, file


WRONG_TYPES = {"string": 5, "integer": "5", "boolean": "true", "array": {}, "object": []}


def violations(schema: dict[str, Any], file: str, path: Path_ = ()) -> Iterator[tuple[str, Path_, Any]]:
    """For each thing that the schema demands: a name, where, and what to put there (GONE: to take it away)."""
    schema, file = resolve(schema, file)
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    if "type" in schema and path:
        yield f"{where} of another type", path, WRONG_TYPES[schema["type"]]
    if "enum" in schema:
        yield f"{where} = 'x'", path, "x"
        # What runtimes take that the schema does not know.
        yield f"{where} = 'rslave'", path, "rslave"
    if "pattern" in schema:
        yield f"{where} without a match", path, "!"
    if "minimum" in schema:
        yield f"{where} below {schema['minimum']}", path, schema["minimum"] - 1
    if "maximum" in schema:
        yield f"{where} above {schema['maximum']}", path, schema["maximum"] + 1
    if "minItems" in schema:
        yield f"{where} too short", path, []
    for name in schema.get("required", ()):
        yield f"{where}.{name} gone".lstrip("."), (*path, name), GONE
    for name, child in schema.get("properties", {}).items():
        if path or name not in OTHER_PLATFORMS:
            yield from violations(child, file, (*path, name))
    for part in schema.get("allOf", ()) or schema.get("anyOf", ()):
        yield from violations(part, file, path)
    if "items" in schema:
        yield from violations(schema["items"], file, (*path, 0))
    values = schema.get("additionalProperties") or schema.get("patternProperties", {}).get(".{1,}")
    if values:
        yield from violations(values, file, (*path, ANY_KEY))


def violated(path: Path_, value: Any) -> dict[str, Any]:
    """One of everything, but for that."""
    document = copy.deepcopy(EVERYTHING)
    node: Any = document
    for index, part in enumerate(path):
        key = next(iter(node)) if part is ANY_KEY else part
        if index + 1 < len(path):
            assert isinstance(node, list) or key in node, f"EVERYTHING lacks {path[: index + 1]}"
            node = node[key]
        elif value is GONE:
            del node[key]
        else:
            node[key] = value
    return document


def test_what_the_official_schemas_refuse_is_refused() -> None:
    """Every type, enumeration, pattern, range, minimum length and required property that they name."""
    validator = official("config-schema.json")
    demands = list(violations(json.loads((SCHEMAS / "config-schema.json").read_text()), "config-schema.json"))
    accepted = set()
    for name, path, value in demands:
        document = violated(path, value)
        assert not validator.is_valid(document), name
        ours = check_config(document) == []
        assert ours == valid_by_model(Config, document), name
        if ours:
            accepted.add(name)
    assert len(demands) > 400
    assert accepted == set(LAXER_THAN_THE_SCHEMAS)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (("process", "user", "uid"), "uid (int, REQUIRED) specifies the user ID in the container namespace."),
        (("process", "user", "gid"), "gid (int, REQUIRED) specifies the group ID in the container namespace."),
        (
            ("process", "ioPriority", "priority"),
            "priority (int, REQUIRED) specifies the priority level within the class.",
        ),
        (("linux", "memoryPolicy", "mode"), "mode (string, REQUIRED) - A NUMA memory policy mode."),
    ],
)
def test_what_only_the_text_requires(path: Path_, sentence: str) -> None:
    document = violated(path, GONE)
    assert [problem.partition(":")[0] for problem in check_config(document)] == [".".join(map(str, path))], sentence
    assert not valid_by_model(Config, document)


@pytest.mark.parametrize(
    "path",
    [("annotations",), ("linux", "sysctl"), ("linux", "netDevices"), ("linux", "resources", "unified"), ("linux", "resources", "rdma")],
)  # fmt: skip
def test_names_are_not_empty(path: Path_) -> None:
    """config.md: "Keys MUST NOT be an empty string." The others name things that need one."""
    document = copy.deepcopy(EVERYTHING)
    node: Any = document
    for part in path:
        node = node[part]
    node[""] = next(iter(node.values()))
    assert len(check_config(document)) == 1
    assert not valid_by_model(Config, document)


@pytest.mark.parametrize(
    ("check", "model", "document"),
    [(check_process, Process, EVERYTHING["process"]), (check_resources, Resources, EVERYTHING["linux"]["resources"])],
)
def test_parts_that_commands_take(check: Any, model: Any, document: Any) -> None:
    for name, mutated in mutations(document):
        assert (check(mutated) == []) == valid_by_model(model, mutated), name


def test_unknown_properties_do_not_matter() -> None:
    document = copy.deepcopy(EVERYTHING)
    document["future"] = document["linux"]["future"] = document["process"]["future"] = {"x": [1]}
    assert check_config(document) == []
    assert Config.model_validate(document).model_dump(by_alias=True, exclude_none=True) == document


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.1.0+x", "1.2.1", "1.3.0"])
def test_versions(version: str) -> None:
    assert check_config({"ociVersion": version}) == []


@pytest.mark.parametrize("version", ["0.5.0-dev", "2.0.0", "1.0", "1", "", "x1.0.0", "1.0.0.0", "1.a.0"])
def test_other_versions(version: str) -> None:
    (problem,) = check_config({"ociVersion": version})
    assert problem == f"ociVersion: found {version!r}; allowed: versions 1.0.0 to 1.3.x"
    assert not valid_by_model(Config, {"ociVersion": version})


def test_a_problem_names_path_found_and_allowed() -> None:
    document = copy.deepcopy(EVERYTHING)
    document["linux"]["seccomp"]["syscalls"][0]["args"][0]["op"] = "EQ"
    document["linux"]["sysctl"]["kernel.shmmax"] = 5
    document["process"]["rlimits"][0] = {"type": "RLIMIT_CPU"}
    problems = check_config(document)
    assert any(
        p.startswith("linux.seccomp.syscalls[0].args[0].op: found 'EQ'; allowed: SCMP_CMP_NE, ") for p in problems
    )
    assert "linux.sysctl['kernel.shmmax']: found 5; allowed: a string" in problems
    assert "process.rlimits[0].hard: found nothing; allowed: an integer from 0 to 18446744073709551615" in problems


def test_garbage_ends_soon() -> None:
    assert len(check_config({"ociVersion": "1.0.0", "mounts": [0] * 100_000})) == MAX_PROBLEMS
    documents: tuple[Any, ...] = (None, 5, "x", [], [{}])
    for document in documents:
        assert check_config(document)


def test_state_and_features() -> None:
    state = {"ociVersion": "1.0.0", "id": "x", "status": "running", "pid": 5, "bundle": "/b", "annotations": {"a": "b"}}
    assert State.model_validate(state).model_dump(by_alias=True) == state
    assert official("state-schema.json").is_valid(state)
    assert not valid_by_model(State, state | {"status": "gone"})
    from runtime.features import features_document

    document = features_document()
    assert Features.model_validate(document).oci_version_max == "1.3.0"
    assert [error.message for error in official("features-schema.json").iter_errors(document)] == []


def test_the_example_is_valid() -> None:
    from runtime.example import example_config

    for document in (example_config(), example_config((1000, 1000))):
        assert check_config(document) == []
        assert official("config-schema.json").is_valid(document)


def test_the_validator_imports_nothing() -> None:
    source = Path(generate.TABLES).with_name("validate.py").read_text()
    top = source.partition("TYPE_CHECKING")[0]
    assert [line for line in top.splitlines() if line.startswith(("import", "from"))] == [
        "from __future__ import annotations"
    ]
