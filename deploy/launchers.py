"""Writes what starts the programs that pyproject.toml names: ``launchers.py --python PYTHON --path DIR... TREE``.

Each is a compiled program (kernel_lib/launcher), which containerd, a kubelet or a shell executes once or more for every
container. What it does not do itself, it has ``lib/litebox/python`` do, with ``lib/litebox/PROGRAM.pyc``: the index of
``litebox.modules``, where the code of all our modules is. Reading them from there saves what looking for each along the
import path costs (1 ms of `state`, twice that of `run`). A module whose source is another by now is imported from there
as usual. Python starts with ``-I``, which ignores the caller's environment and user site, and ``-S``, which skips
``site`` and with it the ``.pth`` files: the import path is written into the .pyc instead. Where the interpreter keeps
the extension modules that nearly every command needs is written there, too: to look for the first costs 0.5 ms.
"""

from __future__ import annotations
import __future__

import argparse
import ast
import importlib.util
import marshal
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

SOURCE = Path(__file__).parent.parent
Index = list[tuple[str, tuple[bool, str, int, int, int, int]]]
EXTENSIONS = ("_ctypes", "_json", "_socket", "fcntl", "resource")
#: `known`: name → (package?, source, its time, its size, offset, bytes). `__future__`, too, is a file to be found.
BUNDLE = """\
import gc
import sys
from _frozen_importlib_external import ExtensionFileLoader
from marshal import loads
from posix import O_CLOEXEC, close, open, pread, stat

known = dict({index!r})
extensions = {extensions!r}
modules = __file__.rpartition("/")[0] + "/litebox.modules"
Spec = type(__spec__ or sys.__spec__)

class Bundle:
    @staticmethod
    def find_spec(name, path=None, target=None):
        entry = known.get(name)
        source = entry[1] if entry else extensions.get(name)
        if source is None:
            return None
        try:
            found = stat(source)
        except OSError:
            return None
        if entry is None:
            return Spec(name, ExtensionFileLoader(name, source), origin=source)
        package, _, time, size, _, _ = entry
        if int(found.st_mtime) != time or found.st_size != size:
            return None
        spec = Spec(name, Bundle, origin=source, is_package=package)
        if package:  # where those of its modules are found that have changed
            spec.submodule_search_locations.append(source.rpartition("/")[0])
        return spec

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        package, module.__file__, _, _, offset, size = known[module.__name__]
        # No descriptor is kept: it would have a number that --preserve-fds may mean.
        fd = open(modules, O_CLOEXEC)
        code = pread(fd, size, offset)
        close(fd)
        exec(loads(code), module.__dict__)

gc.set_threshold(100_000)  # of objects, which no command makes on its way to the VMM: 5 % of `run` were collections
sys.meta_path.insert(0, Bundle)
sys.path += {path!r}
from {module} import {function}

sys.exit({function}())
"""
#: Of each program.
PACKAGES = {
    "litebox": ("runtime", "oci_spec"),
    "containerd-shim-litebox-v1": ("runtime", "oci_spec", "shim"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="absolute path of the interpreter")
    parser.add_argument("--path", action="append", required=True, help="folder to import from; repeat in order")
    parser.add_argument("--destdir", default="", help="where that folder is now, until it is installed")
    parser.add_argument("tree", type=Path, help="has bin/ and lib/litebox/")
    options = parser.parse_args()
    library = options.tree / "lib/litebox"
    index: Index = []
    code = b""
    for name, path in modules_in(Path(options.destdir + options.path[0])):
        status, final = path.stat(), str(path).removeprefix(options.destdir)
        compiled = marshal.dumps(compile(path.read_bytes(), final, "exec", dont_inherit=True, optimize=2))
        entry = (path.stem == "__init__", final, int(status.st_mtime), status.st_size, len(code), len(compiled))
        index.append((name, entry))
        code += compiled
    replace(library / "litebox.modules", code)
    extensions = extension_files(options.python)
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    for name, entry in project["scripts"].items():
        module, function = entry.split(":")
        known = tuple(item for item in index if item[0].partition(".")[0] in (*PACKAGES[name], "__future__"))
        text = BUNDLE.format(index=known, extensions=extensions, path=options.path, module=module, function=function)
        main_code = marshal.dumps(compile(text, str(library / f"{name}.pyc"), "exec", dont_inherit=True))
        # The header of a .pyc: magic number, flags, and the time and size of a source, which nobody asks for here.
        replace(library / f"{name}.pyc", importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, 0, 0) + main_code)
    interpreter = library / "python.new"
    interpreter.unlink(missing_ok=True)
    interpreter.symlink_to(Path(options.python).resolve())  # the venv has nothing that -S would find
    interpreter.replace(library / "python")
    return 0


def modules_in(root: Path) -> list[tuple[str, Path]]:
    """Every module that the programs are made of."""
    packages = sorted({package for used in PACKAGES.values() for package in used})
    found = [("__future__", Path(__future__.__file__))]
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def extension_files(python: str) -> dict[str, str]:
    """Of this interpreter; what is built into it has none."""
    program = "import sys; print({name: getattr(__import__(name), '__file__', None) for name in sys.argv[1:]})"
    said = subprocess.run(
        [python, "-IS", "-c", program, *EXTENSIONS], check=True, capture_output=True, text=True
    ).stdout
    return {name: file for name, file in ast.literal_eval(said).items() if file}


def replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    temporary.chmod(0o644)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
