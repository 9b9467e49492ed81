"""runtime.md, "State"."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from oci_spec.base import AbsolutePath, Annotations, Model, NonEmpty, UInt32, Version


class State(Model):
    """What `state` prints and hooks read. `paused` is runc's addition."""

    oci_version: Version = Field(alias="ociVersion")
    id: NonEmpty
    status: Literal["creating", "created", "running", "paused", "stopped"]
    pid: UInt32 | None = None
    bundle: AbsolutePath
    annotations: Annotations | None = None
