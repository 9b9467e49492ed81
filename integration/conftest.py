"""What the tests of every engine need: LiteBox's programs, and an image."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import images, installed
from integration.containerd.daemon import IMAGE


@pytest.fixture(scope="session")
def litebox() -> Path:
    """The folder with LiteBox's programs."""
    if not Path("/dev/kvm").exists():
        pytest.skip("no /dev/kvm")
    if os.geteuid():
        pytest.skip("the engines' tests need root")
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


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder with a short path: sockets below it have 106 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="lb-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
