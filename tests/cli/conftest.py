"""What the tests of the command line share."""

from __future__ import annotations

import pytest

import bundles


@pytest.fixture
def contained(runtime: bundles.Native | bundles.Runtime) -> bundles.Runtime:
    if not isinstance(runtime, bundles.Runtime):
        pytest.skip("about a command line")
    return runtime
