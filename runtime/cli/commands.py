"""The commands as data: help, completion and dispatch all read this table. Each is imported when it is called."""

from __future__ import annotations

from runtime.cli.flags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Command:
    """One command: what help says, and where it is."""

    __slots__ = ("arguments", "description", "flags", "interspersed", "maximum", "minimum", "module", "summary")

    def __init__(
        self,
        module: str,
        arguments: str,
        summary: str,
        flags: Sequence[Flag] = (),
        *,
        minimum: int = 0,
        maximum: int | None = None,
        interspersed: bool = True,
        description: str = "",
    ) -> None:
        #: runtime.cli.<module>, which has a function `<command>`.
        self.module = module
        self.arguments = arguments
        self.summary = summary
        self.flags = flags
        self.minimum = minimum
        self.maximum = maximum
        self.interspersed = interspersed
        self.description = description


GLOBAL_FLAGS = (
    Flag("debug", help="log what is done, and let the guest say what it does not support"),
    Flag("log", "FILE", "append log lines to FILE instead of standard error", default=""),
    Flag("log-format", "text|json", "how log lines are written", default="text"),
    Flag("root", "DIR", "where the state of containers is kept (default: /run/litebox, $XDG_RUNTIME_DIR/litebox)"),
    Flag("systemd-cgroup", help="cgroupsPath is slice:prefix:name: the cgroup is made by systemd, as a scope"),
    Flag("rootless", "true|false|auto", "do without the rights of root", default="auto"),
    Flag("criu", "PATH", hidden=True),
    Flag("help h", help="show help"),
    Flag("version v", help="print the version"),
)

_BUNDLE = Flag("bundle b", "DIR", "the bundle's folder (default: the working directory)")
_PID_FILE = Flag("pid-file", "FILE", "write the process id to FILE")
_CONSOLE = Flag("console-socket", "PATH", "unix socket that is sent the terminal's master descriptor")
_PRESERVE = Flag("preserve-fds", "N", "hand N more descriptors, from 3 on, to the program")
_FORMAT = Flag("format f", "table|json", "what is printed", default="table")
_CREATE = (
    _BUNDLE,
    _CONSOLE,
    _PID_FILE,
    _PRESERVE,
    Flag("no-pivot", hidden=True),
    Flag("no-new-keyring", hidden=True),
)

COMMANDS: dict[str, Command] = {
    "do": Command(
        "sandbox",
        "[flags] [--] COMMAND [ARG...]",
        "run a command in a sandbox over this machine's own files",
        (
            Flag("root", "DIR", "use DIR as the root file system (default: /)"),
            Flag("volume v", "SRC:DST[:ro]", "make SRC of this machine appear at DST, writable", repeat=True),
            Flag("net", "none|host", "network: none of its own but loopback, or this machine's", default="none"),
            Flag("memory m", "N", "memory limit: bytes, or with k, m, g (default: this machine's)"),
            Flag("cpus", "N", "number of CPUs (default: this machine's)"),
            Flag("user u", "UID[:GID]", "user (and group) to be, by number or name"),
            Flag("env e", "K=V", "set a variable; K alone takes it from here", repeat=True),
            Flag("workdir w", "DIR", "working directory (default: this one)"),
            Flag("hostname", "NAME", "host name inside", default="litebox"),
            Flag("tty t", help="give the command a terminal of its own"),
            Flag("verbose", help="say at the end what it took: time, CPUs, memory, system calls, host requests"),
        ),
        minimum=1,
        interspersed=False,
        description="""\
The command sees this machine's root file system. What it writes goes to memory and is gone when it ends; the working
directory is readable at its own path. Only a --volume lets it change files of this machine. The environment is not
handed in but for PATH, HOME, USER, TERM, LANG, LC_* and TZ.

  litebox do -- make test                     build what is here, with results thrown away
  litebox do --volume $PWD:$PWD -- make       the same, with results kept
  litebox do -t --net host -- bash            look around""",
    ),
    "run": Command(
        "lifecycle",
        "[flags] ID",
        "create a container from a bundle, start it, and wait for it",
        (
            *_CREATE,
            Flag("detach d", help="do not wait: leave it running"),
            Flag("keep", help="do not delete the container when it has ended"),
            Flag("no-subreaper", hidden=True),
        ),
        minimum=1,
        maximum=1,
    ),
    "create": Command(
        "lifecycle", "[flags] ID", "create a container, ready to be started", _CREATE, minimum=1, maximum=1
    ),
    "start": Command("lifecycle", "ID", "run the program of a created container", minimum=1, maximum=1),
    "exec": Command(
        "execute",
        "[flags] ID COMMAND [ARG...]",
        "run another process in a running container",
        (
            _CONSOLE,
            Flag("cwd", "DIR", "working directory in the container"),
            Flag("env e", "K=V", "set an environment variable", repeat=True),
            Flag("tty t", help="give the process a terminal"),
            Flag("user u", "UID[:GID]", "user (and group) to be"),
            Flag("additional-gids g", "GID", "additional group", repeat=True),
            Flag("process p", "FILE", "an OCI process object (JSON); - is standard input"),
            Flag("detach d", help="do not wait: leave a process that mirrors it"),
            _PID_FILE,
            Flag("process-label", "LABEL", "SELinux label of the process", hidden=True),
            Flag("apparmor", "PROFILE", "AppArmor profile of the process", hidden=True),
            Flag("no-new-privs", help="set no_new_privs"),
            Flag("cap c", "CAPABILITY", "add a capability", repeat=True),
            _PRESERVE,
            Flag("cgroup", "PATH", hidden=True, repeat=True),
            Flag("ignore-paused", help="do not refuse when the container is paused: run when it is resumed"),
        ),
        minimum=1,
        interspersed=False,
    ),
    "state": Command("inspect", "ID", "print a container's state (JSON)", minimum=1, maximum=1),
    "list": Command(
        "inspect",
        "[flags]",
        "list containers",
        (_FORMAT, Flag("quiet q", help="print ids only")),
        maximum=0,
    ),
    "ps": Command(
        "inspect",
        "[flags] ID [PS OPTION...]",
        "list the processes of a container",
        (_FORMAT,),
        minimum=1,
        interspersed=False,
    ),
    "kill": Command(
        "lifecycle",
        "[flags] ID [SIGNAL]",
        "send a signal to a container's program (default: SIGTERM)",
        (Flag("all a", help="signal every process of the container"),),
        minimum=1,
        maximum=2,
    ),
    "delete": Command(
        "lifecycle",
        "[flags] ID",
        "free everything a container holds",
        (Flag("force f", help="kill it if it runs; no error if there is no such container"),),
        minimum=1,
        maximum=1,
    ),
    "pause": Command("lifecycle", "ID", "stop a container's CPUs", minimum=1, maximum=1),
    "resume": Command("lifecycle", "ID", "let a paused container run again", minimum=1, maximum=1),
    "update": Command(
        "update",
        "[flags] ID",
        "change the limits of a container",
        (
            Flag("resources r", "FILE", "an OCI resources object (JSON); - is standard input"),
            Flag("memory", "N", "memory limit in bytes (or with k, m, g)"),
            Flag("memory-reservation", "N", "soft memory limit in bytes"),
            Flag("memory-swap", "N", "memory and swap together; -1: no limit"),
            Flag("cpu-period", "US", "CPU period in microseconds"),
            Flag("cpu-quota", "US", "CPU time per period in microseconds"),
            Flag("cpu-share", "N", "relative CPU weight"),
            Flag("cpu-burst", "US", "CPU time that may be saved up"),
            Flag("cpu-rt-period", "US", hidden=True),
            Flag("cpu-rt-runtime", "US", hidden=True),
            Flag("cpuset-cpus", "LIST", "CPUs to run on"),
            Flag("cpuset-mems", "LIST", "memory nodes to use"),
            Flag("cpu-idle", "N", "1: run only when nothing else wants to"),
            Flag("kernel-memory", "N", hidden=True),
            Flag("kernel-memory-tcp", "N", hidden=True),
            Flag("blkio-weight", "N", "relative weight of block I/O, 10 to 1000"),
            Flag("pids-limit", "N", "most processes; -1: no limit"),
            Flag("l3-cache-schema", "S", hidden=True),
            Flag("mem-bw-schema", "S", hidden=True),
        ),
        minimum=1,
        maximum=1,
    ),
    "events": Command(
        "events",
        "[flags] ID",
        "print events and statistics of a container (JSON lines)",
        (
            Flag("interval", "DURATION", "time between statistics", default="5s"),
            Flag("stats", help="print the statistics once and end"),
        ),
        minimum=1,
        maximum=1,
    ),
    "trace": Command(
        "events",
        "ID | -- COMMAND [ARG...]",
        "print system calls as they happen, of a container or of a command run as `do` does",
        minimum=0,
        interspersed=False,
    ),
    "spec": Command(
        "inspect",
        "[flags]",
        "write a config.json to start from",
        (_BUNDLE, Flag("rootless", help="for use without root's rights")),
        maximum=0,
    ),
    "features": Command("inspect", "", "print what this runtime supports (JSON)", maximum=0),
    "doctor": Command("doctor", "", "say what works on this machine, and what mends what does not", maximum=0),
    "completion": Command("texts", "bash|zsh|fish", "print a completion script for a shell", minimum=1, maximum=1),
    "help": Command("texts", "[COMMAND]", "show help", maximum=1),
}
#: runc's, not offered: a clear answer instead of "no help topic".
REFUSED = {
    "checkpoint": "checkpoint: saving a running container is not supported",
    "restore": "restore: restoring a saved container is not supported",
}
