"""Writes the launchers of the programs that pyproject.toml names: ``launchers.py --python PYTHON --path DIR... OUT``.

A launcher is what containerd, a kubelet or a shell executes, once or more for every container, so it starts as fast as
Python can: ``-I`` ignores the caller's environment and user site, ``-S`` skips ``site`` and with it the ``.pth`` files.
The import path is written into the launcher instead. The programs find their libraries at ``../lib/litebox`` beside the
launcher's own folder.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

TEMPLATE = """\
#!{python} -IS
import sys

sys.path[:0] = {path!r}
from {module} import {function}

sys.exit({function}())
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="absolute path of the interpreter")
    parser.add_argument("--path", action="append", required=True, help="folder to import from; repeat in order")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    options.out.mkdir(parents=True, exist_ok=True)
    for name, entry in project["scripts"].items():
        module, function = entry.split(":")
        launcher = options.out / name
        temporary = launcher.with_suffix(".new")
        temporary.write_text(
            TEMPLATE.format(python=options.python, path=options.path, module=module, function=function)
        )
        temporary.chmod(0o755)
        temporary.replace(launcher)
    return 0


if __name__ == "__main__":
    sys.exit(main())
