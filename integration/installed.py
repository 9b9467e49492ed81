"""What is installed here: LiteBox's programs, as a user has them, and the engines that the tests drive."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

SHIM = "containerd-shim-litebox-v1"
ENGINES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litebox" / "engines"
BUILT = Path(__file__).resolve().parent.parent / "build" / "bin"


def programs() -> Path | None:
    """The folder of LiteBox's programs: LITEBOX_BIN, the one that was just built, or one on PATH."""
    chosen = os.environ.get("LITEBOX_BIN")
    candidates = [Path(chosen)] if chosen else [BUILT]
    if found := shutil.which(SHIM):
        candidates.append(Path(found).parent)
    return next((folder for folder in candidates if os.access(folder / SHIM, os.X_OK)), None)


def engine_folders() -> list[Path]:
    """Folders that may hold engines: LITEBOX_ENGINES (separated by colons), what `make engines` built, then PATH."""
    chosen = [Path(folder) for folder in os.environ.get("LITEBOX_ENGINES", "").split(":") if folder]
    return (
        chosen
        + [ENGINES, *sorted(ENGINES.glob("[0-9]*"))]
        + [Path(folder) for folder in os.environ.get("PATH", "").split(":") if folder]
    )


def engines(name: str) -> dict[str, Path]:
    """Each different program called `name`, by a short label."""
    found: dict[str, Path] = {}
    for folder in engine_folders():
        program = folder / name
        if os.access(program, os.X_OK) and program.resolve() not in {known.resolve() for known in found.values()}:
            found[str(folder)] = program
    return found
