"""critest, the conformance suite of CRI: LiteBox passes what runc passes on the same containerd with the same images.

The images that critest names cannot be pulled without a registry: stand-ins made of busybox are imported under those
names, with busybox's httpd where critest expects a web server.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from integration import images, installed
from integration.kubernetes.conftest import Cri

E2E = "registry.k8s.io/e2e-test-images"
TOOLS = "gcr.io/k8s-staging-cri-tools"
SUITE_SECONDS = 1500
#: What needs a registry to pull from, or measures the engine and not the runtime.
LEFT_OUT = r"\[Image Manager\]|public image|\[Benchmark\]|image should|images should"

OPTION = "[k8s.io] Security Context NamespaceOption runtime should support"
PROPAGATION = "[k8s.io] Container Mount Propagation runtime should support mount propagation mount with"
INSIDE = "mounts made inside are the machine's own"

#: What runc passes and LiteBox does not, with the reason (docs/cri.md).
DEVIATIONS = {
    f"{OPTION} PodPID": "the containers of a pod are machines of their own and share no processes",
    f"{PROPAGATION} 'rshared' should support propagation from host to container and vice versa": INSIDE,
}

NO_NEW_PRIVILEGES = r"""
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("Effective uid: %d\n", geteuid()); return 0; }
"""


def web_server(port: int) -> dict[str, list[str]]:
    """An image's command: a web server that looks like nginx or httpd as far as critest looks."""
    script = f"trap exit TERM; echo httpd; echo $$ > /run/nginx.pid; httpd -f -p {port} -h /www & wait"
    return {"Cmd": ["/bin/sh", "-c", script, "nginx: master process"]}


@pytest.fixture(scope="module")
def critest(cri: Cri, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, its images imported."""
    programs = list(installed.engines("critest").values())
    if not programs:
        pytest.skip("critest is not installed (make engines)")
    import_images(cri, tmp_path_factory.mktemp("critest"))
    return programs[0]


def import_images(cri: Cri, folder: Path) -> None:
    base = images.busybox_layer()
    page = images.layer_of("www/index.html", b"<title>Welcome to nginx!</title>\n")
    user = b"default-user:x:1000:1000::/home:/bin/sh\n"
    passwd = images.layer_of("etc/passwd", images.PASSWD.encode() + user)
    groups = b"default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"
    group = images.layer_of("etc/group", images.GROUP.encode() + groups)
    made: dict[str, tuple[list[bytes], dict[str, object]]] = {
        f"{E2E}/busybox:1.29-2": ([base], {}),
        f"{E2E}/nginx:1.14-2": ([base, page], {**web_server(80)}),
        f"{E2E}/httpd:2.4.39-4": ([base, page], {**web_server(80)}),
        f"{TOOLS}/hostnet-nginx-amd64:latest": ([base, page], {**web_server(12003)}),
        f"{TOOLS}/test-image-user-uid:latest": ([base], {"User": "1002"}),
        f"{TOOLS}/test-image-user-username:latest": ([base], {"User": "www-data"}),
        f"{TOOLS}/test-image-user-uid-group:latest": ([base], {"User": "1003:1003"}),
        f"{TOOLS}/test-image-user-username-group:latest": ([base], {"User": "www-data:www-data"}),
        f"{TOOLS}/test-image-predefined-group:latest": ([base, passwd, group], {"User": "1000"}),
    }
    (folder / "nnp.c").write_text(NO_NEW_PRIVILEGES)
    subprocess.run(["gcc", "-static", "-o", folder / "nnp", folder / "nnp.c"], check=True)
    program = images.layer_of("nnp", (folder / "nnp").read_bytes(), mode=0o4755)
    made[f"{E2E}/nonewprivs:1.3"] = ([base, program], {"Cmd": ["/nnp"]})
    for number, (name, (layers, config)) in enumerate(made.items()):
        archive = folder / f"{number}.tar"
        images.write_archive(archive, name, layers, config)
        cri.containerd.ctr("--namespace", "k8s.io", "image", "import", archive)


def verdicts(cri: Cri, critest: Path, handler: str) -> dict[str, str]:
    """Each test that critest ran with this handler: passed, failed, …"""
    report = cri.folder / f"critest-{handler}.json"
    endpoint = f"unix://{cri.containerd.socket}"
    # Its own, so that an /etc/crictl.yaml is not read.
    (cri.folder / "critest.yaml").write_text(f"runtime-endpoint: {endpoint}\n")
    arguments: list[str | Path] = [
        critest, "--runtime-endpoint", endpoint, "--image-endpoint", endpoint, "--runtime-handler", handler,
        "--config", cri.folder / "critest.yaml", f"--ginkgo.json-report={report}", f"--ginkgo.skip={LEFT_OUT}",
        "--ginkgo.no-color", f"--ginkgo.timeout={SUITE_SECONDS}s",
    ]  # fmt: skip
    with (cri.folder / f"critest-{handler}.log").open("wb") as log:
        subprocess.run(
            cri.containerd.inside(*arguments), stdout=log, stderr=log, check=False, timeout=SUITE_SECONDS + 60
        )
    (suite,) = json.loads(report.read_text())
    return {
        " ".join([*(test["ContainerHierarchyTexts"] or []), test["LeafNodeText"]]): test["State"]
        for test in suite["SpecReports"]
        if test["LeafNodeType"] == "It" and test["State"] not in ("skipped", "pending")
    }


@pytest.fixture(scope="module")
def expected(cri: Cri, critest: Path) -> set[str]:
    """What runc passes."""
    passed = {name for name, state in verdicts(cri, critest, "runc").items() if state == "passed"}
    assert len(passed) > 50
    return passed


@pytest.mark.slow
@pytest.mark.timeout(2 * SUITE_SECONDS + 120)
@pytest.mark.parametrize("handler", ["litebox", "litebox-sandbox"])
def test_what_runc_passes(cri: Cri, critest: Path, expected: set[str], handler: str) -> None:
    ours = verdicts(cri, critest, handler)
    assert {name for name in expected if ours.get(name) != "passed"} == set(DEVIATIONS)
