"""One private containerd per version that is installed, shared by the tests of a session."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import images, installed
from integration.containerd.daemon import IMAGE, Containerd, running

PROGRAMS = installed.engines("containerd")


@pytest.fixture(scope="session")
def litebox() -> Path:
    """The folder with LiteBox's programs."""
    if not Path("/dev/kvm").exists():
        pytest.skip("no /dev/kvm")
    if os.geteuid():
        pytest.skip("containerd's tests need root")
    folder = installed.programs()
    if folder is None:
        pytest.skip("containerd-shim-litebox-v1 is not built: run make build")
    return folder


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of busybox."""
    if why := images.missing():
        pytest.skip(why)
    path = tmp_path_factory.mktemp("image") / "busybox.tar"
    images.write_archive(path, IMAGE, [images.busybox_layer()])
    return path


@pytest.fixture(scope="session", params=PROGRAMS or ["none"])
def containerd(request: pytest.FixtureRequest, litebox: Path, image: Path) -> Iterator[Containerd]:
    """A containerd with the image imported."""
    if not PROGRAMS:
        pytest.skip("containerd is not installed (apt-get install containerd)")
    folder = Path(tempfile.mkdtemp(prefix="lb-", dir="/tmp"))  # short: sockets below it have 106 bytes
    try:
        with running(PROGRAMS[request.param], litebox, folder) as daemon:
            daemon.ctr("image", "import", image)
            yield daemon
    finally:
        shutil.rmtree(folder, ignore_errors=True)
