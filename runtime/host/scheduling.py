"""process.{oomScoreAdj, scheduler, ioPriority, execCPUAffinity}, applied to the VMM while it has one thread."""

from __future__ import annotations

import errno as errno_module
import os
import struct

from runtime.errors import HostError, InvalidSpec
from runtime.host import linux
from runtime.plan.size import parse_cpu_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}


def apply(process: Json, pid: int, log: Callable[[str], None]) -> None:
    """To a process; 0: the calling one."""
    score = process.get("oomScoreAdj")
    if score is not None:
        _oom_score(score, pid, log)
    if process.get("ioPriority"):
        wanted = process["ioPriority"]
        try:
            linux.ioprio_set(pid, _IO_CLASSES[wanted["class"]] << 13 | wanted.get("priority", 0))
        except OSError as error:
            raise HostError(f"process.ioPriority: {error.strerror}", error.errno or 0) from error
    if process.get("scheduler"):
        _schedule(process["scheduler"], pid)
    affinity = (process.get("execCPUAffinity") or {}).get("final")
    if affinity:
        cpus = parse_cpu_list(affinity, "process.execCPUAffinity.final")
        try:
            os.sched_setaffinity(pid, cpus)
        except OSError as error:
            raise InvalidSpec(f"process.execCPUAffinity.final: found {affinity!r}: {error.strerror}") from error


def _oom_score(score: int, pid: int, log: Callable[[str], None]) -> None:
    """Lowering it takes CAP_SYS_RESOURCE, which many callers lack: the guest still shows what was asked for."""
    try:
        fd = os.open(f"/proc/{pid or 'self'}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(score).encode())
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno_module.EACCES, errno_module.EPERM):
            log(f"process.oomScoreAdj: {score}: {error.strerror}; left as it is")
            return
        raise InvalidSpec(f"process.oomScoreAdj: found {score}: {error.strerror}") from error


def _schedule(wanted: Json, pid: int) -> None:
    flags = 0
    for flag in wanted.get("flags") or []:
        flags |= _FLAGS[flag]
    attr = struct.pack(
        "=IIQiIQQQ",
        48,
        _POLICIES[wanted["policy"]],
        flags,
        wanted.get("nice", 0),
        wanted.get("priority", 0),
        wanted.get("runtime", 0),
        wanted.get("deadline", 0),
        wanted.get("period", 0),
    )
    try:
        linux.sched_setattr(pid, attr)
    except OSError as error:
        raise HostError(f"process.scheduler: {wanted['policy']}: {error.strerror}", error.errno or 0) from error
