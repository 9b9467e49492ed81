"""Validation without pydantic (37 ms of import): to be generated from the models."""

from __future__ import annotations

from typing import Any


def check_config(config: dict[str, Any]) -> list[str]:
    """Problems, each with its JSON path."""
    return []


def check_process(process: Any) -> list[str]:
    """Problems of a process object, as `exec --process` takes it."""
    return []


def check_resources(resources: Any) -> list[str]:
    """Problems of a linux.resources object, as `update --resources` takes it."""
    return []
