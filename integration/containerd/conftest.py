"""One private containerd per version that is installed, and one that calls shims over gRPC, shared by the tests of a
session.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import installed
from integration.containerd.daemon import Containerd, is_version

PROGRAMS = installed.engines("containerd")
GRPC = "defaults: {transport: grpc}\n"
#: Newer ones take a shim that speaks gRPC for gone when they have dialled it: kernel_lib/launcher/src/shim/start.rs.
OVER_GRPC = [f"{name} over gRPC" for name, program in PROGRAMS.items() if is_version(program, "1.7")][:1]


@pytest.fixture(scope="session", params=[*PROGRAMS, *OVER_GRPC] or ["none"])
def containerd(request: pytest.FixtureRequest, litebox: Path, image: Path, scratch: Path) -> Iterator[Containerd]:
    """A containerd with the image imported."""
    if not PROGRAMS:
        pytest.skip("containerd is not installed (apt-get install containerd)")
    folder = scratch / str([*PROGRAMS, *OVER_GRPC].index(request.param))
    folder.mkdir()
    settings = {}
    if request.param in OVER_GRPC:
        (folder / "grpc.yaml").write_text(GRPC)
        settings["LITEBOX_CONFIG"] = str(folder / "grpc.yaml")
    program = PROGRAMS[request.param.removesuffix(" over gRPC")]
    with Containerd(program, litebox, folder, settings=settings) as daemon:
        daemon.ctr("image", "import", image)
        yield daemon
