"""`create`, step by step. What each step leaves behind is in state.json before the step is taken (see `undo`).

    claim id ▸ state "creating" ▸ boot VMM ▸ state + pid ▸ cgroup (while it boots) ▸ guest ready ▸ hooks, sysctls
    ▸ pid file ▸ state "created"

A container that is to be started at once is told so while it boots, unless something has to come before its program.

(A VMM that the launcher started ahead has prepared its VM by now: it is put into its cgroups, then handed the plan.)

A creator that dies before the guest was ready takes the VMM with it (nobody reads `ready`); one that dies later leaves
state "creating" with nobody holding the lock: the next command on that id undoes it.
"""

from __future__ import annotations

import os
import time

from runtime import fastjson, launcher, vmm
from runtime.descriptors import check_files, write_pid_file
from runtime.environment import with_home
from runtime.errors import HookFailed, HostError, InvalidSpec, LiteboxError
from runtime.host import facts, namespaces, processes, rootless
from runtime.host.cgroups import manager
from runtime.log import rfc3339
from runtime.plan.make import make
from runtime.store import CONTROL_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runtime.host.cgroups.resources import Setting
    from runtime.plan.model import Plan
    from runtime.store import Entry, Store

    Json = dict[str, Any]

CONFIG_FILE = "config.json"
MAX_CONFIG = 16 << 20
_SPEC_VERSION = "1.3.0"


class Request:
    """What is to be created."""

    __slots__ = (
        "bundle",
        "config",
        "controlling_terminal",
        "debug",
        "files",
        "id",
        "log_fd",
        "new_session",
        "pid_file",
        "rootless",
        "start",
        "stdio",
        "systemd_cgroup",
        "trace",
        "window",
    )

    def __init__(self, id: str, bundle: str, stdio: tuple[int | None, int | None, int | None]) -> None:
        self.id = id
        self.bundle = os.path.abspath(bundle)
        self.stdio = stdio
        self.config: Json | None = None
        self.pid_file: str | None = None
        self.files: tuple[int, ...] = ()
        self.log_fd: int | None = None
        self.new_session = True
        #: Start the program, if nothing of the runtime's has to happen before.
        self.start = False
        self.controlling_terminal: int | None = None
        self.window: tuple[int, int] | None = None
        self.trace = False
        self.systemd_cgroup = False
        self.rootless: bool | None = None
        self.debug = False


def read_config(bundle: str) -> Json:
    """config.json of a bundle: parsed, not yet validated."""
    path = os.path.join(bundle, CONFIG_FILE)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidSpec(f"{path}: {error.strerror}; a bundle is a folder with {CONFIG_FILE}") from error
    with open(fd, "rb") as file:
        try:
            data = file.read(MAX_CONFIG + 1)
        except OSError as error:
            raise InvalidSpec(f"{path}: {error.strerror}") from error
    if len(data) > MAX_CONFIG:
        raise InvalidSpec(f"{path}: found more than {MAX_CONFIG >> 20} MiB; allowed: at most {MAX_CONFIG >> 20} MiB")
    try:
        config = fastjson.loads(data)
    except ValueError as error:
        raise InvalidSpec(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise InvalidSpec(f"{path}: found {type(config).__name__}; allowed: an object")
    return config


def validate(config: Json) -> None:
    """Against runtime-spec. InvalidSpec with the JSON path, what was found and what is allowed."""
    from oci_spec.validate import check_config

    problems = check_config(config)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InvalidSpec(f"config.json: {problems[0]}{more}")


def create(store: Store, request: Request, log: Callable[[str], None]) -> tuple[Json, vmm.Asked | None]:
    """Do it all; returns the state, and the start when it has been asked for. After an error nothing is left."""
    config = read_config(request.bundle) if request.config is None else request.config
    validate(config)
    check_files(request.files)
    plan = make(config, request.id, request.bundle, facts.gather(), files=len(request.files))
    if request.debug:
        plan.debug = True
    if request.trace:
        plan.container["trace"] = True
    if request.window and request.window != (0, 0):
        plan.container["process"]["rows"], plan.container["process"]["columns"] = request.window
    if not plan.container["process"]:
        raise InvalidSpec("config.json: process: found nothing; allowed: an object that says what to run")
    _complete_environment(plan, request)
    for warning in plan.warnings:
        log(warning)

    lacking = rootless.lacks_rights()
    unit = None
    if request.systemd_cgroup or ":" in plan.cgroups_path:
        unit = _systemd_unit(plan, request, lacking)
    groups = manager.locate(plan.cgroups_path, request.id, unit=unit)
    settings = manager.settings_for(groups, plan.resources)
    state: Json = {
        "version": 1,
        "id": request.id,
        "phase": "creating",
        "pid": 0,
        "start_time": 0,
        "bundle": request.bundle,
        "rootfs": plan.rootfs,
        "created": rfc3339(time.time()),
        "owner": _owner(),
        "annotations": config.get("annotations") or {},
        "process": plan.process,
        "exec": plan.exec,
        "hooks": plan.hooks,
        "systemd_unit": unit,
        "cgroups": groups.directories,
        "cgroups_made": manager.missing(groups),
        "resources": plan.resources,
        "guest_memory": plan.memory,
        "rootless": lacking,
    }
    entry = store.claim(request.id, lambda old_entry, old_state: undo(old_entry, old_state, log))
    with entry:
        try:
            entry.write(state)
            if rootless.needed(request.rootless):
                rootless.enter(plan.uid_gid_mappings)
                plan.uid_gid_mappings = None
            asked = _bring_up(entry, request, plan, state, groups, settings, log)
            state["phase"] = "created"
            entry.write(state)
            if request.pid_file:
                write_pid_file(request.pid_file, state["pid"])
        except BaseException:
            state["phase"] = "creating"
            undo(entry, state, log)
            entry.remove()
            raise
    return state, asked


def _bring_up(
    entry: Entry,
    request: Request,
    plan: Plan,
    state: Json,
    groups: manager.Cgroups,
    settings: list[Setting],
    log: Callable[[str], None],
) -> vmm.Asked | None:
    def place(pid: int, ahead: bool) -> list[int]:
        lacking = state["rootless"]
        if state["systemd_unit"]:
            from runtime.host.cgroups import systemd

            systemd.start(state["systemd_unit"], pid, settings)
        manager.make(groups, settings, may_lack=lacking, log=log)
        tasks = manager.open_tasks(groups) if ahead and not lacking else None
        if tasks is None:
            manager.move(groups, pid, may_lack=lacking)
        return tasks or []

    control = vmm.listen(entry.fd, CONTROL_SOCKET)
    try:
        boot = launcher.boot(
            plan,
            request.stdio,
            control=control,
            log=log,
            log_fd=request.log_fd,
            files=request.files,
            new_session=request.new_session,
            controlling_terminal=request.controlling_terminal,
            prepare=_host_side(plan, log),
            ahead=vmm.take_ahead(),
            place=place,
        )
    finally:
        control.close()
    asked = None
    try:
        state["pid"], state["start_time"] = boot.pid, processes.start_time(boot.pid)
        if plan.hooks or not state["cgroups_made"] or state["systemd_unit"] or state["rootless"]:
            # Else the final write will do: should we die between `ready` and it, `undo` finds the VMM in its cgroup.
            entry.write(state)
        # The guest boots: what is needed only from here on is imported meanwhile.
        import runtime.container  # noqa: F401 - by our caller
        from runtime.host import programs

        programs.check(plan)
        if not boot.placed:
            place(boot.pid, ahead=False)
        if request.start and not (plan.hooks or plan.host_sysctl or request.pid_file):
            try:
                asked = vmm.Asked(vmm.Control(entry.fd, CONTROL_SOCKET, None), "start")
            except LiteboxError:
                boot.wait_ready()  # It has failed already, and says why.
                raise
        boot.wait_ready()
        if plan.hooks or plan.host_sysctl:
            _hooks_and_sysctls(plan, state)
    except BaseException:
        if asked:
            asked.close()
        raise
    finally:
        boot.close()
    if not asked and not processes.alive(state["pid"], state["start_time"]):
        raise HostError("litebox-vmm ended right after the guest was ready")
    return asked


def _hooks_and_sysctls(plan: Plan, state: Json) -> None:
    from runtime.host import hooks

    document = {
        "ociVersion": _SPEC_VERSION,
        "id": state["id"],
        "status": "creating",
        "pid": state["pid"],
        "bundle": state["bundle"],
        "annotations": state["annotations"],
    }
    hooks.run(plan.hooks.get("prestart") or [], "prestart", document)
    hooks.run(plan.hooks.get("createRuntime") or [], "createRuntime", document)
    if plan.host_sysctl:
        namespaces.write_sysctl(state["pid"], plan.host_sysctl)
    if plan.hooks.get("createContainer"):
        asked = {namespace.type for namespace in plan.namespaces}
        kinds: list[str] = [kind for kind in ("network", "ipc", "uts") if kind in asked]
        if plan.uid_gid_mappings or plan.user_namespace_path:
            kinds.append("user")

        def work() -> None:
            hooks.run(plan.hooks["createContainer"], "createContainer", document, cwd=plan.rootfs)

        try:
            namespaces.run_in_container(state["pid"], kinds, plan.rootfs, work)
        except OSError as error:
            raise HookFailed(error.strerror or str(error)) from error


def _systemd_unit(plan: Plan, request: Request, lacking: bool) -> Json | None:
    from runtime.host.cgroups import systemd

    if not systemd.wanted(plan.cgroups_path, asked=request.systemd_cgroup):
        return None
    return systemd.unit_of(plan.cgroups_path, request.id, user=lacking)


def _complete_environment(plan: Plan, request: Request) -> None:
    """HOME; LISTEN_FDS for the descriptors handed through."""
    environment = with_home(plan.process, plan.rootfs)
    plan.exec["env"] = environment
    if request.files and "LISTEN_FDS" in os.environ:
        environment = [*environment, f"LISTEN_FDS={os.environ['LISTEN_FDS']}", "LISTEN_PID=1"]
    plan.container["process"]["env"] = environment


def _host_side(plan: Plan, log: Callable[[str], None]) -> Callable[[int], None] | None:
    """What the VMM process is given while it has one thread, which the others inherit it from."""
    wanted = plan.process
    keys = ("oomScoreAdj", "scheduler", "ioPriority", "execCPUAffinity")
    if all(wanted.get(key) is None for key in keys):
        return None

    def apply(pid: int) -> None:
        from runtime.host import scheduling

        scheduling.apply(wanted, pid, log)

    return apply


def _owner() -> str:
    if os.geteuid() == 0:
        return "root"
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def undo(entry: Entry, state: Json, log: Callable[[str], None]) -> None:
    """Free what a create that did not finish holds, as far as its state says. The caller removes the directory."""
    processes.kill(state["pid"], state["start_time"])
    if state["pid"]:
        try:
            os.waitpid(state["pid"], 0)
        except ChildProcessError:
            pass  # not ours: a create of another process, which crashed
    try:
        manager.leave(state)
    except LiteboxError as error:
        log(f"{entry.path}: {error}")
    if state["hooks"].get("poststop") and state["pid"]:
        from runtime.host.hooks import run_all

        document = {"ociVersion": _SPEC_VERSION, "id": state["id"], "status": "stopped", "bundle": state["bundle"]}
        run_all(state["hooks"]["poststop"], "poststop", document, log)
