"""One private containerd per version that is installed, shared by the tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import installed
from integration.containerd.daemon import Containerd, running

PROGRAMS = installed.engines("containerd")


@pytest.fixture(scope="session", params=PROGRAMS or ["none"])
def containerd(request: pytest.FixtureRequest, litebox: Path, image: Path, scratch: Path) -> Iterator[Containerd]:
    """A containerd with the image imported."""
    if not PROGRAMS:
        pytest.skip("containerd is not installed (apt-get install containerd)")
    folder = scratch / str(list(PROGRAMS).index(request.param))
    folder.mkdir()
    with running(PROGRAMS[request.param], litebox, folder) as daemon:
        daemon.ctr("image", "import", image)
        yield daemon
