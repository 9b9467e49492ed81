"""`litebox doctor`: looks at the machine and says what works, what does not, and the command that mends it.

Two halves: `look` reads the machine into plain values, `judge` turns values into findings and touches nothing, so that
every verdict can be tested without the machine that deserves it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

SHIM = "containerd-shim-litebox-v1"
FINE, ODD, BROKEN = "ok", "note", "FAIL"

KVM_GET_API_VERSION = 0xAE00
KVM_API_VERSION = 12
#: mount_setattr(2) came last of what the runtime calls without an alternative.
OLDEST_KERNEL = (5, 12)
#: Handlers of containerd's CRI were first able to name a shim by its path.
OLDEST_CONTAINERD = (1, 6)
#: dockerd's `runtimeType`.
OLDEST_DOCKER = (23, 0)
CONTROLLERS = ("cpu", "memory", "pids")
#: Settings that keep ordinary users from making user namespaces, and the value that lets them.
BARRIERS = (("kernel.unprivileged_userns_clone", "1"), ("kernel.apparmor_restrict_unprivileged_userns", "0"))


class Finding:
    """One verdict, and what mends it."""

    __slots__ = ("about", "level", "mend", "text")

    def __init__(self, level: str, about: str, text: str, mend: str = "") -> None:
        self.level = level
        self.about = about
        self.text = text
        self.mend = mend


class Machine:
    """What `look` found. None: not there; an empty string for an error: it worked."""

    __slots__ = (
        "cgroup_version",
        "containerd",
        "containerd_config",
        "containerd_handler",
        "controllers",
        "docker",
        "docker_runtime",
        "examples",
        "kernel",
        "kvm_api",
        "kvm_error",
        "kvm_group",
        "kvm_module",
        "landlock",
        "library_error",
        "podman",
        "root",
        "shim",
        "shim_found",
        "user_namespace_barrier",
        "user_namespaces",
    )

    def __init__(self) -> None:
        self.root = True
        self.kernel = (0, 0)
        self.kvm_error = ""
        self.kvm_group = ""
        self.kvm_api = 0
        self.kvm_module = ""
        self.library_error = ""
        self.cgroup_version = 0
        self.controllers: tuple[str, ...] = ()
        self.user_namespaces = 0
        #: The setting of BARRIERS that keeps this user from making one, with the value that lets them.
        self.user_namespace_barrier = ""
        self.landlock = False
        #: The shim that belongs to this litebox, where it is known.
        self.shim = ""
        self.shim_found = False
        #: Where the package has the files to copy.
        self.examples = ""
        self.containerd: str | None = None
        self.containerd_config = ""
        self.containerd_handler = False
        self.docker: str | None = None
        self.docker_runtime = False
        self.podman: str | None = None


def judge(machine: Machine) -> list[Finding]:
    """All findings, those about running anything at all first."""
    return [*_judge_kvm(machine), *_judge_kernel(machine), *_judge_cgroups(machine), *_judge_engines(machine)]


def _judge_kvm(machine: Machine) -> list[Finding]:
    if machine.kvm_error in ("ENOENT", "ENODEV", "ENXIO"):
        mend = "sudo modprobe kvm_intel || sudo modprobe kvm_amd; enable virtualization in firmware or hypervisor"
        text = "/dev/kvm is not there" if machine.kvm_error == "ENOENT" else "/dev/kvm has no driver"
        return [Finding(BROKEN, "kvm", text, mend)]
    if machine.kvm_error in ("EACCES", "EPERM"):
        text = "/dev/kvm may not be opened by this user"
        mend = "sudo usermod -aG kvm $USER, then log in again"
        if machine.kvm_group != "kvm":
            mend = f"sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm && {mend}"
        return [Finding(BROKEN, "kvm", text, mend)]
    if machine.kvm_error:
        return [Finding(BROKEN, "kvm", f"/dev/kvm: {machine.kvm_error}", "see dmesg for what KVM says")]
    if machine.kvm_api != KVM_API_VERSION:
        found = f"KVM's interface has version {machine.kvm_api}, not {KVM_API_VERSION}"
        return [Finding(BROKEN, "kvm", found, "update the kernel")]
    kinds = {"kvm_intel": "Intel VT-x", "kvm_amd": "AMD-V", "kvm_pvm": "paging-based, without the CPU's help"}
    findings = [Finding(FINE, "kvm", f"/dev/kvm works ({kinds.get(machine.kvm_module, 'kind unknown')})")]
    if machine.library_error:
        findings.append(Finding(BROKEN, "litebox", machine.library_error, "make install"))
    return findings


def _judge_kernel(machine: Machine) -> list[Finding]:
    version = ".".join(map(str, machine.kernel))
    if machine.kernel < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        return [Finding(BROKEN, "kernel", f"Linux {version} is older than {oldest}", "update the kernel")]
    findings = [Finding(FINE, "kernel", f"Linux {version}")]
    if not machine.user_namespaces:
        mend = "sudo sysctl -w user.max_user_namespaces=15000"
        findings.append(Finding(BROKEN, "jail", "user namespaces are switched off; the VMM jails itself in one", mend))
    elif machine.user_namespace_barrier:
        mend = f"sudo sysctl -w {machine.user_namespace_barrier}"
        findings.append(Finding(BROKEN, "jail", "user namespaces are for root only here", mend))
    if not machine.landlock:
        text = "no Landlock: the VMM's jail does without this layer (namespaces and seccomp remain)"
        findings.append(Finding(ODD, "jail", text, "boot with lsm=landlock,…"))
    return findings


def _judge_cgroups(machine: Machine) -> list[Finding]:
    if not machine.cgroup_version:
        mend = "sudo mount -t cgroup2 none /sys/fs/cgroup"
        return [Finding(BROKEN, "cgroups", "no cgroups are mounted: containers have no limits", mend)]
    lacking = [name for name in CONTROLLERS if name not in machine.controllers]
    if lacking:
        text = f"version {machine.cgroup_version}, without {', '.join(lacking)}: such limits will be refused"
        if machine.root:
            mend = f"echo '{' '.join('+' + name for name in lacking)}' | sudo tee /sys/fs/cgroup/cgroup.subtree_control"
        else:
            mend = "sudo systemctl set-property user@$UID.service Delegate='cpu memory pids'"
        return [Finding(ODD, "cgroups", text, mend)]
    return [Finding(FINE, "cgroups", f"version {machine.cgroup_version} with {', '.join(CONTROLLERS)}")]


def _judge_engines(machine: Machine) -> list[Finding]:
    findings = []
    if machine.containerd is not None:
        if _is_older(machine.containerd, OLDEST_CONTAINERD):
            findings.append(Finding(BROKEN, "containerd", f"{machine.containerd} is too old", "install 1.6 or newer"))
        elif not machine.shim_found:
            findings.append(_shim_is_missing(machine, "containerd"))
        else:
            findings.append(
                Finding(FINE, "containerd", f"{machine.containerd}: ctr run --runtime io.containerd.litebox.v1")
            )
            if not machine.containerd_handler:
                text = "no handler `litebox`: Kubernetes and crictl cannot choose it yet"
                findings.append(Finding(ODD, "kubernetes", text, _handler_command(machine)))
    if machine.docker is not None:
        if _is_older(machine.docker, OLDEST_DOCKER):
            text = f"{machine.docker} is older than 23: it can use the command line only"
            findings.append(Finding(ODD, "docker", text, "dockerd --add-runtime litebox=/usr/local/bin/litebox"))
        elif not machine.shim_found:
            findings.append(_shim_is_missing(machine, "docker"))
        elif machine.docker_runtime:
            findings.append(Finding(FINE, "docker", f"{machine.docker}: docker run --runtime litebox"))
        else:
            sample = _example(machine, "docker/daemon.json")
            mend = f"merge {sample} into /etc/docker/daemon.json, sudo systemctl restart docker"
            findings.append(Finding(ODD, "docker", f"{machine.docker}, without the runtime `litebox`", mend))
    if machine.podman is not None:
        findings.append(Finding(FINE, "podman", f"{machine.podman}: podman --runtime litebox run"))
    return findings


def _shim_is_missing(machine: Machine, engine: str) -> Finding:
    text = "containerd-shim-litebox-v1 is not on the PATH that system services have"
    mend = f"sudo ln -s {machine.shim} /usr/local/bin/" if machine.shim else "sudo make install"
    return Finding(BROKEN, engine, text, mend)


def _handler_command(machine: Machine) -> str:
    restart = "sudo systemctl restart containerd"
    if _is_older(machine.containerd or "", (2, 0)):
        return (
            f"sudo tee -a /etc/containerd/config.toml < {_example(machine, 'containerd/litebox-v2.toml')} && {restart}"
        )
    steps = [f"sudo install -D -m 644 -t /etc/containerd/conf.d {_example(machine, 'containerd/litebox-v3.toml')}"]
    # containerd looks there only when it is told to.
    imports = 'imports = ["/etc/containerd/conf.d/*.toml"]'
    if not machine.containerd_config:
        steps.append(f"printf 'version = 3\\n{imports}\\n' | sudo tee /etc/containerd/config.toml")
    elif "/etc/containerd/conf.d/" not in machine.containerd_config:
        steps.append(f"sudo sed -i '1i {imports}' /etc/containerd/config.toml")
    return " && ".join([*steps, restart])


def _example(machine: Machine, path: str) -> str:
    """A file to copy: as the package has it, or in the source tree."""
    return f"{machine.examples}/{os.path.basename(path)}" if machine.examples else f"integration/{path}"


def _is_older(text: str, than: tuple[int, int]) -> bool:
    """Whether a program is known to be older; one built by hand may have no version."""
    return (0, 0) < _version(text) < than


def _version(text: str) -> tuple[int, int]:
    """The first two numbers of a version."""
    parts = text.lstrip("v").split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return 0, 0


def look() -> Machine:
    """This machine, now."""
    machine = Machine()
    machine.root = os.geteuid() == 0
    machine.kernel = _version(os.uname().release)
    _look_at_kvm(machine)
    _look_at_cgroups(machine)
    machine.user_namespaces = int(_read("/proc/sys/user/max_user_namespaces") or 0)
    if not machine.root:
        for name, value in BARRIERS:
            if _read("/proc/sys/" + name.replace(".", "/")).strip() not in ("", value):
                machine.user_namespace_barrier = f"{name}={value}"
    machine.landlock = "landlock" in _read("/sys/kernel/security/lsm") or not _syscall_is_missing(444)
    from runtime.errors import LiteboxError
    from runtime.vmm import library_directory

    try:
        beside = os.path.dirname(os.path.dirname(library_directory()))
    except LiteboxError as error:
        machine.library_error = str(error)
    else:
        if os.access(shim := f"{beside}/bin/{SHIM}", os.X_OK):
            machine.shim = shim
        if os.path.isdir(examples := f"{beside}/share/doc/litebox/examples"):
            machine.examples = examples
    machine.shim_found = any(os.access(f"{place}/{SHIM}", os.X_OK) for place in _SERVICE_PATH)
    machine.containerd = program_version("containerd")
    machine.docker = program_version("dockerd")
    machine.podman = program_version("podman")
    machine.containerd_config = _read("/etc/containerd/config.toml")
    machine.containerd_handler = "runtimes.litebox]" in (_output("containerd", "config", "dump") or "")
    machine.docker_runtime = '"litebox"' in _read("/etc/docker/daemon.json")
    return machine


#: systemd's default for services.
_SERVICE_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def _look_at_kvm(machine: Machine) -> None:
    from errno import errorcode
    from fcntl import ioctl

    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        machine.kvm_error = errorcode.get(error.errno or 0, str(error))
        machine.kvm_group = _group_of("/dev/kvm")
        return
    try:
        machine.kvm_api = ioctl(fd, KVM_GET_API_VERSION)
    except OSError as error:
        machine.kvm_error = str(error)
    finally:
        os.close(fd)
    for module in ("kvm_intel", "kvm_amd", "kvm_pvm"):
        if os.path.exists(f"/sys/module/{module}"):
            machine.kvm_module = module


def _look_at_cgroups(machine: Machine) -> None:
    unified = _read("/sys/fs/cgroup/cgroup.controllers")
    if unified:
        machine.cgroup_version = 2
        machine.controllers = tuple(unified.split())
        return
    rows = [line.split() for line in _read("/proc/self/cgroup").replace(":", " ").splitlines()]
    found = {name for row in rows if len(row) == 3 for name in row[1].split(",")}
    if found:
        machine.cgroup_version = 1
        machine.controllers = tuple(sorted(found))


def program_version(name: str) -> str | None:
    """The version a program says it has; None when it is not installed."""
    said = _output(name, "--version")
    if said is None:
        return None
    words = said.replace(",", " ").split()
    return next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), "of an unknown version")


def _output(*command: str) -> str | None:
    """What a program prints; None when it is not installed."""
    import subprocess

    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None


def _group_of(path: str) -> str:
    import grp

    try:
        return grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        return ""


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _syscall_is_missing(number: int) -> bool:
    """Whether the kernel lacks a system call: landlock_create_ruleset answers its version's query, or ENOSYS."""
    from runtime.host.linux import syscall

    try:
        syscall(number, None, 0, 1)
    except OSError as error:
        return error.errno in (38, 95)
    return False


def report(findings: list[Finding], write: Callable[[str], object]) -> int:
    """Say it all; the exit code is 1 when something is broken."""
    for finding in findings:
        write(f"{finding.level:5} {finding.about:11} {finding.text}")
        if finding.mend:
            write(f"{'':17} → {finding.mend}")
    return int(any(finding.level == BROKEN for finding in findings))
