"""The validation suite of opencontainers/runtime-tools: built once into the cache, run with a runtime, its TAP read."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

MODULE = "github.com/opencontainers/runtime-tools"
HERE = Path(__file__).parent / "runtime-tools"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litebox"
SECONDS = 120


def build() -> Path:
    """The folder with a program for each test, `runtimetest` and the root file system that they look for."""
    digest = hashlib.sha256((HERE / "go.mod").read_bytes() + (HERE / "go.sum").read_bytes()).hexdigest()[:12]
    folder = CACHE / f"runtime-tools-{digest}"
    if folder.is_dir():
        return folder
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    packages = [f"{MODULE}/validation/...", f"{MODULE}/cmd/runtimetest"]
    go("build", "-o", f"{partial}/", *packages)
    shutil.copy(Path(go("list", "-m", "-f", "{{.Dir}}", MODULE).strip()) / "rootfs-amd64.tar.gz", partial)
    partial.rename(folder)
    return folder


def go(*arguments: str) -> str:
    """The go command, in the module that pins the suite and what it needs."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
    done = subprocess.run(["go", *arguments], cwd=HERE, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(suite: Path, test: str, runtime: str) -> dict[str, bool]:
    """What one test asserts of a runtime, and whether it holds: when it is made again, each time."""
    with subprocess.Popen(
        [suite / test],
        cwd=suite,
        env=os.environ | {"RUNTIME": runtime},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
    held: dict[str, bool] = {}
    for line in output.splitlines():
        if found := re.match(r"(not )?ok \d+ (?:- )?(.*)", line):
            # Numbers that differ from run to run: names of temporary folders, process ids.
            name = re.sub(r"\d{5,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "N", found[2])
            held[name] = held.get(name, True) and not found[1]
    return held
