"""`-info`: the runtime's name, version and features, which containerd 2.x asks for once (core/runtime/v2/README.md)."""

from __future__ import annotations

import sys

from shim.api.types import RuntimeInfo, RuntimeVersion
from shim.main import NAME, VERSION


def runtime_info() -> RuntimeInfo:
    return RuntimeInfo(name=NAME, version=RuntimeVersion(version=VERSION))


def print_info() -> None:
    sys.stdout.buffer.write(runtime_info().encode())
