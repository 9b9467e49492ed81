"""Adds LiteBox to a node's containerd, and takes it away again: what the installer DaemonSet runs.

    node.py install --host DIR [--source DIR]
    node.py remove  --host DIR                      not while containers of it run: containerd could not end them
    node.py hold    --host DIR [--source DIR]      install, wait for SIGTERM, leave everything as it is

`--host` is the node's root file system. The programs go to /opt/litebox, and containerd's configuration gets a block
between two marked lines, at its end: that works in every version, whereas a file of `imports` replaces the whole CRI
section in containerd 1.x. Both steps can be repeated; `remove` restores the configuration byte for byte. containerd is
restarted when, and only when, its configuration has changed; running containers are not touched by that.

In a pod that knows its node's name (NODE_NAME), the node is labelled for as long as it can run LiteBox's pods: the
scheduler sends them nowhere else.

Standard library only, so that it runs with whatever Python the node's image has.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

CONFIG = Path("etc/containerd/config.toml")
PROGRAMS = Path("opt/litebox")
SHIM = "containerd-shim-litebox-v1"
BEGIN = "# litebox: begin (written by its installer; remove with it)\n"
END = "# litebox: end\n"
CREATED = "# this file was made by litebox's installer\n"
RUNC = """\
[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""
LABEL = "dev.litebox/installed"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}


class NodeError(Exception):
    """What stands in the way, and what to do about it."""


def block(version: int, shim: str, *, with_runc: bool) -> str:
    """The configuration that makes `litebox` a runtime handler.

    containerd 1.x forgets its built-in handler `runc` as soon as a configuration names another: then it is named too.
    """
    if version not in CRI:
        known = " or ".join(map(str, CRI))
        raise NodeError(
            f"containerd's configuration has version {version}, not {known}: run `containerd config migrate`"
        )
    return (
        f"{BEGIN}[plugins.'{CRI[version]}'.containerd.runtimes.litebox]\n"
        '  runtime_type = "io.containerd.litebox.v1"\n'
        f'  runtime_path = "{shim}"\n'
        '  pod_annotations = ["dev.litebox.*"]\n'
        f"{RUNC if with_runc else ''}{END}"
    )


def without_block(text: str) -> str:
    """The configuration as it was before `install`."""
    start = text.find(BEGIN)
    if start < 0:
        return text
    end = text.find(END, start)
    if end < 0:
        raise NodeError(f"the line {END.strip()!r} is missing: someone edited litebox's part of the configuration")
    return text[:start] + text[end + len(END) :]


def with_block(text: str, shim: str, version: int) -> str:
    """The configuration with LiteBox in it, once. `version` is for a configuration that names none."""
    text = without_block(text)
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NodeError(f"containerd's configuration is not TOML: {error}") from error
    version = int(settings.get("version", version))
    runtimes = settings.get("plugins", {}).get(CRI.get(version, ""), {}).get("containerd", {}).get("runtimes", {})
    if "litebox" in runtimes:
        raise NodeError(
            "containerd's configuration already has a runtime named litebox that the installer did not write"
        )
    added = block(version, shim, with_runc=version == 2 and "runc" not in runtimes)
    if text and not text.endswith("\n"):
        added = added.replace(BEGIN, "\n" + BEGIN, 1)
    new = text + added
    tomllib.loads(new)
    return new


def label(value: str | None) -> None:
    """Set the node's label, or take it away. Outside of a pod that knows its node, nothing."""
    name = os.environ.get("NODE_NAME")
    if not name:
        return
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    request = urllib.request.Request(
        f"https://{f'[{host}]' if ':' in host else host}:{port}/api/v1/nodes/{name}",
        data=json.dumps({"metadata": {"labels": {LABEL: value}}}).encode(),
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}",
            "Content-Type": "application/merge-patch+json",
        },
        method="PATCH",
    )
    context = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")
    try:
        urllib.request.urlopen(request, timeout=30, context=context).close()  # noqa: S310 - it says https
    except OSError as error:
        raise NodeError(f"the node was not labelled: {error}") from error


class Node:
    """A node, by its root file system."""

    def __init__(self, host: Path) -> None:
        self.host = host
        self.config = host / CONFIG

    def install(self, source: Path) -> None:
        self._copy_programs(source)
        shim = f"/{PROGRAMS / 'bin' / SHIM}"
        if self.config.exists():
            changed = self._configure(with_block(self.config.read_text(), shim, version=1))
        else:
            version = 3 if self._containerd_major() >= 2 else 2
            self.config.parent.mkdir(parents=True, exist_ok=True)
            changed = self._configure(with_block(f"{CREATED}version = {version}\n", shim, version))
        if changed:
            self._restart_containerd()
        label("true")

    def remove(self) -> None:
        label(None)
        if self._in_use():
            raise NodeError(
                "containers still run in LiteBox: it stays installed until they are gone and it is removed again"
            )
        changed = self.config.exists() and self._unconfigure()
        shutil.rmtree(self.host / PROGRAMS, ignore_errors=True)
        # Last: containerd takes the hook that this runs in for ended when it restarts.
        if changed:
            self._restart_containerd()

    def _unconfigure(self) -> bool:
        text = without_block(self.config.read_text())
        if text.startswith(CREATED):
            self.config.unlink()
            return True
        return self._configure(text)

    def _configure(self, text: str) -> bool:
        """Whether that was a change."""
        if self.config.exists() and self.config.read_text() == text:
            return False
        temporary = self.config.with_name(".config.toml.litebox")
        temporary.write_text(text)
        if self.config.exists():
            shutil.copymode(self.config, temporary)
        temporary.replace(self.config)
        return True

    def _copy_programs(self, source: Path) -> None:
        """Each file is replaced by renaming: a shim that starts meanwhile finds the old one or the new one."""
        for path in sorted(source.rglob("*")):
            target = self.host / PROGRAMS / path.relative_to(source)
            if path.is_dir() and not path.is_symlink():
                target.mkdir(parents=True, exist_ok=True)
            else:
                temporary = target.with_name(f".{target.name}.new")
                temporary.unlink(missing_ok=True)
                shutil.copy2(path, temporary, follow_symlinks=False)
                temporary.replace(target)

    def _containerd_major(self) -> int:
        """1 or 2, from `containerd --version` (containerd NAME v2.1.4 REVISION)."""
        said = self._on_host("containerd", "--version").stdout.split()
        version = next((word for word in said if word.lstrip("v")[:1].isdigit()), "")
        if not version:
            raise NodeError("containerd was not found on the node: install it first")
        return int(version.lstrip("v").partition(".")[0])

    def _restart_containerd(self) -> None:
        if self.host == Path("/host") or self.host == Path("/"):
            done = self._on_host("systemctl", "restart", "containerd")
            if done.returncode:
                raise NodeError(f"containerd was not restarted: {done.stderr.strip()}")

    def _in_use(self) -> bool:
        """Whether a shim of ours still runs on the node (needs hostPID)."""
        wanted = f"/{PROGRAMS / 'lib' / 'litebox' / SHIM}".encode()  # the Python that the program becomes
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and wanted in (entry / "cmdline").read_bytes():
                    return True
            except OSError:
                continue
        return False

    def _on_host(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the node, in its mount namespace where that is another."""
        prefix = ["nsenter", "--target=1", "--mount", "--"] if self.host == Path("/host") else []
        try:
            return subprocess.run([*prefix, *command], capture_output=True, text=True, timeout=60, check=False)
        except FileNotFoundError:
            return subprocess.CompletedProcess(command, 127, "", f"{command[0]}: not found")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["install", "remove", "hold"])
    parser.add_argument("--host", type=Path, default=Path("/host"))
    parser.add_argument("--source", type=Path, default=Path("/opt/litebox"))
    options = parser.parse_args()
    node = Node(options.host)
    try:
        if options.action == "remove":
            node.remove()
        else:
            node.install(options.source)
        if options.action == "hold":
            print("litebox is installed", flush=True)
            signal.sigwait({signal.SIGTERM, signal.SIGINT})
    except NodeError as error:
        print(f"litebox: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
