"""The fixtures of the runtime's own tests: `litebox` over a stand-in for the VMM."""

from __future__ import annotations

from unit.runtime.conftest import bundle, config, litebox, rootfs

__all__ = ["bundle", "config", "litebox", "rootfs"]
