"""Options and fixtures that every test may use."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import bundles
import oracle


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("litebox")
    group.addoption(
        "--runtime",
        default="litebox",
        help="what runs the bundles: litebox (the one built here), runc or another OCI runtime on PATH, or native",
    )
    group.addoption("--quick", action="store_true", help="leave out the tests that take minutes")


KNOWN_FAILURES = Path(__file__).with_name("known_failures.toml")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    known = tomllib.loads(KNOWN_FAILURES.read_text()).get("failure", [])
    for item in items:
        for entry in known:
            if fnmatch.fnmatchcase(item.nodeid, entry["id"]):
                item.add_marker(pytest.mark.xfail(reason=entry["reason"], run=entry.get("run", True), strict=False))
    if config.getoption("--quick"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes; --quick leaves it out"))


@pytest.fixture(scope="session")
def native() -> bundles.Native:
    """The host's kernel."""
    host = bundles.Native()
    if why := host.missing():
        pytest.skip(why)
    return host


@pytest.fixture(scope="session")
def natively(
    native: bundles.Native, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[bundles.Completed, oracle.Sections]]:
    """Runs a guest program on the host's kernel: what Linux prints."""
    return oracle.runner(native, lambda: tmp_path_factory.mktemp("native"))


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
