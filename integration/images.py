"""Images without a registry: an OCI archive made from busybox, for `ctr image import` and its like."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
FOLDERS = ("bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var", "var/run", "www")
PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
)
GROUP = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str:
    """Why no image can be made here; empty when one can."""
    if not BUSYBOX.exists():
        return "no /bin/busybox (apt-get install busybox-static)"
    if subprocess.run([BUSYBOX, "true"], check=False).returncode:
        return "/bin/busybox does not run"
    return ""


def busybox_layer() -> bytes:
    """A layer with busybox, a link for each of its applets, and the folders and files a container expects."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as layer:
        for folder in FOLDERS:
            add(layer, folder, mode=0o1777 if folder == "tmp" else 0o755, type=tarfile.DIRTYPE)
        add(layer, "bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
        applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in applets:
            if applet != "busybox":
                add(layer, f"bin/{applet}", type=tarfile.SYMTYPE, linkname="busybox")
        add(layer, "etc/passwd", PASSWD.encode())
        add(layer, "etc/group", GROUP.encode())
    return out.getvalue()


def layer_of(name: str, data: bytes, mode: int = 0o644) -> bytes:
    """A layer with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as layer:
        add(layer, name, data, mode)
    return out.getvalue()


def layer_of_folder(folder: Path) -> bytes:
    """A layer with what a folder holds."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as layer:
        layer.add(folder, ".")
    return out.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", mode: int = 0o644, **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.mode, member.size = mode, len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(data))


def write_archive(path: Path, name: str, layers: Iterable[bytes], config: dict[str, Any] | None = None) -> None:
    """Write an OCI image archive that imports as `name` (docker.io/library/busybox:test)."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media_type: str, **extra: object) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{digest}",
            "size": len(data),
        } | extra

    packed = [blob(layer, "layer.v1.tar") for layer in layers]
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in packed]}
    settings = {"Cmd": ["/bin/sh"], "Env": [PATH]} | (config or {})
    image = {"architecture": "amd64", "os": "linux", "config": settings, "rootfs": rootfs}
    described = blob(json.dumps(image).encode(), "config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described,
        "layers": packed,
    }
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[-1]}
    platform = {"architecture": "amd64", "os": "linux"}
    index = {
        "schemaVersion": 2,
        "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json", annotations=names, platform=platform)],
    }
    with tarfile.open(path, "w") as archive:
        add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add(archive, "index.json", json.dumps(index).encode())
        for digest, data in blobs.items():
            add(archive, f"blobs/sha256/{digest}", data)
