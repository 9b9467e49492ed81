"""config-linux.md."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oci_spec.base import AbsolutePath, Int64, Key, Model, NonEmpty, UInt32, UInt64
from oci_spec.resources import Resources

SeccompAction = Literal[
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
]

SeccompArch = Literal[
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
]


class IDMapping(Model):
    """Of ids inside to ids outside."""

    container_id: UInt32 = Field(alias="containerID")
    host_id: UInt32 = Field(alias="hostID")
    size: UInt32


class Namespace(Model):
    """New, or joined by path."""

    type: Literal["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]
    path: str | None = None


class TimeOffset(Model):
    """time_namespaces(7)."""

    secs: Int64 | None = None
    nanosecs: UInt32 | None = None


class Device(Model):
    """A device node."""

    path: AbsolutePath
    type: Literal["c", "b", "u", "p"]
    major: Int64 | None = None
    minor: Int64 | None = None
    file_mode: UInt32 | None = Field(None, alias="fileMode")
    uid: UInt32 | None = None
    gid: UInt32 | None = None


class NetDevice(Model):
    """A host network device to move in."""

    name: str | None = None


class SeccompArg(Model):
    """A condition on one argument."""

    index: Annotated[int, Field(ge=0, le=5)]
    value: UInt64
    value_two: UInt64 | None = Field(None, alias="valueTwo")
    op: Literal[
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ]


class Syscall(Model):
    """One rule."""

    names: Annotated[list[NonEmpty], Field(min_length=1)]
    action: SeccompAction
    errno_ret: UInt32 | None = Field(None, alias="errnoRet")
    args: list[SeccompArg] | None = None


class Seccomp(Model):
    """seccomp(2)."""

    default_action: SeccompAction = Field(alias="defaultAction")
    default_errno_ret: UInt32 | None = Field(None, alias="defaultErrnoRet")
    architectures: list[SeccompArch] | None = None
    flags: (
        list[
            Literal[
                "SECCOMP_FILTER_FLAG_TSYNC",
                "SECCOMP_FILTER_FLAG_LOG",
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
            ]
        ]
        | None
    ) = None
    listener_path: str | None = Field(None, alias="listenerPath")
    listener_metadata: str | None = Field(None, alias="listenerMetadata")
    syscalls: list[Syscall] | None = None


class IntelRdt(Model):
    """resctrl; known so that it can be refused."""

    clos_id: str | None = Field(None, alias="closID")
    schemata: list[str] | None = None
    l3_cache_schema: str | None = Field(None, alias="l3CacheSchema")
    mem_bw_schema: Annotated[str, Field(pattern=r"^MB:[^\n]*$")] | None = Field(None, alias="memBwSchema")
    enable_monitoring: bool | None = Field(None, alias="enableMonitoring")


class MemoryPolicy(Model):
    """set_mempolicy(2); known so that it can be refused."""

    mode: Literal[
        "MPOL_DEFAULT",
        "MPOL_BIND",
        "MPOL_INTERLEAVE",
        "MPOL_WEIGHTED_INTERLEAVE",
        "MPOL_PREFERRED",
        "MPOL_PREFERRED_MANY",
        "MPOL_LOCAL",
    ]
    nodes: str | None = None
    flags: list[Literal["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]] | None = None


class Personality(Model):
    """personality(2)."""

    domain: Literal["LINUX", "LINUX32"]
    flags: list[str] | None = None


class Linux(Model):
    """The linux section."""

    uid_mappings: list[IDMapping] | None = Field(None, alias="uidMappings")
    gid_mappings: list[IDMapping] | None = Field(None, alias="gidMappings")
    sysctl: dict[Key, str] | None = None
    resources: Resources | None = None
    cgroups_path: str | None = Field(None, alias="cgroupsPath")
    namespaces: list[Namespace] | None = None
    devices: list[Device] | None = None
    net_devices: dict[Key, NetDevice] | None = Field(None, alias="netDevices")
    seccomp: Seccomp | None = None
    rootfs_propagation: (
        Literal[
            "private",
            "rprivate",
            "slave",
            "rslave",
            "shared",
            "rshared",
            "unbindable",
            "runbindable",
        ]
        | None
    ) = Field(None, alias="rootfsPropagation")
    masked_paths: list[str] | None = Field(None, alias="maskedPaths")
    readonly_paths: list[str] | None = Field(None, alias="readonlyPaths")
    mount_label: str | None = Field(None, alias="mountLabel")
    intel_rdt: IntelRdt | None = Field(None, alias="intelRdt")
    memory_policy: MemoryPolicy | None = Field(None, alias="memoryPolicy")
    personality: Personality | None = None
    time_offsets: dict[Key, TimeOffset] | None = Field(None, alias="timeOffsets")
