"""Linux's names and numbers that config.json speaks in."""

from __future__ import annotations

CAPABILITIES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP "
    "CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER "
    "CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE "
    "CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL "
    "CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ "
    "CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"
).split()

RLIMITS = (
    "RLIMIT_CPU RLIMIT_FSIZE RLIMIT_DATA RLIMIT_STACK RLIMIT_CORE RLIMIT_RSS RLIMIT_NPROC RLIMIT_NOFILE "
    "RLIMIT_MEMLOCK RLIMIT_AS RLIMIT_LOCKS RLIMIT_SIGPENDING RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_RTTIME"
).split()

_SIGNAL_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
SIGNALS = {name: number for number, name in enumerate(_SIGNAL_NAMES, 1)} | {"IOT": 6, "CLD": 17, "POLL": 29}
SIGRTMIN, SIGRTMAX = 34, 64


def capability_mask(names: list[str]) -> tuple[int, list[str]]:
    """The bits of the capabilities named, and the names that are unknown."""
    mask, unknown = 0, []
    for name in names:
        try:
            mask |= 1 << CAPABILITIES.index(name)
        except ValueError:
            unknown.append(name)
    return mask, unknown


def signal_number(text: str) -> int | None:
    """KILL, SIGKILL, sigkill, 9, RTMIN+3: the number, or None when there is no such signal."""
    if text.isascii() and text.isdigit():
        number = int(text)
        return number if 0 <= number <= SIGRTMAX else None
    name = text.upper().removeprefix("SIG")
    for base, prefix in ((SIGRTMIN, "RTMIN"), (SIGRTMAX, "RTMAX")):
        if name.startswith(prefix):
            offset = name[len(prefix) :]
            if not offset:
                return base
            if offset[0] in "+-" and offset[1:].isdigit() and offset.isascii():
                number = base + int(offset)
                return number if SIGRTMIN <= number <= SIGRTMAX else None
            return None
    return SIGNALS.get(name)
