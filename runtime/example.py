"""`litebox spec`: a config.json to start from, runc's example but for what it says of the machine."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_MASKED = "acpi asound kcore keys latency_stats timer_list timer_stats sched_debug scsi".split()
_READONLY = "bus fs irq sys sysrq-trigger".split()


def _mount(destination: str, fstype: str, source: str, *options: str) -> Json:
    return {"destination": destination, "type": fstype, "source": source, "options": list(options)}


def example_config(rootless_ids: tuple[int, int] | None = None) -> Json:
    """Runs `sh` on a terminal. `rootless_ids`: of the user who is to be root inside."""
    mounts = [
        _mount("/proc", "proc", "proc"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),  # noqa: S108
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
    ]
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    linux: Json = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": [*(f"/proc/{name}" for name in _MASKED), "/sys/firmware"],
        "readonlyPaths": [f"/proc/{name}" for name in _READONLY],
    }
    if rootless_ids:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = [{"containerID": 0, "hostID": rootless_ids[0], "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": rootless_ids[1], "size": 1}]
        del linux["resources"]
    return {
        "ociVersion": "1.3.0",
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "litebox",
        "mounts": mounts,
        "linux": linux,
    }
