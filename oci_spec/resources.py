"""config-linux.md, "Control groups"."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oci_spec.base import Int64, Key, Model, NonEmpty, UInt16, UInt32, UInt64


class DeviceRule(Model):
    """One rule of the device allow-list."""

    allow: bool
    type: Literal["", "a", "b", "c", "p", "u"] | None = None
    major: Int64 | None = None
    minor: Int64 | None = None
    access: Annotated[str, Field(pattern=r"^[rwm]*$")] | None = None


class Memory(Model):
    """Bytes; -1 is no limit."""

    limit: Int64 | None = None
    reservation: Int64 | None = None
    swap: Int64 | None = None
    kernel: Int64 | None = None
    kernel_tcp: Int64 | None = Field(None, alias="kernelTCP")
    swappiness: Annotated[int, Field(ge=0, le=100)] | None = None
    disable_oom_killer: bool | None = Field(None, alias="disableOOMKiller")
    use_hierarchy: bool | None = Field(None, alias="useHierarchy")
    check_before_update: bool | None = Field(None, alias="checkBeforeUpdate")


class CPU(Model):
    """Times in microseconds."""

    shares: UInt64 | None = None
    quota: Int64 | None = None
    burst: UInt64 | None = None
    period: UInt64 | None = None
    realtime_runtime: Int64 | None = Field(None, alias="realtimeRuntime")
    realtime_period: UInt64 | None = Field(None, alias="realtimePeriod")
    cpus: str | None = None
    mems: str | None = None
    idle: Int64 | None = None


class Pids(Model):
    """Number of tasks; -1 is no limit."""

    limit: Int64 | None = None


class WeightDevice(Model):
    """Share of one device."""

    major: Int64
    minor: Int64
    weight: UInt16 | None = None
    leaf_weight: UInt16 | None = Field(None, alias="leafWeight")


class ThrottleDevice(Model):
    """Limit of one device, per second."""

    major: Int64
    minor: Int64
    rate: UInt64


class BlockIO(Model):
    """Weights are 10 to 1000."""

    weight: UInt16 | None = None
    leaf_weight: UInt16 | None = Field(None, alias="leafWeight")
    weight_device: list[WeightDevice] | None = Field(None, alias="weightDevice")
    throttle_read_bps_device: list[ThrottleDevice] | None = Field(None, alias="throttleReadBpsDevice")
    throttle_write_bps_device: list[ThrottleDevice] | None = Field(None, alias="throttleWriteBpsDevice")
    throttle_read_iops_device: list[ThrottleDevice] | None = Field(None, alias="throttleReadIOPSDevice")
    throttle_write_iops_device: list[ThrottleDevice] | None = Field(None, alias="throttleWriteIOPSDevice")


class HugepageLimit(Model):
    """64KB, 2MB, 1GB and their limits in bytes."""

    page_size: Annotated[str, Field(alias="pageSize", pattern=r"^[1-9][0-9]*[KMG]B$")]
    limit: UInt64


class InterfacePriority(Model):
    """net_prio."""

    name: NonEmpty
    priority: UInt32


class Network(Model):
    """net_cls and net_prio."""

    class_id: UInt32 | None = Field(None, alias="classID")
    priorities: list[InterfacePriority] | None = None


class Rdma(Model):
    """Of one device."""

    hca_handles: UInt32 | None = Field(None, alias="hcaHandles")
    hca_objects: UInt32 | None = Field(None, alias="hcaObjects")


class Resources(Model):
    """linux.resources."""

    devices: list[DeviceRule] | None = None
    memory: Memory | None = None
    cpu: CPU | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = Field(None, alias="blockIO")
    hugepage_limits: list[HugepageLimit] | None = Field(None, alias="hugepageLimits")
    network: Network | None = None
    rdma: dict[Key, Rdma] | None = None
    unified: dict[Key, str] | None = None
