"""What the library OS remembers for programs counts as their memory: who hoards it is killed, and the others live on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import bundles

SECONDS = 60
SOURCE = Path(__file__).parent / "hoard.c"
WAYS = re.findall(r'\{"(\w+)", \w+\}', SOURCE.read_text())
LIMIT = 64 << 20


@pytest.fixture(scope="module")
def program() -> Path:
    made = bundles.BUILD / "cli" / "hoard"
    made.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", made, SOURCE], check=True)
    return made


@pytest.mark.parametrize("way", WAYS)
def test_hoarding_ends_the_hoarder(contained: bundles.Runtime, program: Path, tmp_path: Path, way: str) -> None:
    bundle = bundles.busybox_bundle(tmp_path / "bundle", [program])
    script = f"hoard {way} >/dev/null 2>&1; rm -rf /tmp/*; sleep 0.2; echo still here"
    bundle.configure(["sh", "-c", script], memory=LIMIT)
    done = contained.run(bundle, timeout=SECONDS)
    assert (done.text, done.code) == ("still here\n", 0), done
