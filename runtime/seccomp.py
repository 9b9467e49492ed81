"""linux.seccomp → SeccompSpec: names to x86-64 numbers, actions to SECCOMP_RET_* (seccomp(2)).

Names of no x86-64 system call (other architectures', or newer than our table) are skipped, as libseccomp does: a call
the guest does not know answers ENOSYS whatever the filter says.
"""

from __future__ import annotations

from runtime.errors import InvalidSpec, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EPERM = 1
_ENOSYS = 38
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_OPERATORS = {
    "SCMP_CMP_NE": "ne",
    "SCMP_CMP_LT": "lt",
    "SCMP_CMP_LE": "le",
    "SCMP_CMP_EQ": "eq",
    "SCMP_CMP_GE": "ge",
    "SCMP_CMP_GT": "gt",
    "SCMP_CMP_MASKED_EQ": "masked_eq",
}
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
ACTION_NAMES = sorted(_ACTIONS)
OPERATOR_NAMES = sorted(_OPERATORS)
FLAG_NAMES = sorted(_FLAGS)
_X86_64_NAMES = {"SCMP_ARCH_X86_64", "SCMP_ARCH_NATIVE"}


def translate(seccomp: dict[str, Any]) -> dict[str, Any] | None:
    """A SeccompSpec, or None when the profile filters nothing."""
    from runtime.syscalls_x86_64 import SYSCALLS

    if seccomp.get("listenerMetadata") and not seccomp.get("listenerPath"):
        raise InvalidSpec("linux.seccomp.listenerMetadata: found it without listenerPath; allowed: both, or neither")
    architectures = seccomp.get("architectures") or []
    if architectures and not _X86_64_NAMES.intersection(architectures):
        raise Unsupported(f"linux.seccomp.architectures: {', '.join(architectures)} lacks SCMP_ARCH_X86_64")
    default = _action(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"), "linux.seccomp.defaultAction")
    rules = []
    for index, rule in enumerate(seccomp.get("syscalls") or []):
        action = _action(rule["action"], rule.get("errnoRet"), f"linux.seccomp.syscalls[{index}].action")
        numbers = sorted({SYSCALLS[name] for name in rule["names"] if name in SYSCALLS})
        if not numbers or action == default:
            continue
        rules += [
            {"syscalls": numbers, "action": action, "args": [_argument(argument) for argument in arguments]}
            for arguments in _alternatives(rule.get("args") or [])
        ]
    if default == _ACTIONS["SCMP_ACT_ALLOW"] and not rules:
        return None
    flags = 0
    for flag in seccomp.get("flags") or []:
        flags |= _FLAGS.get(flag, 0)
    return {"default_action": default, "flags": flags, "rules": rules}


def _action(name: str, errno: int | None, where: str) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise Unsupported(f"{where}: SCMP_ACT_NOTIFY needs a listener outside the micro-VM, which is not supported")
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return _ACTIONS[name] | (_EPERM if errno is None else errno) & 0xFFFF
    if errno is not None:
        raise InvalidSpec(
            f"{where}: found {name} with an errno; allowed: one with SCMP_ACT_ERRNO and SCMP_ACT_TRACE only"
        )
    return _ACTIONS[name]


def _argument(argument: dict[str, Any]) -> dict[str, Any]:
    return {
        "index": argument["index"],
        "op": _OPERATORS[argument["op"]],
        "value": argument["value"],
        "value_two": argument.get("valueTwo", 0),
    }


def _alternatives(arguments: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Conditions on one argument are alternatives when an index repeats, else all must hold (as runc reads them)."""
    indexes = [argument["index"] for argument in arguments]
    if len(set(indexes)) == len(indexes):
        return [arguments]
    return [[argument] for argument in arguments]
