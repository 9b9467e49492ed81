"""What a command imports, which every container pays for: a budget, and names that must not come back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bundles

Bundle = Callable[..., Path]

# Milliseconds of import time each, measured with CPython 3.11.
SLOW = {
    "argparse": 6, "asyncio": 50, "contextlib": 3, "ctypes": 2.4, "dataclasses": 12, "datetime": 1, "enum": 3.5, "inspect": 8,
    "json": 6, "logging": 15, "pathlib": 9, "pydantic": 37, "re": 4.5, "shutil": 8, "signal": 4, "socket": 6,
    "subprocess": 9, "tempfile": 9, "threading": 3, "typing": 7,
}  # fmt: skip
BUDGET = {
    "state": 34,
    "list": 34,
    "kill": 34,
    "start": 34,
    "delete": 38,
    "create": 58,
    "run": 58,
    "do": 57,
    "--version": 20,
}


def imported(litebox: Any, *args: str) -> set[str]:
    """Modules beyond those that Python itself starts with."""
    flags = ["-I", "-S", "-X", "importtime"]
    with (litebox.folder / "imports").open("w+") as said:
        subprocess.run([litebox.python, *flags, litebox.module, *litebox.command(*args)[1:]], stderr=said, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                       env=litebox.environment, check=False, timeout=30, cwd=litebox.folder)  # fmt: skip
        said.seek(0)
        names = {line.rpartition("|")[2].strip() for line in said if line.startswith("import time:")}
    empty = subprocess.run([litebox.python, *flags, "-c", ""], stderr=subprocess.PIPE, text=True, check=True).stderr
    return names - {line.rpartition("|")[2].strip() for line in empty.splitlines()}


@pytest.mark.parametrize("command", BUDGET)
def test_imports(litebox: Any, bundle: Bundle, command: str) -> None:
    folder = str(bundle(["true"]))
    arguments = {
        "create": ["create", "--bundle", folder, "c2"],
        "run": ["run", "--bundle", folder, "c2"],
        "do": ["do", "--", "true"],
        "--version": ["--version"],
        "list": ["list"],
    }.get(command, [command, "c1"])
    if arguments[-1] == "c1":
        litebox("create", "--bundle", folder, "c1")
    found = imported(litebox, *arguments)
    assert "runtime.cli.main" in found
    assert not found & SLOW.keys()
    assert len(found) <= BUDGET[command], sorted(found)


def test_a_changed_module_is_imported_from_its_source(litebox: Any, tmp_path: Path) -> None:
    """The bundle of `make launchers` holds the code as it was then."""
    source = tmp_path / "source"
    for package in ("runtime", "oci_spec"):
        shutil.copytree(bundles.REPOSITORY / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    generate = [sys.executable, bundles.REPOSITORY / "deploy/launchers.py", "--python", litebox.python]
    subprocess.run([*generate, "--path", source, tmp_path], check=True)
    with (source / "runtime/cli/texts.py").open("a") as module:
        module.write("\n\ndef version() -> str:\n    return 'changed'\n")
    command = [litebox.python, "-IS", tmp_path / "lib/litebox/litebox.pyc", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "changed\n"
