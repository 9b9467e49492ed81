"""What the containers of a pod have in common beyond its namespaces.

With a pause container, containerd makes the pod's /etc/hostname, /etc/hosts, /etc/resolv.conf and /dev/shm and has
every container's config.json mount them. Under the sandbox API they are the shim's to make
(containerd internal/cri/server/container_create.go, `linuxContainerMounts`); what they hold is as containerd has it
(podsandbox/sandbox_run_linux.go, `setupSandboxFiles`).
"""

from __future__ import annotations

import os

from runtime.host import linux
from shim import rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.api.cri import DNSConfig

SHM_BYTES = 64 << 20
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
SHM = "shm"


class Pod:
    """What a member takes over: a host name, sysctls, and (destination, source) of files to mount."""

    __slots__ = ("files", "hostname", "sysctls")

    def __init__(self, hostname: str, sysctls: dict[str, str], files: dict[str, str]) -> None:
        self.hostname = hostname
        self.sysctls = sysctls
        self.files = files


def make_files(bundle: str, hostname: str, dns: DNSConfig | None, *, own_shm: bool) -> dict[str, str]:
    """Make a pod's files below its bundle, which containerd removes; return their sources by destination."""
    texts = {
        "/etc/hostname": f"{hostname}\n",
        "/etc/hosts": _text("/etc/hosts"),
        "/etc/resolv.conf": _text("/etc/resolv.conf") if dns is None else resolv_conf(dns),
    }
    files = {}
    for destination, text in texts.items():
        source = f"{bundle}/{os.path.basename(destination)}"
        with open(source, "w") as file:
            file.write(text)
        os.chmod(source, 0o644)
        files[destination] = source
    if own_shm:
        shm = f"{bundle}/{SHM}"
        os.makedirs(shm, exist_ok=True)
        linux.mount("shm", shm, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"mode=1777,size={SHM_BYTES}")
        files["/dev/shm"] = shm  # noqa: S108 - the place in the container
    else:
        files["/dev/shm"] = "/dev/shm"  # noqa: S108
    return files


def give_files(files: dict[str, str], uid: int, gid: int) -> None:
    """Make the root of a user namespace their owner."""
    for source in files.values():
        os.chown(source, uid, gid)


def remove_files(bundle: str) -> None:
    """What containerd cannot remove by itself: the mount."""
    if os.path.isdir(f"{bundle}/{SHM}"):
        rootfs.unmount(f"{bundle}/{SHM}")


def resolv_conf(dns: DNSConfig) -> str:
    """resolv.conf(5)."""
    lines = [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"nameserver {server}" for server in dns.servers]
    lines += [f"options {' '.join(dns.options)}"] if dns.options else []
    return "".join(f"{line}\n" for line in lines)


def share(config: dict[str, Any], files: dict[str, str]) -> None:
    """Mount the pod's files in a container that does not say otherwise. Changes `config`."""
    mounts = config.get("mounts") or []
    read_only = bool((config.get("root") or {}).get("readonly"))
    for destination, source in files.items():
        if any(_binds(mount, destination) for mount in mounts):
            continue
        access = "ro" if read_only and destination.startswith("/etc/") else "rw"
        options = ["rbind", "rprivate", access]
        mounts = [mount for mount in mounts if mount.get("destination") != destination]
        mounts.append({"destination": destination, "type": "bind", "source": source, "options": options})
    config["mounts"] = mounts


def _binds(mount: dict[str, Any], destination: str) -> bool:
    """Whether this is a mount that somebody asked for; containerd's own default for /dev/shm is a tmpfs."""
    return mount.get("destination") == destination and mount.get("type") != "tmpfs"


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
