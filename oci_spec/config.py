"""config.md: the document config.json."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from oci_spec.base import AbsolutePath, Annotations, Key, Model, NonEmpty, Version
from oci_spec.linux import IDMapping, Linux
from oci_spec.process import Process


class Root(Model):
    """The root file system."""

    path: NonEmpty
    readonly: bool | None = None


class Mount(Model):
    """One mount, in order."""

    destination: NonEmpty
    type: str | None = None
    source: str | None = None
    options: list[str] | None = None
    uid_mappings: list[IDMapping] | None = Field(None, alias="uidMappings")
    gid_mappings: list[IDMapping] | None = Field(None, alias="gidMappings")


class Hook(Model):
    """A program to run at one moment of the container's life."""

    path: AbsolutePath
    args: list[str] | None = None
    env: list[str] | None = None
    timeout: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


class Hooks(Model):
    """All six kinds."""

    prestart: list[Hook] | None = None
    create_runtime: list[Hook] | None = Field(None, alias="createRuntime")
    create_container: list[Hook] | None = Field(None, alias="createContainer")
    start_container: list[Hook] | None = Field(None, alias="startContainer")
    poststart: list[Hook] | None = None
    poststop: list[Hook] | None = None


class Config(Model):
    """config.json. The sections of other platforms are kept as they are, so that the planner can refuse them."""

    oci_version: Version = Field(alias="ociVersion")
    process: Process | None = None
    root: Root | None = None
    hostname: str | None = None
    domainname: str | None = None
    mounts: list[Mount] | None = None
    hooks: Hooks | None = None
    annotations: Annotations | None = None
    linux: Linux | None = None
    vm: dict[Key, Any] | None = None
