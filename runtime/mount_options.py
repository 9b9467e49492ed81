"""The options of one OCI mount (config.md, "Mounts"), sorted by who carries them out.

A mount that the guest's library OS serves itself (tmpfs, proc …) gets its flags in the MountSpec. A mount of a host
tree gets them twice: in the MountSpec, where the guest enforces and shows them, and as attributes of the detached
mount, where the host's kernel enforces what a guest must not be trusted with.
"""

from __future__ import annotations

from runtime.errors import InvalidSpec

RDONLY, NOSUID, NODEV, NOEXEC = 0x1, 0x2, 0x4, 0x8
NOATIME, STRICTATIME, NODIRATIME, NOSYMFOLLOW = 0x10, 0x20, 0x80, 0x200000

# option: (attribute, set it?)
_ATTRIBUTES = {
    "ro": (RDONLY, True),
    "rw": (RDONLY, False),
    "nosuid": (NOSUID, True),
    "suid": (NOSUID, False),
    "nodev": (NODEV, True),
    "dev": (NODEV, False),
    "noexec": (NOEXEC, True),
    "exec": (NOEXEC, False),
    "noatime": (NOATIME, True),
    "atime": (NOATIME, False),
    "relatime": (NOATIME, False),
    "norelatime": (NOATIME, False),
    "strictatime": (STRICTATIME, True),
    "nostrictatime": (STRICTATIME, False),
    "nodiratime": (NODIRATIME, True),
    "diratime": (NODIRATIME, False),
    "nosymfollow": (NOSYMFOLLOW, True),
    "symfollow": (NOSYMFOLLOW, False),
}
PROPAGATION = {"private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20, "unbindable": 1 << 17}
#: Options of mount(8) and the kernel that change nothing a container can tell.
_IGNORED = frozenset(
    "defaults sync async dirsync mand nomand silent loud iversion noiversion lazytime nolazytime remount acl noacl "
    "tmpcopyup nofail auto noauto user nouser _netdev".split()
)
MOUNT_OPTIONS = sorted(
    [
        *_ATTRIBUTES,
        *("r" + name for name in _ATTRIBUTES),
        *PROPAGATION,
        *("r" + name for name in PROPAGATION),
        *("bind", "rbind", "idmap", "ridmap", "copy-symlink"),
        *_IGNORED,
    ]
)


class MountOptions:
    """What the options of one mount say."""

    __slots__ = (
        "attributes",
        "bind",
        "copy_symlink",
        "data",
        "idmap",
        "propagation",
        "propagation_recursive",
        "recursive_attributes",
        "recursive_bind",
        "recursive_cleared",
        "recursive_idmap",
    )

    def __init__(self) -> None:
        self.bind = False
        self.recursive_bind = False
        self.attributes = 0
        self.recursive_attributes = 0
        self.recursive_cleared = 0
        self.propagation = 0
        self.propagation_recursive = False
        self.idmap = False
        self.recursive_idmap = False
        self.copy_symlink = False
        self.data: list[str] = []

    @property
    def all_attributes(self) -> int:
        """Attributes of the top mount."""
        return (self.attributes | self.recursive_attributes) & ~self.recursive_cleared


def parse(options: list[str], where: str) -> MountOptions:
    """Sort the options; later ones win, as for mount(8). `where` names the mount in errors."""
    parsed = MountOptions()
    for option in options:
        if option in _IGNORED or not option:
            continue
        if option == "bind":
            parsed.bind = True
        elif option == "rbind":
            parsed.bind = parsed.recursive_bind = True
        elif option in _ATTRIBUTES:
            bit, on = _ATTRIBUTES[option]
            parsed.attributes = parsed.attributes | bit if on else parsed.attributes & ~bit
        elif option[0] == "r" and option[1:] in _ATTRIBUTES:
            bit, on = _ATTRIBUTES[option[1:]]
            if on:
                parsed.recursive_attributes |= bit
                parsed.recursive_cleared &= ~bit
            else:
                parsed.recursive_attributes &= ~bit
                parsed.recursive_cleared |= bit
        elif option in PROPAGATION:
            parsed.propagation, parsed.propagation_recursive = PROPAGATION[option], False
        elif option[0] == "r" and option[1:] in PROPAGATION:
            parsed.propagation, parsed.propagation_recursive = PROPAGATION[option[1:]], True
        elif option == "idmap":
            parsed.idmap = True
        elif option == "ridmap":
            parsed.idmap = parsed.recursive_idmap = True
        elif option == "copy-symlink":
            parsed.copy_symlink = True
        elif "\0" in option:
            raise InvalidSpec(f"{where}: option {option!r} has a NUL byte")
        else:
            parsed.data.append(option)
    return parsed
