"""The installer DaemonSet of deploy/ on a real cluster: it makes a node run LiteBox's pods, and leaves it as it was.

The node is the containerd's own namespaces, PID namespace included, with folders of the test's over /etc/containerd and
/opt. No service manager runs there: a stand-in for systemctl has the test restart containerd.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import images
from integration.containerd.daemon import Containerd
from integration.kubernetes.cluster import Cluster, kubernetes
from integration.kubernetes.conftest import containerd_with_cri
from integration.kubernetes.test_cluster import container, pod, until

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy" / "kubernetes"
INSTALLER = "docker.io/litebox/installer:0.1.0"
PYTHON = Path("/usr/bin/python3")
STANDARD_LIBRARY = Path("/usr/lib/python3.11")
SYSTEMCTL = """\
#!/bin/sh
[ "$*" = "restart containerd" ] || exit 1
touch {asked}
while [ -e {asked} ]; do sleep 0.1; done
"""


class ServiceManager:
    """Restarts containerd when systemctl, run on the node, asks for it."""

    def __init__(self, containerd: Containerd, folder: Path) -> None:
        self.restarts = 0
        self._containerd = containerd
        self._asked = folder / "restart"
        self._end = threading.Event()
        program = folder / "systemctl"
        program.write_text(SYSTEMCTL.format(asked=self._asked))
        program.chmod(0o755)
        subprocess.run(containerd.inside("mount", "--bind", program, "/usr/bin/systemctl"), check=True)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._end.wait(0.1):
            if self._asked.exists():
                self._containerd.stop()
                self._containerd.start()
                self.restarts += 1
                self._asked.unlink()

    def close(self) -> None:
        self._end.set()
        self._thread.join()


def write_image(archive: Path, folder: Path) -> None:
    """The installer's image, as deploy/kubernetes/Dockerfile makes it, with this machine's Python."""
    root = folder / "image"
    make = ["make", "-s", "install", f"DESTDIR={root}", "PREFIX=/opt/litebox", f"RUN_WITH={PYTHON}"]
    subprocess.run(make, cwd=ROOT, check=True, capture_output=True)
    (root / "installer").mkdir()
    shutil.copy(ROOT / "deploy" / "node.py", root / "installer")
    left_out = shutil.ignore_patterns("__pycache__", "test", "dist-packages", "config-*")
    shutil.copytree(STANDARD_LIBRARY, root / str(STANDARD_LIBRARY).lstrip("/"), ignore=left_out)
    programs = [PYTHON, Path("/usr/bin/nsenter")]
    for path in [*programs, *(STANDARD_LIBRARY / "lib-dynload").glob("*.so"), *libraries(programs)]:
        target = root / str(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    images.write_archive(archive, INSTALLER, [images.busybox_layer(), images.layer_of_folder(root)])


def libraries(programs: list[Path]) -> set[Path]:
    """What these and Python's modules are linked with."""
    found = set()
    for program in [*programs, *(STANDARD_LIBRARY / "lib-dynload").glob("*.so")]:
        listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        found |= {Path(word) for word in listing.split() if word.startswith("/")}
    return found


@pytest.fixture(scope="module")
def node(litebox: Path, image: Path, scratch: Path) -> Iterator[Containerd]:
    """A containerd that does not know LiteBox."""
    if not STANDARD_LIBRARY.is_dir():
        pytest.skip(f"no {STANDARD_LIBRARY}: the installer's image is made with Debian's Python")
    kubernetes()
    folder = scratch / "node"
    with containerd_with_cri(litebox, image, folder, "10.75.0.0/24", handlers=False, processes=True) as containerd:
        (folder / "opt").mkdir()
        for source, target in ((folder, "/etc/containerd"), (folder / "opt", "/opt")):
            subprocess.run(containerd.inside("mount", "--bind", source, target), check=True)
        write_image(folder / "installer.tar", folder)
        containerd.ctr("--namespace", "k8s.io", "image", "import", folder / "installer.tar")
        yield containerd


@pytest.fixture(scope="module")
def services(node: Containerd) -> Iterator[ServiceManager]:
    manager = ServiceManager(node, node.folder)
    yield manager
    manager.close()


@pytest.fixture(scope="module")
def cluster(node: Containerd, services: ServiceManager) -> Iterator[Cluster]:
    del services
    made = Cluster(node, kubernetes(), node.folder / "cluster")
    try:
        made.start()
        made("apply", "-f", DEPLOY / "runtimeclass.yaml", "-f", DEPLOY / "installer.yaml")
        yield made
    finally:
        made.stop()


def labels(cluster: Cluster) -> dict[str, str]:
    found: dict[str, str] = cluster.get("node", "node")["metadata"]["labels"]
    return found


def remove(cluster: Cluster) -> None:
    daemon_set = ("-n", "litebox-system", "delete", "daemonset", "litebox-installer")
    cluster(*daemon_set, "--cascade=foreground", seconds=100)
    cluster("delete", "-f", DEPLOY / "installer.yaml", "--ignore-not-found", seconds=100)


@pytest.mark.timeout(400)
def test_in_and_out_again(cluster: Cluster, node: Containerd, services: ServiceManager) -> None:
    before = node.config.read_text()
    cluster.apply(pod("stays", container("stays", "exec sleep 1000")))
    until(lambda: "nodes are available" in cluster("describe", "pod", "stays").stdout, "there is no node for it yet")
    cluster("label", "node", "node", "dev.litebox/install=true")
    cluster("wait", "--for=condition=Ready", "pod/stays", "--timeout=55s")
    assert labels(cluster)["dev.litebox/installed"] == "true"
    assert "/opt/litebox/bin/containerd-shim-litebox-v1" in node.config.read_text()
    assert services.restarts == 1

    # With a pod that runs it leaves the node to the next one.
    remove(cluster)
    assert "dev.litebox/installed" not in labels(cluster)
    assert cluster("exec", "stays", "--", "echo", "here").stdout == "here\n"
    cluster("delete", "pod", "stays")

    cluster("apply", "-f", DEPLOY / "installer.yaml")
    until(lambda: "dev.litebox/installed" in labels(cluster), "the node is not labelled")
    assert services.restarts == 1
    remove(cluster)
    assert "dev.litebox/installed" not in labels(cluster)
    assert node.config.read_text() == before
    assert not (node.folder / "opt" / "litebox").exists()
    until(lambda: services.restarts == 2, "containerd is not restarted")
