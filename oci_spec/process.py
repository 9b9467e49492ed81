"""config.md, "Process"."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from oci_spec.base import AbsolutePath, Int32, Model, UInt32, UInt64

CPUList = Annotated[str, Field(pattern=r"^[0-9, -]*$")]


class Box(Model):
    """Size of a terminal in characters."""

    height: UInt32
    width: UInt32


class User(Model):
    """Who the process is."""

    uid: UInt32
    gid: UInt32
    umask: UInt32 | None = None
    additional_gids: list[UInt32] | None = Field(None, alias="additionalGids")
    username: str | None = None


class Capabilities(Model):
    """capabilities(7), by set."""

    bounding: list[str] | None = None
    effective: list[str] | None = None
    inheritable: list[str] | None = None
    permitted: list[str] | None = None
    ambient: list[str] | None = None


class Rlimit(Model):
    """getrlimit(2)."""

    type: Annotated[str, Field(pattern=r"^RLIMIT_[A-Z]+$")]
    hard: UInt64
    soft: UInt64


class Scheduler(Model):
    """sched_setattr(2)."""

    policy: Literal["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"]
    nice: Int32 | None = None
    priority: Int32 | None = None
    flags: (
        list[
            Literal[
                "SCHED_FLAG_RESET_ON_FORK",
                "SCHED_FLAG_RECLAIM",
                "SCHED_FLAG_DL_OVERRUN",
                "SCHED_FLAG_KEEP_POLICY",
                "SCHED_FLAG_KEEP_PARAMS",
                "SCHED_FLAG_UTIL_CLAMP_MIN",
                "SCHED_FLAG_UTIL_CLAMP_MAX",
            ]
        ]
        | None
    ) = None
    runtime: UInt64 | None = None
    deadline: UInt64 | None = None
    period: UInt64 | None = None


class IOPriority(Model):
    """ioprio_set(2)."""

    class_: Literal["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"] = Field(alias="class")
    priority: Annotated[int, Field(ge=0, le=7)]


class CPUAffinity(Model):
    """CPUs that exec'd processes start on, and stay on."""

    initial: CPUList | None = None
    final: CPUList | None = None


class Process(Model):
    """What to run, and as whom."""

    terminal: bool | None = None
    console_size: Box | None = Field(None, alias="consoleSize")
    user: User | None = None
    args: list[str] | None = None
    command_line: str | None = Field(None, alias="commandLine")
    env: list[str] | None = None
    cwd: AbsolutePath
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] | None = None
    no_new_privileges: bool | None = Field(None, alias="noNewPrivileges")
    apparmor_profile: str | None = Field(None, alias="apparmorProfile")
    oom_score_adj: Annotated[int, Field(ge=-1000, le=1000)] | None = Field(None, alias="oomScoreAdj")
    scheduler: Scheduler | None = None
    selinux_label: str | None = Field(None, alias="selinuxLabel")
    io_priority: IOPriority | None = Field(None, alias="ioPriority")
    exec_cpu_affinity: CPUAffinity | None = Field(None, alias="execCPUAffinity")


__all__ = ["Box", "CPUAffinity", "Capabilities", "IOPriority", "Process", "Rlimit", "Scheduler", "User"]
