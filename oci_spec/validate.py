"""Checks documents against the tables compiled from the models. No imports: this runs at every start.

A node is a tuple: ("obj", properties, required), ("map", values), ("list", items, fewest), ("str", shortest, pattern),
("int", least, most), ("bool",), ("enum", values), ("opt", node) for what may be null, ("ref", name), ("any",).

Every problem is one line: the JSON path, what was found there, what is allowed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Beyond this many, a document is garbage and the rest of the list helps nobody.
MAX_PROBLEMS = 20
MAX_DEPTH = 64
_SHOWN = 60


def check_config(config: Any) -> list[str]:
    """Problems of a config.json."""
    from oci_spec.tables import CONFIG

    return _check(CONFIG, config)


def check_process(process: Any) -> list[str]:
    """Problems of a process object, as `exec --process` takes it."""
    from oci_spec.tables import PROCESS

    return _check(PROCESS, process)


def check_resources(resources: Any) -> list[str]:
    """Problems of a linux.resources object, as `update --resources` takes it."""
    from oci_spec.tables import RESOURCES

    return _check(RESOURCES, resources)


def _check(table: dict[str, Any], value: Any) -> list[str]:
    problems: list[str] = []
    _visit(table, table["root"], value, "", problems, 0)
    return problems


def _visit(
    table: dict[str, Any], node: tuple[Any, ...], value: Any, path: str, problems: list[str], depth: int
) -> None:
    kind = node[0]
    if kind == "opt":
        if value is None:
            return
        node = node[1]
        kind = node[0]
    if kind == "ref":
        node = table[node[1]]
        kind = node[0]
    if len(problems) >= MAX_PROBLEMS or kind == "any":
        return
    if depth > MAX_DEPTH:
        problems.append(f"{path}: nested too deeply")
        return
    if kind == "str":
        if not isinstance(value, str) or len(value) < node[1] or "\0" in value or not _matches(node[2], value):
            problems.append(_problem(path, value, _string_rule(node, value)))
    elif kind == "obj":
        if not isinstance(value, dict):
            problems.append(_problem(path, value, "an object"))
            return
        prefix = f"{path}." if path else ""
        for name in node[2]:
            if name not in value:
                problems.append(f"{prefix}{name}: found nothing; allowed: {describe(table, node[1][name])}")
        for name, item in value.items():
            child = node[1].get(name)
            if child is not None:
                _visit(table, child, item, prefix + name, problems, depth + 1)
    elif kind == "list":
        if not isinstance(value, list) or len(value) < node[2]:
            problems.append(_problem(path, value, describe(table, node)))
            return
        for index, item in enumerate(value):
            _visit(table, node[1], item, f"{path}[{index}]", problems, depth + 1)
    elif kind == "map":
        if not isinstance(value, dict):
            problems.append(_problem(path, value, describe(table, node)))
            return
        for name, item in value.items():
            if not name or "\0" in name:
                problems.append(_problem(path, name, "names that are not empty, without NUL bytes"))
            _visit(table, node[1], item, f"{path}[{name!r}]", problems, depth + 1)
    elif kind == "int":
        if type(value) is not int or not node[1] <= value <= node[2]:
            problems.append(_problem(path, value, describe(table, node)))
    elif kind == "bool":
        if type(value) is not bool:
            problems.append(_problem(path, value, "true or false"))
    elif not isinstance(value, str) or value not in node[1]:
        problems.append(_problem(path, value, describe(table, node)))


def _matches(pattern: str, value: str) -> bool:
    if not pattern:
        return True
    if pattern == "^/":
        return value.startswith("/")
    if pattern == "^[rwm]*$":
        return not value.strip("rwm")
    if pattern == "^RLIMIT_[A-Z]+$":
        return value.startswith("RLIMIT_") and value[7:].isascii() and value[7:].isalpha() and value.isupper()
    if pattern.startswith("^1\\."):
        release = value.partition("-")[0].partition("+")[0].split(".")
        return len(release) == 3 and release[0] == "1" and all(part.isascii() and part.isdigit() for part in release)
    import re  # 4 ms, for patterns that few documents meet

    return re.search(pattern, value) is not None


def _string_rule(node: tuple[Any, ...], value: Any) -> str:
    if isinstance(value, str) and "\0" in value:
        return "a string without NUL bytes"
    if node[2] == "^/":
        return "an absolute path"
    if node[2].startswith("^1\\."):
        return "versions 1.0.0 to 1.3.x"
    return f"a string that matches {node[2]}" if node[2] else "a string that is not empty" if node[1] else "a string"


def describe(table: dict[str, Any], node: tuple[Any, ...]) -> str:
    """What a node allows, in words."""
    kind = node[0]
    if kind == "opt":
        return describe(table, node[1])
    if kind == "ref":
        return describe(table, table[node[1]])
    if kind == "str":
        return _string_rule(node, None)
    if kind == "int":
        return f"an integer from {node[1]} to {node[2]}"
    if kind == "enum":
        return ", ".join(value or '""' for value in node[1])
    if kind == "list":
        return f"a list of at least {node[2]}" if node[2] else "a list"
    return {"obj": "an object", "map": "an object", "bool": "true or false"}.get(kind, "a value")


def _problem(path: str, value: Any, allowed: str) -> str:
    return f"{path or 'the document'}: found {_show(value)}; allowed: {allowed}"


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = str(value) if not isinstance(value, int) or -(10**_SHOWN) < value < 10**_SHOWN else "a huge number"
    return text[:_SHOWN]
