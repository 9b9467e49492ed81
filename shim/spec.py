"""What the shim changes in a container's config.json before the runtime sees it.

CRI gives the containers of a pod the pod's pid namespace unless it is told otherwise (crictl and critest do not, a
kubelet does: `shareProcessNamespace` is off by default). Containers here are machines of their own: processes of one
can neither see nor signal those of another. Refusing would refuse every pod of crictl, so such a container gets a
pid namespace of its own, and containerd's log says so.
"""

from __future__ import annotations

import os

from runtime import fastjson
from shim import log
from shim.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SANDBOX_ID = "io.kubernetes.cri.sandbox-id"
CONTAINER_TYPE = "io.kubernetes.cri.container-type"


def read_config(bundle: str) -> dict[str, Any]:
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
    unshare_pids(config)
    inherit_hostname(config, bundle)
    return config


def inherit_hostname(config: dict[str, Any], bundle: str) -> None:
    """A member of a pod joins the pod's UTS namespace and names no host itself: its machine takes the pod's name.

    The pod's own bundle lies beside this one. Changes `config`.
    """
    annotations = config.get("annotations")
    if config.get("hostname") or not isinstance(annotations, dict) or annotations.get(CONTAINER_TYPE) != "container":
        return
    try:
        with open(f"{os.path.dirname(bundle)}/{annotations[SANDBOX_ID]}/config.json", "rb") as file:
            pod = fastjson.loads(file.read())
    except (OSError, KeyError, ValueError):
        return
    if isinstance(pod, dict):
        config["hostname"] = pod.get("hostname") or os.uname().nodename  # none: the pod has the host's UTS namespace


def unshare_pids(config: dict[str, Any]) -> None:
    """Give a member of a pod its own pid namespace instead of the pod's. Changes `config`."""
    annotations, linux = config.get("annotations"), config.get("linux")
    if (
        not isinstance(annotations, dict)
        or annotations.get(CONTAINER_TYPE) != "container"
        or not isinstance(linux, dict)
    ):
        return
    for namespace in linux.get("namespaces") or ():
        if isinstance(namespace, dict) and namespace.get("type") == "pid" and namespace.pop("path", None):
            log.warning("containers of a pod cannot share a pid namespace: this one has its own")
