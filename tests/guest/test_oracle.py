"""Every case of every guest program gives the same output natively and in the micro-VM.

A program runs once natively and once under the runtime; each of its cases is then a test of its own. A case that is
known to differ stands in deviations.toml with its reason, and must differ as long as it stands there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

import bundles
import oracle

Runner = Callable[[str], tuple[bundles.Completed, oracle.Sections]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        known = oracle.deviations(metafunc.config.getoption("--runtime"))
        metafunc.parametrize(("program", "case"), list(oracle.parameters(list(oracle.cases()), known)))


@pytest.fixture(scope="session")
def contained(runtime: bundles.Native | bundles.Runtime, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return oracle.runner(runtime, lambda: tmp_path_factory.mktemp("runtime"))


def test_case(natively: Runner, contained: Runner, program: str, case: str) -> None:
    _, expected = natively(program)
    assert "-- " in expected.get(case, ""), f"no native output of {program} {case}"
    completed, found = contained(program)
    assert case in found, f"the program did not get to this case: exit {completed.code}\n{completed.stderr[-2000:]!r}"
    assert found[case] == expected[case]


@pytest.mark.parametrize("program", oracle.cases())
def test_exit_status(natively: Runner, contained: Runner, program: str) -> None:
    assert contained(program)[0].code == natively(program)[0].code
