"""`-info`: the runtime's name, version and features, which containerd 2.x asks for once (core/runtime/v2/README.md)."""

from __future__ import annotations

import sys

from runtime import fastjson
from runtime.features import features_document
from shim.api.types import RuntimeInfo, RuntimeVersion
from shim.api.well_known import Any
from shim.main import NAME, VERSION

FEATURES = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"  # typeurl's name for its JSON


def runtime_info() -> RuntimeInfo:
    features = Any(type_url=FEATURES, value=fastjson.dumps(features_document()).encode())
    return RuntimeInfo(name=NAME, version=RuntimeVersion(version=VERSION), features=features)


def print_info() -> None:
    sys.stdout.buffer.write(runtime_info().encode())
