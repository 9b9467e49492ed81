"""The state directory: `ROOT/ID/` with `state.json`, the VMM's control socket, and nothing else.

What always holds:
- A container exists when `ROOT/ID/state.json` does. The directory alone is the leftover of a crash.
- `state.json` is replaced atomically (written beside, then renamed), so a reader sees one whole version.
- Whoever changes a container holds flock(2) on its directory; the kernel drops the lock of a process that dies.
- A process is known by its id *and* its start time: a recycled id is never signalled.
- What has to be undone is written down (`cgroups`, `pid`) before it is done. `phase` is "creating" until create has
  finished: found together with a free lock, it is a crashed create, to be undone and never to be trusted.
"""

from __future__ import annotations

import fcntl
import os

from runtime import fastjson
from runtime.errors import AlreadyExists, HostError, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

STATE_FILE = "state.json"
CONTROL_SOCKET = "control.sock"
_MAX_ID = 255
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


def default_root() -> str:
    """/run/litebox for root, else in the user's runtime directory: root of a user namespace has no say in /run."""
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        return "/run/litebox"
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/litebox-{os.geteuid()}", "litebox")  # noqa: S108


def check_id(container_id: str) -> str:
    """runc's rule: letters, digits, and _+-. ; neither . nor .., since it names a directory."""
    if not container_id:
        raise InvalidArgument("container id: found nothing; allowed: letters, digits and _ + - .")
    if len(container_id) > _MAX_ID:
        raise InvalidArgument(f"container id: found {len(container_id)} characters; allowed: at most {_MAX_ID}")
    if not _ID_CHARACTERS.issuperset(container_id) or container_id in (".", ".."):
        raise InvalidArgument(f"container id: found {container_id!r}; allowed: letters, digits and _ + - .")
    return container_id


def _quietly(remove: Callable[[], None]) -> None:
    try:
        remove()
    except FileNotFoundError:
        return


class Entry:
    """One container's directory, held open and (while inside `with`) locked."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.id = os.path.basename(path)

    def __enter__(self) -> Entry:  # noqa: PYI034 - Self lives in typing, whose import costs 7 ms
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory, and so of the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def lock(self, *, wait: bool = True) -> bool:
        """Take the lock; False when somebody has it and `wait` is false, or the directory was deleted meanwhile."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return self.exists()

    def unlock(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def exists(self) -> bool:
        """Whether the path still leads to this directory."""
        try:
            now = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        mine = os.fstat(self.fd)
        return (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino)

    def read(self) -> Json | None:
        """The state, None when there is none (yet, or any more)."""
        try:
            fd = os.open(STATE_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        try:
            pieces = []
            while piece := os.read(fd, 1 << 20):
                pieces.append(piece)
        finally:
            os.close(fd)
        try:
            state = fastjson.loads(b"".join(pieces))
        except ValueError as error:
            raise HostError(f"{self.path}/{STATE_FILE} is damaged: {error}") from error
        if not isinstance(state, dict):
            raise HostError(f"{self.path}/{STATE_FILE} is damaged: not an object")
        return state

    def write(self, state: Json) -> None:
        """Replace the state. No fsync: nothing of it outlives the processes it describes, let alone a power cut."""
        temporary = f".{STATE_FILE}"
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self.fd
        )
        try:
            data = fastjson.dumps(state).encode()
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.rename(temporary, STATE_FILE, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def remove(self) -> None:
        """Delete the directory; state.json last but one, so that until then a crash is recognised."""
        for name in (CONTROL_SOCKET, f".{STATE_FILE}", STATE_FILE):
            _quietly(lambda name=name: os.unlink(name, dir_fd=self.fd))  # type: ignore[misc]
        _quietly(lambda: os.rmdir(self.path))


class Store:
    """All containers under one root."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def claim(self, container_id: str, undo: Callable[[Entry, Json], None]) -> Entry:
        """A new, locked directory for the id. AlreadyExists when it is taken; leftovers of a crash are undone first."""
        check_id(container_id)
        path = os.path.join(self.root, container_id)
        try:
            os.makedirs(self.root, 0o700, exist_ok=True)
        except OSError as error:
            raise HostError(f"state directory {self.root}: {error.strerror}", error.errno or 0) from error
        while True:
            try:
                os.mkdir(path, 0o711)
            except FileExistsError:
                pass
            except OSError as error:
                raise HostError(f"state directory {path}: {error.strerror}", error.errno or 0) from error
            entry = self._open(container_id)
            if entry is None:
                continue
            try:
                if not entry.lock(wait=False):
                    if entry.exists():
                        raise AlreadyExists(f"container {container_id!r} already exists")
                    entry.close()
                    continue
                state = entry.read()
                if state is None:
                    return entry
                if state.get("phase") != "creating":
                    raise AlreadyExists(f"container {container_id!r} already exists")
                undo(entry, state)
                entry.remove()
                entry.close()
            except BaseException:
                entry.close()
                raise

    def open(self, container_id: str) -> Entry:
        """The (unlocked) directory of an existing container."""
        check_id(container_id)
        entry = self._open(container_id)
        if entry is None:
            raise NotFound(f"container {container_id!r} does not exist")
        return entry

    def ids(self) -> list[str]:
        """Names in the state directory, sorted."""
        try:
            return sorted(name for name in os.listdir(self.root) if _ID_CHARACTERS.issuperset(name))
        except FileNotFoundError:
            return []

    def _open(self, container_id: str) -> Entry | None:
        path = os.path.join(self.root, container_id)
        try:
            return Entry(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostError(f"state directory {path}: {error.strerror}", error.errno or 0) from error
