"""The rows of the benchmark table and their goals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Goal:
    """At most `factor` times what `of` costs ("native", "runc", "runsc"), or `factor` itself ("absolute").

    For a rate (`Row.rate`) read: at least.
    """

    of: str
    factor: float
    otherwise: Goal | None = None  # when `of` was not measured here

    def limit(self, measured: Mapping[str, float]) -> float | None:
        if self.of == "absolute":
            return self.factor
        if self.of in measured:
            return measured[self.of] * self.factor
        return self.otherwise.limit(measured) if self.otherwise else None

    def __str__(self) -> str:
        if self.of == "absolute":
            return f"{self.factor:g}"
        return self.of if self.factor == 1 else f"{self.factor:g} {self.of}"


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    unit: str
    goal: Goal
    rate: bool = False

    def missed(self, value: float, measured: Mapping[str, float]) -> bool:
        limit = self.goal.limit(measured)
        if limit is None:
            return False
        return value < limit if self.rate else value > limit


NATIVE, RUNC, RUNSC = Goal("native", 1), Goal("runc", 1), Goal("runsc", 1)


def _ns(name: str, title: str, goal: Goal = NATIVE) -> Row:
    return Row(name, title, "ns", goal)


# Rows of ops.c, by its names.
OPERATIONS = (
    _ns("getppid", "getppid", Goal("absolute", 60)),
    _ns("clock_gettime", "clock_gettime (vDSO)"),
    _ns("read-zero", "read 1 byte of /dev/zero"),
    _ns("pread", "pread 4 KiB, cached file"),
    _ns("pwrite", "pwrite 4 KiB", Goal("native", 1.5)),
    _ns("open-close", "open + close"),
    _ns("stat", "stat"),
    _ns("stat-absent", "stat of an absent name"),
    _ns("create-unlink", "create + unlink"),
    _ns("pipe", "pipe ping-pong, two processes", Goal("native", 2)),
    # Without runsc here: its ratio to native where both were measured.
    _ns("futex", "futex ping-pong, two threads", Goal("runsc", 1, Goal("native", 0.58))),
    _ns("unix", "unix socket ping-pong"),
    _ns("tcp", "TCP loopback ping-pong"),
    _ns("tcp-connect", "TCP connect + close", Goal("native", 2)),
    _ns("epoll", "epoll add, wait, read"),
    _ns("signal", "signal to oneself, handled"),
    _ns("fork", "fork + wait"),
    _ns("fork-exec", "fork + exec + wait"),
    _ns("vfork-exec", "vfork + exec + wait"),
    _ns("thread", "thread create + join"),
    _ns("touch-anonymous", "anonymous page, first touch"),
    _ns("touch-file", "page of a mapped file, first touch", Goal("native", 2)),
    _ns("touch-copied", "copy-on-write page after fork"),
    _ns("mprotect", "mprotect", Goal("native", 5)),
    Row("pipe-stream", "pipe stream", "MB/s", NATIVE, rate=True),
    Row("tcp-stream", "TCP loopback stream", "MB/s", NATIVE, rate=True),
    _ns("compute", "CPU-bound, 1000 steps", Goal("native", 1.02)),
)

# Rows of the command line (lifecycle.py).
LIFECYCLE = (
    Row("run", "run true", "ms", RUNC),
    Row("boot", "VMM start to first instruction", "ms", Goal("absolute", 5)),
    Row("create", "create", "ms", RUNC),
    Row("start", "start", "ms", RUNC),
    Row("exec", "exec true", "ms", Goal("runsc", 1, Goal("runc", 0.74))),
    Row("state", "state", "ms", Goal("absolute", 20)),
    Row("kill", "kill to gone", "ms", RUNC),
    Row("delete", "delete --force of a running one", "ms", Goal("runsc", 1, Goal("runc", 0.21))),
    Row("many", "20 at once", "ms", RUNC),
    Row("pss", "idle container, sum of PSS", "MiB", Goal("absolute", 12)),
    Row("give-back", "200 MiB freed to back with the host", "ms", Goal("absolute", 5000)),
    Row("idle", "idle container, CPU", "%", Goal("absolute", 0.5)),
)

# Rows through containerd (engine.py).
ENGINE = (
    Row("engine-first-line", "ctr run --rm, first line", "ms", RUNC),
    Row("engine-run", "ctr run --rm true", "ms", RUNC),
    Row("engine-detach", "ctr run -d", "ms", RUNC),
    Row("engine-exec", "ctr task exec true", "ms", RUNC),
    Row("engine-remove", "ctr task rm --force", "ms", RUNC),
    Row("engine-many", "ctr run --rm true, 20 at once", "ms", RUNC),
    Row("engine-stream", "output through ctr", "MB/s", RUNC, rate=True),
    Row("engine-pieces", "output through ctr by 512 bytes", "MB/s", RUNC, rate=True),
    Row("engine-pss", "idle container with its shim, PSS", "MiB", Goal("absolute", 24)),
)

# Rows of pods (pods.py).
PODS = (
    Row("pod-running", "pod with a container, to running", "ms", RUNC),
    Row("pod-second", "one more container in it", "ms", RUNC),
    Row("pod-remove", "crictl rmp --force", "ms", RUNC),
)

# Rows of programs/, by what the scripts print.
PROGRAMS = (
    Row("shell-loop", "shell loop, 1000 x /bin/true", "ms", NATIVE),
    Row("python-pass", "python3 -c pass", "ms", Goal("native", 1.5)),
    Row("python-imports", "python3 with imports", "ms", Goal("native", 1.5)),
    Row("gcc", "gcc -O2, make -j2", "ms", Goal("native", 1.2)),
    Row("git", "git init, add, commit of 2000 files", "ms", NATIVE),
    Row("sqlite", "sqlite, 10,000 inserts, WAL", "ms", NATIVE),
    Row("find", "find /", "ms", NATIVE),
    Row("tar", "tar of /usr (cached)", "ms", NATIVE),
    Row("redis-tcp-1", "redis SET over TCP, -P 1", "per s", RUNC, rate=True),
    Row("redis-tcp-16", "redis SET over TCP, -P 16", "per s", RUNC, rate=True),
    Row("redis-unix-1", "redis SET over a unix socket, -P 1", "per s", NATIVE, rate=True),
    Row("redis-unix-16", "redis SET over a unix socket, -P 16", "per s", NATIVE, rate=True),
    Row("nginx-1k", "nginx 1 KiB, wrk -c16", "per s", Goal("runc", 0.9), rate=True),
    Row("nginx-1m", "nginx 1 MiB, wrk -c16", "per s", Goal("runc", 0.9), rate=True),
    Row("pgbench-select", "pgbench select, -c4", "per s", Goal("runc", 0.9), rate=True),
    Row("pgbench-tpcb", "pgbench tpcb, -c4", "per s", Goal("runc", 0.9), rate=True),
    Row("fio-read", "fio random read 4 KiB, cached", "per s", NATIVE, rate=True),
    Row("fio-write", "fio random write 4 KiB, cached", "per s", NATIVE, rate=True),
    Row("node-http", "node http, wrk -c16", "per s", Goal("runc", 0.9), rate=True),
    Row("java", "java -version", "ms", Goal("native", 1.5)),
    Row("node", "node hello", "ms", Goal("native", 1.5)),
)
