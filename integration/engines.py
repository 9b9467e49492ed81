"""Builds the engines that the tests drive, where a distribution has none that is current: `make engines`.

    python -m integration.engines [containerd] [containerd-1.7] [crictl] [nerdctl] [docker] [kubernetes]

All of these when none is named; containerd-2.0 to containerd-2.3 are there for the asking.

They come through the Go module proxy, statically linked, into ENGINES (~/.cache/litebox/engines), where the tests find
them; what is there already is not built again. Each is built in a throw-away module that requires it: `go install`
refuses modules whose go.mod has replacements. The first time, that takes from two to ten minutes each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from integration.installed import ENGINES

KUBERNETES = "1.34.2"
KUBERNETES_PROGRAMS = (
    "kubelet",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubectl",
)


class Program(NamedTuple):
    """A main package, or the package of a test binary."""

    name: str
    package: str
    version: str
    is_test: bool = False
    source: str = ""  # the text of main.go, for what is a library


ETCD_MAIN = """\
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
"""

# With the plugins that a cluster's DNS needs, and no others.
COREDNS_MAIN = """\
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func init() { dnsserver.Directives = []string{"errors", "ready", "cache", "kubernetes"} }

func main() { coremain.Run() }
"""

CONTAINERD, MOBY, CRI_TOOLS = "github.com/containerd/containerd/v2", "github.com/moby/moby/v2", "sigs.k8s.io/cri-tools"
#: Older lines of containerd 2, for whoever changes how the shim is started.
LINES = {"2.0": "v2.0.7", "2.1": "v2.1.5", "2.2": "v2.2.1", "2.3": "v2.3.4"}
TABLE: dict[str, tuple[Program, ...]] = {
    "containerd": (
        Program("containerd", f"{CONTAINERD}/cmd/containerd", "v2.4.2"),
        Program("ctr", f"{CONTAINERD}/cmd/ctr", "v2.4.2"),
        Program("containerd-shim-runc-v2", f"{CONTAINERD}/cmd/containerd-shim-runc-v2", "v2.4.2"),
    ),
    # The one that can call a shim over gRPC.
    "containerd-1.7": (
        Program("1.7/containerd", "github.com/containerd/containerd/cmd/containerd", "v1.7.28"),
        Program("1.7/ctr", "github.com/containerd/containerd/cmd/ctr", "v1.7.28"),
    ),
    "crictl": (
        Program("crictl", f"{CRI_TOOLS}/cmd/crictl", "v1.34.0"),
        Program("critest", f"{CRI_TOOLS}/cmd/critest", "v1.34.0", is_test=True),
    ),
    "nerdctl": (Program("nerdctl", "github.com/containerd/nerdctl/v2/cmd/nerdctl", "v2.0.5"),),
    "docker": (
        Program("dockerd", f"{MOBY}/cmd/dockerd", "v2.0.0-beta.24"),
        Program("docker-proxy", f"{MOBY}/cmd/docker-proxy", "v2.0.0-beta.24"),
    ),
    "kubernetes": (
        *(Program(name, f"k8s.io/kubernetes/cmd/{name}", f"v{KUBERNETES}") for name in KUBERNETES_PROGRAMS),
        Program("etcd", "go.etcd.io/etcd/server/v3", "v3.6.5", source=ETCD_MAIN),
        Program("coredns", "github.com/coredns/coredns", "v1.12.4", source=COREDNS_MAIN),
    ),
}
USUAL = tuple(TABLE)
for line, version in LINES.items():
    TABLE[f"containerd-{line}"] = tuple(
        Program(f"{line}/{name}", f"{CONTAINERD}/cmd/{name}", version) for name in ("containerd", "ctr")
    )


def go(*arguments: str, module: Path) -> str:
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=mod"}
    done = subprocess.run(["go", *arguments], cwd=module, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"go {' '.join(arguments)}:\n{done.stderr[-2000:]}")
    return done.stdout


def name_staging_modules(module: Path) -> None:
    """Kubernetes replaces its own libraries by folders of its repository; here they are their published versions."""
    where = json.loads(go("mod", "download", "-json", f"k8s.io/kubernetes@v{KUBERNETES}", module=module))["GoMod"]
    edit = json.loads(go("mod", "edit", "-json", where, module=module))
    staged = [
        replaced["Old"]["Path"] for replaced in edit["Replace"] if replaced["New"]["Path"].startswith("./staging")
    ]
    go("mod", "edit", *(f"-replace={path}={path}@v0{KUBERNETES[1:]}" for path in staged), module=module)


def build(program: Program) -> None:
    target = ENGINES / program.name
    if target.exists():
        return
    print(f"building {program.name} {program.version}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder)
        go("mod", "init", "engine", module=module)
        if program.package.startswith("k8s.io/kubernetes/"):
            name_staging_modules(module)
        go("get", *(["-t"] if program.is_test else []), f"{program.package}@{program.version}", module=module)
        if program.source:
            (module / "main.go").write_text(program.source)
        verb = ["test", "-c"] if program.is_test else ["build"]
        passing = target.with_name(f".{target.name}")
        target.parent.mkdir(exist_ok=True)
        go(*verb, "-o", str(passing), "." if program.source else program.package, module=module)
        passing.replace(target)


def main() -> int:
    unknown = [name for name in sys.argv[1:] if name not in TABLE]
    if unknown:
        print(f"no engine {unknown[0]!r}; there are {', '.join(TABLE)}", file=sys.stderr)
        return 2
    ENGINES.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or USUAL:
        for program in TABLE[name]:
            build(program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
