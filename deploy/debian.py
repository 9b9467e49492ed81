"""Writes what makes a Debian package of an installed tree: ``debian.py TREE``, before ``dpkg-deb --build TREE``.

The libraries that Debian has too old, or not at all, are inside (lib/litebox/packages), some of them compiled for the
Python they were installed with: the package depends on that very version.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tomllib
from pathlib import Path

SOURCE = Path(__file__).parent.parent
CONTROL = """\
Package: litebox
Version: {version}
Section: admin
Priority: optional
Architecture: amd64
Depends: python3 (>= {python}), python3 (<< {next_python}), libc6, libgcc-s1
Suggests: containerd, docker.io, podman
Installed-Size: {kib}
Maintainer: LiteBox
Description: OCI containers in micro-VMs without a guest operating system
 Every container gets a virtual machine of its own (KVM), in which a library OS
 serves the Linux system calls of unmodified programs. This package has the
 command line (litebox) and the containerd shim (containerd-shim-litebox-v1).
"""
EXAMPLES = (
    "deploy/config.yaml",
    "deploy/kubernetes/runtimeclass.yaml",
    "deploy/systemd/containerd-litebox.conf",
    "integration/containerd/litebox-v2.toml",
    "integration/containerd/litebox-v3.toml",
    "integration/docker/daemon.json",
    "integration/podman/containers.conf",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path)
    tree: Path = parser.parse_args().tree
    documents = tree / "usr" / "share" / "doc" / "litebox"
    (documents / "examples").mkdir(parents=True)
    shutil.copy(SOURCE / "README.md", documents)
    shutil.copy(SOURCE / "LICENSE", documents / "copyright")
    for example in EXAMPLES:
        shutil.copy(SOURCE / example, documents / "examples")
    version = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]["version"]
    major, minor = sys.version_info[:2]
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    control = CONTROL.format(
        version=version, python=f"{major}.{minor}", next_python=f"{major}.{minor + 1}", kib=size // 1024
    )
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(control)
    return 0


if __name__ == "__main__":
    sys.exit(main())
