"""What the shim changes in a container's config.json before the runtime sees it.

CRI gives the containers of a pod the pod's pid namespace unless it is told otherwise (crictl and critest do not, a
kubelet does: `shareProcessNamespace` is off by default). Containers here are machines of their own: processes of one
can neither see nor signal those of another. Refusing would refuse every pod of crictl, so such a container gets a
pid namespace of its own, and containerd's log says so. Its first process would not be PID 1 in the pod's namespace,
so it has no immunity to signals: SIGTERM stops it.

What members of a pod take over with the pod's namespaces they get here: the host name and the sysctls of the IPC
namespace. They are those of the sandbox, when the shim has one; else of the pause container's config.json, which lies
beside theirs.
"""

from __future__ import annotations

import os

from runtime import fastjson
from shim import log
from shim.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.settings import Settings
    from shim.sandbox.pod import Pod

SANDBOX_ID = "io.kubernetes.cri.sandbox-id"
CONTAINER_TYPE = "io.kubernetes.cri.container-type"


def read_config(bundle: str, settings: Settings | None = None, pod: Pod | None = None) -> dict[str, Any]:
    """A bundle's config.json, as the runtime is to see it."""
    try:
        with open(f"{bundle}/config.json", "rb") as file:
            config = fastjson.loads(file.read())
    except OSError as error:
        raise InvalidArgumentError(f"{bundle}/config.json: {error.strerror}") from error
    except ValueError as error:
        raise InvalidArgumentError(f"{bundle}/config.json: {error}") from error
    if not isinstance(config, dict):
        raise InvalidArgumentError(f"{bundle}/config.json: not an object")
    if settings:
        settings.apply(config)
    annotations, linux = config.get("annotations"), config.setdefault("linux", {})
    if isinstance(annotations, dict) and annotations.get(CONTAINER_TYPE) == "container" and isinstance(linux, dict):
        unshare_pids(annotations, linux)
        if pod is not None:
            from shim.sandbox.pod import share

            inherit(config, linux, pod.hostname, pod.sysctls)
            share(config, pod.files)
        elif pause := _pause_of(bundle, annotations):
            sysctls = (pause.get("linux") or {}).get("sysctl") or {}
            # No name: the pod has the host's UTS namespace.
            inherit(config, linux, pause.get("hostname") or os.uname().nodename, sysctls)
    return config


def _pause_of(bundle: str, annotations: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a member's pause container; empty when there is none."""
    try:
        with open(f"{os.path.dirname(bundle)}/{annotations[SANDBOX_ID]}/config.json", "rb") as file:
            pause = fastjson.loads(file.read())
    except (OSError, KeyError, ValueError):
        return {}
    return pause if isinstance(pause, dict) else {}


def inherit(config: dict[str, Any], linux: dict[str, Any], hostname: str, sysctls: dict[str, str]) -> None:
    """What comes with the namespaces of the pod that a member joins. Changes `config`."""
    if not config.get("hostname"):
        config["hostname"] = hostname
    own = {name: value for name, value in sysctls.items() if not name.startswith("net.")}  # the host keeps those
    if own:
        linux["sysctl"] = own | (linux.get("sysctl") or {})


def unshare_pids(annotations: dict[str, Any], linux: dict[str, Any]) -> None:
    """Give a member of a pod its own pid namespace instead of the pod's. Changes both."""
    for namespace in linux.get("namespaces") or ():
        if isinstance(namespace, dict) and namespace.get("type") == "pid" and namespace.pop("path", None):
            annotations.setdefault("dev.litebox.init", "ordinary")
            log.warning("containers of a pod cannot share a pid namespace: this one has its own")
