"""The rows of pods, through CRI as a kubelet has them made: crictl, with runc and with LiteBox, on one containerd."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import engine
from integration import images, installed
from integration.containerd.daemon import CONFIG, IMAGE
from integration.kubernetes.conftest import Cri, connected, containerd_with_cri

SLEEP = ("/bin/sleep", "1000")


def missing() -> str:
    """Why there is nothing to measure with; empty when there is."""
    if why := engine.missing():
        return why
    return "" if installed.engines("crictl") else "crictl is not installed (make engines)"


@contextlib.contextmanager
def client(folder: Path) -> Iterator[Cri]:
    """A containerd that logs as it does for users."""
    litebox = installed.programs()
    assert litebox
    archive = folder / "busybox.tar"
    images.write_archive(archive, IMAGE, [images.busybox_layer()])
    config = CONFIG.partition("[debug]")[0]
    with (
        containerd_with_cri(litebox, archive, folder / "cri", "10.72.0.0/24", config=config) as daemon,
        connected(daemon, folder / "cri") as connection,
    ):
        yield connection


class Pods:
    """Measures one handler. Every method is a row and returns its value once."""

    def __init__(self, cri: Cri, handler: str) -> None:
        self._cri = cri
        self._handler = handler

    def rows(self) -> dict[str, Callable[[], float]]:
        return {"pod-running": self.running, "pod-second": self.second, "pod-remove": self.remove}

    def _pod(self) -> tuple[str, str]:
        pod = self._cri.pod(self._handler)
        self._cri.container(pod, *SLEEP)
        return pod

    def _remove(self, pod: tuple[str, str]) -> None:
        self._cri("rmp", "--force", pod[0])

    def running(self) -> float:
        """A pod, its network and its container."""
        began = time.perf_counter()
        pod = self._pod()
        took = (time.perf_counter() - began) * 1000
        self._remove(pod)
        return took

    def second(self) -> float:
        """One more container in it."""
        pod = self._pod()
        began = time.perf_counter()
        self._cri.container(pod, *SLEEP)
        took = (time.perf_counter() - began) * 1000
        self._remove(pod)
        return took

    def remove(self) -> float:
        pod = self._pod()
        began = time.perf_counter()
        self._remove(pod)
        return (time.perf_counter() - began) * 1000
