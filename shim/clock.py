"""Wall-clock time as protobuf's Timestamp."""

from __future__ import annotations

import time

from shim.api.well_known import Timestamp


def now_ns() -> int:
    return time.time_ns()


def timestamp(nanoseconds: int) -> Timestamp:
    return Timestamp(seconds=nanoseconds // 1_000_000_000, nanos=nanoseconds % 1_000_000_000)
