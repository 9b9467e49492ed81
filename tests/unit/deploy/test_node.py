"""The node installer: containerd's configuration gets LiteBox and loses it again, byte for byte."""

from __future__ import annotations

import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


node = load(ROOT / "deploy" / "node.py")
SHIM = "/opt/litebox/bin/containerd-shim-litebox-v1"
V2 = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "pause:1"\n'
V3 = "version = 3\n"


def runtimes(text: str) -> dict[str, dict[str, object]]:
    plugins = tomllib.loads(text)["plugins"]
    (cri,) = [plugins[name] for name in node.CRI.values() if name in plugins]
    found: dict[str, dict[str, object]] = cri["containerd"]["runtimes"]
    return found


@pytest.mark.parametrize("text", [V2, V3, V3.rstrip("\n"), V2 + "\n\n# the end"])
def test_in_and_out_again(text: str) -> None:
    changed = node.with_block(text, SHIM, 1)
    assert runtimes(changed)["litebox"]["runtime_path"] == SHIM
    assert ("runc" in runtimes(changed)) == ("version = 2" in text)
    assert node.with_block(changed, SHIM, 1) == changed
    assert node.without_block(changed) in (text, text + "\n")
    assert tomllib.loads(node.without_block(changed)) == tomllib.loads(text)


@pytest.mark.parametrize(
    "text, why",
    [
        ("version = 1\n", "migrate"),
        ("= 3", "not TOML"),
        (V3 + "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.litebox]\n", "already"),
        (V3 + node.BEGIN, "missing"),
    ],
)
def test_what_it_will_not_touch(text: str, why: str) -> None:
    with pytest.raises(node.NodeError, match=why):
        node.with_block(text, SHIM, 1)


@pytest.mark.parametrize("config", [V2, V3, None])
def test_a_node(tmp_path: Path, config: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    source, host = tmp_path / "source", tmp_path / "host"
    (source / "bin").mkdir(parents=True)
    (source / "bin" / "containerd-shim-litebox-v1").write_text("#!/bin/sh\n")
    path = host / "etc/containerd/config.toml"
    path.parent.mkdir(parents=True)
    if config:
        path.write_text(config)
        path.chmod(0o600)
    one = node.Node(host)
    monkeypatch.setattr(one, "_containerd_major", lambda: 2)
    for _ in range(2):
        one.install(source)
    assert (host / "opt/litebox/bin/containerd-shim-litebox-v1").exists()
    assert "litebox" in runtimes(path.read_text())
    if config:
        assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(one, "_in_use", lambda: True)
    with pytest.raises(node.NodeError, match="still run"):
        one.remove()
    assert "litebox" in runtimes(path.read_text())
    monkeypatch.setattr(one, "_in_use", lambda: False)
    for _ in range(2):
        one.remove()
    assert (path.read_text() if path.exists() else None) == config
    assert not (host / "opt/litebox").exists()


def test_the_files_to_copy_are_well_formed() -> None:
    for version in (2, 3):
        text = (ROOT / f"integration/containerd/litebox-v{version}.toml").read_text()
        assert runtimes(text)["litebox"]["runtime_type"] == "io.containerd.litebox.v1"
    docker = json.loads((ROOT / "integration/docker/daemon.json").read_text())
    assert docker["runtimes"]["litebox"] == {"runtimeType": "io.containerd.litebox.v1"}
    kinds = [
        document["kind"]
        for name in (
            "deploy/kubernetes/runtimeclass.yaml",
            "deploy/kubernetes/installer.yaml",
            "integration/kubernetes/pod.yaml",
        )
        for document in yaml.safe_load_all((ROOT / name).read_text())
    ]
    assert kinds == [
        "RuntimeClass",
        "Namespace",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "DaemonSet",
        "Pod",
    ]
