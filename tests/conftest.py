"""Options and fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

import bundles


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("litebox")
    group.addoption(
        "--runtime",
        default="litebox",
        help="what runs the bundles: litebox (the one built here), runc or another OCI runtime on PATH, or native",
    )


@pytest.fixture(scope="session")
def oracle() -> bundles.Native:
    """The host's kernel."""
    native = bundles.Native()
    if why := native.missing():
        pytest.skip(why)
    return native


@pytest.fixture(scope="session")
def runtime(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> bundles.Native | bundles.Runtime:
    """The runtime under test."""
    state: Path = tmp_path_factory.mktemp("state")
    found = bundles.runtime_named(request.config.getoption("--runtime"), state)
    if why := found.missing():
        pytest.skip(why)
    return found
