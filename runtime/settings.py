"""/etc/litebox/config.yaml: what containers get that do not say otherwise, and what they may say.

    defaults:            annotations, without their prefix dev.litebox.
      vcpus: 2
      memory: 512m
    allow: [vcpus]       those that a container may set itself; without this line all of them

There need be no such file, and nobody pays for it then: YAML and JSON Schema are imported by `load` only. The shim,
which stays, has them imported by a child (`load_apart`).
"""

from __future__ import annotations

import os

from runtime import fastjson
from runtime.errors import InvalidArgument, InvalidSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

PREFIX = "dev.litebox."
DEFAULT_PATH = "/etc/litebox/config.yaml"
SCHEMA: Json = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "defaults": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "debug": {"type": "boolean"},
                "init": {"enum": ["protected", "ordinary"]},
                "memory": {"type": ["string", "integer"], "pattern": "^[0-9]+[kmgKMG]?$", "minimum": 1},
                "rootfs": {"enum": ["exclusive", "shared", "overlay"]},
                "trace": {"type": "boolean"},
                "transport": {"enum": ["ttrpc", "grpc"]},
                "vcpus": {"type": "integer", "minimum": 1},
            },
        },
    },
}
SCHEMA["properties"]["allow"] = {
    "type": "array",
    "items": {"enum": sorted(SCHEMA["properties"]["defaults"]["properties"])},
}


class Settings:
    """What the file says."""

    __slots__ = ("_values", "path")

    def __init__(self, path: str, values: Json) -> None:
        self.path = path
        self._values = values

    @property
    def defaults(self) -> Json:
        """By names without their prefix."""
        return self._values.get("defaults") or {}

    def apply(self, config: Json) -> None:
        """Complete a container's annotations. InvalidSpec when it has one that it may not have. Changes `config`."""
        annotations: Json = config.get("annotations") or {}
        allowed = self._values.get("allow")
        if allowed is not None:
            for name in annotations:
                if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in allowed:
                    words = ", ".join(PREFIX + word for word in allowed) or "none"
                    raise InvalidSpec(f"annotations[{name!r}]: {self.path} does not allow it; allowed: {words}")
        for word, value in self.defaults.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            annotations.setdefault(PREFIX + word, text)
        if annotations:
            config["annotations"] = annotations


def path_in_use(named: str = "") -> str:
    """The file that counts: one that was named, LITEBOX_CONFIG's, or the default one where it exists. "": none."""
    if chosen := named or os.environ.get("LITEBOX_CONFIG", ""):
        return chosen
    return DEFAULT_PATH if os.path.exists(DEFAULT_PATH) else ""


def load(path: str) -> Settings:
    """Read and check a file. InvalidArgument with file, line and key."""
    import yaml
    from jsonschema import Draft202012Validator

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise InvalidArgument(f"{path}:{line}: {getattr(error, 'problem', None) or error}") from error
    problems = sorted(Draft202012Validator(SCHEMA).iter_errors(values), key=lambda problem: list(problem.absolute_path))
    if problems:
        keys = [*problems[0].absolute_path]
        if problems[0].validator == "additionalProperties":
            keys.append(next(name for name in problems[0].instance if name not in problems[0].schema["properties"]))
            known = ", ".join(problems[0].schema["properties"])
            what = f"unknown; allowed: {known}"
        else:
            what = problems[0].message
        where = ".".join(map(str, keys)) or "the file"
        raise InvalidArgument(f"{path}:{_line(tree, keys)}: {where}: {what}")
    return Settings(path, values)


def load_apart(path: str) -> Settings:
    """As `load`, in a child process: what it imports does not stay."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            try:
                answer: Json = {"values": load(path)._values}
            except InvalidArgument as error:
                answer = {"error": str(error)}
            os.write(write, fastjson.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    if not said:
        raise InvalidArgument(f"{path}: cannot be read: are PyYAML and jsonschema installed?")
    answer = fastjson.loads(said)
    if "error" in answer:
        raise InvalidArgument(answer["error"])
    return Settings(path, answer["values"])


def _line(node: Any, keys: list[Any]) -> int:
    """The line of a key or of a list's item."""
    line = node.start_mark.line if node is not None else 0
    for key in keys:
        if isinstance(key, int):
            node = node.value[key]
            line = node.start_mark.line
        else:
            name, node = next(pair for pair in node.value if pair[0].value == str(key))
            line = name.start_mark.line
    return int(line) + 1
