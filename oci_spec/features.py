"""features.md and features-linux.md."""

from __future__ import annotations

from pydantic import Field

from oci_spec.base import Annotations, Model, Version


class Switch(Model):
    """Something that is there or not."""

    enabled: bool | None = None


class Cgroup(Model):
    """Which managers."""

    v1: bool | None = None
    v2: bool | None = None
    systemd: bool | None = None
    systemd_user: bool | None = Field(None, alias="systemdUser")
    rdma: bool | None = None


class SeccompFeatures(Switch):
    """Names that config.json may use."""

    actions: list[str] | None = None
    operators: list[str] | None = None
    archs: list[str] | None = None
    known_flags: list[str] | None = Field(None, alias="knownFlags")
    supported_flags: list[str] | None = Field(None, alias="supportedFlags")


class IntelRdtFeatures(Switch):
    """resctrl."""

    schemata: bool | None = None
    monitoring: bool | None = None


class MemoryPolicyFeatures(Model):
    """NUMA."""

    modes: list[str] | None = None
    flags: list[str] | None = None


class MountExtensions(Model):
    """Beyond mount(2)."""

    idmap: Switch | None = None


class LinuxFeatures(Model):
    """The linux section."""

    namespaces: list[str] | None = None
    capabilities: list[str] | None = None
    cgroup: Cgroup | None = None
    seccomp: SeccompFeatures | None = None
    apparmor: Switch | None = None
    selinux: Switch | None = None
    intel_rdt: IntelRdtFeatures | None = Field(None, alias="intelRdt")
    memory_policy: MemoryPolicyFeatures | None = Field(None, alias="memoryPolicy")
    mount_extensions: MountExtensions | None = Field(None, alias="mountExtensions")
    net_devices: Switch | None = Field(None, alias="netDevices")


class Features(Model):
    """What `features` prints."""

    oci_version_min: Version = Field(alias="ociVersionMin")
    oci_version_max: Version = Field(alias="ociVersionMax")
    hooks: list[str] | None = None
    mount_options: list[str] | None = Field(None, alias="mountOptions")
    linux: LinuxFeatures | None = None
    annotations: Annotations | None = None
    potentially_unsafe_config_annotations: list[str] | None = Field(None, alias="potentiallyUnsafeConfigAnnotations")
