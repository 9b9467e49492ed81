"""Runs the hooks of config.json: in order, state on stdin, their own environment and nothing of ours, a time limit.

prestart, createRuntime   host, after the namespaces exist     failure: the container is destroyed
createContainer           the container's namespaces, its mounts at root.path: `namespaces.run_in_container`
startContainer            inside the container (lifecycle does it: it is a process of the guest)
poststart                 host, after the program runs         failure: the container is destroyed
poststop                  host, after delete                   failure: logged, the next one runs
"""

from __future__ import annotations

import os
import signal
import subprocess

from runtime import fastjson
from runtime.errors import HookFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

_SHOWN = 2000


def run(hooks: list[Json], kind: str, state: Json, *, cwd: str = "") -> None:
    """All of one kind, in `cwd` or the bundle. HookFailed at the first that fails."""
    for index, hook in enumerate(hooks):
        _run_one(hook, f"hooks.{kind}[{index}] ({hook['path']})", state, cwd or state["bundle"])


def run_all(hooks: list[Json], kind: str, state: Json, log: Callable[[str], None]) -> None:
    """All of one kind, whatever fails."""
    for index, hook in enumerate(hooks):
        try:
            _run_one(hook, f"hooks.{kind}[{index}] ({hook['path']})", state, state["bundle"])
        except HookFailed as error:
            log(str(error))


def _run_one(hook: Json, name: str, state: Json, cwd: str) -> None:
    environment = dict(entry.partition("=")[::2] for entry in hook.get("env") or [])
    arguments = hook.get("args") or [hook["path"]]
    try:
        process = subprocess.Popen(
            arguments,
            executable=hook["path"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cwd,
        )
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise HookFailed(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    try:
        output, _ = process.communicate(fastjson.dumps(state).encode(), timeout=hook.get("timeout"))
    except subprocess.TimeoutExpired as error:
        # The hook and all it started: they share a session of their own.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise HookFailed(f"{name}: still running after {hook['timeout']} seconds") from error
    if process.returncode:
        said = output.decode("utf-8", "replace").strip()[-_SHOWN:]
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit status {process.returncode}"
        raise HookFailed(f"{name}: {how}" + (f": {said}" if said else ""))
