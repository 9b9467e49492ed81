"""startContainer hooks: a path of the container's, the namespaces of the guest, the state on stdin."""

from __future__ import annotations

import os

from runtime import fastjson
from runtime.errors import HookFailed, LiteboxError
from runtime.processes import Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.container import Container

    Json = dict[str, Any]

_SIGKILL = 9


def run(container: Container, hook: Json, name: str, document: Json) -> None:
    """HookFailed when it cannot be run, fails, or takes too long."""
    read, write = os.pipe2(os.O_CLOEXEC)
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    process = {
        "args": hook.get("args") or [hook["path"]],
        "env": hook.get("env") or [],
        "cwd": "/",
        "capabilities": container.process.get("capabilities"),
    }
    try:
        started = container.exec(process, Stdio(read, out_write, out_write), executable=hook["path"])
    except LiteboxError as error:
        os.close(write)
        os.close(out_read)
        raise HookFailed(f"{name}: {error}") from error
    finally:
        os.close(read)
        os.close(out_write)
    try:
        os.write(write, fastjson.dumps(document).encode())
    except BrokenPipeError:
        pass
    os.close(write)
    code = started.wait(hook.get("timeout"))
    said = b""
    if code is None:
        started.kill(_SIGKILL)
    elif code:
        os.set_blocking(out_read, False)
        try:
            said = os.read(out_read, 2000)
        except BlockingIOError:
            said = b""
    os.close(out_read)
    started.close()
    if code != 0:
        how = f"exit status {code}" if code is not None else f"still running after {hook['timeout']} seconds"
        text = said.decode("utf-8", "replace").strip()
        raise HookFailed(f"{name}: {how}" + (f": {text}" if text else ""))
