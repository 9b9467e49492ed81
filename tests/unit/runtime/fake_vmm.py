#!/usr/bin/env -S python3 -IS
"""A stand-in for litebox-vmm that speaks docs/control-protocol.md, for tests of the runtime alone.

It runs the container's program natively in a chroot of the root tree. FAKE_VMM in the guest's environment changes what
it does: "no-ready" ends before the guest is ready, "deaf" never answers, "slow" takes a second to be ready.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
import warnings  # noqa: F401 - os.execvpe imports it, which a chroot would hinder
from typing import Any

Json = dict[str, Any]


def main() -> None:
    if sys.argv[1] == "proxy":
        proxy(int(sys.argv[3]))
    with open(int(sys.argv[3]), "rb") as file:
        plan = json.load(file)
    assert plan["version"] == 1
    handles = {entry["handle"]: entry["fd"] for entry in plan["descriptors"]}
    assert len(handles) == len(plan["descriptors"]), "handles are unique"
    for handle, fd in handles.items():
        assert 0 <= handle < 4096
        os.fstat(fd)
    mode = next((e[9:] for e in plan["container"]["process"].get("env", []) if e.startswith("FAKE_VMM=")), "")
    if mode == "no-ready":
        os.write(plan["ready"], b'{"error":"the guest image is damaged","kind":"image"}\n')
        os._exit(125)
    if mode == "slow":
        time.sleep(1)
    for namespace in plan["jail"]["namespaces"]:
        if namespace["type"] == "network" and "fd" not in namespace:
            unshare_network()
    os.write(plan["ready"], b'{"ok":true}\n')
    os.close(plan["ready"])
    Machine(plan, handles, mode).serve()


def unshare_network() -> None:
    import ctypes

    ctypes.CDLL(None).unshare(0x40000000)


def proxy(fd: int) -> None:
    connection = socket.socket(fileno=fd)
    while True:
        message = connection.recv(1 << 17)
        if not message:
            os._exit(255)
        event = json.loads(message)
        if event.get("event") == "exit":
            status = event["status"]
            os._exit(128 + (status & 127) if status & 127 else status >> 8)


class Machine:
    def __init__(self, plan: Json, handles: dict[int, int], mode: str) -> None:
        self.plan, self.handles, self.mode = plan, handles, mode
        self.listener = socket.socket(fileno=plan["control"])
        self.clients: list[socket.socket] = []
        self.pid = 0
        self.paused = False
        self.waiters: list[tuple[socket.socket, int]] = []
        self.listeners: list[socket.socket] = []
        self.execs: dict[int, tuple[socket.socket, int]] = {}
        self.limits = plan["container"]["limits"]
        self.root = handles[plan["container"]["mounts"][0]["handle"]]
        self.sigchld_read, self.sigchld_write = os.pipe()
        os.set_blocking(self.sigchld_write, False)
        signal.set_wakeup_fd(self.sigchld_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def spawn(self, process: Json, stdio: list[int | None]) -> int:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                for target, fd in enumerate(stdio):
                    source = fd if fd is not None else os.open("/dev/null", os.O_RDWR)
                    os.dup2(os.dup(source), target)
                os.fchdir(self.root)
                os.chroot(".")
                os.chdir(process["cwd"])
                for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
                    signal.signal(signum, signal.SIG_DFL)
                os.setgid(process["gid"])
                os.setuid(process["uid"])
                environment = dict(e.split("=", 1) for e in process["env"] if "=" in e)
                os.set_inheritable(write, False)
                os.execvpe(process["args"][0], process["args"], environment)
            except OSError as error:
                os.write(write, f"{error.errno}".encode())
            finally:
                os._exit(127)
        os.close(write)
        answer = os.read(read, 16)
        os.close(read)
        if answer:
            os.waitpid(pid, 0)
            raise OSError(int(answer), os.strerror(int(answer)))
        return pid

    def serve(self) -> None:
        while True:
            sources: list[Any] = [self.listener.fileno(), self.sigchld_read, *self.clients]
            ready, _, _ = select.select(sources, [], [])
            for source in ready:
                if source == self.listener.fileno():
                    self.clients.append(self.listener.accept()[0])
                elif isinstance(source, int):
                    os.read(self.sigchld_read, 64)
                    self.reap()
                else:
                    data, fds, _, _ = socket.recv_fds(source, 1 << 17, 64)
                    if not data:
                        self.clients.remove(source)
                        source.close()
                        continue
                    message = json.loads(data)
                    if message.get("memfd"):
                        with open(fds.pop(0), "rb") as file:
                            message = json.load(file)
                    if self.mode != "deaf":
                        self.answer(source, message, fds)
                    for fd in fds:
                        os.close(fd)

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self.execs:
                client, number = self.execs.pop(pid)
                client.send(json.dumps({"event": "exit", "exec": number, "status": status}).encode())
            elif pid == self.pid:
                for client, number in self.waiters:
                    client.send(json.dumps({"id": number, "ok": True, "status": status}).encode())
                for client in self.listeners:
                    event = {"event": "exit", "status": status, "stats": {"host_requests": {"open": 3}}}
                    client.send(json.dumps(event).encode())
                os._exit(128 + (status & 127) if status & 127 else status >> 8)

    def answer(self, client: socket.socket, message: Json, fds: list[int]) -> None:
        assert message["v"] == 1
        number = message["id"]
        try:
            extra = getattr(self, "op_" + message["op"])(client, message, fds)
        except OSError as error:
            extra = {"error": error.strerror, "errno": error.errno}
        if extra is not None:
            reply = {"id": number, "ok": "error" not in extra, **extra}
            if "error" in extra:
                del reply["ok"]
            client.send(json.dumps(reply).encode())

    def op_start(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        if self.pid:
            return {"error": "already started", "errno": 114}
        process = self.plan["container"]["process"]
        stdio = [self.handles.get(handle) for handle in process["stdio"]]
        try:
            self.pid = self.spawn(process, stdio)
        except OSError as error:
            client.send(json.dumps({"id": message["id"], "error": error.strerror, "errno": error.errno}).encode())
            os._exit(127)
        return {}

    def op_exec(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        process = message["process"]
        stdio = [fds[index] if index >= 0 else None for index in process["stdio"]]
        pid = self.spawn(process, stdio)
        self.execs[pid] = (client, message["id"])
        return {"pid": pid}

    def op_kill(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        target = message.get("pid") or self.pid
        if not target:
            os._exit(128 + message["signal"])
        os.kill(target, message["signal"])
        return {}

    def op_resize(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        return {}

    op_close_stdin = op_trace = op_resize

    def op_ps(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        row = {"ppid": 0, "uid": 0, "state": ord("S"), "threads": 1, "rss_bytes": 4096, "cpu_ns": 0, "start_ns": 0}
        return {"processes": [{"pid": 1, "tty": "", "command": self.plan["container"]["process"]["args"][0], **row}]}

    def op_pause(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        self.paused = True
        return {}

    def op_resume(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        self.paused = False
        return {}

    def op_stats(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        return {"memory": {"used": 1 << 20}, "vcpu_ns": [1000, 2000], "system_calls": {"read": 7}}

    def op_update(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        self.limits = message["limits"]
        return {}

    def op_state(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        return {"status": "paused" if self.paused else "running" if self.pid else "created"}

    def op_wait(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        self.waiters.append((client, message["id"]))
        return None

    def op_events(self, client: socket.socket, message: Json, fds: list[int]) -> Json | None:
        self.listeners.append(client)
        return {}


main()
