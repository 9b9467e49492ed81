"""The fixtures of the runtime's own tests: `litebox` with a state directory of the test's own."""

from __future__ import annotations

from unit.runtime.conftest import bundle, config, litebox, rootfs

__all__ = ["bundle", "config", "litebox", "rootfs"]
