"""The Debian package: laid over this machine's /usr in a mount namespace of its own, it runs containers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def said(*command: str | Path, **options: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=300, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done
    return str(done.stdout)


@pytest.mark.slow
def test_the_debian_package(litebox: Path, tmp_path: Path) -> None:
    del litebox  # its checks: KVM, root, and that it is built
    if not shutil.which("dpkg-deb"):
        pytest.skip("no dpkg-deb")
    python = said("/usr/bin/python3", "-c", "import sys; print(sys.version_info[:2])").strip()
    if python != str(sys.version_info[:2]):
        pytest.skip(f"/usr/bin/python3 is {python}, not the version that the package is built with")
    said("make", "-s", "-C", ROOT, "deb")
    package = ROOT / "build" / "litebox.deb"
    assert "Package: litebox\n" in said("dpkg-deb", "--field", package)
    tree = tmp_path / "tree"
    said("dpkg-deb", "--extract", package, tree)
    programs = [path.name for path in (tree / "usr" / "lib" / "litebox").rglob("litebox-*") if path.is_file()]
    assert sorted(programs) == ["litebox-kernel", "litebox-vmm"]
    script = f"mount -t overlay overlay -o lowerdir={tree}/usr:/usr /usr && exec /usr/bin/litebox do -- echo packaged"
    assert said("unshare", "--mount", "sh", "-c", script) == "packaged\n"
    script = script.replace("litebox do -- echo packaged", "containerd-shim-litebox-v1 -v")
    assert "containerd-shim-litebox-v1" in said("unshare", "--mount", "sh", "-c", script)
