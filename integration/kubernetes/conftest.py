"""A containerd with CRI, as a kubelet uses it: the handler is the one of the file that a user copies."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration import images, installed
from integration.containerd.daemon import CONFIG, IMAGE, Containerd, is_version

HANDLER = Path(__file__).parent.parent / "containerd" / "litebox-v3.toml"
PAUSE = "docker.io/library/pause:test"
CNI_PLUGINS = Path("/usr/lib/cni")
CRI = """\
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{conf}"
"""
CONTAINER_PIDS = {"security_context": {"namespace_options": {"pid": 1}}}  # as a kubelet says it


class Cri:
    """crictl on a containerd with CRI."""

    def __init__(self, containerd: Containerd, crictl: Path, folder: Path) -> None:
        self.containerd = containerd
        self.folder = folder
        (folder / "crictl.yaml").touch()
        endpoint = f"unix://{containerd.socket}"
        self.prefix = containerd.inside(crictl, "--config", folder / "crictl.yaml", "--runtime-endpoint", endpoint)
        self.serial = 0

    def __call__(self, *arguments: str, check: bool = True) -> str:
        command = [*self.prefix, "--timeout", "30s", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
        assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout.strip()

    def write(self, value: dict[str, Any]) -> str:
        self.serial += 1
        path = self.folder / f"{self.serial}.json"
        path.write_text(json.dumps(value))
        return str(path)

    def pod(self, handler: str = "litebox", **more: Any) -> tuple[str, str]:
        """Run a pod; return its id and the file that describes it."""
        name = f"pod{self.serial}"
        metadata = {"name": name, "uid": name, "namespace": "test", "attempt": 1}
        config = {
            "metadata": metadata,
            "log_directory": str(self.folder / "logs"),
            "hostname": name,
            "linux": {},
        } | more
        path = self.write(config)
        return self("runp", "--runtime", handler, path), path

    def container(self, pod: tuple[str, str], *command: str, **more: Any) -> str:
        """Start a container in a pod; return its id."""
        name = f"c{self.serial}"
        config = {
            "metadata": {"name": name},
            "image": {"image": IMAGE},
            "command": list(command),
            "log_path": f"{name}.log",
            "linux": CONTAINER_PIDS,
        } | more
        made = self("create", "--no-pull", pod[0], self.write(config), pod[1])
        self("start", made)
        return made

    def status(self, container: str) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self("inspect", container))["status"]
        return status

    def await_exit(self, container: str) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while (status := self.status(container))["state"] != "CONTAINER_EXITED":
            assert time.monotonic() < deadline, status
            time.sleep(0.1)
        return status


def cni_network(kind: str, folder: Path, subnets: Sequence[str]) -> dict[str, Any]:
    """A network of CNI: `ptp`, or `bridge`; an address of each subnet for each pod, and ports mapped to them."""
    routes = [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in subnets]
    ranges = [[{"subnet": subnet}] for subnet in subnets]
    ipam = {"type": "host-local", "ranges": ranges, "dataDir": str(folder / "ipam"), "routes": routes}
    link: dict[str, Any] = {"type": kind, "ipam": ipam}
    if kind == "bridge":
        link |= {"bridge": "cni0", "isGateway": True}
    plugins = [link, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return {"cniVersion": "0.4.0", "name": "test", "plugins": plugins}


@contextmanager
def containerd_with_cri(
    litebox: Path,
    image: Path,
    folder: Path,
    *subnets: str,
    network: str = "ptp",
    config: str = CONFIG,
    handlers: bool = True,
    processes: bool = False,
) -> Iterator[Containerd]:
    """A containerd whose pods have an address in each subnet, the images imported. Skips where there is none."""
    programs = [program for program in installed.engines("containerd").values() if is_version(program, "2")]
    if not programs or not CNI_PLUGINS.is_dir() or not shutil.which("ip"):
        pytest.skip("containerd 2 (make engines), CNI plugins and iproute2 are not all installed")
    (folder / "cni").mkdir(parents=True)
    (folder / "cni" / "10.conflist").write_text(json.dumps(cni_network(network, folder, subnets)))
    own = CRI.format(pause=PAUSE, plugins=CNI_PLUGINS, conf=folder / "cni")
    base = config.replace("version = 2", f'version = 3\nimports = ["{HANDLER}"]' if handlers else "version = 3")
    base = "\n".join(line for line in base.splitlines() if not line.startswith("disabled_plugins"))
    archive = folder / "pause.tar"
    images.write_archive(archive, PAUSE, [images.busybox_layer()], {"Cmd": ["/bin/sleep", "100000"]})
    with Containerd(
        programs[0], litebox, folder, network=True, processes=processes, config=f"{base}\n{own}"
    ) as containerd:
        subprocess.run(containerd.inside("ip", "link", "set", "lo", "up"), check=True)
        for path in (archive, image):
            containerd.ctr("--namespace", "k8s.io", "image", "import", path)
        yield containerd


@contextmanager
def connected(containerd: Containerd, folder: Path) -> Iterator[Cri]:
    """crictl on this containerd, with no pods left at the end."""
    tools = list(installed.engines("crictl").values())
    if not tools:
        pytest.skip("crictl is not installed (make engines)")
    client = Cri(containerd, tools[0], folder)
    yield client
    client("rmp", "--all", "--force", check=False)


@pytest.fixture(scope="session")
def cri(litebox: Path, image: Path, scratch: Path) -> Iterator[Cri]:
    folder = scratch / "cri"
    with (
        containerd_with_cri(litebox, image, folder, "10.77.0.0/24") as containerd,
        connected(containerd, folder) as cri,
    ):
        yield cri
