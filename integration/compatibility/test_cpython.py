"""CPython's own tests of what the system offers: no test fails in a micro-VM that passes in a container of runc."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bundles
import debian

PACKAGES = ("libpython3.11-dev", "libpython3.11-testsuite", "netbase", "python3-distutils")
MODULES = Path(__file__).with_name("cpython.txt").read_text().split()
SECONDS = 800
#: Of one module, for both runtimes.
TIMEOUT = 2 * SECONDS + 100


def _failures(runtime: bundles.Runtime, bundle: bundles.Bundle) -> tuple[int, set[str], str]:
    """Exit code, the tests that failed, and the output."""
    ended = runtime.run(bundle, timeout=SECONDS)
    output = (ended.stdout + ended.stderr).decode(errors="replace")
    return ended.code, set(re.findall(r"^(?:FAIL|ERROR): (.*)$", output, re.MULTILINE)), output


@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize("module", MODULES)
def test_module(litebox: Path, tmp_path: Path, module: str) -> None:
    with debian.overlay_bundle(tmp_path / "bundle", PACKAGES) as bundle:
        script = f"exec python3 -m test -W --timeout {SECONDS - 50} test_{module}"
        bundle.configure(["/bin/sh", "-c", script], cwd="/work")
        expected_code, expected, _ = _failures(bundles.Runtime("runc", "runc", tmp_path / "runc"), bundle)
        code, failed, output = _failures(
            bundles.Runtime("litebox", str(litebox / "litebox"), tmp_path / "litebox"), bundle
        )
    assert not failed - expected, output[-5000:]
    assert code == expected_code, output[-5000:]
