"""The rules of ARCHITECTURE.md that a machine can check: who may import whom, where unsafe may stand, how long files are."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNEL_LIB = ROOT / "kernel_lib"

MAY_IMPORT = {
    "oci_spec": set(),
    "runtime": {"oci_spec"},
    "shim": {"runtime"},
    "integration": set(),
    "deploy": set(),
}
CRATE_MAY_USE = {
    "abi": set(),
    "linux_abi": set(),
    "hal": {"abi", "linux_abi"},
    "libos": {"hal", "linux_abi", "abi"},
    "kernel": {"libos", "hal", "abi"},
    "vmm": {"abi"},
    "vmm_bin": {"vmm"},
    "launcher": {"vmm"},
}
UNSAFE_ALLOWED = ("hal/", "kernel/", "abi/", "vmm/src/backends", "vmm/src/memory", "vmm/src/jail")
LONGEST_FILE = 800
SOURCES = {".py", ".rs", ".c", ".h", ".S", ".s", ".md", ".sh", ".toml", ".ld", ""}
UNLIMITED = {"LICENSE", "Cargo.lock"}
# Folders of one particular machine: home folders, toolchains, this checkout.
MACHINE_PATH = re.compile(
    rf"/root/\.?\w*(?:cargo|pyenv|cache|rustup)|/Users/\w|/home/(?!user\b)\w+/|{re.escape(str(ROOT))}\b"
)


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def sources() -> list[Path]:
    return [path for path in tracked() if path.suffix in SOURCES]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every absolute import, lazy ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_python_packages_import_only_what_they_may(package: str) -> None:
    forbidden = (MAY_IMPORT.keys() | {"tests"}) - MAY_IMPORT[package] - {package}
    found = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, name in imported(path)
        if name in forbidden
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("crate", CRATE_MAY_USE)
def test_crates_depend_only_on_what_they_may(crate: str) -> None:
    manifest = tomllib.loads((KERNEL_LIB / crate / "Cargo.toml").read_text())
    tables = [manifest.get(kind, {}) for kind in ("dependencies", "build-dependencies")]
    tables += [target.get("dependencies", {}) for target in manifest.get("target", {}).values()]
    used = {name.replace("-", "_") for table in tables for name in table}
    assert not (used & CRATE_MAY_USE.keys()) - CRATE_MAY_USE[crate]


def test_every_crate_has_a_rule() -> None:
    members = tomllib.loads((KERNEL_LIB / "Cargo.toml").read_text())["workspace"]["members"]
    assert set(members) == CRATE_MAY_USE.keys()


def rust_code(text: str) -> str:
    """Rust source without comments and string literals; line numbers stay."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n") + " "

    token = r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"'
    return re.sub(token, blank, text, flags=re.DOTALL)


def test_unsafe_stands_only_where_it_may() -> None:
    found = []
    for path in sorted(KERNEL_LIB.glob("*/**/*.rs")):
        name = str(path.relative_to(KERNEL_LIB))
        if name.startswith(("target/", *UNSAFE_ALLOWED)):
            continue
        for number, line in enumerate(rust_code(path.read_text()).splitlines(), 1):
            if re.search(r"\bunsafe\b", line):
                found.append(f"kernel_lib/{name}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


def test_the_library_os_forbids_unsafe() -> None:
    assert "#![forbid(unsafe_code)]" in (KERNEL_LIB / "libos/src/lib.rs").read_text()


def test_no_file_is_too_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): path.read_bytes().count(b"\n") for path in sources() if path.name not in UNLIMITED
    }
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


def test_no_path_of_one_machine() -> None:
    found = []
    for path in sources():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if match := MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found, "\n".join(found)
