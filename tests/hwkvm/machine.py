"""A machine with hardware-faithful KVM where there is none: Debian's cloud kernel with kvm-amd on an emulated SVM CPU.

QEMU's software emulation (TCG) offers an AMD CPU with SVM and nested paging; the kernel's own kvm-amd runs on it. That is
slow, ten to thirty times, but it is the architecture manual's behaviour, which a paging-based KVM is not.

The machine boots an initramfs made here: busybox, the modules, the files asked for, and an init that runs commands one
after another. Their output comes back through a serial port of its own, framed by lines that no program prints:

    \x01begin NAME
    ...
    \x01end NAME STATUS
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import bundles
import debian

MODULES = ("irqbypass", "ccp", "kvm", "kvm-amd")  # in the order of their dependencies; those that exist
TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "dpkg-deb": "dpkg"}
FRAME = re.compile(rb"\x01begin (\S+)\n(.*?)(?:\x01end \1 (\d+)\n|\Z)", re.DOTALL)

INIT = """\
#!/bin/busybox sh
export PATH=/bin:/sbin HOME=/root
if [ ! -e /switched ]; then  # the initial file system cannot be pivoted away from: move to another one
  /bin/busybox mkdir /new; /bin/busybox mount -t tmpfs -o mode=755 tmpfs /new
  cd /; for name in *; do [ "$name" = new ] || /bin/busybox cp -a "$name" /new/; done
  /bin/busybox touch /new/switched
  exec /bin/busybox switch_root /new /init
fi
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /tmp /root; mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts; mount -t tmpfs shm /dev/shm; mount -t devpts pts /dev/pts; mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup 2>/dev/null
ip link set lo up; ulimit -n 4096; umask 022
for module in {modules}; do insmod /modules/$module.ko; done
[ -e /dev/kvm ] || echo "no /dev/kvm: $(dmesg | grep -i -m 3 -E 'svm|kvm')"
stty -F /dev/ttyS1 raw -echo
exec 7> /dev/ttyS1
/bin/sh /commands
poweroff -f
"""


@dataclasses.dataclass(frozen=True)
class Ended:
    """What became of the machine: the commands that ended, and its console for the rest."""

    commands: dict[str, bundles.Completed]
    console: str


def missing() -> str | None:
    """Why such a machine cannot run here, if it cannot."""
    absent = [f"{tool} (apt-get install {package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]
    return f"missing: {', '.join(absent)}" if absent else None


def kernel() -> Path:
    """The unpacked kernel package; fetched once."""
    unpacked = debian.cache() / "hwkvm-kernel"
    if not list(unpacked.glob("boot/vmlinuz-*")):
        partial = unpacked.with_name(f"{unpacked.name}.{os.getpid()}")
        partial.mkdir(parents=True)
        try:
            depends = subprocess.run(
                ["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True, check=True
            ).stdout
            found = re.search(r"Depends: (linux-image-\S+)", depends)
            if found is None:
                raise FileNotFoundError("apt knows no linux-image-cloud-amd64: apt-get update")
            for name in (found[1], f"{found[1]}-unsigned"):
                if not subprocess.run(
                    ["apt-get", "download", name], cwd=partial, capture_output=True, check=False
                ).returncode:
                    break
            package = next(partial.glob("*.deb"), None)
            if package is None:
                raise FileNotFoundError(f"apt-get download {found[1]} failed")
            subprocess.run(["dpkg-deb", "-x", package, partial], check=True)
            package.unlink()
            shutil.rmtree(unpacked, ignore_errors=True)
            partial.rename(unpacked)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return unpacked


class Archive:
    """An initramfs in cpio's newc format."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._names: set[str] = set()
        self._inode = 0

    def add(self, name: str, data: bytes = b"", mode: int = stat.S_IFREG | 0o644, device: int = 0) -> None:
        name = name.lstrip("/")
        parent = str(Path(name).parent)
        if parent != "." and parent not in self._names:
            self.add(parent, mode=stat.S_IFDIR | 0o755)
        if name in self._names:
            return
        self._names.add(name)
        self._write(name, data, mode, device)

    def _write(self, name: str, data: bytes, mode: int, device: int) -> None:
        self._inode += 1
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (
            self._inode,
            mode,
            0,
            0,
            links,
            0,
            len(data),
            0,
            0,
            os.major(device),
            os.minor(device),
            len(name) + 1,
            0,
        )
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        self._blocks += [header, b"\0" * (-len(header) % 4), data, b"\0" * (-len(data) % 4)]

    def add_tree(self, source: Path, target: str) -> None:
        """A file, link or folder of the host; a dynamically linked program brings its libraries."""
        info = source.lstat()
        if stat.S_ISDIR(info.st_mode):
            self.add(target, mode=info.st_mode)
            for entry in sorted(source.iterdir()):
                self.add_tree(entry, f"{target}/{entry.name}")
        elif stat.S_ISLNK(info.st_mode):
            self.add(target, str(source.readlink()).encode(), mode=info.st_mode)
        elif stat.S_ISREG(info.st_mode):
            self.add(target, source.read_bytes(), mode=info.st_mode)
        else:
            self.add(target, mode=info.st_mode, device=info.st_rdev)

    def add_program(self, source: Path, target: str) -> None:
        self.add_tree(source, target)
        for library in bundles.libraries(source):
            self.add(str(library), library.read_bytes(), mode=stat.S_IFREG | 0o755)

    def write(self, path: Path) -> None:
        self._write("TRAILER!!!", b"", 0, 0)
        path.write_bytes(gzip.compress(b"".join(self._blocks), compresslevel=1))


def _archive(files: Mapping[str, Path], commands: Mapping[str, str]) -> Archive:
    archive = Archive()
    archive.add("dev/console", mode=stat.S_IFCHR | 0o600, device=os.makedev(5, 1))
    archive.add_tree(bundles.busybox(), "bin/busybox")
    found = []
    for name in MODULES:
        module = next(kernel().glob(f"lib/modules/*/kernel/**/{name}.ko"), None)
        if module is not None:
            archive.add(f"modules/{name}.ko", module.read_bytes())
            found.append(name)
    archive.add("init", INIT.format(modules=" ".join(found)).encode(), mode=stat.S_IFREG | 0o755)
    script = ""
    for name, command in commands.items():
        script += f"printf '\\001begin %s\\n' {shlex.quote(name)} >&7\n"
        script += f"( {command} ) >&7 2>> /errors < /dev/null\n"
        script += f"printf '\\001end %s %d\\n' {shlex.quote(name)} $? >&7\n"
    script += "cat /errors\n"
    archive.add("commands", script.encode())
    for target, source in files.items():
        if source.is_file():
            archive.add_program(source, target)
        else:
            archive.add_tree(source, target)
    return archive


def run(
    commands: Mapping[str, str], files: Mapping[str, Path], work: Path, *, memory: int = 1536, timeout: float = 600
) -> Ended:
    """Boots a machine that runs the shell commands, by name, with the host's files at the paths given."""
    _archive(files, commands).write(work / "initrd")
    vmlinuz = max((kernel() / "boot").glob("vmlinuz-*"))
    arguments = ["-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max,+svm", "-smp", "1", "-m", str(memory)]
    arguments += ["-nodefaults", "-display", "none", "-no-reboot"]
    arguments += ["-serial", f"file:{work / 'console'}", "-serial", f"file:{work / 'output'}"]
    arguments += ["-kernel", str(vmlinuz), "-initrd", str(work / "initrd")]
    arguments += ["-append", "console=ttyS0 reboot=t panic=-1 quiet"]
    try:
        subprocess.run(
            ["qemu-system-x86_64", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=True,
        )
    except subprocess.TimeoutExpired:
        ending = f"\ntime ran out after {timeout:.0f} s"
    except subprocess.CalledProcessError as error:
        ending = f"\nqemu: {error.stderr.decode(errors='replace')}"
    else:
        ending = ""
    output = (work / "output").read_bytes() if (work / "output").exists() else b""
    console = (work / "console").read_text(errors="replace") if (work / "console").exists() else ""
    (work / "initrd").unlink()
    completed = {
        match[1].decode(): bundles.Completed(match[2], b"", int(match[3]) if match[3] else 124)
        for match in FRAME.finditer(output)
    }
    return Ended(completed, console + ending)
