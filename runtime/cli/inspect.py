"""state, list, ps, spec, features: what only reads."""

from __future__ import annotations

import os

from runtime.cli.lifecycle import runtime_of
from runtime.errors import AlreadyExists, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runtime.cli.flags import Parsed
    from runtime.cli.main import Context
    from runtime.container import Container

    Json = dict[str, Any]


def pretty(value: Any) -> str:
    """JSON, indented as runc does. Not json.dumps(indent=2): importing json costs 6 ms."""
    return _pretty(value, "")


def _pretty(value: Any, indent: str) -> str:
    from runtime.fastjson import dumps

    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{dumps(str(key))}: {_pretty(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(inner + _pretty(item, inner) for item in value) + f"\n{indent}]"
    return dumps(value)


def _row(container: Container) -> Json:
    document = container.state()
    document["rootfs"] = container.rootfs
    document["created"] = container.created
    document["owner"] = container.owner
    return document


def state_command(context: Context, parsed: Parsed) -> int:
    """As runc: the OCI state with rootfs, created and owner."""
    print(pretty(_row(runtime_of(context).load(parsed.args[0]))))
    return 0


def _format(parsed: Parsed) -> str:
    text = parsed.text("format")
    if text not in ("table", "json"):
        raise InvalidArgument(f"--format: found {text!r}; allowed: table, json")
    return text


def list_command(context: Context, parsed: Parsed) -> int:
    """All containers."""
    chosen = _format(parsed)
    runtime = runtime_of(context)
    if parsed.on("quiet"):
        for name in runtime.store.ids():
            print(name)
        return 0
    rows = [_row(container) for container in runtime.list()]
    if chosen == "json":
        from runtime.fastjson import dumps

        print(dumps(rows) if rows else "null")
        return 0
    keys = ("id", "pid", "status", "bundle", "created", "owner")
    table(("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"), [[str(row[key]) for key in keys] for row in rows])
    return 0


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as Go's tabwriter lays them out (12 at least, 3 between)."""
    widths = [max([len(title), *(len(row[at]) for row in rows)]) for at, title in enumerate(head)]
    for row in (head, *rows):
        cells = [f"{cell:{max(width + 3, 12)}}" for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        print("".join(cells) + row[-1])


def ps_command(context: Context, parsed: Parsed) -> int:
    """The guest's processes, by the guest's pids. Options for ps(1) are accepted: they choose among host columns."""
    chosen = _format(parsed)
    container = runtime_of(context).load(parsed.args[0])
    processes = [] if container.status() == "stopped" else container.pids()
    if chosen == "json":
        from runtime.fastjson import dumps

        print(dumps([process.pid for process in processes]))
        return 0
    rows = []
    for process in processes:
        seconds = process.cpu_ns // 1_000_000_000
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        numbers = [str(process.uid), str(process.pid), str(process.ppid)]
        rows.append([*numbers, process.state, f"{process.rss_bytes >> 10}", process.tty or "?", clock, process.command])
    table(("UID", "PID", "PPID", "S", "RSS", "TTY", "TIME", "CMD"), rows)
    return 0


def spec_command(context: Context, parsed: Parsed) -> int:  # noqa: ARG001 - every command has this signature
    """config.json in the bundle; never over one that is there."""
    from runtime.example import example_config

    path = os.path.join(parsed.text("bundle") or ".", "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise AlreadyExists(f"{path} exists: remove it first") from None
    config = example_config(rootless_ids=(os.geteuid(), os.getegid()) if parsed.on("rootless") else None)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(pretty(config) + "\n")
    return 0


def features_command(context: Context, parsed: Parsed) -> int:  # noqa: ARG001 - every command has this signature
    """What can be asked of this runtime (runtime-spec's features.md)."""
    from runtime.features import features_document

    print(pretty(features_document()))
    return 0
