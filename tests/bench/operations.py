"""ops.c, built."""

from __future__ import annotations

import subprocess
from pathlib import Path

import bundles

OPS = bundles.BUILD / "bench/ops"


def build() -> Path:
    OPS.parent.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("ops.c")
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", OPS, source], check=True)
    return OPS
